# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ascent.scaling.release: names the release, uploads it if need be."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ascent.scaling.plugins.module_utils._release import (
    fetch,
    source,
    tree,
)

_MODULE = "ascent.scaling.release"


class ActionModule(ActionBase):
    """Runs the module once; a second time, with the source, if the host lacks the release."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        for internal in ("digest", "archive"):
            if internal in arguments:
                raise AnsibleActionFail(f"{internal} is set by the action itself")
        # The host learns nothing of where the code comes from: a URL may hold a password.
        stated = arguments.pop("source", None)
        try:
            if arguments.get("state", "live") in ("rollback", "renew"):
                result = self._module(arguments, task_vars)
            else:
                result = self._deploy(stated, arguments, task_vars)
        except source.SourceError as error:
            raise AnsibleActionFail(f"Nothing was deployed: {error}") from error
        except (tree.TreeError, OSError) as error:
            raise AnsibleActionFail(f"The source is not fit for a release: {error}") from error
        result.pop("needs_archive", None)
        return result

    def _deploy(
        self, stated: Any, arguments: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        wanted = source.parse(stated)
        # This folder is gone when the run ends; until then other hosts get the same.
        fetcher = fetch.Fetcher(wanted, Path(constants.DEFAULT_LOCAL_TMP))
        exclude = list(arguments.get("exclude") or [])
        recipe = [str(command) for command in arguments.get("build") or []]
        identity = fetcher.identity()

        def digest() -> str:
            if identity:
                return source.digest(wanted, identity, exclude, recipe)
            return tree.digest(fetcher.tree(), exclude, recipe)

        found = digest()
        arguments["digest"] = found
        arguments["release"] = arguments.get("release") or tree.release_name(
            found, source.label(wanted, identity)
        )
        result = self._module(arguments, task_vars)
        if self._task.check_mode or not result.get("needs_archive"):
            return result
        return self._upload(fetcher.tree(), exclude, arguments, task_vars, digest)

    def _upload(
        self,
        root: Path,
        exclude: list[str],
        arguments: dict[str, Any],
        task_vars: dict[str, Any] | None,
        digest: Callable[[], str],
    ) -> dict[str, Any]:
        folder = self._make_tmp_path()
        try:
            with tempfile.NamedTemporaryFile(prefix="ascent-", suffix=".tar.gz") as packed:
                tree.pack(root, packed, exclude)  # type: ignore[arg-type]
                packed.flush()
                if digest() != arguments["digest"]:
                    raise tree.TreeError(f"{root} changed while it was packed, run again")
                arguments["archive"] = self._transfer_file(
                    packed.name, self._connection._shell.join_path(folder, "source.tar.gz")
                )
            return self._module(arguments, task_vars)
        finally:
            self._remove_tmp_path(folder)

    def _module(
        self, arguments: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        return self._execute_module(module_name=_MODULE, module_args=arguments, task_vars=task_vars)
