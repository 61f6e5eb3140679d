"""The API: moto's server in process, behind one lock, honest about what is not true."""

from __future__ import annotations

import functools
import io
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from moto.core.exceptions import ServiceException
from moto.core.model import OperationModel
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, ThreadedWSGIServer, make_server

from lab import honesty
from lab.authority import Authority, is_s3, s3_names
from lab.faults import Faults
from lab.settings import API_PORT, TLS_PORT, Settings
from lab.world import World

log = logging.getLogger(__name__)

# Services whose signature bears another name than boto3's client.
_CLIENTS = {
    "aps": "amp",
    "elasticloadbalancing": "elbv2",
    "email": "ses",
    "es": "opensearch",
    "monitoring": "cloudwatch",
    "states": "stepfunctions",
    "tagging": "resourcegroupstaggingapi",
}
# Services whose changes the machine must follow.
_PHYSICAL = ("acm", "ec2", "elasticloadbalancing", "rds", "route53")

Start = Callable[..., Any]


@dataclass(frozen=True)
class Call:
    """One request: which service and action, and its parameters if they are a form."""

    service: str
    action: str
    parameters: dict[str, str]


class _Answer(ServiceException):
    """An error of the lab's own: moto looks for a service's model where its class is from."""


class OnlyS3:
    """What answers by TLS: S3 under its own names and those of buckets, and nothing else."""

    def __init__(self, api: Api, names: list[str]) -> None:
        self._api = api
        self._names = frozenset(names)

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        """Answer one request."""
        host = str(environ.get("HTTP_HOST", ""))
        if is_s3(host, self._names):
            return self._api(environ, start)
        text = f"The lab serves no '{host}' by TLS, only S3. See docs/lab.md.\n".encode()
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))]
        start("421 Misdirected Request", headers)
        return [text]


class Api:
    """WSGI application around moto's."""

    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self._faults = faults
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        """Answer one request."""
        began = time.monotonic()
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else _read_chunks(environ)
        environ["wsgi.input"] = io.BytesIO(body)
        call = identify(environ, body)
        fault = self._faults.strike(call.service, call.action)
        if fault:
            status, headers, content = error(
                environ, call, fault.code, f"The lab was asked for this {fault.code}.", fault.status
            )
        elif refusal := honesty.refusal(call.service, call.action, call.parameters):
            status, headers, content = error(environ, call, honesty.CODE, refusal, 400)
        else:
            environ["wsgi.input"] = io.BytesIO(body)
            status, headers, content = self._carry_out(environ, call)
        took = (time.monotonic() - began) * 1000
        log.info("%s %s %s %.0f ms", call.service, call.action, status.split()[0], took)
        start(status, headers)
        return [content]

    def _carry_out(
        self, environ: dict[str, Any], call: Call
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        """Ask moto, and make what it says true before anybody hears it."""
        try:
            answer = self._ask_moto(environ)
            if call.service in _PHYSICAL and not honesty.reads(call.action):
                self._world.sync()
        except NotImplementedError as missing:
            log.warning("%s %s: %s", call.service, call.action, missing)
            text = f"The lab does not know {call.service} {call.action}. See docs/lab.md."
            return error(environ, call, honesty.CODE, text, 400)
        except Exception as trouble:  # the server must go on, and the client hear of it
            log.exception("%s %s failed", call.service, call.action)
            return error(environ, call, "InternalError", f"The lab failed: {trouble}", 500)
        return answer

    def _ask_moto(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        answer: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
            answer[:] = [status, headers]

        with self._world.lock:
            chunks = self._moto(environ, start)
            content = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        return answer[0], answer[1], content


def identify(environ: dict[str, Any], body: bytes) -> Call:
    """Find out what a request asks for."""
    service = _service(environ.get("HTTP_AUTHORIZATION", ""))
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    if not service and "X-Amz-Credential" in query:  # a presigned URL
        service = (query["X-Amz-Credential"][0].split("/") + [""] * 5)[3]
    form: dict[str, list[str]] = {}
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        form = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    parameters = {key: values[0] for key, values in {**query, **form}.items()}
    service = service or "s3"
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    action = parameters.get("Action") or target.rpartition(".")[2] or _routed(environ, service)
    return Call(service, action, parameters)


def error(
    environ: dict[str, Any], call: Call, code: str, message: str, status: int
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return an error in the form that the service's clients understand."""
    exception = _Answer(code, message)
    try:
        model = get_service_model(_CLIENTS.get(call.service, call.service))
        protocol = determine_request_protocol(model, environ.get("CONTENT_TYPE"))
        serializer = get_serializer_class(model.service_name, protocol)
        answer = serializer(operation_model=OperationModel({}, model)).serialize(exception)
        headers = {**answer["headers"]}
        content = answer["body"]
    except Exception:
        log.exception("no error could be made for %s", call)
        headers = {"Content-Type": "text/xml"}
        content = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    raw = content if isinstance(content, bytes) else str(content).encode()
    headers["Content-Length"] = str(len(raw))
    reason = "Lab Error"
    return f"{status} {reason}", [(k, str(v)) for k, v in headers.items()], raw


def serve(settings: Settings, api: Api) -> list[BaseWSGIServer]:
    """Start the API inside the region's namespace, and S3 by TLS as hosts know it."""

    class Handler(MotoRequestHandler):
        def log_request(self, *_: Any, **__: Any) -> None:
            """Say nothing: the application writes its own line."""

    names = s3_names()
    context = Authority(settings.cache).server(names, settings.state)
    only_s3 = OnlyS3(api, names)
    servers = [
        make_server(settings.address, API_PORT, api, threaded=True, request_handler=Handler),
        TlsServer(settings.address, TLS_PORT, only_s3, Handler, context),
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, name="api", daemon=True).start()
    return servers


class TlsServer(ThreadedWSGIServer):
    """A server whose connections begin and end as TLS demands, each in its own thread."""

    def __init__(
        self, host: str, port: int, app: Any, handler: Any, context: ssl.SSLContext
    ) -> None:
        super().__init__(host, port, app, handler)
        self.ssl_context = context
        # The handshake is the thread's: who connects and says nothing holds up nobody else.
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def shutdown_request(self, request: Any) -> None:
        """Say goodbye: a client must be able to tell the end from a connection that broke."""
        try:
            request.settimeout(1)
            request.unwrap()
        except (OSError, ValueError):
            pass  # it has gone, or never shook hands
        super().shutdown_request(request)


def _service(authorization: str) -> str:
    """Return the service of a SigV4 signature's credential scope."""
    _, _, rest = authorization.partition("Credential=")
    scope = rest.split(",")[0].split("/")
    return scope[3].lower() if len(scope) == 5 else ""


def _routed(environ: dict[str, Any], service: str) -> str:
    """Return the action of a REST request."""
    method = str(environ.get("REQUEST_METHOD", ""))
    try:
        router = _router(_CLIENTS.get(service, service))
        operation, _ = router.match(Request(environ.copy()))
        return str(operation.name)
    except Exception:  # whatever moto's router makes of a path: then the method must do
        return {"GET": "Get", "HEAD": "Head"}.get(method, method.title())


@functools.cache
def _router(service: str) -> Any:
    return get_service_router(service)


def _read_chunks(environ: dict[str, Any]) -> bytes:
    """Read a body without a stated length (werkzeug has taken its chunks apart)."""
    if environ.get("wsgi.input_terminated"):
        return bytes(environ["wsgi.input"].read())
    return b""
