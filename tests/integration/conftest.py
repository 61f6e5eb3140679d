"""One lab and one environment for all tests that look at a stage that stands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab import TestLab, running

DOMAIN = "shop.test"


@pytest.fixture(scope="session")
def stage_lab() -> Iterator[TestLab]:
    """An empty lab, of these tests alone."""
    with running("test", "198.18.9.0/24") as lab:
        yield lab
