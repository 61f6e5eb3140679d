"""Keeps the compiled form of what Ansible sends to this host, from one module to the next.

Ansible sends each module with its libraries in a zip archive, and Python unpacks and compiles what
it imports from one each time anew: nearly half of what a module costs. Here what is the same by
its name, size and checksum gives the code that it gave before. Virtual environments do not load
this file.

It is loaded whenever Python starts, so it imports nothing that takes time.
"""

from __future__ import annotations

import marshal
import os
import sys
import zipimport

TYPE_CHECKING = False  # typing takes time
if TYPE_CHECKING:
    from types import CodeType

CACHE = f"/var/cache/ascent-lab/{sys.implementation.cache_tag}"

_plain = zipimport._get_module_code  # type: ignore[attr-defined]


def module_code(importer: zipimport.zipimporter, name: str) -> tuple[CodeType, bool, str]:
    """Return a module's code, whether it is a package, and its path."""
    if not importer.archive.endswith("_payload.zip"):
        return _plain(importer, name)  # type: ignore[no-any-return]
    path = zipimport._get_module_path(importer, name)  # type: ignore[attr-defined]
    # Newer versions of Python read the archive when it is first asked for.
    read = getattr(importer, "_get_files", None)
    files = read() if read else importer._files  # type: ignore[attr-defined]
    for suffix, package in (("/__init__.py", True), (".py", False)):
        entry = files.get(path + suffix)
        if entry is None:
            continue
        where, size, checksum = entry[0], entry[3], entry[7]
        kept = f"{CACHE}/{name}-{size}-{checksum:08x}"
        try:
            with open(kept, "rb") as stream:  # noqa: PTH123 (pathlib takes time)
                return marshal.load(stream), package, where  # noqa: S302
        except (OSError, EOFError, ValueError, TypeError):
            found = _plain(importer, name)
            _keep(kept, found[0])
            return found  # type: ignore[no-any-return]
    return _plain(importer, name)  # type: ignore[no-any-return]


def _keep(path: str, code: CodeType) -> None:
    """Write it down for the next time. Nobody but root may say what root runs."""
    if os.geteuid() != 0:
        return
    draft = f"{path}.{os.getpid()}"
    try:
        os.makedirs(CACHE, mode=0o755, exist_ok=True)  # noqa: PTH103
        with open(draft, "wb") as stream:  # noqa: PTH123
            marshal.dump(code, stream)
        os.replace(draft, path)  # noqa: PTH105
    except OSError:
        pass


zipimport._get_module_code = module_code  # type: ignore[attr-defined]
