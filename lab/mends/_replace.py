"""How a mend changes moto: by name, and never a name that is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Mend = Callable[[], None]


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace an attribute by what `make` makes of it. Raises AttributeError if there is none."""
    setattr(owner, name, make(getattr(owner, name)))
