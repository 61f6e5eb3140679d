"""PostgreSQL as RDS runs it: its configuration, its roles, and how it greets. Pure.

The roles are those of RDS for PostgreSQL 17: the master user is no superuser, but a member of
`rds_superuser`, which has the predefined roles that RDS gives it. The superuser is `rdsadmin`, who
can log in from the server's own machine alone. Source: Amazon RDS User Guide, "Understanding the
rds_superuser role", and `pg_dumpall --roles-only` of such an instance.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.parameters import FORCE_SSL, LOGICAL, is_on

ADMIN = "rdsadmin"
# As whom the standby of a Multi-AZ instance follows; a role of RDS's own.
REPLICATOR = "rdsrepladmin"
HOME = "/rdsdbdata"
# 57P03 is cannot_connect_now: the server starts, recovers or ends.
_NOT_YET = "57P03"

_GROUPS = ("rds_superuser", "rds_replication", "rds_password", "rds_iam", "rds_ad")
# Granted to rds_superuser, with the right to grant them on.
_GRANTED = (
    "pg_checkpoint",
    "pg_create_subscription",
    "pg_maintain",
    "pg_monitor",
    "pg_read_all_data",
    "pg_signal_backend",
    "pg_use_reserved_connections",
    "pg_write_all_data",
    "rds_password",
    "rds_replication",
)
# What only a superuser may set in PostgreSQL, and rds_superuser may on RDS.
_SETTABLE = (
    "deadlock_timeout",
    "log_min_duration_statement",
    "log_statement",
    "session_replication_role",
    "temp_file_limit",
    "track_functions",
)
# Functions of superusers that rds_superuser may call. Rights on them are a database's own, so that
# they are given in the templates.
_CALLABLE = """
DO $$
DECLARE found regprocedure;
BEGIN
  FOR found IN
    SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
      AND (proname LIKE 'pg\\_replication\\_origin\\_%'
           OR proname LIKE 'pg\\_stat\\_reset%'
           OR proname = 'pg_show_replication_origin_status')
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO rds_superuser WITH GRANT OPTION', found);
  END LOOP;
END $$;
"""


@dataclass(frozen=True)
class Place:
    """A server's place in a Multi-AZ instance; the other server is its peer.

    name: under which it follows; peer: address, empty while there is none; follows: it is the
    standby; guard: name of the standby that commits wait for, empty if they wait for none; word:
    with which the standby logs in.
    """

    name: str
    peer: str = ""
    follows: bool = False
    guard: str = ""
    word: str = field(default="", repr=False)


def configuration(
    values: Mapping[str, str],
    port: int,
    archives: bool,
    place: Place | None = None,
    copied: bool = False,
) -> dict[str, str]:
    """Return the server's configuration files by name.

    values: parameters in force; archives: write-ahead log is kept for a restore to a point in time;
    place: in a Multi-AZ instance; copied: the server was made as a standby.
    """
    logical = is_on(values.get(LOGICAL))
    # Both servers of a Multi-AZ instance write into its archive: what both have, is the same.
    part = f"{HOME}/wal/%f.{place.name if place else 'one'}.part"
    archive = f"gzip -1 < %p > {part} && mv {part} {HOME}/wal/%f.gz" if archives else "/bin/true"
    own = {
        "listen_addresses": "*",
        "port": str(port),
        "hba_file": f"{HOME}/config/pg_hba.conf",
        "ident_file": f"{HOME}/config/pg_ident.conf",
        # The second one is the lab's way in.
        "unix_socket_directories": f"/run/postgresql, {HOME}/out",
        "ssl": "on",
        "ssl_cert_file": f"{HOME}/config/server.crt",
        "ssl_key_file": f"{HOME}/config/server.key",
        "wal_level": "logical" if logical else "replica",
        # A standby archives as well, so that what its primary had no time for is not missing.
        "archive_mode": "always" if copied else "on",
        "archive_command": archive,
        # /dev/shm of a container is too small for parallel queries.
        "dynamic_shared_memory_type": "sysv",
        **(_replication(place, port) if place else {}),
    }
    lines = [f"{name} = {quoted(value)}\n" for name, value in {**values, **own}.items()]
    return {
        "postgresql.conf": "".join(lines),
        "pg_hba.conf": access(is_on(values.get(FORCE_SSL)), place.peer if place else ""),
        "pg_ident.conf": f"lab postgres {ADMIN}\nlab root {ADMIN}\n",
    }


def _replication(place: Place, port: int) -> dict[str, str]:
    """Return what makes a server the primary of a standby, or the standby.

    A standby answers nobody: it may be started with other parameters than its primary, as it is
    when a reboot changes them.
    """
    found = {
        # For a standby that was away for a while; one that misses more is made anew.
        "wal_keep_size": "512MB",
        "synchronous_standby_names": f'FIRST 1 ("{place.guard}")' if place.guard else "",
    }
    if place.follows:
        found |= {
            "hot_standby": "off",
            "primary_conninfo": (
                f"host={place.peer} port={port} user={REPLICATOR} password={place.word}"
                f" application_name={place.name} sslmode=require connect_timeout=3"
            ),
            "wal_receiver_status_interval": "1s",
            "wal_receiver_timeout": "5s",
            "wal_retrieve_retry_interval": "500ms",
        }
    return found


def access(force_ssl: bool, peer: str = "") -> str:
    """Return pg_hba.conf: the superuser locally, everybody else by password over the network.

    peer: address of a Multi-AZ instance's other server, the only one that may copy the cluster.
    """
    follower = f"hostssl replication {REPLICATOR} {peer}/32 scram-sha-256\n" if peer else ""
    return (
        f"local all {ADMIN} peer map=lab\n"
        f"local replication {ADMIN} peer map=lab\n"
        f"host all {ADMIN} all reject\n"
        f"host {ADMIN} all all reject\n"
        f"{follower}"
        f"host all {REPLICATOR} all reject\n"
        "host replication all all reject\n"
        f"{'hostssl' if force_ssl else 'host'} all all all scram-sha-256\n"
    )


def recovery(until: str | None) -> str:
    """Return what a server that restores its data from an archive must know, up to a time or all.

    No standby answers meanwhile: one whose class is smaller than its source's could not.
    """
    lines = [
        f"restore_command = 'gunzip -c {HOME}/restore/%f.gz > %p'",
        "recovery_target_action = 'promote'",
        "hot_standby = off",
    ]
    if until:
        lines.append(f"recovery_target_time = {quoted(until)}")
    return "".join(f"{line}\n" for line in lines)


def roles(master: str, password: str, database: str | None) -> str:
    """Return what psql makes of a fresh server an RDS instance with, as the superuser."""
    granted = ", ".join(_GRANTED)
    user = identifier(master)
    lines = [
        _silence(),
        *(f"CREATE ROLE {name} NOLOGIN;" for name in _GROUPS),
        "CREATE ROLE rds_reserved NOLOGIN NOINHERIT;",
        "CREATE ROLE rds_extension NOLOGIN NOINHERIT;",
        f"GRANT {granted} TO rds_superuser WITH ADMIN OPTION;",
        f"GRANT SET ON PARAMETER {', '.join(_SETTABLE)} TO rds_superuser WITH GRANT OPTION;",
        f"CREATE ROLE {user} LOGIN CREATEDB CREATEROLE PASSWORD {literal(password)}"
        " VALID UNTIL 'infinity';",
        # RDS lets the master user make others as strong as itself.
        f"GRANT rds_superuser TO {user} WITH ADMIN OPTION;",
        *(f"ALTER ROLE {ADMIN} SET {name} TO {value};" for name, value in _OWN_SETTINGS.items()),
        f"CREATE DATABASE {ADMIN} OWNER {ADMIN};",
        f"REVOKE ALL ON DATABASE {ADMIN} FROM PUBLIC;",
        _CALLABLE,
        "ALTER DATABASE template0 ALLOW_CONNECTIONS true;",
        *(f"\\connect {name}\n{_silence()}{_CALLABLE}" for name in ("template0", "template1")),
        f"\\connect {ADMIN}\n{_silence()}",
        "CREATE TABLE public.rds_heartbeat2 (id int PRIMARY KEY, value timestamptz NOT NULL);",
        "ALTER DATABASE template0 ALLOW_CONNECTIONS false;",
        *(f"ALTER DATABASE {name} OWNER TO {user};" for name in ("postgres", "template1")),
    ]
    if database and database != "postgres":
        lines.append(f"CREATE DATABASE {identifier(database)} OWNER {user};")
    return "\n".join(lines) + "\n"


def password(master: str, word: str) -> str:
    """Return what gives the master user a password; a standby has it as well, once it is said."""
    waits = "SET synchronous_commit = 'on';\n"
    return f"{_silence()}{waits}ALTER ROLE {identifier(master)} PASSWORD {literal(word)};\n"


def replicator(word: str) -> str:
    """Return what gives the role that standbys follow as a password; it is made if it is missing.

    It is a member of rds_replication, as whose members have the right to replicate.
    """
    return (
        "DO $$ BEGIN"
        f" IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{REPLICATOR}') THEN"
        f" CREATE ROLE {REPLICATOR} LOGIN REPLICATION IN ROLE rds_replication;"
        " END IF; END $$;"
        f" ALTER ROLE {REPLICATOR} PASSWORD {literal(word)}"
    )


def following(name: str) -> str:
    """Return the question how a standby follows, which has no answer if it does not.

    A row: seconds since it last spoke, whether commits wait for it, up to where its disk has all.
    """
    found = "SELECT greatest(extract(epoch FROM clock_timestamp() - reply_time), 0),"
    found += " sync_state IN ('sync', 'quorum'), flush_lsn FROM pg_stat_replication"
    found += f" WHERE application_name = {literal(name)} AND state = 'streaming'"
    return found + " ORDER BY backend_start DESC LIMIT 1"


def position(text: str) -> int:
    """Return a place in the write-ahead log, in bytes, of how PostgreSQL writes it."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


_OWN_SETTINGS = {
    "TimeZone": "'UTC'",
    "log_statement": "'none'",
    "log_min_duration_statement": "-1",
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "search_path": "'pg_catalog'",
    "synchronous_commit": "'local'",
    "default_transaction_read_only": "'off'",
}


def message(kind: bytes, body: bytes) -> bytes:
    """Return a message of a session (PostgreSQL, "Message Formats")."""
    return kind + struct.pack("!i", len(body) + 4) + body


def row(body: bytes) -> tuple[str | None, ...]:
    """Return a row's values as texts, of a DataRow's body."""
    (count,) = struct.unpack_from("!h", body)
    values: list[str | None] = []
    at = 2
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        values.append(None if length < 0 else body[at : at + length].decode())
        at += max(length, 0)
    return tuple(values)


def complaint(body: bytes) -> str:
    """Return the text of an ErrorResponse's body."""
    return _field(body, b"M")


def is_fatal(body: bytes) -> bool:
    """Say whether a session ends with this error."""
    return _field(body, b"V") in ("FATAL", "PANIC")


def _field(body: bytes, kind: bytes) -> str:
    found = (f[1:].decode("utf-8", "replace") for f in body.split(b"\0") if f[:1] == kind)
    return next(found, "")


def startup(user: str, database: str) -> bytes:
    """Return the first message of a connection (PostgreSQL, "Message Formats", StartupMessage)."""
    words = ("user", user, "database", database)
    body = struct.pack("!i", 196608) + b"".join(w.encode() + b"\0" for w in words) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def follows(reply: bytes) -> bool:
    """Say whether a server is there that answered a first message: also one that serves nobody."""
    return reply[:1] in (b"E", b"R")


def serves(reply: bytes) -> bool:
    """Say whether a server that answered a first message serves: also if it refuses the user."""
    if reply[:1] == b"E":
        fields = reply[5:].split(b"\0")
        return not any(field == b"C" + _NOT_YET.encode() for field in fields)
    return reply[:1] == b"R"


def identifier(name: str) -> str:
    """Return a name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text quoted for SQL."""
    return "'" + text.replace("'", "''") + "'"


def quoted(value: str) -> str:
    """Return a value quoted for postgresql.conf, where a backslash escapes."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _silence() -> str:
    """Keep passwords out of the server's log."""
    return "SET log_statement = 'none'; SET log_min_duration_statement = -1;\n"
