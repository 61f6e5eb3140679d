"""What a lab needs of the machine outside of its namespace; all of it is undone by name."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lab import shell
from lab.errors import LabError
from lab.settings import Settings

HOSTS_FILE = Path("/etc/hosts")
_PROGRAMS = {
    "ip": "iproute2",
    "nft": "nftables",
    "conntrack": "conntrack",
    "podman": "podman",
    "nsenter": "util-linux",
    "sysctl": "procps",
}
_BUILD_PROGRAMS = {"mmdebstrap": "mmdebstrap"}
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Values that the lab raises, never lowers.
_SYSCTLS = {"net.ipv4.ip_forward": 1, "fs.inotify.max_user_instances": 1024}


def require_root() -> None:
    """Raise LabError unless we are root."""
    if os.geteuid() != 0:
        raise LabError(
            "The lab makes network namespaces and containers and so needs root: "
            "run it with sudo, or use `make lab-up`."
        )


def require_programs(building: bool = False) -> None:
    """Raise LabError that names the Debian packages of what is missing."""
    wanted = {**_PROGRAMS, **(_BUILD_PROGRAMS if building else {})}
    missing = {program: package for program, package in wanted.items() if not shutil.which(program)}
    if building and not _KEYRING.exists():
        missing[str(_KEYRING)] = "debian-archive-keyring"
    if not missing:
        return
    packages = " ".join(sorted(set(missing.values())))
    text = f"Missing: {', '.join(missing)}."
    if shutil.which("apt-get"):
        raise LabError(f"{text} Install with: apt-get install {packages}")
    raise LabError(
        f"{text} On Debian and Ubuntu the packages are: {packages}. On this distribution the lab "
        "is not set up by itself: install their like and run this again."
    )


class Machine:
    """The uplink's rules, kernel settings and the names in /etc/hosts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one `up` or `down` at a time change the machine."""
        self._settings.run.mkdir(parents=True, exist_ok=True)
        with (self._settings.run / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def up(self) -> None:
        """Let the lab's hosts out, and nothing else in."""
        self._raise_sysctls()
        settings = self._settings
        shell.run("nft", "-f", "-", input_text=egress_rules(settings))
        # Docker and others drop what they do not know; their chain must hear of us as well.
        if shutil.which("iptables"):
            for rule in self._forwarding():
                shell.succeeds("iptables", "-w", "-I", "FORWARD", *rule)

    def down(self) -> None:
        """Take back what `up` did; what is not there is no error."""
        settings = self._settings
        shell.succeeds("nft", "delete", "table", "ip", settings.table)
        if shutil.which("iptables"):
            for rule in self._forwarding():
                while shell.succeeds("iptables", "-w", "-D", "FORWARD", *rule):
                    pass
        write_names(settings.name, {})

    def restore_sysctls(self) -> None:
        """Give the kernel its settings back; for the last lab."""
        saved = self._settings.run / "sysctls.json"
        if saved.exists():
            for key, value in json.loads(saved.read_text()).items():
                _sysctl(key).write_text(value)
            saved.unlink()

    def _raise_sysctls(self) -> None:
        saved = self._settings.run / "sysctls.json"
        before = json.loads(saved.read_text()) if saved.exists() else {}
        for key, wanted in _SYSCTLS.items():
            current = _sysctl(key).read_text().strip()
            if int(current) < wanted:
                before.setdefault(key, current)
                saved.write_text(json.dumps(before))
                _sysctl(key).write_text(str(wanted))

    def _forwarding(self) -> tuple[tuple[str, ...], ...]:
        settings = self._settings
        comment = ("-m", "comment", "--comment", settings.namespace, "-j", "ACCEPT")
        established = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
        return (
            ("-i", settings.uplink, "-s", str(settings.subnet), *comment),
            ("-o", settings.uplink, "-d", str(settings.subnet), *established, *comment),
        )


def egress_rules(settings: Settings) -> str:
    """Return the machine's own table for a lab: out by masquerade, in only as an answer."""
    table, uplink = settings.table, settings.uplink
    return f"""\
table ip {table}
delete table ip {table}
table ip {table} {{
  chain forward {{
    type filter hook forward priority filter - 10; policy accept
    iifname "{uplink}" oifname "asc*" drop
    oifname "{uplink}" ct state established,related accept
    oifname "{uplink}" drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    ip saddr {settings.subnet} oifname != "{uplink}" masquerade
  }}
}}
"""


def write_names(lab: str, names: Mapping[str, str], file: Path = HOSTS_FILE) -> None:
    """Write a lab's block of names into /etc/hosts; no names, no block."""
    text = file.read_text() if file.exists() else ""
    wanted = with_block(text, lab, names)
    if wanted == text:
        return
    fresh = file.with_name(f".{file.name}.ascent-{lab}")
    try:
        fresh.write_text(wanted)
        shutil.copystat(file, fresh)
        fresh.replace(file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        file.write_text(wanted)  # a bind mount, as in containers, cannot be replaced


def with_block(text: str, lab: str, names: Mapping[str, str]) -> str:
    """Return a hosts file's text with the lab's block brought up to date."""
    begin, end = f"# BEGIN ascent lab {lab}\n", f"# END ascent lab {lab}\n"
    kept = re.sub(re.escape(begin) + r".*?" + re.escape(end), "", text, flags=re.DOTALL)
    if not names:
        return kept
    if kept and not kept.endswith("\n"):
        kept += "\n"
    lines = "".join(f"{address} {name}\n" for name, address in sorted(names.items()))
    return kept + begin + lines + end


def _sysctl(key: str) -> Path:
    path = Path("/proc/sys", *key.split("."))
    if not path.exists():
        raise LabError(f"This kernel does not know {key}.")
    return path
