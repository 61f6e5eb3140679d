#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move a live PostgreSQL database to another server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_move
short_description: Move a live PostgreSQL database to another server
version_added: 0.1.0
description:
  - Brings a database from one server to another while the application writes to it, and leads the
    application's poolers there. No acknowledged write is lost, no transaction fails, and the
    poolers pause for less than O(max_pause).
  - It looks at what is there and goes on from it, so that a run that was killed at any point is
    ended by the next one with the same options. All that is known of a move is in the schema
    C(ascent_move) of the two databases.
  - Runs on a host that reaches both servers, as a rule one with a pooler. What is critical goes on
    there when the controller is gone.
  - Until O(state=finished) the server that was left is kept up to date, closed to the application,
    so that O(state=returned) leads back without a loss.
  - Each pooler's host needs the guard that the role C(pooler) installs, with
    this move's description. The guards end what a dead mover leaves, within O(max_pause).
options:
  state:
    description:
      - V(copied) - the other server has all tables, and is kept up to date.
      - V(verified) - all rows of both were compared, and are the same.
      - V(switched) - the application works with the other server.
      - V(returned) - the application works with the first server again.
      - V(finished) - the way back is given up, and the schema may change again.
      - Each of them includes what must be before it.
    type: str
    required: true
    choices: [copied, verified, switched, returned, finished]
  origin:
    required: true
  other:
    description:
      - The server where the database is brought to.
      - Without it there is only a look at O(origin), in check mode, before the other one stands.
  roles:
    description:
      - The roles that own what the application has, and that its logins are members of. They are
        there on both servers, and lose and get CONNECT on the database.
    type: list
    elements: str
    required: true
  poolers:
    description: The poolers' hosts, as their guards name them. All of them switch together.
    type: list
    elements: str
    required: true
  pooler_addresses:
    description: The addresses that the poolers' sessions come from. Others stop the move.
    type: list
    elements: str
    default: [127.0.0.1, local]
  max_pause:
    description: Seconds after which each pooler goes on in any case.
    type: float
    default: 2.0
  verified_within:
    description: Seconds for which a comparison is good.
    type: int
    default: 3600
  compare:
    description:
      - How thoroughly both sides are compared before a switch. V(full) reads all rows.
      - V(sampled) is for databases that take too long for that. Of each table with a key and more
        than O(sample_rows) rows, the rows are counted, and about O(sample_rows) of them compared,
        picked at random, with the newest ones; smaller tables are compared as a whole.
    type: str
    default: full
    choices: [full, sampled]
  sample_rows:
    description: Rows of a table that are compared with O(compare=sampled).
    type: int
    default: 20000
  patience:
    description:
      - Seconds without any progress after which a copy is begun anew.
      - For so long another mover of the same database is waited for, too, such as one whose
        controller was killed.
    type: int
    default: 300
  allow_unlogged:
    description: Whether unlogged tables may arrive empty.
    type: bool
    default: false
  room_mb:
    description: Free room on the disk of O(other) in MiB, where it is known.
    type: int
  backup:
    description:
      - What the backup of O(other) is called, which was taken after the switch and verified.
      - O(state=finished) is refused without it.
    type: str
    default: ""
attributes:
  check_mode:
    description:
      - Tells what would be done, how long a copy would take and how much WAL would be kept for it,
        and what would stop it.
    support: full
  diff_mode:
    description: Shows where the data is and how the other side follows, before and after.
    support: full
requirements: [psycopg 3, postgresql-client of the origin's version or newer]
extends_documentation_fragment: [ascent.scaling.database_sides]
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Take the shop to its own database host
  ascent.scaling.database_move:
    state: switched
    origin: "{{ box }}"
    other: "{{ database }}"
    roles: [shop]
    poolers: [box]
"""

RETURN = r"""
at:
  description: The side where the data is.
  returned: success
  type: str
due:
  description:
    - What was to be done, of C(prepare), C(copy), C(verify), C(switch), C(settle), C(finish), in
      its order.
  returned: success
  type: list
  elements: str
steps:
  description: What was done, in words; in check mode what would be.
  returned: always
  type: list
  elements: str
findings:
  description: What the user should know, each with its remedy.
  returned: always
  type: list
  elements: str
seconds:
  description: How long each of C(due) took, in seconds.
  returned: when something was done
  type: dict
bytes:
  description: Size of the database at O(origin).
  returned: success
  type: int
pause_ms:
  description: How long the poolers were paused.
  returned: when the application was led elsewhere
  type: float
timeline:
  description: When each point of the switch was reached, in milliseconds from the pause.
  returned: when the application was led elsewhere
  type: dict
verification:
  description: The last comparison - whether it was clean, rows, tables, seconds, findings.
  returned: when there was one
  type: dict
"""

import dataclasses
import time
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ascent.scaling.plugins.module_utils._motion.options import side_options

try:
    import psycopg
    from ansible_collections.ascent.scaling.plugins.module_utils._motion import (
        facts,
        ledger,
        preflight,
    )
    from ansible_collections.ascent.scaling.plugins.module_utils._motion.cutover import Limits
    from ansible_collections.ascent.scaling.plugins.module_utils._motion.mover import (
        MoveError,
        Mover,
    )
    from ansible_collections.ascent.scaling.plugins.module_utils._motion.plan import (
        STATES,
        Impossible,
        Observed,
        copy_seconds,
        steps,
        words,
    )
    from ansible_collections.ascent.scaling.plugins.module_utils._motion.schema import SchemaError
    from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import site
    from ansible_collections.ascent.scaling.plugins.module_utils._motion.verify import VerifyError

    LACKING = ""
except ImportError:
    LACKING = traceback.format_exc()
    STATES = ("copied", "verified", "switched", "returned", "finished")


class Refused(Exception):
    """The move is not begun, or not gone on with, and nothing was changed."""


def run(params: dict[str, Any], dry: bool) -> dict[str, Any]:
    """Bring the move to the wanted state; returns the module's results."""
    if params["other"] is None:
        return look_ahead(params, dry)
    sample = params["sample_rows"] if params["compare"] == "sampled" else None
    mover = Mover(site(params["origin"]), site(params["other"]), sample=sample)
    origin, other = mover.connect()
    with origin, other:
        due, result = plan(params, mover, origin, other)
        if dry or not due:
            if not due:
                result["diff"]["after"] = result["diff"]["before"]
            return result
        with mover.alone(origin, params["patience"]) as waited:
            if waited:
                # Whoever was at work has done some of it.
                due, result = plan(params, mover, origin, other)
            try:
                apply(params, mover, origin, other, due, result)
            except psycopg.OperationalError as error:
                raise MoveError(
                    f"{mover.origin.name} or {mover.other.name} broke off the work: "
                    f"{str(error).strip()}. What was done before stays done"
                    f"{': ' if mover.done else ''}{'; '.join(mover.done)}. What serves "
                    "goes on serving. See whether both servers run, have room on their disks and "
                    "reach each other, and run again: it goes on from here."
                ) from error
        after = mover.observe(origin, other)
        result["changed"] = bool(due)
        result["at"] = getattr(mover, after.at).name
        result["steps"] = mover.done
        result["diff"]["after"] = describe(mover, after)
    return result


def plan(
    params: dict[str, Any], mover: Mover, origin: Any, other: Any
) -> tuple[list[Any], dict[str, Any]]:
    """What is to be done, and what there is to tell of it. Raises Refused."""
    before = mover.observe(origin, other)
    wanted = params["state"]
    due = steps(before, wanted, params["verified_within"])
    found = look(params, mover, origin, other, before) if set(due) - {"settle", "finish"} else []
    if "finish" in due and not params["backup"]:
        found.append(
            preflight.Finding(
                True,
                "The way back would be given up without a verified backup of what is there now",
                "Take one, restore it to try it, and name it (backup).",
            )
        )
    refuse(found)
    row = origin.execute("SELECT pg_database_size(current_database())").fetchone()
    size, tables, wal = row[0] if row else 0, 0, 0.0
    if "copy" in due and before.at == "origin":
        known = facts.read(origin)
        tables, wal = len(known["tables"]), facts.wal_rate(origin)
        refuse(preflight.wal_room(known, copy_seconds(size), wal))
    at = getattr(mover, before.at).name
    return due, {
        "changed": bool(due),
        "at": at,
        "due": due,
        "steps": [
            words(
                step, mover.origin.name, mover.other.name, at, size, tables, wal, params["compare"]
            )
            for step in due
        ],
        "findings": [str(finding) for finding in found],
        "bytes": size,
        "diff": {"before": describe(mover, before), "after": wish(mover, before, wanted)},
    }


def look_ahead(params: dict[str, Any], dry: bool) -> dict[str, Any]:
    """What would hurt, and how much would be copied: asked of the origin alone."""
    if not dry:
        raise Refused("Without `other` there is only a look (check mode). Nothing was changed.")
    here = site(params["origin"])
    try:
        connection = here.connect()
    except psycopg.OperationalError as error:
        raise MoveError(
            f"Cannot log in to the side {here.name} ({here.address}): {str(error).strip()}. "
            "Nothing was changed."
        ) from error
    with connection:
        known = facts.read(connection)
        found = preflight.of_the_source(known, asked_of(params))
        refuse(found)
        wal = facts.wal_rate(connection)
        refuse(preflight.wal_room(known, copy_seconds(known["bytes"]), wal))
    there = "the other server"
    due: list[Any] = ["prepare", "copy", "verify", "switch", "settle"]
    size, tables = known["bytes"], len(known["tables"])
    told = [
        words(step, here.name, there, here.name, size, tables, wal, params["compare"])
        for step in due
    ]
    return {
        "changed": True,
        "at": here.name,
        "due": due,
        "steps": told,
        "findings": [str(finding) for finding in found],
        "bytes": known["bytes"],
    }


def refuse(found: list[Any]) -> None:
    """Raise Refused if something was found that stops a move."""
    stopping = [str(finding) for finding in found if finding.stops]
    if stopping:
        raise Refused("Nothing was changed. " + " ".join(stopping))


def asked_of(params: dict[str, Any]) -> Any:
    """What the options say, as far as it decides what is found."""
    return preflight.Asked(
        roles=params["roles"],
        poolers=params["pooler_addresses"],
        allow_unlogged=params["allow_unlogged"],
        room_bytes=params["room_mb"] * 1_048_576 if params["room_mb"] is not None else None,
    )


def look(
    params: dict[str, Any], mover: Mover, origin: Any, other: Any, before: Observed
) -> list[preflight.Finding]:
    """What there is to say before anything is done."""
    asked = asked_of(params)
    here, there = (origin, other) if before.at == "origin" else (other, origin)
    if before.follows or before.at == "other":
        return preflight.under_way(facts.read(here), asked)
    target = facts.read(there)
    # Of an earlier move, perhaps.
    target["copied"] = target["copied"] and before.prepared
    asked = dataclasses.replace(asked, reads_as=str(mover.origin.replication["user"]))
    found = preflight.findings(facts.read(here), target, asked)
    for subscriber, publisher, who in (
        (there, mover.origin, mover.other.name),
        (here, mover.other, mover.origin.name),
    ):
        why = facts.reaches(subscriber, publisher)
        if why:
            found.append(
                preflight.Finding(
                    True,
                    f"{who} cannot log in at {publisher.name} as a subscriber: {why}",
                    "Let the one server reach the other (security group, pg_hba.conf), and look at "
                    "the replication role and its password.",
                )
            )
    return found


def apply(
    params: dict[str, Any],
    mover: Mover,
    origin: Any,
    other: Any,
    due: list[Any],
    result: dict[str, Any],
) -> None:
    """Do the steps; what they tell, and how long they took, goes into the result."""
    result["seconds"] = {}
    for step in due:
        began = time.monotonic()
        if step in ("switch", "finish"):
            result |= verification(mover, origin, other)
        if step == "prepare":
            mover.prepare(origin, other, params["roles"])
        elif step == "settle":
            mover.settle(origin, other)
        elif step == "copy":
            mover.copy(origin, other, params["patience"])
        elif step == "verify":
            found = mover.verify(origin, other)
            if not found.clean:
                raise Refused(
                    "The two sides differ, so nothing was switched: "
                    + "; ".join(found.findings()[:20])
                    + ". Find out who wrote to the wrong side; then drop the subscription there, "
                    "empty its tables and run again."
                )
            result |= verification(mover, origin, other)
        elif step == "switch":
            limits = Limits(hard=params["max_pause"])
            timeline = mover.switch(origin, other, params["poolers"], params["roles"], limits)
            result["timeline"], result["pause_ms"] = timeline.points, timeline.pause_ms
        elif step == "finish":
            mover.finish(origin, other)
        result["seconds"][step] = round(time.monotonic() - began, 2)


def verification(mover: Mover, origin: Any, other: Any) -> dict[str, Any]:
    """The last comparison, as it was noted where the data is; nothing if there was none."""
    here = origin if mover.standing(origin, other).here is mover.origin else other
    noted = ledger.noted(here, "verification")
    if not noted:
        return {}
    return {"verification": {key: value for key, value in noted.items() if key != "moving"}}


def describe(mover: Mover, observed: Observed) -> str:
    """A move as diff mode shows it."""
    there = mover.other if observed.at == "origin" else mover.origin
    follows = "is kept up to date" if observed.follows else "is not kept up to date"
    return (
        f"the data is at {getattr(mover, observed.at).name}\n"
        f"{there.name} {'is left' if observed.finished else follows}\n"
    )


def wish(mover: Mover, observed: Observed, wanted: str) -> str:
    """How it would be afterwards."""
    at = {"copied": observed.at, "verified": observed.at, "returned": "origin"}.get(wanted, "other")
    there = mover.origin if at == "other" else mover.other
    return (
        f"the data is at {getattr(mover, at).name}\n"
        f"{there.name} {'is left' if wanted == 'finished' else 'is kept up to date'}\n"
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": list(STATES)},
            "origin": {"type": "dict", "required": True, "options": side_options()},
            "other": {"type": "dict", "options": side_options()},
            "roles": {"type": "list", "elements": "str", "required": True},
            "poolers": {"type": "list", "elements": "str", "required": True},
            "pooler_addresses": {
                "type": "list",
                "elements": "str",
                "default": ["127.0.0.1", "local"],
            },
            "max_pause": {"type": "float", "default": 2.0},
            "verified_within": {"type": "int", "default": 3600},
            "compare": {"type": "str", "default": "full", "choices": ["full", "sampled"]},
            "sample_rows": {"type": "int", "default": 20_000},
            "patience": {"type": "int", "default": 300},
            "allow_unlogged": {"type": "bool", "default": False},
            "room_mb": {"type": "int"},
            "backup": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if LACKING:
        module.fail_json(msg=missing_required_lib("psycopg"), exception=LACKING)
    try:
        result = run(module.params, module.check_mode)
    except (Refused, Impossible, MoveError, SchemaError, VerifyError, psycopg.Error) as error:
        module.fail_json(msg=str(error).strip())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
