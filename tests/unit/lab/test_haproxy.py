"""What makes HAProxy a node of a load balancer, by line."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from lab.balancers import RECIPE
from lab.haproxy import (
    Behaviour,
    Change,
    Condition,
    Fixed,
    Forward,
    Listener,
    Node,
    Pool,
    Redirect,
    Rule,
    Server,
    changes,
    files,
)

A = Server("i-0a:80", "10.1.0.4", 80)
B = Server("i-0b:80", "10.1.1.4", 80)
TO_WEB = Rule((), Forward((("web.1", 1),)))
NODE = Node((Listener(80, (TO_WEB,)),), (Pool("web.1", servers=(A, B)),))
PEM = "-----BEGIN PRIVATE KEY-----\nx\n"


def lines(node: Node) -> list[str]:
    return [line.strip() for line in files(node)["haproxy.cfg"].splitlines()]


def with_rule(*conditions: Condition) -> Node:
    first = Rule(tuple(conditions), Fixed(404, "text/plain", "no"))
    return replace(NODE, listeners=(Listener(80, (first, TO_WEB)),))


def act(action: Forward | Fixed | Redirect) -> list[str]:
    node = replace(NODE, listeners=(Listener(80, (Rule((), action),)),))
    chosen = "{ var(txn.rule) -m int 0 }"
    return [line for line in lines(node) if chosen in line]


def test_a_node() -> None:
    found = lines(NODE)
    for line in (
        "bind :80",
        "retries 0",
        "timeout client 60s",
        "timeout server 60s",
        "timeout connect 10s",
        "http-request set-header X-Forwarded-Proto http",
        "http-request set-header X-Forwarded-Port 80",
        "http-request set-header X-Forwarded-For %[src] if !{ var(txn.way) -m found }",
        "use_backend web.1 if { var(txn.rule) -m int 0 }",
        "backend web.1",
        "balance roundrobin",
        "server i-0a:80 10.1.0.4:80",
        "server i-0b:80 10.1.1.4:80",
    ):
        assert line in found
    assert not [line for line in found if line.startswith(("cookie", "retry-on", "option redis"))]


def test_who_gets_no_requests_is_disabled() -> None:
    node = replace(NODE, pools=(Pool("web.1", servers=(replace(A, ready=False), B)),))
    assert "server i-0a:80 10.1.0.4:80 disabled" in lines(node)


def test_groups_with_all_there_is() -> None:
    pool = Pool("web.1", True, "least_outstanding_requests", 60, 30, (A,))
    found = lines(replace(NODE, pools=(pool,)))
    assert "balance leastconn" in found
    assert "cookie AWSALB insert indirect nocache maxidle 60" in found
    assert f"server i-0a:80 10.1.0.4:80 cookie {A.cookie} slowstart 30s ssl verify none" in found
    assert A.cookie != B.cookie


def test_a_listener_with_tls() -> None:
    listener = Listener(443, (TO_WEB,), (PEM, PEM + "y"), ("TLSv1.2", "TLSv1.3"))
    node = Node((listener,), NODE.pools)
    found = files(node)
    [bind] = [line for line in lines(node) if line.startswith("bind :443")]
    names = re.findall(r"crt \S+/(\S+)", bind)
    assert [found[name] for name in names] == [PEM, PEM + "y"]
    assert bind.endswith("alpn h2,http/1.1 ssl-min-ver TLSv1.2 ssl-max-ver TLSv1.3")
    assert "http-request set-header X-Forwarded-Proto https" in lines(node)
    plain = lines(replace(node, behaviour=Behaviour(http2=False)))
    assert any(line.startswith("bind :443") and "alpn http/1.1 " in line for line in plain)


@pytest.mark.parametrize(
    ("behaviour", "there", "not_there"),
    [
        (Behaviour(idle=7), "timeout http-keep-alive 7s", "timeout client 60s"),
        (Behaviour(forwarded_for="remove"), "http-request del-header X-Forwarded-For", "set-var"),
        (Behaviour(forwarded_for="preserve"), "mode http", "header X-Forwarded-For"),
        (
            Behaviour(client_port=True),
            "http-request set-header X-Forwarded-For %[src]:%[src_port]"
            " if !{ var(txn.way) -m found }",
            "redispatch",
        ),
        (
            Behaviour(drop_invalid=True),
            "http-request del-header '[^A-Za-z0-9-]' -m reg",
            "redispatch",
        ),
    ],
)
def test_attributes(behaviour: Behaviour, there: str, not_there: str) -> None:
    found = lines(replace(NODE, behaviour=behaviour))
    assert there in found
    assert not [line for line in found if not_there in line and "txn.rule" not in line]


TCP = Node(
    (Listener(5432, (Rule((), Forward((("db.1", 1),))),), tcp=True),),
    (Pool("db.1", algorithm="flow_hash", tcp=True, cuts=False, servers=(A, B)),),
)


def test_a_node_that_passes_on_connections() -> None:
    found = lines(TCP)
    start = found.index("mode tcp")
    assert found[start - 1] == "defaults"
    assert found[start + 1 : start + 7] == [
        "log global", "retries 0", "timeout connect 10s", "timeout queue 10s",
        "timeout client 350s", "timeout server 350s",
    ]  # fmt: skip
    assert found[start + 7 :] == [
        "frontend listener-5432",
        "bind :5432",
        "default_backend db.1",
        "backend db.1",
        "balance random(1)",
        "server i-0a:80 10.1.0.4:80",
        "server i-0b:80 10.1.1.4:80",
    ]
    assert "mode tcp" not in lines(NODE)


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ({"algorithm": "source_ip"}, ["balance source", "hash-type consistent"]),
        ({"secure": True}, ["server i-0a:80 10.1.0.4:80 ssl verify none"]),
        ({"proxy": True}, ["server i-0a:80 10.1.0.4:80 send-proxy-v2"]),
    ],
)
def test_groups_of_connections(pool: dict[str, Any], expected: list[str]) -> None:
    found = lines(replace(TCP, pools=(replace(TCP.pools[0], **pool),)))
    assert all(line in found for line in expected)


def test_tls_that_ends_at_a_node_that_passes_on_connections() -> None:
    [listener] = TCP.listeners
    found = lines(replace(TCP, listeners=(replace(listener, certificates=(PEM,)),)))
    [bind] = [line for line in found if line.startswith("bind :5432")]
    assert "ssl crt" in bind
    assert "alpn" not in bind
    assert bind.endswith("ssl-min-ver TLSv1.2 ssl-max-ver TLSv1.3")


@pytest.mark.parametrize(
    ("cuts", "after", "commands"),
    [
        (False, (), ["state maint", "del server"]),
        (True, (), ["state maint", "shutdown sessions", "del server"]),
        (False, (replace(A, ready=False),), ["state maint"]),
        (False, (replace(A, ready=False, cut=True),), ["state maint", "shutdown sessions"]),
    ],
)
def test_what_is_under_way_with_a_target_that_goes(
    cuts: bool, after: tuple[Server, ...], commands: list[str]
) -> None:
    node = replace(TCP, pools=(replace(TCP.pools[0], cuts=cuts, servers=after),))
    steps = [step.command for step in changes({("db.1", A.name): A}, node)]
    assert len(steps) == len(commands)
    assert all(part in step for part, step in zip(commands, steps, strict=True))


def test_requests_are_written_down_if_that_is_wanted() -> None:
    first = Rule((Condition("path-pattern", ("/a",)),), Fixed(404), 20)
    node = replace(NODE, listeners=(Listener(80, (first, TO_WEB)),))
    found = lines(replace(node, behaviour=Behaviour(logs=True)))
    assert "log /etc/ascent-lb/log.sock len 32768 format raw local0 info" in found
    [form] = [line for line in found if line.startswith("log-format")]
    for part in ("'%{+json}o ", "%(client)[src]", "%(status)ST", "%(uri)[var(txn.uri)]"):
        assert part in form
    for number, priority in ((0, 20), (1, 0)):
        wanted = (
            f"http-request set-var(txn.priority) int({priority})"
            f" if {{ var(txn.rule) -m int {number} }}"
        )
        assert wanted in found
    trace = "http-request set-var(txn.trace) req.hdr(X-Amzn-Trace-Id)"
    [given] = [line for line in found if line.startswith("http-request set-header X-Amzn-Trace")]
    assert found.index(given) < found.index(trace)
    assert not [line for line in lines(node) if "log.sock" in line or "log-format" in line]


@pytest.mark.parametrize(
    ("condition", "match"),
    [
        (Condition("path-pattern", ("/a/*", "/b?")), r"path -m reg '^/a/.*$' '^/b.$'"),
        (Condition("path-pattern", (r"/a\*",)), r"path -m reg '^/a\*$'"),
        (Condition("path-pattern", ("/it's",)), r"path -m reg '^/it'\''s$'"),
        (
            Condition("host-header", ("*.shop.test",)),
            r"req.hdr(host),host_only -m reg -i '^.*\.shop\.test$'",
        ),
        (
            Condition("http-header", ("*Bot*",), "User-Agent"),
            "req.fhdr(User-Agent) -m reg -i '^.*Bot.*$'",
        ),
        (Condition("http-request-method", ("GET", "POST")), "method 'GET' 'POST'"),
        (Condition("source-ip", ("10.0.0.0/8", "192.0.2.1/32")), "src 10.0.0.0/8 192.0.2.1/32"),
        (
            Condition("query-string", ("v=1*", "x")),
            "query -m reg -i '(^|&)v=1[^&]*(&|$)' '(^|&)([^&=]*=)?x(&|$)'",
        ),
    ],
)
def test_conditions(condition: Condition, match: str) -> None:
    assert f"acl r0_0 {match}" in lines(with_rule(condition))


def test_all_conditions_of_the_first_rule_that_fits() -> None:
    found = lines(
        with_rule(Condition("path-pattern", ("/a",)), Condition("host-header", ("a.test",)))
    )
    first = "http-request set-var(txn.rule) int(0) if !{ var(txn.rule) -m found } r0_0 r0_1"
    last = "http-request set-var(txn.rule) int(1) if !{ var(txn.rule) -m found }"
    assert found.index(first) < found.index(last)


def test_shares_of_groups() -> None:
    assert act(Forward((("a", 1), ("none", 0), ("b", 3)))) == [
        "http-request set-var(txn.draw) rand(4) if { var(txn.rule) -m int 0 }",
        "use_backend a if { var(txn.rule) -m int 0 } { var(txn.draw) -m int lt 1 }",
        "use_backend b if { var(txn.rule) -m int 0 }",
    ]


def test_answers_of_its_own() -> None:
    assert act(Fixed(200)) == [
        "http-request return status 200 hdr Server awselb/2.0 if { var(txn.rule) -m int 0 }"
    ]
    node = with_rule(Condition("path-pattern", ("/a",)))
    [name] = [name for name in files(node) if name.endswith(".body")]
    assert files(node)[name] == "no"
    assert any(
        line.startswith(
            f"http-request return status 404 content-type text/plain file /etc/ascent-lb/{name}"
        )
        for line in lines(node)
    )


@pytest.mark.parametrize(
    ("action", "locations"),
    [
        (
            Redirect(301, "HTTPS", port="443"),
            [
                "https://%[req.hdr(host),host_only]:443%[path]?%[query]",
                "https://%[req.hdr(host),host_only]:443%[path]",
            ],
        ),
        (
            Redirect(302, host="www.#{host}", path="/new/#{path}%20", query="a=1"),
            ["http://www.%[req.hdr(host),host_only]:80/new%[path]%%20?a=1"] * 2,
        ),
        (
            Redirect(302, host="x.test", path="/", query=""),
            ["http://x.test:80/"] * 2,
        ),
    ],
)
def test_redirects(action: Redirect, locations: list[str]) -> None:
    found = [re.search(r"hdr Location '([^']*)'", line) for line in act(action)]
    assert [match[1] for match in found if match] == locations


def test_errors_are_those_of_a_load_balancer() -> None:
    found = files(NODE)
    assert found["503.http"].startswith("HTTP/1.1 502 Bad Gateway\r\nServer: awselb/2.0\r\n")
    assert found["504.http"].startswith("HTTP/1.1 504 Gateway Time-out\r\n")
    assert "503 Service Temporarily Unavailable" in found["none.html"]
    head, _, body = found["502.http"].partition("\r\n\r\n")
    assert f"Content-Length: {len(body)}" in head


# --- at run time
WAITING = replace(A, ready=False)


def pool(*servers: Server) -> Node:
    return replace(NODE, pools=(Pool("web.1", servers=servers),))


def there(*servers: Server) -> dict[tuple[str, str], Server]:
    return pool(*servers).servers


@pytest.mark.parametrize(
    ("before", "after", "commands"),
    [
        ((A,), (A,), []),
        (
            (),
            (A,),
            ["add server web.1/i-0a:80 10.1.0.4:80", "set server web.1/i-0a:80 state ready"],
        ),
        ((), (WAITING,), ["add server web.1/i-0a:80 10.1.0.4:80"]),
        ((WAITING,), (A,), ["set server web.1/i-0a:80 state ready"]),
        ((A,), (WAITING,), ["set server web.1/i-0a:80 state maint"]),
        (
            (A,),
            (),
            [
                "set server web.1/i-0a:80 state maint",
                "shutdown sessions server web.1/i-0a:80",
                "del server web.1/i-0a:80",
            ],
        ),
        (
            (WAITING,),
            (B,),
            [
                "add server web.1/i-0b:80 10.1.1.4:80",
                "set server web.1/i-0b:80 state ready",
                "shutdown sessions server web.1/i-0a:80",
                "del server web.1/i-0a:80",
            ],
        ),
        (
            (A, replace(B, ready=False)),
            (WAITING, B),
            ["set server web.1/i-0b:80 state ready", "set server web.1/i-0a:80 state maint"],
        ),
    ],
)
def test_changes(
    before: tuple[Server, ...], after: tuple[Server, ...], commands: list[str]
) -> None:
    steps = changes(there(*before), pool(*after))
    assert [step.command for step in steps] == commands
    state = there(*before)
    for step in steps:
        if step.result is None:
            del state[step.key]
        else:
            state[step.key] = step.result
    assert state == there(*after)


def test_what_a_change_is_answered_with() -> None:
    steps = changes({}, pool(A))
    assert [step.said for step in steps] == ["New server registered.", ""]
    assert changes(there(WAITING), pool())[-1] == Change(
        "del server web.1/i-0a:80", ("web.1", "i-0a:80"), None, "Server deleted."
    )


def test_targets_need_no_reload_and_all_else_does() -> None:
    assert pool(A).frame == pool(WAITING, B).frame
    for other in (
        replace(NODE, listeners=()),
        replace(NODE, behaviour=Behaviour(idle=1)),
        replace(NODE, pools=(Pool("web.1", sticky=1, servers=(A,)),)),
        with_rule(Condition("path-pattern", ("/a",))),
    ):
        assert other.frame != NODE.frame


def test_every_file_of_the_recipe_is_there() -> None:
    assert {p.name for p in RECIPE.rglob("*") if p.is_file()} == {"install.sh", "ascent-lb.service"}
