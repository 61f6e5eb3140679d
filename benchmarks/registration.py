"""Registers targets and takes them out again, three ways, and prints time and calls side by side.

    .venv/bin/python benchmarks/registration.py [--sizes 4,40,400] [--healthy-after 10]
        [--deregistration-delay 10] [--throttle 10] [--limit-seconds 600]

ascent      one task of ascent.scaling.target_set
loop        one task of community.aws.elb_target, which loops over the targets
forks       one task of community.aws.elb_target on as many hosts, 20 at a time

Each way registers all and waits until they are healthy, in one run of ansible-playbook, then
deregisters all and waits until they have drained, in another. All ask over HTTP, of an API on this
machine: moto's, whose targets get healthy and drain as long as the options say. The limit is for
both runs together.

Measured: seconds, starts of Ansible included; seconds of processors, those of the API left out;
and the requests that the API got, repeated ones included. It is looked at whether the targets are
in the end what they should be.

Not measured: AWS. Its answers come over a network, and its health checks and the requests in
flight of real hosts take their own time. What target_set spares beyond this, by asking hosts
whether they have anything in flight (drain.check), does not show either: here it waits for AWS's
own end of the drain. elb_target is spared asking for the group's name: all get its ARN.

--throttle refuses calls above so many a second with "Rate exceeded", as AWS does above 10 a second,
with reserves that fill up while nobody asks (tests/support/target_server.py names the source).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from tests.support.target_server import TargetServer  # noqa: E402

FORKS = 20
# How long a way waits for a target itself; the limit comes first.
PATIENCE_S = 7200
STATES = {"present": "healthy", "absent": "unused"}


@dataclass
class Phase:
    """One run of ansible-playbook: what it took, and why it did not do what it should."""

    seconds: float
    processor_s: float
    calls: Counter[str]
    throttled: int
    problem: str = ""


@dataclass
class Result:
    """One way with so many targets, whose second run needs the first one's success."""

    way: str
    size: int
    phases: list[Phase] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """In all."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def processor_s(self) -> float:
        """In all."""
        return sum(phase.processor_s for phase in self.phases)

    @property
    def calls(self) -> Counter[str]:
        """In all, by action."""
        return sum((phase.calls for phase in self.phases), Counter())

    @property
    def throttled(self) -> int:
        """How many calls were refused."""
        return sum(phase.throttled for phase in self.phases)

    @property
    def problem(self) -> str:
        """Why it did not come to its end."""
        return self.phases[-1].problem


def play(way: str, arn: str, ids: list[str], state: str) -> list[dict[str, Any]]:
    """The playbook of one way."""
    if way == "ascent":
        task: dict[str, Any] = {
            "ascent.scaling.target_set": {
                "target_groups": [arn],
                "targets": [{"id": name} for name in ids],
                "state": state,
                "timeout": PATIENCE_S,
                "minimum_healthy": 0,
                "drain": {"timeout": PATIENCE_S},
            }
        }
    else:
        task = {
            "community.aws.elb_target": {
                "target_group_arn": arn,
                "target_id": "{{ item }}" if way == "loop" else "{{ inventory_hostname }}",
                "state": state,
                "target_status": STATES[state],
                "target_status_timeout": PATIENCE_S,
            }
        }
    if way == "loop":
        task["loop"] = ids
    hosts = "all" if way == "forks" else "localhost"
    return [{"hosts": hosts, "gather_facts": False, "tasks": [{"name": f"Be {state}", **task}]}]


class Bench:
    """The server, the instances, and where playbooks and their output are written."""

    def __init__(self, server: TargetServer, ids: list[str], folder: Path) -> None:
        self.server, self.ids, self.folder = server, ids, folder

    def measure(self, way: str, size: int, given: argparse.Namespace) -> Result:
        """Register and deregister, one way."""
        result, left = Result(way, size), float(given.limit_seconds)
        self.server.empty(given.throttle)
        for state in STATES:
            phase = self._run(way, self.ids[:size], state, left)
            result.phases.append(phase)
            left -= phase.seconds
            if phase.problem:
                break
        return result

    def _run(self, way: str, ids: list[str], state: str, limit: float) -> Phase:
        self.server.reset()
        before, began = processor_s(), time.monotonic()
        process = self._start(way, ids, state)
        problem = ""
        try:
            process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            problem = "over"
            end(process)
        seconds = time.monotonic() - began
        phase = Phase(
            seconds,
            processor_s() - before,
            self.server.calls,
            self.server.throttled.total(),
            problem,
        )
        states = self.server.states()
        wanted = Counter(healthy=len(ids)) if state == "present" else Counter[str]()
        if not problem and (process.returncode or states != wanted):
            lines = self._log(way).read_text().splitlines()
            print("\n".join(line[:500] for line in lines[-25:]), file=sys.stderr)
            phase.problem = f"failed, and left {dict(states) or 'none'}"
        return phase

    def _start(self, way: str, ids: list[str], state: str) -> subprocess.Popen[bytes]:
        playbook, inventory = self.folder / f"{way}.yml", self.folder / "hosts.yml"
        playbook.write_text(json.dumps(play(way, self.server.arn, ids, state)))
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        }
        hosts = ids if way == "forks" else ["localhost"]
        inventory.write_text(
            json.dumps({"all": {"hosts": dict.fromkeys(hosts), "vars": variables}})
        )
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "--forks", str(FORKS)]
        with self._log(way).open("w") as log:
            return subprocess.Popen(
                [*command, "-i", str(inventory), str(playbook)],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _environment(self) -> dict[str, str]:
        """The same for all; modules are compiled once, as the Makefile has it."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        return {
            **kept,
            **self.server.environment,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "PYTHONPYCACHEPREFIX": str(ROOT / "build/pycache"),
        }

    def _log(self, way: str) -> Path:
        return self.folder / f"{way}.log"


def processor_s() -> float:
    """Seconds of processors that ended children, and theirs, have used so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def end(process: subprocess.Popen[bytes]) -> None:
    """End a run: told so, ansible-playbook ends its workers, and these their modules."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def row(result: Result, ours: Result | None, limit: float) -> str:
    """A line of the table. ours: target_set with as many targets, if it was measured."""
    over, failed = result.problem == "over", result.problem not in ("", "over")
    known = ours is not None and ours is not result and not ours.problem and not failed
    least = "over " if over else ""

    def ratio(mine: float, its: float) -> str:
        return f"{least}{mine / its:.1f}" if known and its else ""

    def phase(number: int) -> str:
        if number >= len(result.phases):
            return ""
        found = result.phases[number]
        if found.problem == "over":
            return "not within the limit"
        return f"{found.seconds:.1f} s" + (f" ({found.problem})" if found.problem else "")

    seconds = f"over {limit:.0f} s" if over else "" if failed else f"{result.seconds:.1f} s"
    calls = result.calls
    named = ", ".join(f"{action} {count}" for action, count in sorted(calls.items()))
    if result.throttled:
        named += f"; {result.throttled} of them throttled"
    cells = [
        f"{result.size}",
        result.way,
        phase(0),
        phase(1),
        seconds,
        ratio(limit if over else result.seconds, ours.seconds if ours else 0),
        f"{least}{result.processor_s:.0f} s",
        f"{least}{calls.total()}",
        ratio(calls.total(), ours.calls.total() if ours else 0),
        named,
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Measure all ways with all sizes and print them."""
    ways = ("ascent", "loop", "forks")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", default="4,40,400", help="how many targets, one after the other")
    parser.add_argument("--ways", default=",".join(ways), help="which, of all")
    parser.add_argument("--healthy-after", type=float, default=10, help="seconds")
    parser.add_argument("--deregistration-delay", type=int, default=10, help="seconds")
    parser.add_argument("--throttle", type=float, help="calls a second; by default there is none")
    parser.add_argument("--limit-seconds", type=float, default=600, help="for a way with one size")
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    chosen = [way for way in ways if way in given.ways.split(",")]
    with tempfile.TemporaryDirectory() as folder, TargetServer() as server:
        bench = Bench(server, server.build(max(sizes)), Path(folder))
        server.set_times(0, 0)
        for way in chosen:
            # What is read and compiled for the first time is nobody's own cost.
            first = bench.measure(way, 1, argparse.Namespace(limit_seconds=600, throttle=None))
            assert not first.problem, f"{way}: {first.problem}"
        server.set_times(given.healthy_after, given.deregistration_delay)
        print("| targets | way | until healthy | until drained | both | against ascent | processors"
              " | calls | against ascent | which calls |")  # fmt: skip
        print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
        for size in sizes:
            ours = None
            for way in chosen:
                print(f"{size} {way} …", file=sys.stderr, flush=True)
                result = bench.measure(way, size, given)
                ours = result if way == "ascent" else ours
                print(row(result, ours, given.limit_seconds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
