"""Parameters of RDS for PostgreSQL: what may be set, to what, and what it means to the server.

Pure: the server's own list (`pg_settings`) comes from the engine's image, what RDS adds to it and
where it differs stands here. Source: Amazon RDS User Guide, "Working with parameters on your RDS
for PostgreSQL DB instance".
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LOGICAL = "rds.logical_replication"
FORCE_SSL = "rds.force_ssl"

# Where RDS's default is not PostgreSQL's own. Memory is that of the instance class, in bytes.
_DEFAULTS = {
    FORCE_SSL: "1",
    LOGICAL: "0",
    "autovacuum_vacuum_scale_factor": "0.1",
    "effective_cache_size": "{DBInstanceClassMemory/16384}",
    "idle_in_transaction_session_timeout": "86400000",
    "maintenance_work_mem": "GREATEST({DBInstanceClassMemory*1024/63963136},65536)",
    "max_connections": "LEAST({DBInstanceClassMemory/9531392},5000)",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "max_worker_processes": "GREATEST({DBInstanceVCPU*2},8)",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "{DBInstanceClassMemory/32768}",
    "shared_preload_libraries": "pg_stat_statements",
    "timezone": "UTC",
}
# What is RDS's own business: listed, and not to be changed.
_FIXED = re.compile(
    r"(?:allow_alter_system|allow_system_table_mods|archive_.*|autovacuum_freeze_.*_unsafe|bonjour.*"
    r"|cluster_name|config_file|data_directory.*|data_sync_retry|dynamic_library_path"
    r"|dynamic_shared_memory_type|event_source|external_pid_file|fsync|full_page_writes|hba_file"
    r"|hot_standby|ident_file|ignore_.*|jit_provider|krb_.*|listen_addresses|local_preload_.*"
    r"|log_destination|log_directory|log_file_mode|log_timezone|logging_collector|port|primary_.*"
    r"|recovery_.*|restart_after_crash|restore_command|shared_memory_type|ssl|ssl_.*_file"
    r"|ssl_crl_.*|ssl_library|ssl_passphrase.*|superuser_reserved_.*|syslog_.*|unix_socket_.*"
    r"|wal_level|wal_sync_method|zero_damaged_pages)"
)
_TYPES = {"bool": "boolean", "integer": "integer", "real": "float", "enum": "string"}
_TRUE, _FALSE = ("1", "on", "true", "yes"), ("0", "off", "false", "no")
_FORMULA = re.compile(r"[{(]")


class ParameterError(ValueError):
    """A name or a value that RDS refuses; the text is RDS's."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a family. Values are in the parameter's own unit, as RDS writes them."""

    name: str
    type: str
    static: bool
    modifiable: bool = True
    default: str | None = None
    source: str = "engine-default"
    description: str = ""
    minimum: str | None = None
    maximum: str | None = None
    choices: tuple[str, ...] = ()

    @property
    def apply_type(self) -> str:
        """Say when a change comes into force: a static one waits for a reboot."""
        return "static" if self.static else "dynamic"

    @property
    def allowed(self) -> str | None:
        """The allowed values as RDS writes them."""
        if self.type == "boolean":
            return "0,1"
        if self.choices:
            return ",".join(self.choices)
        return f"{self.minimum}-{self.maximum}" if self.minimum is not None else None

    def check(self, value: str) -> None:
        """Raise ParameterError unless the value is allowed."""
        if not self._accepts(value):
            raise ParameterError(
                f"Invalid parameter value: {value} for: {self.name} "
                f"allowed values are: {self.allowed or 'strings of one line'}"
            )

    def _accepts(self, value: str) -> bool:
        if self.type == "boolean":
            return value.lower() in (*_TRUE, *_FALSE)
        if self.choices:
            return value.lower() in self.choices
        if self.type not in ("integer", "float"):
            return "\n" not in value and "\0" not in value
        if self.type == "integer" and _FORMULA.search(value):
            try:
                evaluate(value, memory=2**34, cpus=4)
            except ParameterError:
                return False
            return True
        try:
            number = int(value) if self.type == "integer" else float(value)
        except ValueError:
            return False
        low, high = float(self.minimum or "-inf"), float(self.maximum or "inf")
        return low <= number <= high


def catalogue(settings: Iterable[Mapping[str, Any]]) -> dict[str, Parameter]:
    """Return a family's parameters, made of the rows of `pg_settings` and what RDS adds."""
    found = {
        LOGICAL: Parameter(LOGICAL, "boolean", static=True, default="0", source="system",
                           description="Enables logical decoding."),
        FORCE_SSL: Parameter(FORCE_SSL, "boolean", static=False, default="1", source="system",
                             description="Force SSL connections."),
    }  # fmt: skip
    for row in settings:
        name = str(row["name"]).lower()
        if row["context"] == "internal":
            continue
        own = _DEFAULTS.get(name)
        found[name] = Parameter(
            name=name,
            type=_TYPES.get(row["vartype"], "string"),
            static=row["context"] == "postmaster",
            modifiable=not _FIXED.fullmatch(name),
            default=own,
            source="system" if own is not None else "engine-default",
            description=str(row["short_desc"] or ""),
            minimum=row["min_val"],
            maximum=row["max_val"],
            choices=tuple(row["enumvals"] or ()),
        )
    return dict(sorted(found.items()))


def check(known: Mapping[str, Parameter], name: str, value: str, method: str) -> Parameter:
    """Return the parameter that a change is about. Raises ParameterError."""
    parameter = known.get(name.lower())
    if parameter is None:
        raise ParameterError(f"Could not find parameter with name: {name}")
    if not parameter.modifiable:
        raise ParameterError(f"The parameter {name} cannot be modified.")
    if parameter.static and method != "pending-reboot":
        raise ParameterError(
            f"cannot use immediate apply method for static parameter {parameter.name}"
        )
    parameter.check(value)
    return parameter


def effective(
    known: Mapping[str, Parameter], chosen: Mapping[str, str], memory: int, cpus: int
) -> dict[str, str]:
    """Return what an instance of a class runs with: RDS's defaults, then the group's values.

    memory: of the class, in bytes. What is not named has PostgreSQL's own default.
    """
    values = {name: p.default for name, p in known.items() if p.default is not None}
    values |= chosen
    return {
        name: _plain(known[name], evaluate(value, memory, cpus) if _is_formula(value) else value)
        for name, value in sorted(values.items())
        if name in known
    }


def evaluate(formula: str, memory: int, cpus: int) -> str:
    """Compute one of RDS's formulas, in whole numbers. Raises ParameterError.

    Source: Amazon RDS User Guide, "Specifying DB parameters".
    """
    text = formula.replace("{", "(").replace("}", ")")
    names = {"DBInstanceClassMemory": memory, "DBInstanceVCPU": cpus}
    try:
        return str(_compute(ast.parse(text, mode="eval").body, names))
    except (SyntaxError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ParameterError(f"Invalid formula: {formula}") from error


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    """Return the names of parameters whose values are not the same."""
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def is_on(value: str | None) -> bool:
    """Say whether a boolean parameter is on."""
    return (value or "").lower() in _TRUE


_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
}
_FUNCTIONS: dict[str, Callable[..., int]] = {
    "LEAST": min,
    "GREATEST": max,
    "SUM": lambda *values: sum(values),
}


def _compute(node: ast.expr, names: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.BinOp):
        compute = _OPERATORS[type(node.op)]
        return compute(_compute(node.left, names), _compute(node.right, names))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
        values = [_compute(argument, names) for argument in node.args]
        return int(_FUNCTIONS[node.func.id](*values))
    raise ValueError(ast.dump(node))


def _is_formula(value: str) -> bool:
    return bool(_FORMULA.search(value)) and "DBInstance" in value


def _plain(parameter: Parameter, value: str) -> str:
    """Return a value in one form, so that `1` and `on` are no difference."""
    if parameter.type == "boolean":
        return "on" if is_on(value) else "off"
    if parameter.minimum is not None and parameter.type == "integer":
        low, high = int(parameter.minimum), int(parameter.maximum or 2**31 - 1)
        return str(min(max(int(value), low), high))
    return value
