"""A small HTTP server, run as a process of its own, that misbehaves as the mode file says.

python witness_server.py PORT MODE_FILE [CERT KEY]

Modes: ok; status CODE; body; reset; lose (accepts orders and forgets them); shut (closes kept
connections after each answer without saying so).
"""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

ORDERS: list[str] = []
SESSIONS: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def mode(self) -> str:
        return Path(sys.argv[2]).read_text().strip()

    def reply(self, status: int, body: str, **headers: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        form = parse_qs(self.rfile.read(length).decode())
        mode = self.mode()
        if mode.startswith("status"):
            self.reply(int(mode.split()[1]), "out of order")
        elif mode == "body":
            self.reply(200, "something else")
        elif mode == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            # TLS would say goodbye; the socket underneath does not.
            self.connection.close()
        elif self.path == "/login":
            name = form["name"][0]
            if name in SESSIONS:
                self.reply(409, "that name is taken")
                return
            SESSIONS.add(name)
            self.reply(200, 'form <input name="csrf" value="c7">', Set_Cookie=f"sid={name}; Path=/")
        elif self.path == "/orders" and self.command == "POST":
            session = (self.headers.get("Cookie") or "").removeprefix("sid=")
            if session not in SESSIONS or form.get("csrf") != ["c7"]:
                self.reply(403, "not you")
                return
            if mode != "lose":
                ORDERS.append(form["note"][0])
            self.reply(201, "thank you", Location=f"/orders/{len(ORDERS)}")
        elif self.path == "/orders":
            self.reply(200, " ".join(f"[{order}]" for order in ORDERS))
        else:
            self.reply(200, f"hello from {self.headers['Host']}")
        if mode == "shut":
            self.close_connection = True

    do_GET = do_POST = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    if len(sys.argv) > 3:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[3], sys.argv[4])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
