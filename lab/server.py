"""The lab's server: API, metadata, names and hosts; runs inside the region's namespace."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lab.errors import LabError
from lab.faults import Fault, Faults
from lab.settings import ACCOUNT, ADMIN_PORT, Settings

log = logging.getLogger(__name__)

# moto reads these while it is imported.
_MOTO = {
    "MOTO_ACCOUNT_ID": ACCOUNT,
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


def main() -> None:
    """Serve until SIGTERM."""
    _, name, subnet, *flags = sys.argv
    given = dict(flag.partition("=")[::2] for flag in flags)
    settings = Settings.of(
        name,
        subnet,
        "hosts-file" in given,
        "background" in given,
        float(given["rds-delay"]),
        float(given["rds-failover-delay"]),
        float(given["elb-log-interval"]),
    )
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    os.environ.update(_MOTO)
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    _start(settings)
    log.info("ready")
    end.wait()
    os._exit(0)  # hosts' threads wait for hosts; `down` removes those


def _start(settings: Settings) -> None:
    from moto.iam.models import iam_backends

    from lab import acm, api, ec2, elb, mends, metadata, names, rds
    from lab.authority import Authority
    from lab.world import World

    world = World(settings)
    mends.install()
    ec2.install(world, *settings.public_pool)
    rds.install(world.databases)
    acm.install(Authority(settings.state, "acm", only_aws=False), elb.presents)
    elb.install(world.balancers)

    def describe(address: str) -> metadata.Document | None:
        with world.lock:
            found = world.instance_at(address)
            if found is None:
                return None
            backend, instance = found
            arn = (instance.iam_instance_profile or {}).get("Arn")
            profiles = iam_backends[backend.account_id]["aws"].instance_profiles.values()
            profile = next((p for p in profiles if p.arn == arn), None)
            return metadata.document(backend, instance, profile)

    def zones() -> list[names.Zone]:
        with world.lock:
            return world.zones()

    def vpc_of(client: str) -> str | None:
        with world.lock:
            return world.vpc_at(client)

    def private_of(public: str, client: str) -> str | None:
        with world.lock:
            vpc = world.vpc_at(client)
            for _, instance in ec2.instances():
                if instance.public_ip == public and vpc and instance.vpc_id == vpc:
                    return str(instance.private_ip)
        return None

    def endpoints() -> names.Endpoints:
        with world.lock:
            return world.endpoints()

    faults = Faults()
    world.sync()
    world.balancers.start()
    metadata.serve(describe)
    names.serve(settings, names.Resolver(settings, zones, vpc_of, private_of, endpoints))
    api.serve(settings, api.Api(world, faults))
    _serve_admin(settings, world, faults)


def _serve_admin(settings: Settings, world: Any, faults: Faults) -> None:
    from lab import ec2, elb, rds

    def status() -> dict[str, Any]:
        with world.lock:
            return {
                "name": settings.name,
                "endpoint": settings.endpoint,
                "subnet": str(settings.subnet),
                "hosts": [_describe(instance) for _, instance in ec2.instances()],
                "databases": [_describe_database(instance) for _, instance in rds.instances()],
                "balancers": [_describe_balancer(balancer) for _, balancer in elb.balancers()],
                "names": world.names(),
                "faults": faults.armed(),
            }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/_ascent/status":
                return self.answer(200, status())
            return self.answer(404, {"error": f"no {self.path}"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                if self.path == "/_ascent/faults":
                    faults.arm(Fault.of(json.loads(body)))
                    return self.answer(200, {"faults": faults.armed()})
                if self.path == "/_ascent/kill-db":
                    wish = json.loads(body)
                    world.databases.kill(str(wish["database"]), str(wish["role"]))
                    return self.answer(200, {})
            except (LabError, ValueError, KeyError, TypeError) as error:
                return self.answer(400, {"error": str(error)})
            return self.answer(404, {"error": f"no {self.path}"})

        def do_DELETE(self) -> None:
            if self.path != "/_ascent/faults":
                return self.answer(404, {"error": f"no {self.path}"})
            faults.clear()
            return self.answer(200, {"faults": []})

        def answer(self, code: int, data: dict[str, Any]) -> None:
            body = json.dumps(data).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: Any) -> None:
            log.debug(format, *values)

    server = ThreadingHTTPServer((settings.address, ADMIN_PORT), Handler)
    threading.Thread(target=server.serve_forever, name="admin", daemon=True).start()


def _describe(instance: Any) -> dict[str, Any]:
    tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
    gone = instance.state == "terminated"
    return {
        "id": instance.id,
        "name": tags.get("Name", ""),
        "state": instance.state,
        "type": instance.instance_type,
        "zone": instance.placement.zone,
        "private_address": None if gone else instance.private_ip,
        "public_address": None if gone else instance.public_ip,
        "image": instance.image_id,
    }


def _describe_database(instance: Any) -> dict[str, Any]:
    return {
        "id": instance.db_instance_identifier,
        "state": instance.status,
        "type": instance.db_instance_class,
        "zone": instance.availability_zone,
        "private_address": instance.primary.address,
        "standby": _describe_standby(instance),
        "endpoint": f"{instance.address}:{instance.port}",
        "version": instance.engine_version,
    }


def _describe_standby(instance: Any) -> dict[str, Any] | None:
    if instance.standby is None:
        return None
    return {
        "zone": instance.standby.zone,
        "private_address": instance.standby.address,
        "synchronous": instance.synchronous,
    }


def _describe_balancer(balancer: Any) -> dict[str, Any]:
    return {
        "id": balancer.name,
        "state": balancer.state,
        "scheme": balancer.scheme,
        "endpoint": balancer.dns_name,
        "nodes": [
            {
                "id": node.key,
                "zone": node.zone,
                "state": node.state.value,
                "private_address": node.interface.private_ip_address,
                "public_address": node.interface.public_ip,
            }
            for node in balancer.nodes
        ],
    }


if __name__ == "__main__":
    main()
