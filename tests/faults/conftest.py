"""One lab for all faults of a stage that stands; the first test builds the stage, with kills."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab import TestLab, running


@pytest.fixture(scope="session")
def fault_lab() -> Iterator[TestLab]:
    """An empty lab, of the fault tests alone."""
    with running("faults", "198.18.8.0/24") as lab:
        yield lab


@pytest.fixture(autouse=True)
def _no_fault_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "fault_lab" in request.fixturenames:
        request.getfixturevalue("fault_lab").clear_faults()
