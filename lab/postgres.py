"""PostgreSQL as RDS runs it: its configuration, its roles, and how it greets. Pure.

The roles are those of RDS for PostgreSQL 17: the master user is no superuser, but a member of
`rds_superuser`, which has the predefined roles that RDS gives it. The superuser is `rdsadmin`, who
can log in from the server's own machine alone. Source: Amazon RDS User Guide, "Understanding the
rds_superuser role", and `pg_dumpall --roles-only` of such an instance.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from lab.parameters import FORCE_SSL, LOGICAL, is_on

ADMIN = "rdsadmin"
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


def configuration(values: Mapping[str, str], port: int, archives: bool) -> dict[str, str]:
    """Return the server's configuration files by name.

    values: parameters in force; archives: write-ahead log is kept for a restore to a point in time.
    """
    logical = is_on(values.get(LOGICAL))
    archive = (
        f"gzip -1 < %p > {HOME}/wal/%f.part && mv {HOME}/wal/%f.part {HOME}/wal/%f.gz"
        if archives
        else "/bin/true"
    )
    own = {
        "listen_addresses": "*",
        "port": str(port),
        "hba_file": f"{HOME}/config/pg_hba.conf",
        "ident_file": f"{HOME}/config/pg_ident.conf",
        "unix_socket_directories": "/run/postgresql",
        "ssl": "on",
        "ssl_cert_file": f"{HOME}/config/server.crt",
        "ssl_key_file": f"{HOME}/config/server.key",
        "wal_level": "logical" if logical else "replica",
        "archive_mode": "on",
        "archive_command": archive,
        # /dev/shm of a container is too small for parallel queries.
        "dynamic_shared_memory_type": "sysv",
    }
    lines = [f"{name} = {quoted(value)}\n" for name, value in {**values, **own}.items()]
    return {
        "postgresql.conf": "".join(lines),
        "pg_hba.conf": access(is_on(values.get(FORCE_SSL))),
        "pg_ident.conf": f"lab postgres {ADMIN}\nlab root {ADMIN}\n",
    }


def access(force_ssl: bool) -> str:
    """Return pg_hba.conf: the superuser locally, everybody else by password over the network."""
    return (
        f"local all {ADMIN} peer map=lab\n"
        f"local replication {ADMIN} peer map=lab\n"
        f"host all {ADMIN} all reject\n"
        f"host {ADMIN} all all reject\n"
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
    """Return what gives the master user a password."""
    return f"{_silence()}ALTER ROLE {identifier(master)} PASSWORD {literal(word)};\n"


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


def startup(user: str, database: str) -> bytes:
    """Return the first message of a connection (PostgreSQL, "Message Formats", StartupMessage)."""
    words = ("user", user, "database", database)
    body = struct.pack("!i", 196608) + b"".join(w.encode() + b"\0" for w in words) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


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
