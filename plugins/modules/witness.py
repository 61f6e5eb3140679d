#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove what a change did to the live system."""

from __future__ import annotations

DOCUMENTATION = r"""
module: witness
short_description: Prove what a change did to the live system
version_added: 0.1.0
description:
  - Starts, marks, stops and audits an independent program that uses the live system while it
    changes, and records on disk what it was promised before that counts.
  - The probe V(http) sends requests as an outside user does. The probe V(sql) inserts numbered
    rows through the poolers and reads them back.
  - The audit joins the journals with what the databases hold. It finds lost, duplicated and stale
    writes, failed requests by cause, and the longest pauses, and writes C(report.json),
    C(summary.json) and C(timeline.svg).
  - A run has one directory, O(directory)/O(run_id), on each machine that takes part.
requirements:
  - Python 3.11 or newer where it runs
  - psycopg 3 for the probe V(sql) and for O(state=gathered) (Debian's C(python3-psycopg))
options:
  run_id:
    description: The name of the run; the same for all machines and all tasks of one change.
    type: str
    required: true
  state:
    description:
      - V(started) starts O(probe) unless it runs already.
      - V(marked) writes down that the phase O(mark) begins now.
      - V(stopped) stops O(probe), or all probes of the run on this machine, and waits for their
        last line.
      - V(gathered) reads back what O(databases) hold of the run and packs the journals of this
        machine, so that both can be fetched.
      - V(audited) joins all that lies under the run's directory into a report.
      - V(absent) stops the run's probes and drops the witness's table in O(databases).
    type: str
    choices: [started, marked, stopped, gathered, audited, absent]
    default: started
  directory:
    description: The directory under which runs lie.
    type: path
    required: true
  probe:
    description: Which probe to start or stop. Required to start.
    type: str
    choices: [http, sql]
  name:
    description: The name of this machine in file names and reports.
    type: str
    default: here
  runner:
    description:
      - V(process) detaches a process; V(systemd) makes a transient, sandboxed unit.
    type: str
    choices: [process, systemd]
    default: process
  user:
    description: The user that a V(systemd) runner runs as. It must exist.
    type: str
  python:
    description: The interpreter for the program. Default is the one that runs this module.
    type: path
  max_seconds:
    description: The program ends by itself after so long, so that it never outlives its purpose.
    type: int
    default: 7200
  while_run:
    description:
      - The run of Ansible that it watches for, as P(ascent.scaling.run#lookup) gives it, on the
        machine of the controller. When that is over without having stopped the program, as after a
        failure, the program ends within seconds.
    type: dict
  max_journal_bytes:
    description:
      - The bound of each journal. A probe whose journal is full ends, and its audit is unclean.
      - At the default rates an hour takes about 7 MB for V(http) and 16 MB for V(sql).
    type: int
    default: 268435456
  rate:
    description:
      - Requests a second (V(http), default 10, at most 50) or writes a second and database
        (V(sql), default 20, at most 100).
    type: float
  read_rate:
    description: Read-backs a second and database of the probe V(sql); at most 100.
    type: float
    default: 10
  timeout:
    description: Seconds from the moment a request is due until it counts as failed.
    type: float
    default: 10
  workers:
    description: Requests of the probe V(http) that may be under way at once.
    type: int
    default: 32
  if_silent:
    description:
      - What to do when the system does not answer as described at the moment of starting.
      - V(skip) starts nothing and says why, V(start) starts all the same, V(fail) fails.
    type: str
    choices: [skip, start, fail]
    default: fail
  alone:
    description:
      - Whether to stop first what other runs under O(directory) left behind of O(probe), such as
        one whose controller was killed. Their journals stay.
    type: bool
    default: false
  keep:
    description:
      - How many other runs under O(directory) to keep when starting; the oldest go. Runs with a
        live probe stay. A negative number keeps all.
    type: int
    default: -1
  url:
    description: The front door, as users write it. Its name is resolved at each new connection.
    type: str
  connect_to:
    description: An address (C(address) or C(address:port)) to connect to instead of resolving.
    type: str
  ca_file:
    description: Certificates to trust instead of the system's.
    type: path
  validate_certs:
    description: Whether a certificate that is not trusted fails the request.
    type: bool
    default: true
  requests:
    description: What to ask of the front door, in turn. Required for the probe V(http).
    type: list
    elements: dict
    default: []
    suboptions: &step
      name:
        description: A name for reports. Default is the method and the path.
        type: str
      method:
        description: The HTTP method.
        type: str
        default: GET
      path:
        description: The path, with its query.
        type: str
        required: true
      headers:
        description: Further headers.
        type: dict
        default: {}
      form:
        description: Fields to send as a form.
        type: dict
      json:
        description: A value to send as JSON.
        type: raw
      status:
        description: The statuses that are a good answer.
        type: list
        elements: int
        default: [200]
      contains:
        description: A text that a good answer contains.
        type: str
      capture:
        description:
          - Names and regular expressions. What the first group matches in the headers or the body
            of the answer stands for C({name}) in later steps. Only in journeys.
        type: dict
        default: {}
  journeys:
    description:
      - Numbered writes through the application that can be read back. C({n}) stands for the
        number, C({token}) for a word that is unique to this start, C({session}) for one that is
        unique to this session.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: A name for reports.
        type: str
        required: true
      rate:
        description: Writes a second.
        type: float
        default: 1
      before:
        description: Steps that open a session, such as a login. Cookies are kept.
        type: list
        elements: dict
        default: []
        suboptions: *step
      write:
        description: The step that writes. A good answer is an acknowledgement.
        type: dict
        required: true
        suboptions: *step
      read:
        description: The step that reads the write back; O(journeys[].read.contains) should hold
          C({token}) and C({n}).
        type: dict
        required: true
        suboptions: *step
  databases:
    description:
      - The databases to write to (V(started)), to read back (V(gathered), V(audited)) or to clean
        (V(absent)). Passwords stand in a file of mode 0600 while the program runs, never in an
        argument.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The function or alias.
        type: str
        required: true
      url:
        description: A connection URL.
        type: str
      read_url:
        description: A connection URL for reads, if it differs.
        type: str
      environment_file:
        description: A file on the machine that sets the URLs, such as the application's.
        type: path
      variable:
        description: The variable in O(databases[].environment_file) that holds the URL.
        type: str
        default: DATABASE_URL
      read_variable:
        description: The variable that holds the URL for reads.
        type: str
      table:
        description: The witness's own table.
        type: str
        default: public.ascent_witness
      place:
        description:
          - V(primary) is a place where a row belongs; a row in two of them is a duplicate. A
            V(copy) is a replica or what a move left behind, and proves nothing.
        type: str
        choices: [primary, copy]
        default: primary
  read_lag_ms:
    description: How far reads through the read URL may lag behind. Zero for the write URL always.
    type: int
    default: 0
  mark:
    description: The name of the phase that begins. Required for V(marked).
    type: str
  required_probes:
    description: Probes without which the audit is unclean.
    type: list
    elements: str
    choices: [http, sql]
    default: []
  limits:
    description:
      - What the change may cost. An absent key has the default; a negative value means no limit.
        Lost and duplicated writes have none to give.
    type: dict
    default: {}
    suboptions:
      failed_requests:
        description: Requests that were not answered as described.
        type: int
        default: 0
      failed_writes:
        description: Writes that the database or the pooler refused.
        type: int
        default: 0
      failed_reads:
        description: Reads that failed.
        type: int
        default: 0
      unknown_writes:
        description: Writes whose connection broke before an answer.
        type: int
        default: 0
      stale_reads:
        description: Reads that showed less than what was acknowledged.
        type: int
        default: 0
      longest_write_pause_ms:
        description: The longest time without an acknowledged write, beyond the schedule.
        type: float
        default: -1
      longest_read_pause_ms:
        description: The longest time without an answer, beyond the schedule.
        type: float
        default: -1
      p99_ms:
        description: The 99th percentile of the latency.
        type: float
        default: -1
  title:
    description: The headline of the picture. Default names the run.
    type: str
  fail_on_unclean:
    description: Whether an unclean audit fails the task.
    type: bool
    default: true
  purge:
    description: With V(absent), whether the run's directory is removed too, reports included.
    type: bool
    default: false
attributes:
  check_mode:
    description: Starts, stops, writes and drops nothing. An audit is computed, but not written.
    support: full
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Watch the front door from the controller
  ascent.scaling.witness:
    run_id: deploy-42
    directory: "{{ playbook_dir }}/../build/lab/witness"
    probe: http
    name: controller
    url: https://shop.test
    ca_file: "{{ playbook_dir }}/../build/lab/tls/ca.pem"
    requests:
      - path: /
        contains: Catalogue
      - path: /health/ready
  delegate_to: localhost

- name: Write through the pooler on a web host
  ascent.scaling.witness:
    run_id: deploy-42
    directory: /var/lib/ascent-witness
    probe: sql
    name: "{{ inventory_hostname }}"
    runner: systemd
    user: ascent-witness
    databases:
      - name: main
        environment_file: /etc/shop/environment
        variable: DATABASE_URL_MAIN

- name: Mark the phase
  ascent.scaling.witness:
    run_id: deploy-42
    directory: "{{ playbook_dir }}/../build/lab/witness"
    state: marked
    mark: switch
  delegate_to: localhost

- name: Stop
  ascent.scaling.witness:
    run_id: deploy-42
    directory: /var/lib/ascent-witness
    state: stopped

- name: Read the rows back and pack the journals
  ascent.scaling.witness:
    run_id: deploy-42
    directory: /var/lib/ascent-witness
    state: gathered
    name: "{{ inventory_hostname }}"
    databases:
      - name: main
        environment_file: /etc/shop/environment
        variable: DATABASE_URL_MAIN
  register: gathered

- name: Judge, with fetched files below the run's directory
  ascent.scaling.witness:
    run_id: deploy-42
    directory: "{{ playbook_dir }}/../build/lab/witness"
    state: audited
    required_probes: [http, sql]
    limits:
      longest_write_pause_ms: 1000
  delegate_to: localhost
"""

RETURN = r"""
pid:
  description: The process of the probe that was started or ran already.
  returned: O(state=started)
  type: int
replaced:
  description: The other runs whose probes were stopped.
  returned: O(state=started)
  type: list
  elements: str
journal:
  description: The probe's journal.
  returned: O(state=started)
  type: str
stopped:
  description: The probes that were stopped.
  returned: O(state=stopped) and O(state=absent)
  type: list
  elements: str
files:
  description: The files to fetch to the controller.
  returned: O(state=gathered)
  type: list
  elements: str
dropped:
  description: The databases whose table was dropped.
  returned: O(state=absent)
  type: list
  elements: str
verdict:
  description: V(clean) or V(unclean).
  returned: O(state=audited)
  type: str
reasons:
  description: Why the audit is unclean, each with numbers, causes and times. Empty if clean.
  returned: O(state=audited)
  type: list
  elements: str
summary:
  description:
    - The figures, among them C(requests), C(failed_requests), C(failed_by_cause),
      C(acknowledged_writes), C(unknown_writes), C(lost_writes), C(duplicated_writes),
      C(stale_reads), C(longest_write_pause_ms), C(longest_read_pause_ms), C(p50_ms), C(p99_ms),
      C(marks) and C(verdict).
  returned: O(state=audited)
  type: dict
phases:
  description: Figures for each marked phase.
  returned: O(state=audited)
  type: list
  elements: dict
report:
  description: The whole report; C(summary.json) and C(timeline.svg) lie beside it.
  returned: O(state=audited)
  type: str
"""

import json
import os
import re
import shutil
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ascent.scaling.plugins.module_utils._witness import (
    audit,
    control,
    picture,
    program,
)

STEP: dict[str, Any] = {
    "name": {"type": "str"},
    "method": {"type": "str", "default": "GET"},
    "path": {"type": "str", "required": True},
    "headers": {"type": "dict", "default": {}},
    "form": {"type": "dict"},
    "json": {"type": "raw"},
    "status": {"type": "list", "elements": "int", "default": [200]},
    "contains": {"type": "str"},
    "capture": {"type": "dict", "default": {}},
}
DATABASE: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "url": {"type": "str", "no_log": True},
    "read_url": {"type": "str", "no_log": True},
    "environment_file": {"type": "path"},
    "variable": {"type": "str", "default": "DATABASE_URL"},
    "read_variable": {"type": "str"},
    "table": {"type": "str", "default": program.DEFAULT_TABLE},
    "place": {"type": "str", "choices": ["primary", "copy"], "default": "primary"},
}
JOURNEY: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "rate": {"type": "float", "default": 1},
    "before": {"type": "list", "elements": "dict", "default": [], "options": STEP},
    "write": {"type": "dict", "required": True, "options": STEP},
    "read": {"type": "dict", "required": True, "options": STEP},
}
LIMITS: dict[str, Any] = {
    key: {"type": "float", "default": -1} if limit is None else {"type": "int", "default": limit}
    for key, limit in audit.DEFAULT_LIMITS.items()
}
STATES = ["started", "marked", "stopped", "gathered", "audited", "absent"]
SPEC: dict[str, Any] = {
    "run_id": {"type": "str", "required": True},
    "state": {"type": "str", "choices": STATES, "default": "started"},
    "directory": {"type": "path", "required": True},
    "probe": {"type": "str", "choices": ["http", "sql"]},
    "name": {"type": "str", "default": "here"},
    "runner": {"type": "str", "choices": ["process", "systemd"], "default": "process"},
    "user": {"type": "str"},
    "python": {"type": "path"},
    "max_seconds": {"type": "int", "default": 7200},
    "while_run": {"type": "dict"},
    "max_journal_bytes": {"type": "int", "default": 268435456},
    "rate": {"type": "float"},
    "read_rate": {"type": "float", "default": 10},
    "timeout": {"type": "float", "default": 10},
    "workers": {"type": "int", "default": 32},
    "if_silent": {"type": "str", "choices": ["skip", "start", "fail"], "default": "fail"},
    "alone": {"type": "bool", "default": False},
    "keep": {"type": "int", "default": -1},
    "url": {"type": "str"},
    "connect_to": {"type": "str"},
    "ca_file": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "requests": {"type": "list", "elements": "dict", "default": [], "options": STEP},
    "journeys": {"type": "list", "elements": "dict", "default": [], "options": JOURNEY},
    "databases": {"type": "list", "elements": "dict", "default": [], "options": DATABASE},
    "read_lag_ms": {"type": "int", "default": 0},
    "mark": {"type": "str"},
    "required_probes": {
        "type": "list",
        "elements": "str",
        "choices": ["http", "sql"],
        "default": [],
    },
    "limits": {"type": "dict", "default": {}, "options": LIMITS},
    "title": {"type": "str"},
    "fail_on_unclean": {"type": "bool", "default": True},
    "purge": {"type": "bool", "default": False},
}
WORD = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
CAPS = {"http": program.HTTP_RATE_CAP, "sql": program.SQL_RATE_CAP}
RATES = {"http": 10.0, "sql": 20.0}


def source() -> str:
    """The program's own text, also from inside the archive that Ansible ships."""
    text: str | bytes = program.__loader__.get_source(program.__name__)
    # Ansible's loader of collections gives bytes, Python's own text.
    return text.decode() if isinstance(text, bytes) else text


def validate(options: dict[str, Any]) -> None:
    """Refuse what would harm or would prove nothing."""
    for key in ("run_id", "name"):
        if not WORD.match(options[key]):
            raise control.WitnessError(f"{key} {options[key]!r}: letters, digits, '.', '_', '-'")
    if options["state"] != "started":
        return
    probe = options["probe"]
    rates = [options["rate"] or RATES[probe]]
    if probe == "sql":
        rates.append(max(options["read_rate"], 0.001))
    rates += [journey["rate"] for journey in options["journeys"]]
    if min(rates) <= 0 or max(rates) > CAPS[probe]:
        raise control.WitnessError(
            f"the rates of the {probe} probe must lie between 0 and {CAPS[probe]:g} a second"
        )
    if probe == "http" and not (options["url"] or "").startswith(("http://", "https://")):
        raise control.WitnessError("the http probe needs a url that begins with http(s)://")
    if probe == "http" and not options["requests"]:
        raise control.WitnessError("the http probe needs at least one of requests")
    if probe == "sql" and not options["databases"]:
        raise control.WitnessError("the sql probe needs at least one of databases")
    names = [item["name"] for key in ("databases", "journeys") for item in options[key]]
    if len(names) != len(set(names)) or not all(WORD.match(name) for name in names):
        raise control.WitnessError(f"databases and journeys need distinct plain names: {names}")


def config_of(options: dict[str, Any]) -> dict[str, Any]:
    """The program's configuration."""
    probe = options["probe"]
    config = {
        key: options[key]
        for key in ("run_id", "name", "probe", "timeout", "max_seconds", "max_journal_bytes")
    }
    config["directory"] = str(Path(options["directory"]) / options["run_id"])
    config["rate"] = options["rate"] or RATES.get(probe)
    if options["while_run"]:
        config["while_run"] = {key: options["while_run"][key] for key in ("pid", "started")}
    if probe == "http":
        config.update({key: options[key] for key in ("url", "connect_to", "ca_file", "workers")})
        config["verify"] = options["validate_certs"]
        config["journeys"] = options["journeys"]
        config["requests"] = deepcopy(options["requests"])
        for request in config["requests"]:
            request["name"] = request["name"] or f"{request['method']} {request['path']}"
    else:
        config.update({key: options[key] for key in ("read_rate", "read_lag_ms")})
        config["databases"] = control.resolve(options["databases"])
    return config


def started(options: dict[str, Any], place: control.Place, check_mode: bool) -> dict[str, Any]:
    """Start the probe unless it runs."""
    stem = f"{options['probe']}-{options['name']}"
    left = control.left_running(place, options["probe"]) if options["alone"] else []
    result: dict[str, Any] = {
        "changed": bool(left),
        "journal": str(place.file("journal", stem)),
        "replaced": sorted({other.run.name for other, _stem in left}),
    }
    if not check_mode:
        for other, its_stem in left:
            control.stop(other, its_stem)
            control.forget_secrets(other, its_stem)
    pid = control.holder(place.file("lock", stem))
    if pid is not None:
        return {**result, "pid": pid}
    if check_mode:
        return {**result, "changed": True}
    if options["keep"] >= 0:
        control.prune(place, options["keep"])
    try:
        config = config_of(options)
    except control.NotThereYet as error:
        if options["if_silent"] != "skip":
            raise
        return {**result, "skipped": True, "skip_reason": f"no witness: {error}"}
    python = options["python"] or sys.executable
    control.install(place, stem, config, source(), options["user"])
    if options["if_silent"] != "start":
        file = str(place.file("config", stem))
        many = len(options["requests"]) + 2 * len(options["databases"])
        code, reason = control.call(
            python, place, "check", file, timeout=options["timeout"] * many + 30
        )
        if code:
            control.forget_secrets(place, stem)
            if options["if_silent"] == "fail":
                raise control.WitnessError(f"the witness would see nothing but errors: {reason}")
            return {**result, "skipped": True, "skip_reason": f"no witness: {reason}"}
    try:
        pid = control.start(place, stem, config, python, options["runner"], options["user"])
    except control.WitnessError:
        control.forget_secrets(place, stem)
        raise
    return {**result, "changed": True, "pid": pid}


def stopped(options: dict[str, Any], place: control.Place, check_mode: bool) -> dict[str, Any]:
    """Stop the probe, or all of them."""
    stems = [
        stem
        for stem in place.stems()
        if options["probe"] is None or stem == f"{options['probe']}-{options['name']}"
    ]
    running = [stem for stem in stems if control.holder(place.file("lock", stem)) is not None]
    result: dict[str, Any] = {"changed": bool(running), "stopped": running}
    if not check_mode:
        killed = [stem for stem in running if control.stop(place, stem)]
        for stem in stems:
            control.forget_secrets(place, stem)
        if killed:
            result["warnings"] = [f"had to be killed, the journal has no end: {', '.join(killed)}"]
    return result


def read_back(options: dict[str, Any], place: control.Place) -> bool:
    """Read back what the databases hold."""
    if not options["databases"]:
        return False
    config = {
        "run_id": options["run_id"],
        "timeout": options["timeout"],
        "databases": control.resolve(options["databases"]),
    }
    python = options["python"] or sys.executable
    changed: bool = control.rows(place, options["name"], config, source(), python)[0]
    return changed


def gathered(options: dict[str, Any], place: control.Place, check_mode: bool) -> dict[str, Any]:
    """Read back, pack, and say what to fetch."""
    if check_mode:
        return {"changed": place.run.exists(), "files": []}
    changed = read_back(options, place)
    packed, files = control.pack(place)
    return {"changed": changed or packed, "files": files}


def audited(options: dict[str, Any], place: control.Place, check_mode: bool) -> dict[str, Any]:
    """Judge, and write the report."""
    if not check_mode:
        read_back(options, place)
    elif not place.run.exists():
        return {"changed": True, "msg": f"nothing to audit yet in {place.run}"}
    journals, holdings = control.evidence_files(place.run)
    evidence = audit.gather(journals)
    limits = {
        key: None if value is None or value < 0 else value
        for key, value in (options["limits"] or {}).items()
    }
    report = audit.audit(evidence, holdings, limits, options["required_probes"])
    title = options["title"] or f"Witness of {options['run_id']}"
    written = {
        "report.json": json.dumps(report, indent=1, sort_keys=True) + "\n",
        "summary.json": json.dumps(report["summary"], indent=1, sort_keys=True) + "\n",
        "timeline.svg": picture.draw(evidence, report, title),
    }
    changed = [
        name for name, text in written.items() if control.differs(place.run / name, text.encode())
    ]
    if not check_mode:
        place.create(None)
        for name in changed:
            (place.run / name).write_text(written[name], encoding="utf-8")
    keys = ("verdict", "reasons", "summary", "phases")
    return {
        "changed": bool(changed),
        **{key: report[key] for key in keys},
        "report": str(place.run / "report.json"),
    }


def absent(options: dict[str, Any], place: control.Place, check_mode: bool) -> dict[str, Any]:
    """Stop, drop the tables, and on request remove the run's directory."""
    result = stopped({**options, "probe": None}, place, check_mode)
    result["dropped"] = []
    was_there = place.run.exists()
    if options["databases"]:
        config = {
            "run_id": options["run_id"],
            "timeout": options["timeout"],
            "databases": control.resolve(options["databases"]),
        }
        python = options["python"] or sys.executable
        result["dropped"] = control.drop(place, config, source(), python, not check_mode)
    purged = was_there and options["purge"]
    if (purged and not check_mode) or (place.run.exists() and not was_there):
        shutil.rmtree(place.run)
    result["changed"] = bool(result["changed"] or result["dropped"] or purged)
    return result


def main() -> None:
    """Run the state's function; fail once."""
    module = AnsibleModule(
        argument_spec=SPEC,
        required_if=[("state", "started", ["probe"]), ("state", "marked", ["mark"])],
        supports_check_mode=True,
    )
    options: dict[str, Any] = module.params
    place = control.Place(options["directory"], options["run_id"])
    os.umask(0o077)
    try:
        validate(options)
        if options["state"] == "marked":
            result: dict[str, Any] = {"changed": True}
            if not module.check_mode:
                control.mark(place, options["mark"])
        else:
            functions = {
                "started": started,
                "stopped": stopped,
                "gathered": gathered,
                "audited": audited,
                "absent": absent,
            }
            result = functions[options["state"]](options, place, module.check_mode)
    except (control.WitnessError, OSError) as error:
        module.fail_json(msg=f"witness {options['run_id']}, {options['state']}: {error}")
    for warning in result.pop("warnings", []):
        module.warn(warning)
    if result.get("verdict") == "unclean" and options["fail_on_unclean"]:
        where = result["report"]
        reasons = "; ".join(result["reasons"])
        module.fail_json(msg=f"The audit is unclean: {reasons}. See {where}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
