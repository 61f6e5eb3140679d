"""One lab, one environment for all faults of a stage that stands, in the order below.

The environment is a user's: an inventory of its own, with secrets of its own that have every odd
character, so that what leaks can be found.
"""

from __future__ import annotations

import json
import os
import secrets as chance
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.customers import Customers
from tests.support.host import Host
from tests.support.lab import ROOT, TestLab, running
from tests.support.moved import public_address
from tests.support.playbook import WITHOUT_ROLES, Run, play
from tests.support.secrets import Searched, watched

STAGE = "stage_1_single_host.yml"
DOMAIN = "boutique.test"  # of its own: each lab writes its names into this machine's hosts file
ODD = "/@:%&#?+=$"

# The first file builds the stage from nothing with the controller killed in every phase; all the
# others take what stands from there. The last one climbs on to stage 2.
ORDER = (
    "test_killed_controllers",
    "test_secrets",
    "test_ports",
    "test_tiers",
    "test_restarts",
    "test_controllers",
    "test_moves",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the files of this folder into their order."""
    places = {name: number for number, name in enumerate(ORDER)}
    items.sort(key=lambda item: places.get(item.path.stem, len(ORDER)))


@dataclass(frozen=True)
class Environment:
    """An environment of the lab: its inventory, and what it was given."""

    lab: TestLab
    inventory: Path
    secrets: dict[str, str] = field(repr=False)
    source: Path

    @property
    def build(self) -> Path:
        return self.inventory.parents[1] / "build" / "lab"

    def play(self, playbook: str = STAGE, *arguments: str, **options: Any) -> Run:
        """Run a playbook in it."""
        return play(self.lab, playbook, *arguments, inventory=self.inventory, **options)

    def succeed(self, playbook: str = STAGE, *arguments: str, **options: Any) -> Run:
        """Run a playbook that must succeed."""
        run = self.play(playbook, *arguments, **options)
        assert run.returncode == 0, run.tail()
        return run


@pytest.fixture(scope="session")
def fault_lab() -> Iterator[TestLab]:
    """An empty lab, of the fault tests alone."""
    name, _, subnet = os.environ.get("ASCENT_FAULTS_LAB", "faults 198.18.8.0/24").partition(" ")
    with running(name, subnet) as lab:
        yield lab


@pytest.fixture(scope="session")
def environment(fault_lab: TestLab) -> Environment:
    folder = ROOT / "build" / "tests" / fault_lab.name
    inventory = folder / "inventories" / "lab"
    shutil.rmtree(inventory, ignore_errors=True)
    shutil.copytree(ROOT / "inventories" / "lab", inventory)
    source = folder / "app"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "app", source, ignore=shutil.ignore_patterns("__pycache__"))
    with (source / "shop" / "wsgi.py").open("a") as file:
        file.write(LEAK)
    kept = folder / "secrets.json"
    if not kept.exists():
        kept.touch(mode=0o600)
        names = ("application_secret_key", "cache", "database_main")
        kept.write_text(json.dumps({n: f"plant{chance.token_hex(8)}{ODD}{n[:3]}X" for n in names}))
    secrets = json.loads(kept.read_text())
    settings = inventory / "group_vars" / "all.yml"
    text = settings.read_text().replace('"{{ inventory_dir }}/../../app"', str(source))
    assert str(source) in text
    settings.touch(mode=0o600)
    text = text.replace("  profile: python_wsgi\n", "  profile: python_wsgi\n  memory_max: 320M\n")
    text = text.replace("ascent_domain: shop.test\n", f"ascent_domain: {DOMAIN}\n")
    assert "memory_max" in text
    assert DOMAIN in text
    settings.write_text(f"{text}\nascent_secrets: {json.dumps(secrets)}\n")
    return Environment(fault_lab, inventory, secrets, source)


# What an application with a leak does: it keeps 24 MB of each such request for ever.
LEAK = """

_kept = []


@app.get("/leak")
def leak():
    _kept.append(b"x" * 24_000_000)
    return "", 204
"""

# Where the controller dies, in the order of a run: the line at which it is printed.
KILLS = {
    "preflight, the lock just taken": r"TASK \[Read the recorded stage",
    "provision, network half made": r"TASK \[ascent\.scaling\.backup_bucket : ",
    "provision, an instance without its address": r"TASK \[ascent\.scaling\.dns : ",
    "configure, PostgreSQL not set up": r"TASK \[ascent\.scaling\.database : functions",
    "configure, a release being built": r"TASK \[ascent\.scaling\.web : release \| Deploy",
    "move": r"TASK \[Join where the poolers lead",
    "check, the witness running": r"PLAY \[Check from within\]",
    "audit": r"TASK \[ascent\.scaling\.witness : Audit \| Judge\]",
    "record": r"TASK \[Write the stage down\]",
}

# Those of each change; `make faults` has all of them.
QUICK_KILLS = (
    "provision, an instance without its address",
    "configure, a release being built",
)

# What the kill before has configured is not gone through again on the way to these.
CONFIGURED = dict.fromkeys(
    ("check, the witness running", "audit"),
    WITHOUT_ROLES,
)


@pytest.fixture(scope="session")
def killed(request: pytest.FixtureRequest, environment: Environment) -> dict[str, Run]:
    """The runs that were killed where a test of this session asks for it, in their order."""
    asked = {
        item.callspec.params.get("where") for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }  # fmt: skip
    return {
        where: environment.play(STAGE, *CONFIGURED.get(where, ()), kill_at=line)
        for where, line in KILLS.items()
        if where in asked
    }


@pytest.fixture(scope="session")
def searched(environment: Environment) -> Searched:
    """The run after the kills, or from nothing, with all processes watched."""
    with watched(environment) as found:
        found.run = environment.succeed(STAGE, "-vvv", "--diff")
    return found


@pytest.fixture(scope="session")
def mended(searched: Searched) -> Run:
    """The run that ends what killed ones began; from nothing where only some tests are run."""
    return searched.run


@pytest.fixture(scope="session")
def box(request: pytest.FixtureRequest, fault_lab: TestLab) -> str:
    """The address of the one host; what stood already, with KEEP=1, is taken as it is."""
    ec2 = fault_lab.client("ec2")
    if not os.environ.get("KEEP") or not ec2.describe_addresses()["Addresses"]:
        request.getfixturevalue("mended")
    return public_address(fault_lab, "box")


@pytest.fixture(scope="session")
def host(box: str, environment: Environment) -> Host:
    return Host(box, environment.build / "ssh" / "id_ed25519")


@pytest.fixture
def shoppers(box: str) -> Callable[[], Customers]:
    return lambda: Customers(box, DOMAIN)


@pytest.fixture(scope="session")
def stored(host: Host) -> Callable[[], set[int]]:
    """The orders that the database holds, asked of itself."""

    def ask() -> set[int]:
        answer = host.run("sudo -u postgres psql -qAtc 'SELECT id FROM orders' shop")
        return set(map(int, answer.split()))

    return ask


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Prints a fault's figures and keeps them in build/tests/fault-figures.txt."""
    path = ROOT / "build" / "tests" / "fault-figures.txt"

    def note(text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"{request.node.name}: {text}\n")
        print(f"\n{request.node.name}: {text}")

    return note


@pytest.fixture(autouse=True)
def _no_fault_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if (
        "fault_lab" in request.fixturenames
        and request.getfixturevalue("fault_lab").status()["faults"]
    ):
        request.getfixturevalue("fault_lab").clear_faults()
