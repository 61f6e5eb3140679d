"""An environment of a lab with an inventory of its own, which tests write to between runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support import aws_state
from tests.support.host import Host
from tests.support.lab import ROOT, TestLab
from tests.support.moved import public_address
from tests.support.playbook import Run, play


@dataclass(frozen=True)
class Environment:
    """An environment: `base` is what its inventory says in any case."""

    lab: TestLab
    inventory: Path
    base: str

    @classmethod
    def of(cls, lab: TestLab, domain: str) -> Environment:
        """The lab's environment with a domain of its own, and nothing said of sizes."""
        folder = ROOT / "build" / "tests" / lab.name
        inventory = folder / "inventories" / "lab"
        shutil.rmtree(inventory, ignore_errors=True)
        shutil.copytree(ROOT / "inventories" / "lab", inventory)
        base = (inventory / "group_vars" / "all.yml").read_text()
        for old, new in (
            ("ascent_domain: shop.test", f"ascent_domain: {domain}"),
            ('"{{ inventory_dir }}/../../app"', str(ROOT / "app")),
            ("ascent_sizes:\n  box: t3.small\n", ""),
        ):
            assert old in base
            base = base.replace(old, new)
        environment = cls(lab, inventory, base)
        environment.describe()
        return environment

    def describe(self, **settings: Any) -> None:
        """Write into the inventory what shall be true from then on."""
        path = self.inventory / "group_vars" / "all.yml"
        said = yaml.safe_dump(settings) if settings else ""
        path.write_text(f"{self.base}\n{said}")

    def play(self, playbook: str, *arguments: str, **options: Any) -> Run:
        return play(self.lab, playbook, *arguments, inventory=self.inventory, **options)

    def succeed(self, playbook: str, *arguments: str, **options: Any) -> Run:
        run = self.play(playbook, *arguments, **options)
        assert run.returncode == 0, run.tail()
        return run

    def refused(self, playbook: str, *arguments: str) -> str:
        """What a run says that must be refused, with nothing changed in AWS or on a host."""
        before = aws_state.snapshot(self.lab)
        run = self.play(playbook, *arguments)
        assert run.returncode != 0, run.tail()
        assert run.changed_tasks == []
        assert aws_state.snapshot(self.lab) == before
        return " ".join(run.output.split())

    @property
    def build(self) -> Path:
        return self.inventory.parents[1] / "build" / "lab"

    def host(self, name: str) -> Host:
        return Host(public_address(self.lab, name), self.build / "ssh" / "id_ed25519")

    def hosts(self) -> set[str]:
        """The names of the instances that stand."""
        found = aws_state.snapshot(self.lab)["instances"]
        return {
            tag["Value"] for item in found for tag in item["Tags"] if tag["Key"] == "ascent:name"
        }

    @property
    def recorded(self) -> bool:
        """Whether a stage was reached."""
        return "/ascent/lab/stage" in aws_state.snapshot(self.lab)["parameters"]

    def ask(self, name: str, statement: str) -> str:
        """The answer of a host's own PostgreSQL, asked by its superuser."""
        return (
            self.host(name)
            .run("runuser -u postgres -- psql -XAtq -d shop", data=statement, check=False)
            .strip()
        )

    def report(self, before: set[Path]) -> dict[str, Any]:
        """The one report of a switch that was written since `before` (`reports`)."""
        written = [json.loads(path.read_text()) for path in sorted(self.reports() - before)]
        (found,) = [report for report in written if report["pause_ms"]]
        return dict(found)

    def reports(self) -> set[Path]:
        return set((self.build / "moves").glob("*.json"))
