"""What all unit tests stand on.

The collection is found by Ansible's own loader before a test imports a part of it by its name:
otherwise Python finds it first as a plain package, in which Ansible then finds no plugins.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader
from moto.core.botocore_stubber import BotocoreStubber

from tests.templates.rendering import find_collections

find_collections()


@pytest.fixture(scope="session", autouse=True)
def one_request_at_a_time() -> Iterator[None]:
    """Let moto answer one request after the other, as AWS' own state changes one after the other.

    Our modules ask from several threads, and moto has no lock: now and then one of its
    answers met a dictionary that another thread was just filling. The lab's server has such a
    lock, too.
    """
    lock = threading.Lock()
    answer = BotocoreStubber.__call__

    def locked(self: BotocoreStubber, *arguments: Any, **more: Any) -> Any:
        with lock:
            return answer(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BotocoreStubber, "__call__", locked)
        yield


@pytest.fixture(scope="session", autouse=True)
def models_of_services_are_read_once() -> Iterator[None]:
    """Keep what botocore reads of AWS' services: moto gives each test a session that reads anew.

    A client takes a fifth of a second of that, and half of all unit tests make clients.
    """
    read = JSONFileLoader.load_file
    kept = functools.cache(lambda path: read(JSONFileLoader(), path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: kept(path))
        yield
