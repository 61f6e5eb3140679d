"""Leaves a line for each migration, or fails when it is told to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if os.environ.get("MIGRATION") == "fails":
    sys.exit("the migration of the test fails")
with (Path(os.environ["UPLOAD_DIR"]) / "migrations").open("a") as log:
    log.write(os.environ["RELEASE"] + "\n")
