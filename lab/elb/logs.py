"""Access logs: what is written of a request, under which key, and whether a bucket takes it. Pure.

Application Load Balancers user guide, "Access logs for your Application Load Balancer" (fields and
names of files) and "Enable access logs for your Application Load Balancer" (buckets and policies).
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

ENABLED = "access_logs.s3.enabled"
BUCKET = "access_logs.s3.bucket"
PREFIX = "access_logs.s3.prefix"
_SERVICE = "logdelivery.elasticloadbalancing.amazonaws.com"
# Accounts of Elastic Load Balancing, which policies of regions from before August 2022 may name
# (the guide's list of regions).
_ACCOUNTS = {
    "us-east-1": "127311923021",
    "us-east-2": "033677994240",
    "us-west-1": "027434742980",
    "us-west-2": "797873946194",
    "af-south-1": "098369216593",
    "ap-east-1": "754344448648",
    "ap-northeast-1": "582318560864",
    "ap-northeast-2": "600734575887",
    "ap-northeast-3": "383597477331",
    "ap-south-1": "718504428378",
    "ap-southeast-1": "114774131450",
    "ap-southeast-2": "783225319266",
    "ap-southeast-3": "589379963580",
    "ca-central-1": "985666609251",
    "eu-central-1": "054676820928",
    "eu-north-1": "897822967062",
    "eu-south-1": "635631232127",
    "eu-west-1": "156460612806",
    "eu-west-2": "652711504416",
    "eu-west-3": "009996457667",
    "me-south-1": "076674570225",
    "sa-east-1": "507241528517",
}
_LONGEST = 8192  # bytes of a user agent


@dataclass(frozen=True)
class Source:
    """A load balancer as its logs name it. balancer: `app/<name>/<id>`."""

    arn: str
    account: str
    region: str

    @property
    def balancer(self) -> str:
        """The resource's own name."""
        return self.arn.partition(":loadbalancer/")[2]


# --- files
def trial_key(prefix: str, source: Source) -> str:
    """Return the key of the file with which a bucket is tried when logs are enabled."""
    return f"{_under(prefix)}AWSLogs/{source.account}/ELBAccessLogTestFile"


def key(prefix: str, source: Source, end: datetime, address: str, word: str) -> str:
    """Return the key of a node's file. end: of the time that it is about. word: any, to be new."""
    account, region = source.account, source.region
    name = "_".join(
        (
            account,
            "elasticloadbalancing",
            region,
            source.balancer.replace("/", "."),
            f"{end:%Y%m%dT%H%MZ}",
            address,
            word,
        )
    )
    return (
        f"{_under(prefix)}AWSLogs/{account}/elasticloadbalancing/{region}/{end:%Y/%m/%d}"
        f"/{name}.log.gz"
    )


def _under(prefix: str) -> str:
    return f"{prefix}/" if prefix else ""


# --- entries
def entry(
    line: bytes, source: Source, groups: Mapping[str, str], certificates: Mapping[str, str]
) -> str:
    """Return an entry from what a node wrote of a request (`lab.haproxy.LOG`).

    groups: ARNs by their names in the data plane. certificates: ARNs by SHA-1 in capitals. Raises
    ValueError if a node wrote something else.
    """
    said: dict[str, Any] = json.loads(line.decode("latin-1"), strict=False)
    read = said["version"] != "<BADREQ>"
    forwarded = read and said["pool"] in groups
    target = f"{said['target']}:{said['target_port']}" if said["target"] else "-"
    answered = str(said["target_status"] or "-")
    secure = bool(said["tls"])
    status = _status(said)
    fields = (
        _kind(said, secure),
        _time(said["now"]),
        source.balancer,
        f"{said['client']}:{said['client_port']}",
        target,
        *_durations(said),
        status,
        answered,
        str(said["received"]),
        str(said["sent"]),
        _quoted(_request(said, secure) if read else "- - - "),
        _quoted(_text(said["agent"])[:_LONGEST]),
        _text(said["cipher"]),
        _text(said["tls"]),
        groups[said["pool"]] if forwarded else "-",
        _quoted(_text(said["trace"])),
        _quoted(_text(said["sni"])),
        _quoted(_certificate(said, certificates)),
        _text(str(said["priority"])),
        _time(said["born"] or said["now"]),
        _quoted(_deed(said, read, forwarded)),
        _quoted(_text(said["location"]) if not forwarded else "-"),
        _quoted("-"),  # why an authentication or a function failed; there are none
        _quoted(target),
        _quoted(answered),
        _quoted("-"),
        _quoted("-"),  # desync mitigation is not true
        f"TID_{said['connection'].replace('-', '')}",
        *(_quoted("-") for _ in range(3)),  # nothing is rewritten
    )
    return " ".join(fields)


def _kind(said: Mapping[str, Any], secure: bool) -> str:
    if said["status"] == 101:
        return "wss" if secure else "ws"
    if said["version"].startswith("HTTP/2"):
        return "h2"
    return "https" if secure else "http"


def _status(said: Mapping[str, Any]) -> str:
    """Return what the client was told; HAProxy notes its own words for it.

    460 is a client that left before it was answered (user guide, "Troubleshoot your Application
    Load Balancers").
    """
    if said["target_status"]:
        return str(said["status"])
    if said["state"].startswith("C"):
        return "460"
    if said["state"].startswith("sC"):
        return "504"
    if said["target"] and said["status"] == 503:
        return "502"
    return str(said["status"])


def _durations(said: Mapping[str, Any]) -> Iterable[str]:
    """Return the three processing times in seconds; -1 for what did not come to its end."""
    before = [said[name] for name in ("received_ms", "queued_ms", "connected_ms")]
    sent = bool(said["target"]) and min(before) >= 0
    answered = sent and said["answered_ms"] >= 0
    return (
        f"{sum(before) / 1000:.3f}" if sent else "-1",
        f"{said['answered_ms'] / 1000:.3f}" if answered else "-1",
        "0.000" if answered else "-1",  # from the target's header to the client's: not measured
    )


def _request(said: Mapping[str, Any], secure: bool) -> str:
    scheme = "https" if secure else "http"
    host = said["host"] or said["address"]
    if ":" not in host:
        host += f":{said['port']}"
    return f"{said['method']} {scheme}://{host}{said['uri']} {said['version']}"


def _certificate(said: Mapping[str, Any], certificates: Mapping[str, str]) -> str:
    if said["resumed"]:
        return "session-reused"
    return certificates.get(said["certificate"], "-")


def _deed(said: Mapping[str, Any], read: bool, forwarded: bool) -> str:
    if forwarded:
        return "forward"
    if not read or said["priority"] == "":
        return "-"
    return "redirect" if said["location"] else "fixed-response"


def _time(microseconds: int) -> str:
    found = datetime.fromtimestamp(microseconds / 1e6, UTC)
    return f"{found:%Y-%m-%dT%H:%M:%S.%fZ}"


def _text(value: str) -> str:
    return value or "-"


def _quoted(text: str) -> str:
    """Return a field that spaces do not end; what would is written as `\\x22`."""
    return '"' + "".join(c if " " <= c <= "~" and c != '"' else _hex(c) for c in text) + '"'


def _hex(character: str) -> str:
    return "".join(f"\\x{byte:02X}" for byte in character.encode("latin-1", "replace"))


# --- policies
class Unjudged(Exception):
    """A policy has a condition that the lab cannot judge."""


def may_write(policy: str | None, bucket: str, name: str, source: Source) -> bool:
    """Say whether a bucket's policy lets load balancers write an object. Raises Unjudged."""
    statements = json.loads(policy)["Statement"] if policy else []
    listed = statements if isinstance(statements, list) else [statements]
    about = [s for s in listed if _is_about(s, f"arn:aws:s3:::{bucket}/{name}", source.region)]
    holding = [s["Effect"] for s in about if _holds(s, source)]
    return "Allow" in holding and "Deny" not in holding


def _is_about(statement: Mapping[str, Any], resource: str, region: str) -> bool:
    who = statement.get("Principal")
    named = {kind: _list(values) for kind, values in who.items()} if isinstance(who, dict) else {}
    account = _ACCOUNTS.get(region, "")
    accounts = {"*", account, f"arn:aws:iam::{account}:root"} if account else {"*"}
    ours = (
        who == "*"
        or bool(accounts & set(named.get("AWS", [])))
        or _SERVICE in named.get("Service", [])
    )
    if "NotPrincipal" in statement or "NotAction" in statement or "NotResource" in statement:
        raise Unjudged("NotPrincipal, NotAction or NotResource")
    return (
        ours
        and _any(_list(statement.get("Action")), "s3:PutObject", fold=True)
        and _any(_list(statement.get("Resource")), resource)
    )


def _holds(statement: Mapping[str, Any], source: Source) -> bool:
    """Say whether all conditions of a statement are fulfilled by what load balancers send."""
    known = {
        "aws:securetransport": "true",
        "aws:sourceaccount": source.account,
        "aws:sourcearn": source.arn,
        "s3:x-amz-acl": "bucket-owner-full-control",
    }
    for operator, pairs in (statement.get("Condition") or {}).items():
        for name, values in pairs.items():
            is_pattern = operator in ("StringLike", "ArnLike", "ArnEquals")
            judged = is_pattern or operator in ("StringEquals", "Bool")
            if name.lower() not in known or not judged:
                raise Unjudged(f"{operator} {name}")
            wanted = [str(v).lower() if operator == "Bool" else str(v) for v in _list(values)]
            value = known[name.lower()]
            if not (_any(wanted, value) if is_pattern else value in wanted):
                return False
    return True


def _any(patterns: Iterable[str], value: str, fold: bool = False) -> bool:
    folded = value.lower() if fold else value
    return any(
        fnmatch.fnmatchcase(folded, (p.lower() if fold else p).replace("[", "[[]"))
        for p in patterns
    )


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
