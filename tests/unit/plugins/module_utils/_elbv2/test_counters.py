"""Requests in flight, read from what nginx and HAProxy tell."""

from __future__ import annotations

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.counters import (
    COUNTERS,
    CounterError,
    haproxy,
    nginx,
)

STUB = """Active connections: {active}
server accepts handled requests
 7 7 19
Reading: {reading} Writing: {writing} Waiting: {waiting}
"""
# The columns that count, and one more, in another order than HAProxy's.
HEAD = "# pxname,svname,scur,qcur,status,type,"


def stub(reading: int, writing: int, waiting: int) -> str:
    active = reading + writing + waiting
    return STUB.format(active=active, reading=reading, writing=writing, waiting=waiting)


def statistics(*rows: str) -> str:
    return "\n".join([HEAD, *(f"{row}," for row in rows)]) + "\n"


@pytest.mark.parametrize(
    ("reading", "writing", "waiting", "count"),
    # One that writes is the answer to us; idle keep-alive connections are no requests.
    [(0, 1, 0, 0), (0, 1, 40, 0), (0, 3, 40, 2), (2, 1, 0, 2), (0, 0, 0, 0)],
)
def test_nginx(reading: int, writing: int, waiting: int, count: int) -> None:
    assert nginx(stub(reading, writing, waiting)) == count


FRONT = "web,FRONTEND,50,,OPEN,0"
SERVER = "app,s1,3,0,UP,2"
BACK = "app,BACKEND,3,2,UP,1"
OTHER = ("api,s1,0,0,UP,2", "api,BACKEND,4,,UP,1")
# The page that tells this: a proxy without servers, in which our own question is a session.
PAGE = ("stats,FRONTEND,1,,OPEN,0", "stats,BACKEND,1,0,UP,1")


@pytest.mark.parametrize(
    ("rows", "proxies", "count"),
    [
        ([FRONT, SERVER, BACK], [], 5),
        ([FRONT, SERVER, BACK, *PAGE], [], 5),
        ([FRONT, SERVER, BACK, *OTHER], [], 9),
        ([FRONT, SERVER, BACK, *OTHER], ["app"], 5),
        ([FRONT, "app,s1,0,0,UP,2", "app,BACKEND,0,0,UP,1", *PAGE], [], 0),
        ([*PAGE], [], 0),
    ],
)
def test_haproxy(rows: list[str], proxies: list[str], count: int) -> None:
    assert haproxy(statistics(*rows), proxies) == count


def test_a_backend_that_is_not_there_is_told() -> None:
    with pytest.raises(CounterError, match="no backend apq with servers, only app"):
        haproxy(statistics(SERVER, BACK), ["apq"])


@pytest.mark.parametrize("check", sorted(COUNTERS))
@pytest.mark.parametrize("text", ["", "<html>Welcome</html>", "a,b\n1,2\n", "# pxname\n"])
def test_any_other_page_is_an_error_and_never_a_zero(check: str, text: str) -> None:
    with pytest.raises(CounterError, match="the answer is none of"):
        COUNTERS[check](text, [])
