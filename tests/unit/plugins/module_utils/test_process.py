"""Which process this is, and whether another one runs."""

from __future__ import annotations

import os
import subprocess
import sys

from ansible_collections.ascent.scaling.plugins.module_utils import process


def test_this_process_runs() -> None:
    me = process.this_run()
    assert process.runs(me)


def test_a_worker_is_of_its_parents_run() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(process.controller()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read, 20)) == process.controller()


def test_an_ended_process_does_not_run_even_as_a_zombie() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    seen = {**process.this_run(), "pid": child.pid, "started": process.started(child.pid)}
    assert process.runs(seen)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.runs(seen), "a zombie has ended"
    child.wait()
    assert not process.runs(seen)


def test_a_later_process_with_the_same_number_is_another() -> None:
    me = process.this_run()
    assert not process.runs({**me, "started": "1"})
