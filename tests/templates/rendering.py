"""Renders a role's templates in this process, as Ansible does on a host, without a host."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).parents[2] / "roles"
FACTS: dict[str, Any] = {
    "distribution": "Debian",
    "distribution_major_version": "13",
    "memtotal_mb": 2048,
    "processor_vcpus": 2,
    "virtualization_tech_guest": [],
}


def trusted(value: Any) -> Any:
    """Mark strings as templates, as the loader does with the files of a role."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return value


@cache
def find_collections() -> None:
    """Let Ansible find the collection's filters; it takes this once a process."""
    init_plugin_loader([str(ROLES.parent / ".collections")])


class Role:
    """A role with its own defaults and variables; filters of the collection are found."""

    def __init__(self, name: str, **required: Any) -> None:
        find_collections()
        self.directory = ROLES / name
        self.variables: dict[str, Any] = {}
        for part in ("defaults", "vars"):
            path = self.directory / part / "main.yml"
            if path.exists():
                self.variables |= yaml.safe_load(path.read_text()) or {}
        self.variables |= required

    def templar(self, facts: dict[str, Any] | None = None, **given: Any) -> Templar:
        """Ansible's templating with the role's variables and those given."""
        loader = DataLoader()
        loader.set_basedir(str(self.directory))
        own = {
            "ansible_managed": "Ansible managed",
            "ansible_facts": FACTS | (facts or {}),
            "ansible_search_path": [str(self.directory)],
        }
        return Templar(loader=loader, variables=trusted(self.variables | given | own))

    def evaluate(self, expression: str, facts: dict[str, Any] | None = None, **given: Any) -> Any:
        """The value of an expression."""
        return self.templar(facts, **given).template(trust_as_template("{{ " + expression + " }}"))

    def render(self, template: str, facts: dict[str, Any] | None = None, **given: Any) -> list[str]:
        """The lines of a rendered template, without comments and empty ones."""
        text = (self.directory / "templates" / template).read_text()
        # As the template module does: a block's own line leaves nothing behind.
        made = self.templar(facts, **given).template(
            trust_as_template("#jinja2: trim_blocks:True\n" + text)
        )
        return [
            line for line in str(made).splitlines() if line.strip() and line[0] not in ("#", ";")
        ]
