"""What all tests share."""

from __future__ import annotations

import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Take SIGTERM as Ctrl-C: labs and servers that tests have started go with their fixtures."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
