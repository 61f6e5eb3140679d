"""The one error type that the command line shows to a person."""

from __future__ import annotations


class LabError(Exception):
    """What was tried, on what, and what to do next; printed without a traceback."""
