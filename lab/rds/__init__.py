"""RDS for PostgreSQL (`lab.databases` holds what is behind its instances)."""

from __future__ import annotations

from lab.rds.backend import LabRDSBackend, endpoints, install, instances
from lab.rds.instance import DBInstance, Done, Physics, Source
from lab.rds.rules import class_of

__all__ = [
    "DBInstance",
    "Done",
    "LabRDSBackend",
    "Physics",
    "Source",
    "class_of",
    "endpoints",
    "install",
    "instances",
]
