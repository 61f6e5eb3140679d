"""`make demo`: climb the stages in the lab under the witness, and show the figures.

The playbooks that run here are the ones that run on AWS; only the inventory differs. Everything
that is shown comes from the witness's audits, which this program adds up and does not make.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "demo"
INVENTORY = "inventories/lab"
ENVIRONMENT = "lab"
BIN = Path(sys.executable).parent
COUNTS = (
    "requests",
    "failed_requests",
    "acknowledged_writes",
    "lost_writes",
    "duplicated_writes",
    "stale_reads",
)
PAUSES = ("longest_write_pause_ms", "longest_read_pause_ms")
MUST_BE_ZERO = ("failed_requests", "lost_writes", "duplicated_writes", "stale_reads")
HEADLINE = re.compile(r"^(PLAY|TASK|RUNNING HANDLER) \[(.*)\]")


class DemoFailed(Exception):
    """A step did not end well; the message says which, and where its log is."""


@dataclass
class Step:
    """One thing that the demo does: a title, and the command that does it."""

    title: str
    command: Sequence[str]
    stage: int = 0  # the stage that it belongs to
    seconds: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)
    report: Path | None = None
    moves: list[dict[str, Any]] = field(default_factory=list)


def as_root(command: Sequence[str]) -> list[str]:
    """The command as root runs it."""
    return [*command] if os.geteuid() == 0 else ["sudo", *command]


def playbook(name: str, *arguments: str) -> list[str]:
    """The command line of one playbook against the lab."""
    return [str(BIN / "ansible-playbook"), "-i", INVENTORY, f"playbooks/{name}", *arguments]


def second_release() -> Path:
    """A copy of the application with another line on its front page: release two."""
    target = BUILD / "release-two"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "app", target, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "shop" / "banner.txt").write_text(
        "Second release, deployed while you were shopping.\n"
    )
    return target


def run(step: Step, number: int, total: int) -> None:
    """Run one step: its log goes to a file, and the terminal shows how far it is."""
    log = BUILD / f"{number}.log"
    prefix = f"[{number}/{total}] {step.title}"
    print(f"{prefix} …", flush=True)
    start = time.monotonic()
    live = sys.stdout.isatty()
    with log.open("w") as file:
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PATH": f"{BIN}:{os.environ['PATH']}"},
        )
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            match = HEADLINE.match(line)
            if match and live:
                print(f"\r\033[K    {match[2][:100]}", end="", flush=True)
            elif match and match[1] == "PLAY":
                print(f"    {match[2]}", flush=True)
        process.wait()
    step.seconds = time.monotonic() - start
    if live:
        print("\r\033[K", end="")
    if process.returncode != 0:
        sys.stdout.write("".join(log.read_text(errors="replace").splitlines(keepends=True)[-40:]))
        raise DemoFailed(
            f"{step.title}: exit status {process.returncode}. The whole log: {log}\n"
            f"Run `make demo` again to go on from here, or `make lab-down` to start afresh."
        )
    print(f"    done in {step.seconds:.0f} s", flush=True)


def witnessed(since: float) -> tuple[dict[str, Any], Path] | None:
    """The newest audit written since then: its summary and its folder."""
    found = [
        path
        for path in (ROOT / "build" / ENVIRONMENT / "witness").glob("*/summary.json")
        if path.stat().st_mtime >= since
    ]
    if not found:
        return None
    newest = max(found, key=lambda path: path.stat().st_mtime)
    summary: dict[str, Any] = json.loads(newest.read_text())
    return summary, newest.parent


def moved(since: float) -> list[dict[str, Any]]:
    """The reports of databases that were moved since then."""
    found = (ROOT / "build" / ENVIRONMENT / "moves").glob("*.json")
    reports = [json.loads(path.read_text()) for path in found if path.stat().st_mtime >= since]
    return [report for report in reports if report["from"] != report["at"]]


def stage_that_stands() -> int:
    """The stage that an earlier demo has reached; 0 for none."""
    client = boto3.client(
        "ssm",
        region_name="us-east-1",
        endpoint_url=os.environ.get("ASCENT_LAB_ENDPOINT") or "http://198.18.0.2:4566",
        aws_access_key_id="ascentlab",
        aws_secret_access_key="ascentlab",  # noqa: S106 the lab takes any
    )
    try:
        answer = client.get_parameter(Name=f"/ascent/{ENVIRONMENT}/stage")
    except client.exceptions.ParameterNotFound:
        return 0
    return int(json.loads(answer["Parameter"]["Value"])["stage"])


def add_up(steps: Sequence[Step]) -> dict[str, Any]:
    """One row from several audits: counts are added, pauses are the longest of all."""
    row: dict[str, Any] = {name: sum(s.summary.get(name, 0) for s in steps) for name in COUNTS}
    row |= {name: max((s.summary.get(name, 0) for s in steps), default=0) for name in PAUSES}
    return row


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: the first column to the left, figures to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def closing_screen(steps: Sequence[Step], stages: Sequence[dict[str, Any]], address: str) -> str:
    """What the user reads at the end."""
    heads = ("", "requests", "failed", "writes", "lost", "doubled", "longest pause")
    rows: list[Sequence[str]] = [heads]
    for step in steps:
        rows.append(
            (
                step.title,
                *(str(step.summary.get(name, 0)) for name in COUNTS[:5]),
                f"{step.summary.get('longest_write_pause_ms', 0):.0f} ms",
            )
        )
    bad = [f"{name} = {stage[name]}" for stage in stages for name in MUST_BE_ZERO if stage[name]]
    verdict = "Nothing lost, nothing doubled, no request failed." if not bad else ", ".join(bad)
    moves = "".join(
        f"The database {move['database']} went from {move['from']} to {move['at']}: "
        f"{move['bytes'] / 1e6:.0f} MB copied in {move['seconds'].get('copy', 0):.1f} s, "
        f"{move['verification']['rows']} rows compared; poolers paused for "
        f"{move['pause_ms']:.0f} ms.\n"
        for step in steps
        for move in step.moves
    )
    reports = "\n".join(f"  {s.report}/timeline.svg" for s in steps if s.report)
    last = steps[-1].command[-1]
    return f"""
{"-" * 78}
{verdict}

{table(rows)}

{moves}
The shop is open:   https://{address}/   (self-signed certificate: the browser asks once)
What stands:        make lab-status    .venv/bin/ansible-playbook playbooks/operations/status.yml
The audits:
{reports}
The figures:        {(BUILD / "summary.json").relative_to(ROOT)}
Go on:              .venv/bin/ansible-playbook {last} --check --diff
                    (what the next run would change; a run that changes nothing says so)
                    .venv/bin/ansible-playbook playbooks/operations/move_back.yml
                    (the database back to where it was, with all that was written since)
Clean up:           make lab-down          make clean removes everything that was made here
{"-" * 78}
"""


def climb() -> list[Step]:
    """All steps of the ladder, in their order."""
    return [
        Step("Stage 1: one box with everything", playbook("stage_1_single_host.yml"), stage=1),
        Step(
            "Deploy a second release under traffic",
            playbook("operations/deploy.yml", "-e", f"ascent_source={second_release()}"),
            stage=1,
        ),
        Step("Roll back to the first release", playbook("operations/rollback.yml"), stage=1),
        Step(
            "Stage 2: the database on a host of its own",
            playbook("stage_2_split_tiers.yml"),
            stage=2,
        ),
        Step(
            "Finish that move: no way back any more",
            playbook("operations/finish_move.yml"),
            stage=2,
        ),
        Step(
            "Stage 3: the database on RDS",
            playbook("stage_3_managed_database.yml"),
            stage=3,
        ),
    ]


def main() -> int:
    """Run the steps; 0 if all ended well and nothing was lost, doubled or failed."""
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "summary.json").unlink(missing_ok=True)
    lab = Step("Start the lab", as_root([sys.executable, "-m", "lab", "up"]))
    steps = climb()
    try:
        run(lab, 1, 1 + len(steps))
        stands = stage_that_stands()
        if stands > 1:
            print(f"    stage {stands} stands from before: the demo goes on from there", flush=True)
        steps = [step for step in steps if step.stage >= stands]
        for number, step in enumerate(steps, start=2):
            since = time.time()
            run(step, number, 1 + len(steps))
            audit = witnessed(since)
            if audit is None:
                raise DemoFailed(f"{step.title}: it ended well, but no audit of it was found.")
            step.summary, step.report = audit
            step.moves = moved(since)
    except DemoFailed as failure:
        print(f"\nThe demo stopped. {failure}", file=sys.stderr)
        return 1
    stages = [
        {
            "stage": number,
            "seconds": round(sum(step.seconds for step in steps if step.stage == number), 1),
            **add_up([step for step in steps if step.stage == number]),
            "moves": [move for step in steps if step.stage == number for move in step.moves],
        }
        for number in sorted({step.stage for step in steps})
    ]
    (BUILD / "summary.json").write_text(json.dumps(stages, indent=2) + "\n")
    domain = domain_of_the_environment()
    print(closing_screen(steps, stages, domain))
    return 1 if any(stage[name] for stage in stages for name in MUST_BE_ZERO) else 0


def domain_of_the_environment() -> str:
    """The application's name, as the inventory states it."""
    done = subprocess.run(
        [str(BIN / "ansible-inventory"), "-i", INVENTORY, "--list", "--export"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    variables: dict[str, Any] = json.loads(done.stdout)["all"]["vars"]
    return str(variables["ascent_domain"])


if __name__ == "__main__":
    sys.exit(main())
