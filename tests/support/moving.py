"""An environment at stage 2 whose database is moved forth and back, and broken off on the way.

The box bears web, pooler and the database as stage 1 had it; `database` is the other side.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.host import Host
from tests.support.lab import ROOT, TestLab
from tests.support.playbook import Run, play

# By the side that the data is brought to: what a user runs, and as little of it as moves the data.
WHOLE = {"database": "stage_2_split_tiers.yml", "box": "operations/move_back.yml"}
SHORT = {side: f"../tests/faults/playbooks/{name}.yml"
         for side, name in (("database", "forth"), ("box", "back"))}  # fmt: skip
OTHER = {"box": "database", "database": "box"}

# The module by itself, on the box: its parameters come by standard input.
ENGINE = "/var/tmp/ascent-engine"
PROGRAM = """
import json, sys, traceback
from ansible_collections.ascent.scaling.plugins.modules import database_move as module
try:
    result = module.run(json.load(sys.stdin), dry=False)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(json.dumps(result))
"""
# All that the module needs of Ansible while Ansible does not run it.
STAND_IN = "AnsibleModule = missing_required_lib = None\n"

# So much that a copy, and a comparison, take seconds: time to strike.
BALLAST = """
CREATE TABLE IF NOT EXISTS ballast (id int PRIMARY KEY, filling text NOT NULL);
INSERT INTO ballast
SELECT n, (SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, 32) i)
FROM generate_series(1, 100000) n ON CONFLICT DO NOTHING;
"""

# Takes a move out of a database; the first side is asked while the other may use its slots still.
FORGET = r"""
SELECT format('ALTER SUBSCRIPTION %I DISABLE; ALTER SUBSCRIPTION %I SET (slot_name = NONE);'
              ' DROP SUBSCRIPTION %I', subname, subname, subname) FROM pg_subscription \gexec
SELECT format('DROP EVENT TRIGGER %I', evtname) FROM pg_event_trigger \gexec
DROP PUBLICATION IF EXISTS ascent_move;
DROP SCHEMA IF EXISTS ascent_move CASCADE;
SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active;
SELECT pg_sleep(0.2);
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots;
"""

# Where a move can be struck: the side that is asked (`source`, `target`), and how it is told there.
# The copy is at the ballast, so that it goes on for seconds.
MOVER = "FROM pg_stat_activity WHERE application_name = 'ascent_mover' AND pid <> pg_backend_pid()"
ATTEMPT = "FROM ascent_move.attempt WHERE since > clock_timestamp() - interval '10 s' AND state ="
SAID = (
    "FROM ascent_move.pooler p JOIN ascent_move.attempt a ON a.id = p.attempt"
    " WHERE seen > clock_timestamp() - interval '10 s' AND said ="
)
STEPS = {
    "copy": ("target", "FROM pg_stat_progress_copy WHERE bytes_processed > 5000000"),
    "verification": ("source", f"{MOVER} AND query LIKE '%hashtextextended%' AND state = 'active'"),
    "armed": ("source", f"{ATTEMPT} 'armed'"),
    "paused": ("source", f"{SAID} 'paused' AND state = 'armed'"),
    "fenced": ("source", f"{ATTEMPT} 'fencing'"),
    "committing": ("source", f"{ATTEMPT} 'committing'"),
    "opened": ("source", f"{SAID} 'switched' AND state = 'committing'"),
}

# In the switch each step takes a hundredth of a second. What makes it wait, so that it can be
# struck in just that step: a trigger on what the mover writes next. Where, and on what.
HOLDS = {
    "paused": ("source", "attempt", "UPDATE", "NEW.state = 'fencing'"),
    "fenced": ("source", "mark", "INSERT", "NEW.attempt NOT LIKE 'verify%'"),
    "committing": ("target", "door", "UPDATE", "NEW.opened_at IS NOT NULL"),
    "opened": ("source", "attempt", "UPDATE", "NEW.state = 'switched'"),
}

# Kills whatever of root's is logged in to a PostgreSQL from here: the mover, and only that.
KILL_MOVER = """
for pid in $(ss -tnpH 'dport = :5432' | grep -o 'pid=[0-9]*' | cut -d= -f2 | sort -u); do
    [ "$(stat -c %u /proc/$pid)" = 0 ] && kill -KILL $pid && echo killed $pid
done"""
KILL_POSTGRESQL = "pkill -KILL -x postgres; echo killed"


@dataclass
class Moving:
    """The environment, and what is done to it. `inventory` and `build` are a user's."""

    lab: TestLab
    inventory: Path
    build: Path
    hosts: dict[str, Host]
    instances: dict[str, str]
    addresses: dict[str, str]

    # --- what is there

    def ask(self, side: str, statement: str, database: str = "shop", check: bool = True) -> str:
        """The answer of a host's own PostgreSQL, asked by its superuser."""
        return (
            self.hosts[side]
            .run(
                f"runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d {database}",
                data=f"SET ascent_move.allow = on; {statement}",
                check=check,
            )
            .strip()
        )

    def leads_to(self) -> str:
        """The side that PgBouncer leads to."""
        line = self.hosts["box"].run("grep '^main' /etc/pgbouncer/databases.ini")
        return "database" if f"host={self.addresses['database']} " in line else "box"

    def lets_in(self) -> list[str]:
        """The sides that let the application in."""
        right = "SELECT has_database_privilege('shop_a', 'shop', 'CONNECT')"
        return [side for side in self.hosts if self.ask(side, right) == "t"]

    def orders(self, side: str) -> list[int]:
        return [int(line) for line in self.ask(side, "SELECT id FROM orders").split()]

    # --- runs

    def run(self, to: str, by: str = "short", **options: Any) -> Run:
        """A run that brings the data to a side.

        `by`: the `whole` playbook of a user, the `short` one, or the `module` by itself on the box.
        """
        if by == "module":
            return self._module(to, **options)
        return self.play((WHOLE if by == "whole" else SHORT)[to], **options)

    def _module(self, to: str, began: Callable[[subprocess.Popen[str]], None] | None = None) -> Run:
        self._engine  # noqa: B018
        process = subprocess.Popen(
            [*self.hosts["box"].command(), f"sudo env PYTHONPATH={ENGINE} python3 {ENGINE}/run.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if began:
            began(process)
        out, _ = process.communicate(json.dumps(self._asked(to)), timeout=600)
        return Run(process.returncode, out)

    def _asked(self, to: str) -> dict[str, Any]:
        """The module's parameters, as the playbooks give them."""

        def password(of: str) -> str:
            return hashlib.sha256(f"{self._move_secret} {of}".encode()).hexdigest()

        sides = {
            name: {
                "name": name, "host": address, "port": 5432, "database": "shop",
                "user": "ascent_mover", "password": password("mover"), "sslmode": "require",
                "replication_user": "ascent_replication",
                "replication_password": password("replication"),
            }
            for name, address in self.addresses.items()
        }  # fmt: skip
        return {
            "state": "switched" if to == "database" else "returned",
            "origin": sides["box"], "other": sides["database"], "roles": ["shop"],
            "poolers": ["box"], "pooler_addresses": ["127.0.0.1", "local", self.addresses["box"]],
            "max_pause": 2.0, "verified_within": 3600, "compare": "full", "sample_rows": 20_000,
            "patience": 300, "allow_unlogged": False, "room_mb": None, "backup": "",
        }  # fmt: skip

    @cached_property
    def _move_secret(self) -> str:
        client = self.lab.client("secretsmanager")
        return str(client.get_secret_value(SecretId="ascent/lab/move")["SecretString"])

    @cached_property
    def _engine(self) -> None:
        """Lay the module on the box."""
        buffer = io.BytesIO()
        under = "ansible_collections/ascent/scaling/plugins"
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path in (ROOT / "plugins/module_utils/_motion").glob("*.py"):
                archive.add(path, f"{under}/module_utils/_motion/{path.name}")
            module = "modules/database_move.py"
            archive.add(ROOT / "plugins" / module, f"{under}/{module}")
            for name, text in (("ansible/module_utils/basic.py", STAND_IN), ("run.py", PROGRAM)):
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        self.hosts["box"].run(
            f"rm -rf {ENGINE}; install -d {ENGINE}; base64 -d | tar -xzf - -C {ENGINE}",
            data=base64.b64encode(buffer.getvalue()).decode(),
        )

    def play(self, playbook: str, *arguments: str, **options: Any) -> Run:
        return play(self.lab, playbook, *arguments, inventory=self.inventory, **options)

    def fresh(self, by: str = "short") -> None:
        """As if no move had ever begun: the data is at the box, the other side is empty.

        The module by itself needs a guard that knows of the move.
        """
        if self.leads_to() != "box":
            self.bring("box")
        if by != "module":
            self.hosts["box"].run("rm -f /etc/ascent-guard/shop.json; sleep 2")
        for side in ("database", "box"):
            self.ask(side, FORGET)
        self.ask(
            "database", "DROP OWNED BY shop CASCADE; GRANT CONNECT ON DATABASE shop TO shop;"
            " SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
        )  # fmt: skip

    def bring(self, to: str) -> Run:
        run = self.run(to, by="module")
        assert run.returncode == 0, run.tail()
        return run

    # --- steps, and what strikes in them

    @contextlib.contextmanager
    def held(self, step: str, source: str, seconds: float = 0.6) -> Iterator[None]:
        """Have a step of the next switch last, so that there is time to strike in it."""
        if step not in HOLDS:
            yield
            return
        where, table, event, when = HOLDS[step]
        side = source if where == "source" else OTHER[source]
        self.ask(
            side,
            f"""CREATE OR REPLACE FUNCTION ascent_move.held() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
            CREATE OR REPLACE TRIGGER held BEFORE {event} ON ascent_move.{table}
            FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION ascent_move.held()""",
        )
        try:
            yield
        finally:
            self.ask(side, "DROP FUNCTION IF EXISTS ascent_move.held() CASCADE")

    def reached(self, step: str, source: str, seconds: float = 900) -> subprocess.Popen[str]:
        """Ask, on the host itself, until a move is in the step; the process ends when it is."""
        where, condition = STEPS[step]
        side = source if where == "source" else OTHER[source]
        statement = f"""SET statement_timeout = '{seconds:.0f}s';
            DO $wait$ BEGIN
              LOOP
                EXIT WHEN EXISTS (SELECT {condition});
                COMMIT;
                PERFORM pg_sleep(0.005);
              END LOOP;
            END $wait$;"""
        process = subprocess.Popen(
            [
                *self.hosts[side].command(),
                "sudo runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d shop",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin
        process.stdin.write(statement)
        process.stdin.close()
        process.stdin = None
        return process

    def ready_to(self, side: str, script: str) -> Callable[[], None]:
        """Have a script ready on a host; it runs at once when what is returned is called."""
        process = subprocess.Popen(
            [*self.hosts[side].command(), f"sudo bash -c 'read -r _; {_escaped(script)}'"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

        def go() -> None:
            out, _ = process.communicate("\n", timeout=30)
            assert "killed" in out, f"{script} hit nothing: {out}"

        return go

    @contextlib.contextmanager
    def application(self, statement: str) -> Iterator[None]:
        """A session of the application through the pooler, which has just done the statement."""
        process = subprocess.Popen(
            [
                *self.hosts["box"].command(),
                "sudo bash -c '. /etc/shop/environment; exec psql -XAtq $DATABASE_URL'",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(f"{statement}\n\\echo done\n")
            process.stdin.flush()
            while process.stdout.readline() not in ("done\n", ""):
                pass
            yield
        finally:
            process.stdin.close()
            process.wait(30)

    def wait_for(self, side: str, seconds: float = 60) -> None:
        """Return once a host's PostgreSQL answers: its unit starts it again by itself."""
        self.hosts[side].run(
            f"for try in $(seq {seconds / 0.2:.0f}); do"
            " runuser -u postgres -- psql -qd shop -c 'SELECT 1' >/dev/null 2>&1 && exit;"
            " sleep 0.2; done; exit 1"
        )

    @contextlib.contextmanager
    def slow_network(self) -> Iterator[None]:
        """Let a copy take seconds: 160 Mbit/s to the database's host."""
        device = f"h{self.instances['database'][-10:]}"
        rate = ("root", "tbf", "rate", "160mbit", "burst", "256kb", "latency", "50ms")
        self.lab.inside("tc", "qdisc", "add", "dev", device, *rate)
        try:
            yield
        finally:
            self.lab.inside("tc", "qdisc", "del", "dev", device, "root")

    @cached_property
    def _ec2(self) -> Any:
        return self.lab.client("ec2")

    def ready_to_cut_power(self, side: str) -> Callable[[], None]:
        """Have all ready to cut a host's power; it is cut at once when what is returned is called.

        A step lasts a second or less, and as long takes a client that is made for the call.
        """
        self._ec2.describe_instances(InstanceIds=[self.instances[side]])
        return lambda: self._ec2.stop_instances(InstanceIds=[self.instances[side]], Force=True)

    def give_power(self, side: str) -> None:
        """Start a host whose power was cut; returns when it runs."""
        ec2, instance = self._ec2, [self.instances[side]]
        often = {"Delay": 1, "MaxAttempts": 120}
        ec2.get_waiter("instance_stopped").wait(InstanceIds=instance, WaiterConfig=often)
        ec2.start_instances(InstanceIds=instance)
        ec2.get_waiter("instance_running").wait(InstanceIds=instance, WaiterConfig=often)

    def cut(self, one: str, another: str) -> None:
        """Lose all packets between two hosts, or those of SSH between the controller and a host."""
        if one == "controller":
            rules = [f"ip daddr {self.addresses[another]} tcp dport 22 drop",
                     f"ip saddr {self.addresses[another]} tcp sport 22 drop"]  # fmt: skip
        else:
            here, there = self.addresses[one], self.addresses[another]
            rules = [f"ip saddr {a} ip daddr {b} drop" for a, b in ((here, there), (there, here))]
        chain = "type filter hook forward priority -200; policy accept;"
        table = f"table inet cut {{ chain between {{ {chain} {'; '.join(rules)}; }}; }}"
        self.lab.inside("nft", table)

    def mend(self) -> None:
        """Let all packets pass again."""
        self.lab.inside("nft", "add table inet cut; delete table inet cut")


@dataclass
class Struck:
    """A run that was struck: what it left, and when the strike came, by the clock of `when`."""

    run: Run
    at: float


def strike(
    moving: Moving,
    to: str,
    step: str,
    blow: Callable[[], None] | None,
    afterwards: Callable[[], None] = lambda: None,
    **options: Any,
) -> Struck:
    """Begin a run that brings the data to a side, and strike when it is in the step.

    Without a blow the controller itself is killed. `afterwards` is called when the blow is done,
    while the run goes on or ends.
    """
    controller: list[subprocess.Popen[str]] = []
    reached = moving.reached(step, OTHER[to])
    done: list[float] = []
    trouble: list[BaseException] = []

    def wait_and_strike() -> None:
        try:
            out, _ = reached.communicate()
            assert reached.returncode == 0, f"{step} was not reached: {out}"
            if blow:
                blow()
            else:
                os.killpg(controller[0].pid, signal.SIGKILL)
            done.append(time.monotonic())
            afterwards()
        except BaseException as error:
            trouble.append(error)

    striker = threading.Thread(target=wait_and_strike, daemon=True)
    striker.start()
    run = moving.run(to, began=controller.append, **options)
    if reached.poll() is None and not done:
        reached.kill()
    striker.join(180)
    if trouble:
        raise AssertionError(f"{trouble[0]}\n{run.tail()}") from trouble[0]
    assert done, run.tail()
    return Struck(run, done[0])


def _escaped(text: str) -> str:
    return text.replace("'", "'\\''")
