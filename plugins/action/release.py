# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ascent.scaling.release: names the release, uploads it if need be."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ascent.scaling.plugins.module_utils._release import tree

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
        try:
            if arguments.get("state", "live") == "rollback":
                result = self._module(arguments, task_vars)
            else:
                result = self._deploy(arguments, task_vars)
        except (tree.TreeError, OSError) as error:
            raise AnsibleActionFail(f"The source is not fit for a release: {error}") from error
        result.pop("needs_archive", None)
        return result

    def _deploy(
        self, arguments: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        if not arguments.get("source"):
            raise AnsibleActionFail("source is missing: the folder of the application")
        source = Path(arguments["source"]).expanduser()
        if not source.is_dir():
            raise AnsibleActionFail(f"The source {source} is not a folder on the controller")
        exclude = list(arguments.get("exclude") or [])
        recipe = [str(command) for command in arguments.get("build") or []]
        digest = tree.digest(source, exclude, recipe)
        arguments["digest"] = digest
        arguments["release"] = arguments.get("release") or tree.release_name(digest)
        result = self._module(arguments, task_vars)
        if self._task.check_mode or not result.get("needs_archive"):
            return result
        folder = self._make_tmp_path()
        try:
            with tempfile.NamedTemporaryFile(prefix="ascent-", suffix=".tar.gz") as packed:
                tree.pack(source, packed, exclude)  # type: ignore[arg-type]
                packed.flush()
                if tree.digest(source, exclude, recipe) != digest:
                    raise tree.TreeError(f"{source} changed while it was packed, run again")
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
