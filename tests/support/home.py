"""The folder of a user whose environment is tested: this checkout, or one of its own beside it.

Environments of several test runs stand at once where ASCENT_TEST_DOMAIN gives each its own domain.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.support.lab import ROOT

_OWN = "shop.test"
DOMAIN = os.environ.get("ASCENT_TEST_DOMAIN", _OWN)


def _home() -> Path:
    if DOMAIN == _OWN:
        return ROOT
    home = ROOT / "build" / "tests" / DOMAIN
    inventory = home / "inventories" / "lab"
    shutil.rmtree(inventory, ignore_errors=True)
    shutil.copytree(ROOT / "inventories" / "lab", inventory)
    settings = inventory / "group_vars" / "all.yml"
    text = settings.read_text()
    assert f"ascent_domain: {_OWN}\n" in text
    settings.write_text(text.replace(f"ascent_domain: {_OWN}\n", f"ascent_domain: {DOMAIN}\n"))
    if not (home / "app").is_symlink():
        (home / "app").symlink_to(ROOT / "app")
    return home


_HOME = _home()
INVENTORY = _HOME / "inventories" / "lab"
BUILD = _HOME / "build" / "lab"
