# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retries with jitter and a deadline (pure: clock, sleep and chance are passed in).

The waits follow "full jitter" of the AWS Architecture Blog, "Exponential Backoff And Jitter":
each wait is drawn evenly between 0 and min(cap, base * 2**attempt).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class DeadlineExceeded(Exception):
    """The call still failed when its time was over; ``__cause__`` is the last error."""

    def __init__(self, attempts: int, seconds: float) -> None:
        super().__init__(f"gave up after {attempts} attempts in {seconds:.0f} s")
        self.attempts = attempts
        self.seconds = seconds


@dataclass(frozen=True)
class Retry:
    """How long and how often a failing call is repeated. All times are in seconds."""

    deadline: float = 60.0
    base: float = 0.3
    cap: float = 10.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def run(self, call: Callable[[], T], retryable: Callable[[Exception], bool]) -> T:
        """Return what `call` returns; repeat it while it raises what is `retryable`.

        Raises the call's own error when that is not retryable, DeadlineExceeded when the
        next wait would end after the deadline.
        """
        start = self.clock()
        attempt = 0
        while True:
            try:
                return call()
            except Exception as error:
                if not retryable(error):
                    raise
                wait = min(self.cap, self.base * 2**attempt) * self.chance()
                attempt += 1
                spent = self.clock() - start
                if spent + wait > self.deadline:
                    raise DeadlineExceeded(attempt, spent) from error
                self.sleep(wait)
