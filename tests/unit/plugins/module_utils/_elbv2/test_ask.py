"""Hosts are asked over HTTP: a server on this machine answers."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.ask import Question, asker
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.counters import CounterError
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import TargetError

BUSY = "Active connections: 9 \nReading: 0 Writing: 4 Waiting: 5 \n"
SECRET = base64.b64encode(b"ops:secret").decode()


class Page(BaseHTTPRequestHandler):
    """/busy and /locked tell three requests in flight; /slow never answers."""

    released = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.released.wait(10)
            return
        given = self.headers.get("Authorization", "")
        allowed = self.path == "/locked" and given == f"Basic {SECRET}"
        status = 200 if self.path == "/busy?full" or allowed else 401
        self.send_response(status)
        self.end_headers()
        self.wfile.write(BUSY.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Page.released.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    Page.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def question(port: int, path: str, **more: str) -> Question:
    return Question("nginx", f"http://{{address}}:{port}/{path}", timeout=0.5, **more)


def test_hosts_tell_how_much_they_have_in_flight(port: int) -> None:
    ask = asker(question(port, "busy?full"), {"a": "127.0.0.1", "b": "127.0.0.1"})
    assert ask(["a", "b"]) == {"a": 3, "b": 3}
    assert ask([]) == {}


def test_a_password_is_sent_and_never_shown(port: int) -> None:
    locked = question(port, "locked", username="ops", password="secret")
    assert locked.ask("127.0.0.1") == 3
    assert "secret" not in repr(locked)
    with pytest.raises(CounterError, match="/locked answers 401"):
        question(port, "locked").ask("127.0.0.1")


def test_who_does_not_tell_is_no_zero(port: int) -> None:
    unheard = asker(question(port, "slow"), {"a": "127.0.0.1"})(["a"])["a"]
    assert isinstance(unheard, str)
    assert "TimeoutError" in unheard
    closed = asker(question(1, "busy"), {"a": "127.0.0.1"})(["a"])["a"]
    assert isinstance(closed, str)
    assert "http://127.0.0.1:1/busy: ConnectionRefusedError" in closed


def test_a_host_without_an_address_is_not_asked() -> None:
    told = asker(question(1, "busy"), {"a": ""})(["a", "b"])
    assert all("its address is not known" in str(answer) for answer in told.values())


def test_an_answer_of_something_else_names_the_url(port: int) -> None:
    with pytest.raises(CounterError, match=r"/busy\?full: the answer is none of HAProxy"):
        Question("haproxy", f"http://{{address}}:{port}/busy?full").ask("127.0.0.1")


def test_an_address_of_version_6_has_its_brackets() -> None:
    with pytest.raises(CounterError, match=r"http://\[::1\]:1/"):
        question(1, "").ask("::1")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is 'http://{address}:8080/path' or the like"),
        ("{address}:8080/status", "or the like"),
        ("ftp://{address}/status", "or the like"),
        ("/var/run/haproxy.sock", "or the like"),
        ("http://ops:secret@{address}/", "without a password in it"),
        ("http://10.0.0.1:8080/status", "has no {address}"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, words: str) -> None:
    with pytest.raises(TargetError) as caught:
        Question("nginx", url)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
