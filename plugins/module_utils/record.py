# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of an environment's stage (pure)."""

from __future__ import annotations

from typing import Any


def next_record(
    before: dict[str, Any], stage: int, details: dict[str, Any], by: str, now: str
) -> dict[str, Any]:
    """Return the record after `stage` was reached at `now` (ISO 8601, UTC).

    It is `before` itself when that says the same already, so that a repeated run changes nothing.
    Raises ValueError when `before` names a higher stage.
    """
    recorded = int(before.get("stage", 0))
    if stage < 1:
        raise ValueError(f"stage {stage} does not exist; stages begin with 1")
    if recorded > stage:
        raise ValueError(
            f"the environment has reached stage {recorded}; stage {stage} would be a step down, "
            f"which the record does not take. Run the playbook of stage {recorded} or a higher one"
        )
    if recorded == stage and before.get("details") == details:
        return before
    history = list(before.get("history", []))
    if recorded != stage:
        history.append({"stage": stage, "recorded": now})
    return {"stage": stage, "recorded": now, "by": by, "details": details, "history": history}
