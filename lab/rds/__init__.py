"""RDS for PostgreSQL (`lab.databases` holds what is behind its instances)."""

from __future__ import annotations

from lab.rds.backend import FAILOVER, LabRDSBackend, endpoints, find, install, instances
from lab.rds.instance import DBInstance, Done, Physics, Server, Source
from lab.rds.rules import class_of

__all__ = [
    "FAILOVER",
    "DBInstance",
    "Done",
    "LabRDSBackend",
    "Physics",
    "Server",
    "Source",
    "class_of",
    "endpoints",
    "find",
    "install",
    "instances",
]
