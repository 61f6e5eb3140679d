# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts, stops and asks the witness's program on the machine where it runs.

A run has one directory. Whether a witness runs is told by the lock that its process holds for
life, so that neither a crash, nor a reboot, nor a recycled process id can mislead.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_DEADLINE_S = 20.0
KILL_GRACE_S = 5.0


class WitnessError(Exception):
    """Something that the user must know; the text says what was tried and what to do."""


class NotThereYet(WitnessError):
    """What the witness would watch has not been set up so far."""


class Place:
    """The files of one run on this machine, and of one probe in it."""

    def __init__(self, directory: str, run_id: str) -> None:
        self.run = Path(directory) / run_id
        self.program = self.run / "program.py"
        self.marks = self.run / "marks.jsonl"

    def file(self, kind: str, stem: str) -> Path:
        """The config, secrets, lock, journal or output file of a probe."""
        endings = {"config": ".json", "secrets": ".json", "journal": ".jsonl", "rows": ".jsonl"}
        return self.run / f"{kind}-{stem}{endings.get(kind, '')}"

    def stems(self) -> list[str]:
        """The probes that were ever started here."""
        return sorted(path.name.removeprefix("lock-") for path in self.run.glob("lock-*"))

    def create(self, owner: str | None) -> None:
        """Make the run's directory, readable to its owner alone."""
        parent = self.run.parent
        if not parent.exists():
            parent.mkdir(parents=True)
            # The program's user must pass; what it may read stands below, each for its owner.
            parent.chmod(0o755)
        self.run.mkdir(mode=0o700, exist_ok=True)
        if owner:
            shutil.chown(self.run, user=owner)

    def write(self, path: Path, text: str, owner: str | None) -> None:
        """Write a file that only its owner reads, whole or not at all."""
        temporary = path.with_name(path.name + ".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as out:
            out.write(text)
        if owner:
            shutil.chown(temporary, user=owner)
        temporary.replace(path)


def holder(lock: Path) -> int | None:
    """The process that holds a lock; None if nobody does."""
    try:
        fd = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        for _attempt in range(50):
            with contextlib.suppress(ValueError, KeyError):
                return int(json.loads(os.pread(fd, 200, 0))["pid"])
            time.sleep(0.02)
        raise WitnessError(f"{lock} is held, but names no process") from None
    finally:
        os.close(fd)
    return None


def read_environment(path: str) -> dict[str, str]:
    """Read KEY=VALUE lines as systemd's EnvironmentFile= does, in its simple forms."""
    found = {}
    for line in Path(path).read_text().splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or key.startswith(("#", ";")):
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            quote, value = value[0], value[1:-1]
            if quote == '"':  # systemd.exec(5): a backslash before these is removed
                value = re.sub(r'\\(["\\$`])', r"\1", value)
        found[key.strip()] = value
    return found


def resolve(databases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each database its URLs, from the task or from an environment file on the host."""
    found = []
    for database in databases:
        name = database["name"]
        url, read_url = database.get("url"), database.get("read_url")
        if database.get("environment_file"):
            try:
                known = read_environment(database["environment_file"])
            except FileNotFoundError as error:
                raise NotThereYet(f"database {name}: {error}") from error
            except OSError as error:
                raise WitnessError(f"database {name}: {error}") from error
            variable = database.get("variable") or "DATABASE_URL"
            url = known.get(variable)
            if not url:
                raise WitnessError(
                    f"database {name}: {database['environment_file']} does not set {variable}"
                )
            if database.get("read_variable"):
                read_url = known.get(database["read_variable"])
        if not url:
            raise WitnessError(f"database {name}: give url, or environment_file and variable")
        found.append(
            {
                "name": name,
                "url": url,
                "read_url": read_url,
                "table": database.get("table"),
                "place": database.get("place"),
            }
        )
    return found


def call(python: str, place: Place, *arguments: str, timeout: float) -> tuple[int, str]:
    """Run a verb of the program to its end."""
    try:
        done = subprocess.run(
            [python, "-I", str(place.program), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise WitnessError(
            f"the witness's {arguments[0]} did not end within {timeout:g} s"
        ) from error
    if done.returncode not in (0, 4):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WitnessError(f"the witness's {arguments[0]} failed ({done.returncode}): {last}")
    return done.returncode, done.stdout.strip()


def install(
    place: Place, stem: str, config: dict[str, Any], source: str, owner: str | None
) -> None:
    """Lay the program, its configuration, and apart from it what is secret."""
    place.create(owner)
    place.write(place.program, source, owner)
    secret = {"databases", "requests", "journeys"}
    plain = {key: value for key, value in config.items() if key not in secret}
    hidden = {key: value for key, value in config.items() if key in secret}
    place.write(place.file("config", stem), json.dumps(plain, indent=1) + "\n", owner)
    place.write(place.file("secrets", stem), json.dumps(hidden) + "\n", owner)


def forget_secrets(place: Place, stem: str) -> None:
    """Leave no password behind once the program has ended."""
    place.file("secrets", stem).unlink(missing_ok=True)


def unit_name(run_id: str, stem: str) -> str:
    """The transient unit of a probe."""
    return f"ascent-witness-{run_id}-{stem}.service"


def launch(
    place: Place, stem: str, config: dict[str, Any], python: str, runner: str, user: str | None
) -> None:
    """Start the program detached from us: a process of its own session, or a transient unit."""
    program = [python, "-I", str(place.program), "run", str(place.file("config", stem))]
    if runner == "process":
        with place.file("output", stem).open("ab") as output:
            subprocess.Popen(
                program,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
            )
        return
    properties = {
        "RuntimeMaxSec": str(int(config["max_seconds"]) + 120),
        "TimeoutStopSec": "90",
        "UMask": "0077",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "ReadWritePaths": str(place.run),
        "CapabilityBoundingSet": "",
        "MemoryMax": "256M",
        "Nice": "5",
    }
    if user:
        properties["User"] = user
    done = subprocess.run(
        [
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={unit_name(config['run_id'], stem)}",
            "--description=Ascent's witness of a change",
            *(f"--property={key}={value}" for key, value in properties.items()),
            "--",
            *program,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WitnessError(f"systemd-run refused: {done.stderr.strip()}")


def why_ended(place: Place, stem: str, runner: str, run_id: str) -> str:
    """The last words of a program that did not come up."""
    if runner == "systemd":
        done = subprocess.run(
            ["journalctl", "--no-pager", "-q", "-n", "5", "-u", unit_name(run_id, stem)],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()
    with contextlib.suppress(OSError):
        return place.file("output", stem).read_text()[-1000:].strip()
    return ""


def start(
    place: Place, stem: str, config: dict[str, Any], python: str, runner: str, user: str | None
) -> int:
    """Launch the installed program and wait until it holds its lock and writes its journal."""
    journal = place.file("journal", stem)
    before = journal.stat().st_size if journal.exists() else 0
    launch(place, stem, config, python, runner, user)
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        pid = holder(place.file("lock", stem))
        if pid is not None and journal.exists() and journal.stat().st_size > before:
            return pid
        time.sleep(0.05)
    raise WitnessError(
        f"the witness did not start within {START_DEADLINE_S:g} s:"
        f" {why_ended(place, stem, runner, config['run_id']) or 'it said nothing'}"
    )


def stop(place: Place, stem: str) -> bool:
    """Stop a probe gracefully; True if it had to be killed. The caller knows that it runs."""
    lock = place.file("lock", stem)
    pid = holder(lock)
    if pid is None:
        return False
    patience = 30.0
    with contextlib.suppress(OSError, ValueError, KeyError):
        config = json.loads(place.file("config", stem).read_text())
        patience = float(config["timeout"]) + float(config.get("final_seconds") or 20) + 10
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    killed = False
    deadline = time.monotonic() + patience
    while holder(lock) is not None:
        if time.monotonic() >= deadline:
            if killed:
                raise WitnessError(f"the witness (process {pid}) does not end; see {place.run}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed = True
            deadline = time.monotonic() + KILL_GRACE_S
        time.sleep(0.05)
    return killed


def earlier(place: Place) -> list[Place]:
    """The other runs in the same directory, the oldest first."""
    parent = place.run.parent
    runs = parent.iterdir() if parent.exists() else []
    found = [path for path in runs if path != place.run and (path / "program.py").exists()]
    found.sort(key=lambda path: path.stat().st_mtime)
    return [Place(str(parent), path.name) for path in found]


def left_running(place: Place, probe: str) -> list[tuple[Place, str]]:
    """The probes of this kind that other runs left behind, as (run, stem)."""
    return [
        (other, stem)
        for other in earlier(place)
        for stem in other.stems()
        if stem.startswith(f"{probe}-") and holder(other.file("lock", stem)) is not None
    ]


def prune(place: Place, keep: int) -> list[str]:
    """Remove the oldest other runs beyond `keep`; a run with a live probe stays."""
    removed = []
    others = earlier(place)
    for other in others[: max(0, len(others) - keep)]:
        if any(holder(other.file("lock", stem)) is not None for stem in other.stems()):
            continue
        shutil.rmtree(other.run)
        removed.append(other.run.name)
    return removed


def mark(place: Place, name: str) -> None:
    """Append a phase's mark, on the disk before this returns."""
    place.create(None)
    line = {"e": "mark", "t": time.monotonic(), "w": round(time.time(), 6), "name": name}
    with place.marks.open("a") as out:
        out.write(json.dumps(line) + "\n")
        out.flush()
        os.fsync(out.fileno())


def differs(path: Path, data: bytes) -> bool:
    """Tell whether a file has other content; write it then, unless told not to."""
    return not path.exists() or path.read_bytes() != data


def pack(place: Place) -> tuple[bool, list[str]]:
    """Compress the journals for their way to the controller; (changed, files to fetch)."""
    changed = False
    files = [str(place.marks)] if place.marks.exists() else []
    files += [str(path) for path in sorted(place.run.glob("rows-*.jsonl"))]
    for journal in sorted(place.run.glob("journal-*.jsonl")):
        packed = journal.with_name(journal.name + ".gz")
        files.append(str(packed))
        written = journal.stat().st_mtime_ns
        if packed.exists() and packed.stat().st_mtime_ns == written:
            continue
        # In pieces: a host may have less memory than a journal's bound.
        temporary = packed.with_name(packed.name + ".new")
        with journal.open("rb") as lines, gzip.open(temporary, "wb", 6) as out:
            shutil.copyfileobj(lines, out)
        os.utime(temporary, ns=(written, written))
        temporary.replace(packed)
        changed = True
    return changed, files


def rows(
    place: Place, name: str, config: dict[str, Any], source: str, python: str
) -> tuple[bool, list[dict[str, Any]]]:
    """Have the program read back what each database holds; (changed, holdings)."""
    place.create(None)
    place.write(place.program, source, None)
    temporary = place.run / "config-read-back.json"
    out = place.file("rows", name)
    before = out.read_bytes() if out.exists() else b""
    place.write(temporary, json.dumps(config), None)
    try:
        call(python, place, "rows", str(temporary), str(out), timeout=600)
    finally:
        temporary.unlink()
    after = out.read_bytes()
    return after != before, [json.loads(line) for line in after.splitlines()]


def drop(place: Place, config: dict[str, Any], source: str, python: str, really: bool) -> list[str]:
    """Drop the witness's tables (or tell which would be dropped); the databases that had one."""
    place.create(None)
    place.write(place.program, source, None)
    temporary = place.run / "config-drop.json"
    place.write(temporary, json.dumps(config), None)
    try:
        verb = "drop" if really else "drop-check"
        _code, out = call(python, place, verb, str(temporary), timeout=120)
    finally:
        temporary.unlink()
    dropped: list[str] = json.loads(out)
    return dropped


def _lines(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", errors="replace") as lines:
        yield from lines


def evidence_files(root: Path) -> tuple[list[tuple[str, Iterator[str]]], list[dict[str, Any]]]:
    """All journals (with their names) and holdings under a directory, fetched or made there."""
    journals: list[tuple[str, Iterator[str]]] = []
    for path in sorted([*root.rglob("journal-*.jsonl"), *root.rglob("journal-*.jsonl.gz")]):
        if path.suffix == ".gz" and path.with_suffix("").exists():
            continue
        name = path.name.removeprefix("journal-").removesuffix(".gz").removesuffix(".jsonl")
        journals.append((name, _lines(path)))
    journals += [("marks", _lines(path)) for path in sorted(root.rglob("marks.jsonl"))]
    holdings = [
        json.loads(line)
        for path in sorted(root.rglob("rows-*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return journals, holdings
