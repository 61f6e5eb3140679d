"""The instance metadata service: each host is told about itself, and about nobody else."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lab.settings import METADATA_ADDRESS

log = logging.getLogger(__name__)

VERSIONS = ("2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest")
_TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name
_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
_MAX_TTL = 21600

Tree = dict[str, Any]


@dataclass(frozen=True)
class Document:
    """What one host may know: the tree below the version, and how it must ask."""

    tree: Tree
    token_required: bool
    enabled: bool = True


@dataclass
class Tokens:
    """Session tokens: each is good for the address that asked for it, for a while."""

    clock: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[str, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def issue(self, client: str, ttl: int) -> str:
        """Return a new token."""
        token = base64.urlsafe_b64encode(secrets.token_bytes(40)).decode()
        now = self.clock()
        with self._lock:
            self._known = {k: v for k, v in self._known.items() if v[1] > now}
            self._known[token] = (client, now + ttl)
        return token

    def valid(self, client: str, token: str | None) -> bool:
        """Say whether a token is the client's and not too old."""
        with self._lock:
            owner, until = self._known.get(token or "", ("", 0.0))
        return owner == client and until > self.clock()


def document(backend: Any, instance: Any, profile: Any) -> Document:
    """Describe an instance as AWS does it. `profile` is its IAM instance profile, if any.

    Source: Amazon EC2 user guide, "Instance metadata categories".
    """
    nic = instance.nics[0]
    vpc = backend.get_vpc(nic.subnet.vpc_id)
    options = instance.metadata_options
    region, zone = instance.region_name, nic.subnet.availability_zone
    names = [group.name for group in nic._group_set]
    interface: Tree = {
        "device-number": "0",
        "interface-id": nic.id,
        "local-hostname": instance.private_dns_name,
        "local-ipv4s": instance.private_ip,
        "mac": nic.mac_address,
        "owner-id": instance.owner_id,
        "security-group-ids": "\n".join(group.id for group in nic._group_set),
        "security-groups": "\n".join(names),
        "subnet-id": nic.subnet.id,
        "subnet-ipv4-cidr-block": nic.subnet.cidr_block,
        "vpc-id": nic.subnet.vpc_id,
        "vpc-ipv4-cidr-block": vpc.cidr_block,
        "vpc-ipv4-cidr-blocks": "\n".join(
            block["cidr_block"] for block in vpc.get_cidr_block_association_set()
        ),
    }
    meta: Tree = {
        "ami-id": instance.image_id,
        "ami-launch-index": str(instance.ami_launch_index),
        "hostname": instance.private_dns_name,
        "instance-id": instance.id,
        "instance-life-cycle": instance.lifecycle or "on-demand",
        "instance-type": instance.instance_type,
        "local-hostname": instance.private_dns_name,
        "local-ipv4": instance.private_ip,
        "mac": nic.mac_address,
        "network": {"interfaces": {"macs": {nic.mac_address: interface}}},
        "placement": {"availability-zone": zone, "region": region},
        "reservation-id": next(
            (key for key, r in backend.reservations.items() if instance in r.instances), ""
        ),
        "security-groups": "\n".join(names),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if nic.public_ip:
        interface["public-ipv4s"] = meta["public-ipv4"] = nic.public_ip
        interface["public-hostname"] = meta["public-hostname"] = instance.public_dns_name
        interface["ipv4-associations"] = {nic.public_ip: instance.private_ip}
    key = backend.key_pairs.get(instance.key_name) if instance.key_name else None
    if key is not None:
        text = key.material_public.decode().strip()
        meta["public-keys"] = {f"0={key.key_name}": {"openssh-key": text}}
    if options.instance_metadata_tags == "enabled":
        meta["tags"] = {"instance": {t["key"]: t["value"] for t in instance.get_tags()}}
    if profile is not None:
        meta["iam"] = _iam(instance, profile)
    identity = {
        "accountId": instance.owner_id,
        "architecture": instance.architecture,
        "availabilityZone": zone,
        "imageId": instance.image_id,
        "instanceId": instance.id,
        "instanceType": instance.instance_type,
        "pendingTime": instance.launch_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "privateIp": instance.private_ip,
        "region": region,
        "version": "2017-09-30",
    }
    tree: Tree = {
        "meta-data": meta,
        "dynamic": {"instance-identity": {"document": json.dumps(identity, indent=2)}},
    }
    if instance.user_data:
        tree["user-data"] = base64.b64decode(str(instance.user_data))
    return Document(
        tree, options.http_tokens == "required", enabled=options.http_endpoint != "disabled"
    )


def _iam(instance: Any, profile: Any) -> Tree:
    """Return credentials in AWS's form that are good for nothing but the lab."""
    now = datetime.now(UTC)
    stamp = "%Y-%m-%dT%H:%M:%SZ"
    digest = hashlib.sha256(instance.id.encode()).hexdigest().upper()
    credentials = {
        "Code": "Success",
        "LastUpdated": now.strftime(stamp),
        "Type": "AWS-HMAC",
        "AccessKeyId": f"ASIA{digest[:16]}",
        "SecretAccessKey": f"ascentlab{digest[:31]}",
        "Token": f"ascentlab-{digest}",
        "Expiration": (now + timedelta(hours=6)).strftime(stamp),
    }
    info = {
        "Code": "Success",
        "LastUpdated": now.strftime(stamp),
        "InstanceProfileArn": profile.arn,
        "InstanceProfileId": profile.id,
    }
    roles = {role.name: json.dumps(credentials, indent=2) for role in profile.roles}
    return {"info": json.dumps(info, indent=2), "security-credentials": roles}


def find(tree: Tree, path: str) -> bytes | None:
    """Return what lies at a path below a version: a listing or a value; None if nothing."""
    node: Any = tree
    for part in [p for p in path.split("/") if p]:
        if not isinstance(node, dict):
            return None
        if part not in node:  # a key pair is listed as `0=name` and asked for as `0`
            part = next((k for k in node if k.startswith(f"{part}=")), part)
        if part not in node:
            return None
        node = node[part]
    if isinstance(node, dict):
        return "\n".join(_entry(key, value) for key, value in node.items()).encode()
    return node if isinstance(node, bytes) else str(node).encode()


def _entry(key: str, value: Any) -> str:
    return f"{key}/" if isinstance(value, dict) and "=" not in key else key


def serve(describe: Callable[[str], Document | None]) -> ThreadingHTTPServer:
    """Start the service inside the region's namespace; `describe` knows hosts by address."""
    tokens = Tokens()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "EC2ws"
        sys_version = ""

        def do_PUT(self) -> None:
            own = describe(self.client_address[0])
            if own is None or self.path != "/latest/api/token":
                return self.answer(404)
            if not own.enabled or self.headers.get("X-Forwarded-For"):
                return self.answer(403)
            ttl = self.headers.get(_TTL, "")
            if not ttl.isdigit() or not 1 <= int(ttl) <= _MAX_TTL:
                return self.answer(400)
            token = tokens.issue(self.client_address[0], int(ttl))
            return self.answer(200, token.encode(), {_TTL: ttl})

        def do_GET(self) -> None:
            own = describe(self.client_address[0])
            if own is None:
                return self.answer(404)
            if not own.enabled:
                return self.answer(403)
            token = self.headers.get(_TOKEN)
            if (own.token_required or token) and not tokens.valid(self.client_address[0], token):
                return self.answer(401)
            version, _, path = self.path.split("?")[0].strip("/").partition("/")
            if not version:
                return self.answer(200, "\n".join(VERSIONS).encode())
            found = find(own.tree, path) if version in VERSIONS else None
            return self.answer(404) if found is None else self.answer(200, found)

        def answer(
            self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for key, value in {"Content-Type": "text/plain", **(headers or {})}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: Any) -> None:
            log.debug("%s %s", self.client_address[0], format % values)

    server = ThreadingHTTPServer((METADATA_ADDRESS, 80), Handler)
    threading.Thread(target=server.serve_forever, name="metadata", daemon=True).start()
    return server
