"""One attempt to switch, in a process of its own, which can be made to die at any point.

    python -m tests.support.cutover '{"source": {...}, "target": {...}, "plan": {...}}'

With "die", "stop" or "tell" and the name of a point it is killed there, stopped, or prints the
point and waits for a line. Prints the timeline as JSON; a switch that was given up prints
`given up: ` and why, and exits with 3.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from tests.templates.rendering import find_collections

find_collections()

from ansible_collections.ascent.scaling.plugins.module_utils._motion.cutover import (  # noqa: E402
    Cutover,
    CutoverError,
    Limits,
    Plan,
)
from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import (  # noqa: E402
    Site,
)


def main() -> int:
    asked = json.loads(sys.argv[1])

    def at(point: str) -> None:
        if point == asked.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if point == asked.get("stop"):
            print("stopped", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        if point == asked.get("tell"):
            print(point, flush=True)
            sys.stdin.readline()

    plan = Plan(**asked["plan"], limits=Limits(hard=asked["hard"]))
    cutover = Cutover(plan, Site(**asked["source"]), Site(**asked["target"]), at=at)
    try:
        timeline = cutover.run()
    except CutoverError as error:
        print(f"given up: {error}")
        return 3
    print(json.dumps({**vars(timeline), "pause_ms": timeline.pause_ms}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
