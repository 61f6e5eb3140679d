"""The collection is found by Ansible's own loader before a test imports a part of it by its name.

Otherwise Python finds it first as a plain package, in which Ansible then finds no plugins.
"""

from __future__ import annotations

from tests.templates.rendering import find_collections

find_collections()
