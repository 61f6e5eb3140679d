"""The command line: up, status, down, image, env, fault, kill-db."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from lab import image, lifecycle
from lab.errors import LabError
from lab.machine import require_programs, require_root
from lab.settings import ACCESS_KEY, DEFAULT_NAME, DEFAULT_SUBNET, SECRET_KEY, Settings

_COLUMNS = (
    ("id", "INSTANCE"),
    ("name", "NAME"),
    ("state", "STATE"),
    ("type", "TYPE"),
    ("zone", "ZONE"),
    ("private_address", "PRIVATE"),
    ("public_address", "PUBLIC"),
    ("image", "IMAGE"),
)

_DATABASE_COLUMNS = (
    ("id", "DATABASE"),
    ("state", "STATE"),
    ("type", "CLASS"),
    ("zone", "ZONE"),
    ("private_address", "PRIVATE"),
    ("endpoint", "ENDPOINT"),
    ("version", "VERSION"),
)
_BALANCER_COLUMNS = (
    ("id", "BALANCER"),
    ("state", "STATE"),
    ("scheme", "SCHEME"),
    ("endpoint", "NAME"),
)


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        subnet = options.subnet or lifecycle.subnet_of(options.name) or DEFAULT_SUBNET
        background = getattr(options, "background", False)
        settings = Settings.of(
            options.name,
            subnet,
            options.hosts_file,
            background,
            getattr(options, "rds_delay", 0.0),
            getattr(options, "rds_failover_delay", 0.0),
            getattr(options, "elb_log_interval", Settings.elb_log_interval),
        )
        _VERBS[options.verb](settings, options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _up(settings: Settings, options: argparse.Namespace) -> None:
    lifecycle.up(settings, _teller())


def _down(settings: Settings, options: argparse.Namespace) -> None:
    lifecycle.down(settings, _teller(), images=options.image)


def _status(settings: Settings, options: argparse.Namespace) -> None:
    found = lifecycle.status(settings)
    print(json.dumps(found, indent=2) if options.json else table(found))


def _image(settings: Settings, options: argparse.Namespace) -> None:
    require_root()
    require_programs(building=True)
    print(image.build(settings, options.release, _teller()))


def _env(settings: Settings, options: argparse.Namespace) -> None:
    print("unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ROLE_ARN AWS_WEB_IDENTITY_TOKEN_FILE")
    for key, value in environment(settings).items():
        print(f"export {key}={value}")


def _fault(settings: Settings, options: argparse.Namespace) -> None:
    if options.clear:
        answer = lifecycle.ask(settings, "DELETE", "/_ascent/faults")
    else:
        if not options.code:
            raise LabError("Which error? E.g.: python -m lab fault --code Throttling --count 3")
        fault = {
            "code": options.code,
            "service": options.service,
            "action": options.action,
            "count": options.count,
            "rate": options.rate,
        }
        answer = lifecycle.ask(settings, "POST", "/_ascent/faults", fault)
    if answer is None:
        raise LabError(f"No lab '{settings.name}' stands. Start it with: python -m lab up")
    print(json.dumps(answer["faults"], indent=2))


def _kill_db(settings: Settings, options: argparse.Namespace) -> None:
    lifecycle.kill_database(settings, options.database, options.role)


_VERBS = {
    "up": _up,
    "down": _down,
    "status": _status,
    "image": _image,
    "env": _env,
    "fault": _fault,
    "kill-db": _kill_db,
}


def environment(settings: Settings) -> dict[str, str]:
    """Return the variables with which every AWS client talks to the lab, and to nothing else."""
    return {
        "AWS_ENDPOINT_URL": settings.endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
    }


def table(status: dict[str, Any]) -> str:
    """Return a status as a person reads it."""
    lines = [f"lab '{status['name']}' serves at {status['endpoint']}", ""]
    lines += _aligned(_COLUMNS, status["hosts"]) or ["no hosts"]
    if status.get("databases"):
        lines += ["", *_aligned(_DATABASE_COLUMNS, status["databases"])]
    if status.get("balancers"):
        lines += ["", *_aligned(_BALANCER_COLUMNS, status["balancers"])]
    if status["names"]:
        lines.append("")
    lines += [f"{name} is {address}" for name, address in sorted(status["names"].items())]
    if status["faults"]:
        lines += ["", f"{len(status['faults'])} fault(s) armed: python -m lab fault --clear"]
    return "\n".join(lines)


def _aligned(columns: tuple[tuple[str, str], ...], found: list[dict[str, Any]]) -> list[str]:
    """Return lines of a table with its titles; none if nothing was found."""
    rows = [[str(entry[key] or "-") for key, _ in columns] for entry in found]
    if not rows:
        return []
    titles = [title for _, title in columns]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    return [
        "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip()
        for row in (titles, *rows)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lab", description="An AWS of your own on this machine, with real hosts."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default=os.environ.get("ASCENT_LAB_NAME", DEFAULT_NAME))
    common.add_argument(
        "--subnet", help=f"a /24 for uplink and public addresses ({DEFAULT_SUBNET})"
    )
    common.add_argument(
        "--no-hosts-file",
        dest="hosts_file",
        action="store_false",
        help="leave /etc/hosts alone: names resolve at the lab's DNS server only",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", parents=[common], help="start the lab, or do nothing if it stands")
    up.add_argument(
        "--background", action="store_true", help="its hosts give way to those of other labs"
    )
    up.add_argument(
        "--rds-delay",
        type=float,
        default=float(os.environ.get("ASCENT_LAB_RDS_DELAY", "0")),
        metavar="SECONDS",
        help="a database's changes of state take so much longer than their real work",
    )
    up.add_argument(
        "--rds-failover-delay",
        type=float,
        default=float(os.environ.get("ASCENT_LAB_RDS_FAILOVER_DELAY", "0")),
        metavar="SECONDS",
        help="a failover takes so much longer than its real work; AWS says 60 to 120 s in all",
    )
    up.add_argument(
        "--elb-log-interval",
        type=float,
        default=float(os.environ.get("ASCENT_LAB_ELB_LOG_INTERVAL", Settings.elb_log_interval)),
        metavar="SECONDS",
        help="between two files of a load balancer's access log; AWS writes one in 300",
    )
    down = verbs.add_parser("down", parents=[common], help="stop it; nothing stays behind")
    down.add_argument("--image", action="store_true", help="remove the host image as well")
    status = verbs.add_parser("status", parents=[common], help="show what stands")
    status.add_argument("--json", action="store_true")
    build = verbs.add_parser("image", parents=[common], help="build the host image")
    build.add_argument("--release", default="trixie", choices=image.releases())
    verbs.add_parser("env", parents=[common], help="print exports for a shell")
    fault = verbs.add_parser("fault", parents=[common], help="make the API answer with errors")
    fault.add_argument("--code", help="AWS error code, e.g. Throttling or InternalError")
    fault.add_argument("--service", default="*", help="name in the signature, e.g. ec2")
    fault.add_argument("--action", default="*", help="e.g. RunInstances")
    fault.add_argument("--count", type=int, help="so many calls; all if not given")
    fault.add_argument("--rate", type=float, default=1.0, help="share of calls, 0 to 1")
    fault.add_argument("--clear", action="store_true", help="remove all faults")
    kill = verbs.add_parser(
        "kill-db", parents=[common], help="let a server of a database lose its power"
    )
    kill.add_argument("--database", required=True, help="the DB instance's identifier")
    kill.add_argument("--role", choices=["primary", "standby"], default="primary")
    return parser


def _teller() -> Any:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[lab {time.monotonic() - began:5.1f} s] {text}", file=sys.stderr, flush=True)

    return say
