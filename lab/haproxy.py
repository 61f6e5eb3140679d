"""A node of a load balancer as plain data, and the HAProxy that does what it says. Pure.

The configuration always holds all there is, so that a server that starts anew is right at once. At
run time only listeners, rules, groups and attributes need a reload (`frame`); targets come, go and
change by commands (`changes`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

FOLDER = "/etc/ascent-lb"
SERVER = "awselb/2.0"
_TITLES = {
    301: "Moved Permanently",
    302: "Found",
    400: "Bad Request",
    408: "Request Time-out",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}
_ALGORITHMS = {
    "round_robin": "roundrobin",
    "least_outstanding_requests": "leastconn",
    "weighted_random": "random",
    # A network load balancer chooses by a hash that each connection has a new one of.
    "flow_hash": "random(1)",
    "source_ip": "source",
}
# A load balancer waits so many seconds for a target's answer to its greeting (Application Load
# Balancers user guide, "Troubleshoot your Application Load Balancers", HTTP 504).
_CONNECT = 10
# A network load balancer forgets a connection that is idle so many seconds (Network Load Balancers
# user guide, "Connection idle timeout").
_IDLE = 350
# HAProxy writes names of headers small; these as a load balancer writes them.
_HEADERS = ("X-Amzn-Trace-Id", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto")
# What is written of each request, if logs are wanted: JSON, one datagram each, to a socket beside
# the configuration (`lab.elb.logs` reads it). Times in ms are -1 where it did not come to that.
LOG_SOCKET = "log.sock"
LOG = {
    "now": "[date(0,us)]",
    "born": "[request_date(us)]",
    "client": "[src]",
    "client_port": "[src_port]",
    "address": "[dst]",
    "port": "[dst_port]",
    "target": "si",
    "target_port": "sp",
    "target_status": "[server_status]",
    "received_ms": "TR",
    "queued_ms": "Tw",
    "connected_ms": "Tc",
    "answered_ms": "Tr",
    "status": "ST",
    "state": "ts",
    "received": "U",
    "sent": "B",
    "method": "HM",
    "uri": "[var(txn.uri)]",
    "version": "HV",
    "host": "[var(txn.host)]",
    "agent": "[var(txn.agent)]",
    "trace": "[var(txn.trace)]",
    "cipher": "[ssl_fc_cipher]",
    "tls": "[ssl_fc_protocol]",
    "sni": "[ssl_fc_sni]",
    "certificate": "[ssl_f_sha1,hex]",
    "resumed": "[ssl_fc_is_resumed]",
    "pool": "b",
    "priority": "[var(txn.priority)]",
    "location": "[var(txn.location)]",
    "connection": "[var(sess.connection)]",
}
_ANY = {"*": ".*", "?": "."}
_ANY_IN_QUERY = {"*": "[^&]*", "?": "[^&]"}


@dataclass(frozen=True)
class Server:
    """A target. ready: it gets requests. cut: if not, what is under way with it ends as well.

    registration: which one of its registrations this is.
    """

    name: str
    address: str
    port: int
    ready: bool = True
    cut: bool = False
    registration: int = 0

    @property
    def cookie(self) -> str:
        """What stands for the target in a client's cookie."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Pool:
    """A target group. Times in seconds, 0 is never.

    tcp: it gets connections instead of requests. proxy: it is told of the client in a header of the
    proxy protocol. cuts: what is under way with a target ends when it goes.
    """

    name: str
    secure: bool = False
    algorithm: str = "round_robin"
    sticky: int = 0
    slow_start: int = 0
    servers: tuple[Server, ...] = ()
    tcp: bool = False
    proxy: bool = False
    cuts: bool = True


@dataclass(frozen=True)
class Condition:
    """What a request must be like; one of the values is enough.

    Values of a query string are `key=value`, or `value` alone for any key.
    """

    kind: str
    values: tuple[str, ...]
    header: str = ""


@dataclass(frozen=True)
class Forward:
    """Pass on to target groups, by weight."""

    pools: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Fixed:
    """Answer always the same."""

    status: int
    content_type: str = ""
    body: str = ""


@dataclass(frozen=True)
class Redirect:
    """Send elsewhere; the parts may name those of the request, as `#{path}`."""

    status: int
    protocol: str = "#{protocol}"
    host: str = "#{host}"
    port: str = "#{port}"
    path: str = "/#{path}"
    query: str = "#{query}"


@dataclass(frozen=True)
class Rule:
    """What is done with a request that fulfils all conditions. priority: as logs name it."""

    conditions: tuple[Condition, ...]
    action: Forward | Fixed | Redirect
    priority: int = 0


@dataclass(frozen=True)
class Listener:
    """A port and its rules; the first that fits decides, and the last fits always.

    certificates: PEM of key and chain; the first is for clients that name no other. Without any
    the listener speaks HTTP, or nothing of its own. tls: the least and the highest version. tcp: it
    passes on connections to the one group of its one rule.
    """

    port: int
    rules: tuple[Rule, ...]
    certificates: tuple[str, ...] = ()
    tls: tuple[str, str] = ("TLSv1.2", "TLSv1.3")
    tcp: bool = False


@dataclass(frozen=True)
class Behaviour:
    """The load balancer's attributes. Times in seconds. logs: what requests come is noted."""

    idle: int = 60
    http2: bool = True
    forwarded_for: str = "append"
    client_port: bool = False
    drop_invalid: bool = False
    tls_headers: bool = False
    logs: bool = False


@dataclass(frozen=True)
class Node:
    """All that a node does."""

    listeners: tuple[Listener, ...] = ()
    pools: tuple[Pool, ...] = ()
    behaviour: Behaviour = field(default_factory=Behaviour)

    @property
    def frame(self) -> Node:
        """What cannot change without a reload."""
        return replace(self, pools=tuple(replace(pool, servers=()) for pool in self.pools))

    @property
    def servers(self) -> dict[tuple[str, str], Server]:
        """All targets, by group and name."""
        return {(pool.name, s.name): s for pool in self.pools for s in pool.servers}


# --- files
def files(node: Node) -> dict[str, str]:
    """Return the files that make HAProxy such a node, by their names in its folder."""
    found = {_error_file(code): _raw(_status(code)) for code in (400, 408, 500, 502, 503, 504)}
    found["none.html"] = _page(503)
    for listener in node.listeners:
        found |= {_name("pem", pem): pem for pem in listener.certificates}
        for rule in listener.rules:
            if isinstance(rule.action, Fixed) and rule.action.body:
                found[_name("body", rule.action.body)] = rule.action.body
            elif isinstance(rule.action, Redirect):
                found[f"{rule.action.status}.html"] = _page(rule.action.status)
    found["haproxy.cfg"] = "\n".join(_configuration(node)) + "\n"
    return found


def _configuration(node: Node) -> Iterator[str]:
    behaviour = node.behaviour
    yield from (
        "global",
        f"  stats socket {FOLDER}/admin.sock mode 600 level admin expose-fd listeners",
        "  user haproxy",
        "  group haproxy",
        "  maxconn 8000",
        "  nbthread 2",
        "  hard-stop-after 15m",
        "  log stdout format raw local0 notice",
        *(f"  h1-case-adjust {name.lower()} {name}" for name in _HEADERS),
        "defaults",
        "  mode http",
        "  log global",
        # What was sent to a target is never sent to another, or twice.
        "  retries 0",
        f"  timeout connect {_CONNECT}s",
        f"  timeout queue {_CONNECT}s",
        *(
            f"  timeout {kind} {behaviour.idle}s"
            for kind in ("client", "server", "http-request", "http-keep-alive", "tunnel")
        ),
        "  option h1-case-adjust-bogus-server",
        # A reload waits for the clients' next request instead of closing under their hands.
        "  option idle-close-on-response",
        *(
            f"  errorfile {code} {FOLDER}/{_error_file(code)}"
            for code in (400, 408, 500, 502, 503, 504)
        ),
    )
    # Without any HAProxy would not start.
    yield from ("frontend alive", f"  bind unix@{FOLDER}/alive.sock mode 600")
    for listener in node.listeners:
        if not listener.tcp:
            yield from _frontend(listener, behaviour)
    for pool in node.pools:
        if not pool.tcp:
            yield from _backend(pool)
    yield from _connections(node)


def _connections(node: Node) -> Iterator[str]:
    """Yield what passes on connections."""
    listeners = [listener for listener in node.listeners if listener.tcp]
    pools = [pool for pool in node.pools if pool.tcp]
    if not listeners and not pools:
        return
    yield from (
        "defaults",
        "  mode tcp",
        "  log global",
        "  retries 0",
        f"  timeout connect {_CONNECT}s",
        f"  timeout queue {_CONNECT}s",
        f"  timeout client {_IDLE}s",
        f"  timeout server {_IDLE}s",
    )
    for listener in listeners:
        yield f"frontend listener-{listener.port}"
        yield _bind(listener, "")
        for rule in listener.rules:
            if isinstance(rule.action, Forward):
                for name, _ in rule.action.pools:
                    yield f"  default_backend {name}"
    for pool in pools:
        yield f"backend {pool.name}"
        yield f"  balance {_ALGORITHMS[pool.algorithm]}"
        if pool.algorithm == "source_ip":
            yield "  hash-type consistent"
        yield from _servers(pool)


def _bind(listener: Listener, more: str) -> str:
    if not listener.certificates:
        return f"  bind :{listener.port}"
    least, most = listener.tls
    crts = " ".join(f"crt {FOLDER}/{_name('pem', pem)}" for pem in listener.certificates)
    return f"  bind :{listener.port} ssl {crts}{more} ssl-min-ver {least} ssl-max-ver {most}"


def _frontend(listener: Listener, behaviour: Behaviour) -> Iterator[str]:
    yield f"frontend listener-{listener.port}"
    yield _bind(listener, f" alpn {'h2,http/1.1' if behaviour.http2 else 'http/1.1'}")
    if behaviour.logs:
        yield from _log()
    yield from _headers(listener, behaviour)
    if behaviour.logs:
        yield "  http-request set-var(txn.trace) req.hdr(X-Amzn-Trace-Id)"
    for number, rule in enumerate(listener.rules):
        names = []
        for index, condition in enumerate(rule.conditions):
            names.append(f"r{number}_{index}")
            yield f"  acl {names[-1]} {_match(condition)}"
        first = "!{ var(txn.rule) -m found }"
        yield f"  http-request set-var(txn.rule) int({number}) if {' '.join((first, *names))}"
        if behaviour.logs:
            yield (
                f"  http-request set-var(txn.priority) int({rule.priority})"
                f" if {{ var(txn.rule) -m int {number} }}"
            )
    deeds = [
        line
        for number, rule in enumerate(listener.rules)
        for line in _act(listener, rule.action, f"{{ var(txn.rule) -m int {number} }}")
    ]
    # HAProxy chooses the group after all else, and warns who writes it otherwise.
    yield from sorted(deeds, key=lambda line: line.startswith("  use_backend"))


def _log() -> Iterator[str]:
    said = " ".join(f"%({name}){what}" for name, what in LOG.items())
    yield f"  log {FOLDER}/{LOG_SOCKET} len 32768 format raw local0 info"
    yield f"  log-format '%{{+json}}o {said}'"
    yield "  option dontlognull"
    yield "  tcp-request session set-var(sess.connection) uuid(4)"
    yield "  http-request set-var(txn.uri) pathq"
    yield "  http-request set-var(txn.host) req.hdr(host)"
    yield "  http-request set-var(txn.agent) req.fhdr(User-Agent)"
    yield "  http-after-response set-var(txn.location) res.hdr(Location)"


def _headers(listener: Listener, behaviour: Behaviour) -> Iterator[str]:
    """Yield what a load balancer tells its targets of the client."""
    if behaviour.drop_invalid:
        yield "  http-request del-header '[^A-Za-z0-9-]' -m reg"
    client = "%[src]:%[src_port]" if behaviour.client_port else "%[src]"
    if behaviour.forwarded_for == "append":
        yield "  http-request set-var(txn.way) req.fhdr(X-Forwarded-For)"
        yield (
            f"  http-request set-header X-Forwarded-For '%[var(txn.way)], {client}'"
            " if { var(txn.way) -m found }"
        )
        yield (
            f"  http-request set-header X-Forwarded-For {client} if !{{ var(txn.way) -m found }}"
        )
    elif behaviour.forwarded_for == "remove":
        yield "  http-request del-header X-Forwarded-For"
    scheme = "https" if listener.certificates else "http"
    yield f"  http-request set-header X-Forwarded-Proto {scheme}"
    yield f"  http-request set-header X-Forwarded-Port {listener.port}"
    yield (
        "  http-request set-header X-Amzn-Trace-Id"
        " 'Root=1-%{+X}Ts-%[uuid(4),regsub(-,,g),bytes(0,24)]'"
        " if !{ req.hdr(X-Amzn-Trace-Id) -m found }"
    )
    if behaviour.tls_headers and listener.certificates:
        yield "  http-request set-header X-Amzn-Tls-Version %[ssl_fc_protocol]"
        yield "  http-request set-header X-Amzn-Tls-Cipher-Suite %[ssl_fc_cipher]"


def _match(condition: Condition) -> str:
    values = condition.values
    if condition.kind == "source-ip":
        return "src " + " ".join(values)
    if condition.kind == "http-request-method":
        return "method " + " ".join(map(_quoted, values))
    if condition.kind == "query-string":
        return "query -m reg -i " + " ".join(_quoted(_in_query(value)) for value in values)
    fetch = {
        "path-pattern": "path -m reg",
        "host-header": "req.hdr(host),host_only -m reg -i",
        "http-header": f"req.fhdr({condition.header}) -m reg -i",
    }[condition.kind]
    return f"{fetch} " + " ".join(_quoted(f"^{_pattern(value, _ANY)}$") for value in values)


def _in_query(value: str) -> str:
    key, equals, rest = value.partition("=")
    if equals:
        wanted = f"{_pattern(key, _ANY_IN_QUERY)}={_pattern(rest, _ANY_IN_QUERY)}"
    else:
        wanted = f"([^&=]*=)?{_pattern(value, _ANY_IN_QUERY)}"
    return f"(^|&){wanted}(&|$)"


def _pattern(value: str, wild: Mapping[str, str]) -> str:
    """Return a pattern of a rule as a regular expression; a backslash takes a wildcard's sense."""
    return "".join(
        re.escape(part[1]) if len(part) == 2 else wild.get(part) or re.escape(part)
        for part in re.findall(r"\\[*?\\]|.", value, re.DOTALL)
    )


def _act(listener: Listener, action: Forward | Fixed | Redirect, chosen: str) -> Iterator[str]:
    server = f"hdr Server {SERVER}"
    if isinstance(action, Fixed):
        body = ""
        if action.body:
            kind = action.content_type or "text/plain"
            body = f" content-type {kind} file {FOLDER}/{_name('body', action.body)}"
        yield f"  http-request return status {action.status}{body} {server} if {chosen}"
    elif isinstance(action, Redirect):
        page = f"content-type text/html file {FOLDER}/{action.status}.html"
        for condition, query in (("{ query -m len gt 0 }", True), ("", False)):
            location = _quoted(_location(listener, action, query))
            yield (
                f"  http-request return status {action.status} {page} {server}"
                f" hdr Location {location} if {chosen} {condition}".rstrip()
            )
    else:
        total = sum(weight for _, weight in action.pools)
        if len(action.pools) > 1 and total:
            yield f"  http-request set-var(txn.draw) rand({total}) if {chosen}"
        below = 0
        for name, weight in action.pools:
            below += weight
            if weight and below == total:
                yield f"  use_backend {name} if {chosen}"
                return
            if weight:
                yield f"  use_backend {name} if {chosen} {{ var(txn.draw) -m int lt {below} }}"


def _location(listener: Listener, action: Redirect, has_query: bool) -> str:
    scheme = "https" if listener.certificates else "http"
    own = {"#{protocol}": scheme, "#{port}": str(listener.port)}

    def fill(text: str) -> str:
        parts = re.split(r"(/#\{path\}|#\{\w+\})", text)
        known = {
            **own,
            "#{host}": "%[req.hdr(host),host_only]",
            "/#{path}": "%[path]",
            "#{path}": "%[path,bytes(1)]",
            "#{query}": "%[query]" if has_query else "",
        }
        return "".join(known.get(part, part.replace("%", "%%")) for part in parts)

    query = fill(action.query)
    tail = f"?{query}" if query else ""
    return (
        f"{fill(action.protocol).lower()}://{fill(action.host)}:{fill(action.port)}"
        f"{fill(action.path)}{tail}"
    )


def _backend(pool: Pool) -> Iterator[str]:
    yield f"backend {pool.name}"
    yield f"  balance {_ALGORITHMS[pool.algorithm]}"
    if pool.sticky:
        yield f"  cookie AWSALB insert indirect nocache maxidle {pool.sticky}"
    yield (
        f"  http-request return status 503 content-type text/html file {FOLDER}/none.html"
        f" hdr Server {SERVER} if {{ nbsrv eq 0 }}"
    )
    # HAProxy has one error for a target that refuses and for one that does not answer.
    yield (
        "  http-after-response set-status 504 reason 'Gateway Time-out'"
        " if { txn.sess_term_state sC }"
    )
    yield from _servers(pool)


def _servers(pool: Pool) -> Iterator[str]:
    for server in pool.servers:
        state = "" if server.ready else " disabled"
        yield f"  server {server.name} {_arguments(pool, server)}{state}"


def _arguments(pool: Pool, server: Server) -> str:
    words = [f"{server.address}:{server.port}"]
    if pool.sticky:
        words.append(f"cookie {server.cookie}")
    if pool.slow_start:
        words.append(f"slowstart {pool.slow_start}s")
    if pool.secure:
        words.append("ssl verify none")
    if pool.proxy:
        words.append("send-proxy-v2")
    return " ".join(words)


def _status(code: int) -> int:
    """Return what a client is told for one of HAProxy's own errors.

    Its 503 says that the target refused, which is a load balancer's 502: that there is no target
    at all is answered before.
    """
    return 502 if code == 503 else code


def _page(code: int) -> str:
    title = f"{code} {_TITLES[code]}"
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
    )


def _raw(code: int) -> str:
    body = _page(code)
    return (
        f"HTTP/1.1 {code} {_TITLES[code]}\r\nServer: {SERVER}\r\nContent-Type: text/html\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )


def _error_file(code: int) -> str:
    return f"{code}.http"


def _name(kind: str, content: str) -> str:
    """Return the name of a file that never changes."""
    return f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.{kind}"


def _quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"


# --- commands
@dataclass(frozen=True)
class Change:
    """A command of the runtime interface, and what it makes of a target; None: it is gone.

    said: what it answers if it was done.
    """

    command: str
    key: tuple[str, str]
    result: Server | None
    said: str = ""


def changes(there: Mapping[tuple[str, str], Server], node: Node) -> list[Change]:
    """Return what leads from the targets that a running HAProxy has to those of a node.

    The last target never goes before the new one has come: additions come first.
    """
    pools = {pool.name: pool for pool in node.pools}
    wanted = node.servers
    found: list[Change] = []
    for key, server in wanted.items():
        name = "/".join(key)
        before = there.get(key)
        if before is None:
            added = replace(server, ready=False)
            arguments = _arguments(pools[key[0]], server)
            found.append(
                Change(f"add server {name} {arguments}", key, added, "New server registered.")
            )
            before = added
        if server.ready and not before.ready:
            found.append(Change(f"set server {name} state ready", key, server))
    return found + list(_departures(there, wanted, pools))


def _departures(
    there: Mapping[tuple[str, str], Server],
    wanted: Mapping[tuple[str, str], Server],
    pools: Mapping[str, Pool],
) -> Iterable[Change]:
    for key, before in there.items():
        name = "/".join(key)
        after = wanted.get(key)
        rest = replace(before, ready=False)
        # Not `drain`: that would go on serving clients that come with its cookie.
        if before.ready and not (after and after.ready):
            yield Change(f"set server {name} state maint", key, rest)
        ill = before.ready and after is not None and after.cut
        if ill or (after is None and pools[key[0]].cuts):
            yield Change(f"shutdown sessions server {name}", key, rest)
        if after is None:
            yield Change(f"del server {name}", key, None, "Server deleted.")
