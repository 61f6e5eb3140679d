"""Writes down which AWS operations a run calls; Python imports it by itself, from PYTHONPATH."""

from __future__ import annotations

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any


class _Recorder(MetaPathFinder, Loader):
    """Wraps botocore's client at its import, and leaves everything else alone."""

    _inside = False

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != "botocore.client" or self._inside:
            return None
        self._inside = True
        try:
            spec = find_spec(name)
        finally:
            self._inside = False
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            call = module.BaseClient._make_api_call

            def recorded(client: Any, operation: str, parameters: Any) -> Any:
                service = client.meta.service_model.signing_name
                with open(os.environ["ASCENT_RECORD_CALLS"], "a", encoding="ascii") as file:
                    file.write(f"{service}:{operation}\n")
                return call(client, operation, parameters)

            module.BaseClient._make_api_call = recorded

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if os.environ.get("ASCENT_RECORD_CALLS"):
    sys.meta_path.insert(0, _Recorder())
