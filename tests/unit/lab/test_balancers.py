"""A node follows the API, whatever its HAProxy does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from lab import haproxy
from lab.balancers import Pilot
from lab.errors import LabError
from lab.haproxy import Listener, Node, Pool, Server
from lab.hosts import Plan

A = Server("i-0a:80", "10.1.0.4", 80)
B = Server("i-0b:80", "10.1.1.4", 80)
LISTENERS = (Listener(80, ()),)


def serving(*servers: Server) -> Node:
    return Node(LISTENERS, (Pool("web.1", servers=servers),))


class HAProxy:
    """A node's container, as its pilot sees it."""

    plan = Plan("lb-1", "image", "host", "10.1.0.9", "10.1.0.0/24", "02:00", 512, 2)

    def __init__(self) -> None:
        self.number: int | None = 1
        self.commands: list[str] = []
        self.old: list[str] = []
        self.written: list[Mapping[str, str]] = []
        self.reloads = 0
        self.answers: dict[str, str] = {}
        self.refuses = False

    def process(self) -> str | None:
        return None if self.number is None else f"Pid: {self.number}"

    def say(self, command: str) -> str:
        self.commands.append(command)
        words = command.split()[:2]
        usual = {"add server": "New server registered.\n\n", "del server": "Server deleted.\n\n"}
        return self.answers.get(" ".join(words), usual.get(" ".join(words), "\n"))

    def tell_old(self, command: str) -> None:
        self.old.append(command)

    def write(self, files: Mapping[str, str]) -> None:
        self.written.append(files)

    def tidy(self, files: Mapping[str, str]) -> None:
        assert files is self.written[-1]

    def reload(self) -> None:
        if self.refuses:
            raise LabError("no")
        self.reloads += 1
        assert self.number is not None
        self.number += 1


class Flight:
    """A pilot under test."""

    def __init__(self) -> None:
        self.node = HAProxy()
        self.wanted: haproxy.Node | None = serving(A)
        self.told: list[bool] = []
        node: Any = self.node
        self.applied: list[haproxy.Node] = []
        self.pilot = Pilot(node, lambda: self.wanted, self.applied.append, self.told.append)

    def round(self) -> list[str]:
        """Have it look once; return the commands that it gave."""
        self.node.commands.clear()
        self.pilot.round()
        return list(self.node.commands)


@pytest.fixture
def flight() -> Flight:
    flight = Flight()
    flight.round()
    return flight


def test_it_begins_with_a_reload_and_then_gives_commands(flight: Flight) -> None:
    assert flight.told == [True]
    assert flight.node.reloads == 1
    assert flight.round() == []
    flight.wanted = serving(A, B)
    assert flight.round() == [
        "add server web.1/i-0b:80 10.1.1.4:80",
        "set server web.1/i-0b:80 state ready",
    ]
    assert "i-0b:80" in flight.node.written[-1]["haproxy.cfg"]
    assert flight.round() == []
    assert flight.node.reloads == 1


def test_what_is_done_is_told_once(flight: Flight) -> None:
    flight.round()
    assert flight.applied == [serving(A)]
    flight.wanted = serving(A, B)
    flight.node.answers["add server"] = "No.\n"
    flight.round()
    assert flight.applied == [serving(A)]
    flight.node.answers.clear()
    flight.round()
    flight.round()
    assert flight.applied == [serving(A), serving(A, B)]
    flight.node.number = None
    flight.round()
    flight.node.number = 9
    flight.round()
    assert flight.applied[2:] == [serving(A, B)]


def test_what_is_still_talked_to_is_removed_later(flight: Flight) -> None:
    flight.wanted = serving()
    flight.node.answers["del server"] = "Server still has connections attached to it.\n"
    assert flight.round() == [
        "set server web.1/i-0a:80 state maint",
        "shutdown sessions server web.1/i-0a:80",
        "del server web.1/i-0a:80",
    ]
    flight.node.answers.clear()
    assert flight.round() == [
        "shutdown sessions server web.1/i-0a:80",
        "del server web.1/i-0a:80",
    ]
    assert flight.round() == []
    assert flight.node.reloads == 1


def test_processes_that_wait_for_their_clients_hear_who_leaves(flight: Flight) -> None:
    flight.wanted = serving(replace(A, ready=False), B)
    flight.round()
    assert "set server web.1/i-0a:80 state maint" in flight.node.old
    assert "set server web.1/i-0b:80 state ready" not in flight.node.old


def test_a_target_that_comes_back_before_it_is_gone_is_not_added_again(flight: Flight) -> None:
    flight.node.answers["del server"] = "Server still has connections attached to it.\n"
    flight.wanted = serving()
    flight.round()
    flight.wanted = serving(A)
    assert flight.round() == ["set server web.1/i-0a:80 state ready"]


def test_a_frame_needs_a_reload(flight: Flight) -> None:
    flight.wanted = replace(serving(B), listeners=(Listener(81, ()),))
    assert flight.round() == []
    assert flight.node.reloads == 2
    assert flight.round() == []


def test_a_command_that_fails_ends_in_a_reload(flight: Flight) -> None:
    flight.node.answers["set server"] = "No such server.\n"
    flight.wanted = serving(replace(A, ready=False))
    flight.round()
    assert flight.told == [True, False]
    flight.round()
    assert flight.node.reloads == 2
    assert flight.told == [True, False, True]


def test_another_process_is_told_everything(flight: Flight) -> None:
    flight.node.number = 77
    assert flight.round() == []
    assert flight.node.reloads == 2


def test_death_and_return_are_told_once(flight: Flight) -> None:
    flight.node.number = None
    for _ in range(3):
        flight.round()
    assert flight.told == [True, False]
    flight.node.number = 5
    flight.round()
    flight.round()
    assert flight.told == [True, False, True]
    assert flight.node.reloads == 2


def test_a_refused_configuration_does_not_serve(flight: Flight) -> None:
    flight.node.refuses = True
    flight.wanted = Node()
    flight.round()
    assert flight.told == [True, False]


def test_who_serves_nobody_does_nothing(flight: Flight) -> None:
    flight.wanted = None
    flight.node.number = None
    assert flight.round() == []
    assert flight.told == [True]
