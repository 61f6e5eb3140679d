"""What is done about a primary and its standby, from what is seen of them."""

from __future__ import annotations

import pytest

from lab.pairs import GIVE_UP, PATIENCE, SILENCE, Sight, Step, decide


@pytest.mark.parametrize(
    ("sight", "step"),
    [
        (Sight(), Step.WATCH),
        # --- the primary
        (Sight(ended=True), Step.FAIL_OVER),
        (Sight(ended=True, ready=False), Step.FAIL_OVER),
        (Sight(silent=SILENCE - 1), Step.WATCH),
        (Sight(silent=SILENCE), Step.FAIL_OVER),
        (Sight(silent=SILENCE, ready=False), Step.WATCH),
        (Sight(asked=True), Step.FAIL_OVER),
        # --- nobody takes over who may not have all
        (Sight(ended=True, synchronous=False), Step.START),
        (Sight(ended=True, standby=False), Step.START),
        (Sight(ended=True, standby_ended=True), Step.START),
        (Sight(silent=SILENCE, synchronous=False), Step.WATCH),
        (Sight(asked=True, synchronous=False), Step.REBOOT),
        (Sight(asked=True, standby_ended=True), Step.REBOOT),
        # --- the standby
        (Sight(standby=False, guarded=False, synchronous=False), Step.BUILD),
        (Sight(standby=False, ready=False), Step.WATCH),
        (Sight(standby=False, silent=1), Step.WATCH),
        (Sight(guarded=False, synchronous=False), Step.SECURE),
        (Sight(synchronous=False), Step.SECURE),
        (Sight(guarded=False, synchronous=False, away=1), Step.WATCH),
        (Sight(away=PATIENCE - 1), Step.WATCH),
        (Sight(away=PATIENCE), Step.GO_ALONE),
        (Sight(away=PATIENCE, guarded=False, synchronous=False), Step.WATCH),
        (Sight(away=GIVE_UP, guarded=False, synchronous=False), Step.REPLACE),
        (Sight(standby_ended=True), Step.REPLACE),
    ],
)
def test_what_is_done_next(sight: Sight, step: Step) -> None:
    assert decide(sight) is step
