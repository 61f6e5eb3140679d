"""Keeps the compiled form of the modules that Ansible runs here, from one to the next.

Ansible packs each module with its libraries into a zip archive, and Python unpacks and compiles
what it imports from one each time anew: nearly half of what a module costs. Here what is the same
by its name, size and checksum gives the code that it gave before. The lab's hosts have this file,
and the virtualenv of a checkout, where tools/setup puts it for what runs on the controller.

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

OWN = sys.prefix != sys.base_prefix  # a virtualenv's
_FOLDER = f"{sys.prefix}/.compiled" if OWN else "/var/cache/ascent-lab"
CACHE = f"{_FOLDER}/{sys.implementation.cache_tag}"

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
    """Write it down for the next time. Only who owns what runs may say what it runs."""
    if os.geteuid() != (os.stat(sys.prefix).st_uid if OWN else 0):  # noqa: PTH116
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
