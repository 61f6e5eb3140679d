"""AWS for measurements of target groups: moto's server, with targets that take their time.

moto itself finds every target healthy at once, and ends every drain at once. Here a target is
healthy some time after it was registered, drains for its group's deregistration delay, and comes
back as a new one if it is registered while it drains. Each request is counted by its action, and
throttled as AWS does it if that is asked for.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import boto3
from moto.elbv2 import models
from moto.elbv2.exceptions import TargetGroupNotFoundError
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from lab.api import identify
from lab.elb.health import NOT_REGISTERED, Health

REGION = "us-east-1"
GROUP = "measured"
HEALTHY = Health("healthy")
INITIAL = Health.of("initial", "Elb.RegistrationInProgress")
DRAINING = Health.of("draining", "Target.DeregistrationInProgress")
# The code that users have seen (ansible-collections/community.aws#444). The user guide names
# ThrottlingException, which fewer clients repeat.
THROTTLED = b"""<ErrorResponse>
<Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error>
<RequestId>00000000-0000-0000-0000-000000000000</RequestId>
</ErrorResponse>"""

Key = tuple[str, int]


@dataclass
class Registration:
    """Since when a target is registered, and until when it drains, if it does."""

    since: float
    until: float | None = None


class Targets(models.ELBv2Backend):
    """moto's, whose targets get healthy and drain as time goes by."""

    healthy_after: ClassVar[float] = 0.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._registered: dict[str, dict[Key, Registration]] = defaultdict(dict)

    def register_targets(self, target_group_arn: str, instances: list[Any]) -> None:
        found = self._current(target_group_arn)
        for key in self._keys(target_group_arn, instances):
            if key not in found or found[key].until is not None:
                found[key] = Registration(time.monotonic())

    def deregister_targets(self, target_group_arn: str, instances: list[dict[str, Any]]) -> None:
        found = self._current(target_group_arn)
        attributes: Any = self.target_groups[target_group_arn].attributes
        delay = float(attributes["deregistration_delay.timeout_seconds"])
        for key in self._keys(target_group_arn, instances):
            if key in found and found[key].until is None:
                found[key].until = time.monotonic() + delay

    def describe_target_health(
        self, target_group_arn: str, targets: list[dict[str, Any]]
    ) -> list[Any]:
        found = self._current(target_group_arn)
        asked = self._keys(target_group_arn, targets) if targets else list(found)
        answer = []
        for identifier, port in asked:
            health = self._health(found.get((identifier, port)))
            parts = {
                "State": health.state, "Reason": health.reason, "Description": health.description
            }  # fmt: skip
            answer.append(
                {
                    "Target": {"Id": identifier, "Port": port},
                    "HealthCheckPort": str(port),
                    "TargetHealth": {name: text for name, text in parts.items() if text},
                }
            )
        return answer

    def forget(self) -> None:
        """Have nothing registered anywhere, and nothing draining."""
        self._registered.clear()

    def _current(self, arn: str) -> dict[Key, Registration]:
        if arn not in self.target_groups:
            raise TargetGroupNotFoundError()
        found, now = self._registered[arn], time.monotonic()
        for key in [key for key, item in found.items() if item.until and now >= item.until]:
            del found[key]
        return found

    def _keys(self, arn: str, targets: Iterable[dict[str, Any]]) -> list[Key]:
        port = self.target_groups[arn].port
        return [(item["Id"], int(item.get("Port") or port)) for item in targets]

    def _health(self, found: Registration | None) -> Health:
        if found is None:
            return NOT_REGISTERED
        if found.until is not None:
            return DRAINING
        grown = time.monotonic() - found.since >= self.healthy_after
        return HEALTHY if grown else INITIAL


class Bucket:
    """A bucket of tokens: full at first, and filled again at a rate a second."""

    def __init__(self, size: float, rate: float, clock: Callable[[], float]) -> None:
        self._size, self._rate, self._clock = size, rate, clock
        self._tokens, self._at = size, clock()

    def take(self) -> bool:
        """Take a token, if there is one."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Throttle:
    """Refuse calls to Elastic Load Balancing as AWS does.

    AWS gives an account 40 tokens for all calls, of which 10 come back a second, and 20 for
    registrations, of which 4 come back (Elastic Load Balancing user guide, "Request throttling for
    the Elastic Load Balancing API"). rate: in the place of these 10; all others in proportion.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._all = Bucket(4 * rate, rate, clock)
        self._registrations = Bucket(2 * rate, 0.4 * rate, clock)

    def refuses(self, action: str) -> bool:
        """Say whether a call comes too soon."""
        if action in ("RegisterTargets", "DeregisterTargets") and not self._registrations.take():
            return True
        return not self._all.take()


class TargetServer:
    """The API on a port of this machine, for the time of a `with` block.

    calls: requests since `reset`, by action, those that were throttled among them.
    """

    def __init__(self) -> None:
        os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        models.elbv2_backends.backend = Targets
        self.calls, self.throttled = Counter[str](), Counter[str]()
        self.arn = ""
        self._throttle: Throttle | None = None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._http = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_Silent
        )

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """With which a client talks to this server, and to nothing else."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._http.port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        }

    def build(self, count: int) -> list[str]:
        """Make a load balancer with a target group, and instances; their ids."""
        ec2, elb = self._client("ec2"), self._client("elbv2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = []
        for number, zone in enumerate("ab"):
            made = ec2.create_subnet(
                VpcId=vpc, CidrBlock=f"10.0.{number * 16}.0/20", AvailabilityZone=REGION + zone
            )
            subnets.append(made["Subnet"]["SubnetId"])
        ids = []
        for number in range(0, count, 100):
            size = min(100, count - number)
            made = ec2.run_instances(
                ImageId="ami-0deb1300000000001", InstanceType="t3.small",
                MinCount=size, MaxCount=size, SubnetId=subnets[number // 100 % 2],
            )  # fmt: skip
            ids += [item["InstanceId"] for item in made["Instances"]]
        balancer = elb.create_load_balancer(Name=GROUP, Subnets=subnets)["LoadBalancers"][0]
        group = elb.create_target_group(Name=GROUP, Protocol="HTTP", Port=8000, VpcId=vpc)
        self.arn = group["TargetGroups"][0]["TargetGroupArn"]
        elb.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": self.arn}],
        )  # fmt: skip
        return ids

    def set_times(self, healthy_after: float, deregistration_delay: int) -> None:
        """Say how long a target takes to get healthy, and how long it drains, in seconds."""
        Targets.healthy_after = healthy_after
        delay = {"Key": "deregistration_delay.timeout_seconds", "Value": str(deregistration_delay)}
        self._client("elbv2").modify_target_group_attributes(
            TargetGroupArn=self.arn, Attributes=[delay]
        )

    def empty(self, throttle: float | None = None) -> None:
        """Begin anew: nothing is registered, no bucket is empty."""
        for backend in _backends():
            backend.forget()
        self._throttle = Throttle(throttle) if throttle else None
        self.reset()

    def reset(self) -> None:
        """Count from 0."""
        self.calls, self.throttled = Counter(), Counter()

    def states(self) -> Counter[str]:
        """How many targets are in which state; nobody's call."""
        found: Counter[str] = Counter()
        with self._lock:
            for backend in _backends():
                told = backend.describe_target_health(self.arn, [])
                found.update(item["TargetHealth"]["State"] for item in told)
        return found

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        call = identify(environ, body)
        environ["wsgi.input"] = io.BytesIO(body)
        with self._lock:
            self.calls[call.action] += 1
            mine = call.service == "elasticloadbalancing"
            if not (mine and self._throttle and self._throttle.refuses(call.action)):
                return list(self._moto(environ, start))
            self.throttled[call.action] += 1
        start("400 Bad Request", [("Content-Type", "text/xml")])
        return [THROTTLED]


def _backends() -> list[Any]:
    return [backend for _, _, backend in models.elbv2_backends.iter_backends()]


class _Silent(MotoRequestHandler):
    """Writes no line for a request."""

    def log_request(self, *_: Any, **__: Any) -> None: ...
