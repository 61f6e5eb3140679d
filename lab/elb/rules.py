"""What Elastic Load Balancing accepts, and the errors with which it refuses the rest. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moto.elbv2.exceptions import ELBClientError, InvalidConfigurationRequest, ValidationError

from lab.elb import logs
from lab.elb.health import Check
from lab.haproxy import Condition, Fixed, Forward, Redirect, Rule

# Addresses that an `ip` group takes besides its VPC's (API reference, "CreateTargetGroup").
_PRIVATE = tuple(
    map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
)
_SETTINGS = {
    "HealthCheckIntervalSeconds": (5, 300),
    "HealthCheckTimeoutSeconds": (2, 120),
    "HealthyThresholdCount": (2, 10),
    "UnhealthyThresholdCount": (2, 10),
}


def not_true(what: str) -> ELBClientError:
    """Return the error for what the lab does not make true."""
    return ELBClientError("NotTrueInTheLab", f"The lab cannot make {what}. See docs/lab.md.")


# --- attributes
@dataclass(frozen=True)
class Attribute:
    """An attribute: what AWS takes, and of that what the lab does not make true.

    values: words; between: the least and the highest number; neither: any text.
    """

    default: str
    values: tuple[str, ...] = ()
    between: tuple[int, int] | None = None
    untrue: tuple[str, ...] = ()

    def takes(self, value: str) -> bool:
        """Say whether AWS takes a value."""
        if value in self.values:
            return True
        if self.between:
            least, most = self.between
            return value.isdigit() and least <= int(value) <= most
        return not self.values


_YES_NO = ("true", "false")


def _switch(default: str, untrue: str = "") -> Attribute:
    return Attribute(default, _YES_NO, untrue=(untrue,) if untrue else ())


CROSS_ZONE = "load_balancing.cross_zone.enabled"
BALANCER_ATTRIBUTES: Mapping[str, Attribute] = {
    logs.BUCKET: Attribute(""),
    logs.ENABLED: _switch("false"),
    logs.PREFIX: Attribute(""),
    "client_keep_alive.seconds": Attribute("3600", between=(60, 604800)),
    "connection_logs.s3.bucket": Attribute(""),
    "connection_logs.s3.enabled": _switch("false", "true"),
    "connection_logs.s3.prefix": Attribute(""),
    "deletion_protection.enabled": _switch("false"),
    "health_check_logs.s3.bucket": Attribute(""),
    "health_check_logs.s3.enabled": _switch("false", "true"),
    "health_check_logs.s3.prefix": Attribute(""),
    "idle_timeout.timeout_seconds": Attribute("60", between=(1, 4000)),
    "ipv6.deny_all_igw_traffic": _switch("false"),
    CROSS_ZONE: Attribute("true", ("true",)),
    "routing.http.desync_mitigation_mode": Attribute(
        "defensive", ("defensive", "monitor", "strictest")
    ),
    "routing.http.drop_invalid_header_fields.enabled": _switch("false"),
    "routing.http.preserve_host_header.enabled": _switch("false"),
    "routing.http.x_amzn_tls_version_and_cipher_suite.enabled": _switch("false"),
    "routing.http.xff_client_port.enabled": _switch("false"),
    "routing.http.xff_header_processing.mode": Attribute(
        "append", ("append", "preserve", "remove")
    ),
    "routing.http2.enabled": _switch("true"),
    "waf.fail_open.enabled": _switch("false"),
    "zonal_shift.config.enabled": _switch("false", "true"),
}
NETWORK_ATTRIBUTES: Mapping[str, Attribute] = {
    logs.BUCKET: Attribute(""),
    logs.ENABLED: _switch("false", "true"),
    logs.PREFIX: Attribute(""),
    CROSS_ZONE: _switch("false"),
    "deletion_protection.enabled": _switch("false"),
    "dns_record.client_routing_policy": Attribute(
        "any_availability_zone",
        (
            "any_availability_zone",
            "availability_zone_affinity",
            "partial_availability_zone_affinity",
        ),
        untrue=("availability_zone_affinity", "partial_availability_zone_affinity"),
    ),
    "ipv6.deny_all_igw_traffic": _switch("false"),
    "secondary_ips.auto_assigned.per_subnet": Attribute(
        "0", between=(0, 7), untrue=tuple("1234567")
    ),
    "zonal_shift.config.enabled": _switch("false", "true"),
}
_HEALTHY = "minimum_healthy_targets"
# What decides when a zone leaves DNS or a group fails open: as by default, and not otherwise.
_THRESHOLDS: Mapping[str, Attribute] = {
    f"target_group_health.{what}.{_HEALTHY}.{kind}": Attribute(default, (default,))
    for what in ("dns_failover", "unhealthy_state_routing")
    for kind, default in (("count", "1"), ("percentage", "off"))
}
GROUP_ATTRIBUTES: Mapping[str, Attribute] = {
    "deregistration_delay.timeout_seconds": Attribute("300", between=(0, 3600)),
    "load_balancing.algorithm.anomaly_mitigation": Attribute("off", ("on", "off"), untrue=("on",)),
    "load_balancing.algorithm.type": Attribute(
        "round_robin", ("round_robin", "least_outstanding_requests", "weighted_random")
    ),
    CROSS_ZONE: Attribute(
        "use_load_balancer_configuration", (*_YES_NO, "use_load_balancer_configuration")
    ),
    "slow_start.duration_seconds": Attribute("0", ("0",), between=(30, 900)),
    "stickiness.app_cookie.cookie_name": Attribute(""),
    "stickiness.app_cookie.duration_seconds": Attribute("86400", between=(1, 604800)),
    "stickiness.enabled": _switch("false"),
    "stickiness.lb_cookie.duration_seconds": Attribute("86400", between=(1, 604800)),
    "stickiness.type": Attribute("lb_cookie", ("lb_cookie", "app_cookie"), untrue=("app_cookie",)),
    **_THRESHOLDS,
}
PRESERVE = "preserve_client_ip.enabled"
PROXY = "proxy_protocol_v2.enabled"
CUT_DRAINED = "deregistration_delay.connection_termination.enabled"
CUT_UNHEALTHY = "target_health_state.unhealthy.connection_termination.enabled"
NETWORK_GROUP_ATTRIBUTES: Mapping[str, Attribute] = {
    CUT_DRAINED: _switch("false"),
    "deregistration_delay.timeout_seconds": Attribute("300", between=(0, 3600)),
    CROSS_ZONE: GROUP_ATTRIBUTES[CROSS_ZONE],
    # AWS's default is true for instances. What comes from HAProxy comes from its own address.
    PRESERVE: _switch("false", "true"),
    PROXY: _switch("false"),
    "stickiness.enabled": _switch("false"),
    "stickiness.type": Attribute("source_ip", ("source_ip",)),
    CUT_UNHEALTHY: _switch("true"),
    "target_health_state.unhealthy.draining_interval_seconds": Attribute(
        "0", ("0",), between=(0, 360000)
    ),
    **_THRESHOLDS,
}
# Protocols of target groups, by those of the listeners that may pass on to them (API reference,
# "CreateListener"; Network Load Balancers user guide, "Listeners").
FITTING: Mapping[str, tuple[str, ...]] = {
    "HTTP": ("HTTP", "HTTPS"),
    "HTTPS": ("HTTP", "HTTPS"),
    "TCP": ("TCP",),
    "TLS": ("TCP", "TLS"),
}


def balancer_attributes(kind: str) -> Mapping[str, Attribute]:
    """Return the attributes of load balancers of a type."""
    return NETWORK_ATTRIBUTES if kind == "network" else BALANCER_ATTRIBUTES


def group_attributes(protocol: str | None) -> Mapping[str, Attribute]:
    """Return the attributes of target groups of a protocol."""
    return NETWORK_GROUP_ATTRIBUTES if is_network(protocol) else GROUP_ATTRIBUTES


def is_network(protocol: str | None) -> bool:
    """Say whether a protocol is of network load balancers."""
    return protocol in ("TCP", "TLS")


def check_attributes(
    known: Mapping[str, Attribute], wanted: Mapping[str, Any], what: str
) -> dict[str, str]:
    """Return wanted attributes as text. Raises ELBClientError."""
    found = {key: str(value) for key, value in wanted.items()}
    for key, value in found.items():
        if key not in known:
            raise ValidationError(f"{what} attribute key '{key}' is not recognized")
        attribute = known[key]
        if not attribute.takes(value) and key.startswith("target_group_health."):
            raise not_true(f"a {what.lower()} with {key}={value}")
        if not attribute.takes(value):
            raise ValidationError(f"{what} attribute value '{value}' of '{key}' is not valid")
        if value in attribute.untrue:
            raise not_true(f"a {what.lower()} with {key}={value}")
    return found


def check_group_attributes(attributes: Mapping[str, str]) -> None:
    """Raise unless a target group's attributes go together."""
    if PROXY in attributes:
        waits = attributes["target_health_state.unhealthy.draining_interval_seconds"] != "0"
        if waits and attributes[CUT_UNHEALTHY] == "true":
            raise InvalidConfigurationRequest(
                "An unhealthy draining interval requires that connections to unhealthy targets "
                "are not terminated"
            )
        if waits:
            raise not_true("a target group with the state unhealthy.draining")
        return
    slow = attributes["slow_start.duration_seconds"] != "0"
    if slow and attributes["load_balancing.algorithm.type"] != "round_robin":
        raise InvalidConfigurationRequest(
            "Slow start mode requires the load balancing algorithm type round_robin"
        )
    sticky = attributes["stickiness.enabled"] == "true"
    if sticky and attributes[CROSS_ZONE] == "false":
        raise InvalidConfigurationRequest(
            "Stickiness is not supported when cross-zone load balancing is off"
        )


# --- target groups
def check_group(wanted: Mapping[str, Any]) -> None:
    """Raise unless the lab can make such a target group."""
    kind = wanted.get("target_type") or "instance"
    if kind not in ("instance", "ip"):
        raise not_true(f"a target group of the type {kind}")
    protocol = wanted.get("protocol")
    if protocol and protocol not in ("HTTP", "HTTPS", "TCP", "TLS"):
        raise not_true(
            f"a target group of the protocol {protocol}: there are HTTP, HTTPS, TCP and TLS"
        )
    if is_network(protocol) and wanted.get("protocol_version"):
        raise ValidationError(f"A protocol version cannot be specified for {protocol} groups")
    if (wanted.get("protocol_version") or "HTTP1") != "HTTP1":
        raise not_true(f"a target group of the version {wanted['protocol_version']}")
    if (wanted.get("ip_address_type") or "ipv4") != "ipv4":
        raise not_true("a target group of IPv6")
    if str(wanted.get("healthcheck_enabled", "true")).lower() == "false":
        raise ValidationError(
            f"Health check enabled must be true for target groups with target type '{kind}'"
        )
    if not 1 <= int(wanted.get("port") or 1) <= 65535:
        raise ValidationError(f"Port '{wanted['port']}' must be in the range 1-65535")
    check_name(wanted["name"], "Target group")


def check_health_settings(group: Any) -> None:
    """Raise unless a target group's health check is one that AWS takes."""
    numbers = {
        "HealthCheckIntervalSeconds": group.health_check_interval_seconds,
        "HealthCheckTimeoutSeconds": group.health_check_timeout_seconds,
        "HealthyThresholdCount": group.healthy_threshold_count,
        "UnhealthyThresholdCount": group.unhealthy_threshold_count,
    }
    for name, value in numbers.items():
        least, most = _SETTINGS[name]
        if not least <= int(value) <= most:
            raise ValidationError(f"{name} '{value}' must be in the range {least}-{most}")
    timeout, interval = numbers["HealthCheckTimeoutSeconds"], numbers["HealthCheckIntervalSeconds"]
    network = is_network(group.protocol)
    if int(timeout) > int(interval) or (int(timeout) == int(interval) and not network):
        raise ValidationError(
            f"Health check timeout '{timeout}' must be smaller than the interval '{interval}'"
        )
    if group.health_check_protocol not in ("HTTP", "HTTPS", *(["TCP"] if network else [])):
        raise ValidationError(
            f"Health check protocol '{group.health_check_protocol}' is not supported for target "
            f"groups with the {group.protocol} protocol"
        )
    port = str(group.health_check_port)
    if port != "traffic-port" and not (port.isdigit() and 1 <= int(port) <= 65535):
        raise ValidationError(f"Health check port '{port}' must be 'traffic-port' or 1-65535")
    path = group.health_check_path or "/"
    if not path.startswith("/") or len(path) > 1024 or not path.isprintable() or " " in path:
        raise ValidationError(f"Health check path '{path}' must begin with a '/' character")
    check_matcher(str((group.matcher or {}).get("HttpCode") or "200"), 599 if network else 499)


def check_matcher(codes: str, most: int) -> None:
    """Raise unless this names codes of successful answers. most: the highest possible one."""
    if not re.fullmatch(r"\d{3}(-\d{3})?(,\d{3}(-\d{3})?)*", codes):
        raise ValidationError(f"Health check matcher HTTP code '{codes}' must be like 200,301-302")
    if not all(200 <= int(code) <= most for code in re.findall(r"\d+", codes)):
        raise ValidationError(f"Health check matcher HTTP code '{codes}' must be within 200-{most}")


def check_of(group: Any) -> Check:
    """Return how the targets of a group are checked."""
    return Check(
        protocol=group.health_check_protocol,
        path=group.health_check_path or "/",
        matcher=str((group.matcher or {}).get("HttpCode") or "200"),
        interval=int(group.health_check_interval_seconds),
        timeout=int(group.health_check_timeout_seconds),
        healthy=int(group.healthy_threshold_count),
        unhealthy=int(group.unhealthy_threshold_count),
        proxy=group.attributes.get(PROXY) == "true",
    )


def check_name(name: str, what: str) -> None:
    """Raise unless a name can be a load balancer's or a target group's."""
    if not re.fullmatch(r"(?!-)(?!.*-$)[A-Za-z0-9-]{1,32}", name or ""):
        raise ValidationError(
            f"{what} name '{name}' must have at most 32 letters, digits and hyphens, and must not "
            "begin or end with a hyphen"
        )


def check_address(address: str, blocks: Iterable[str]) -> None:
    """Raise unless an address can be a target of a group in a VPC with these blocks."""
    try:
        found = ipaddress.IPv4Address(address)
    except ValueError as error:
        raise ValidationError(f"The IP address '{address}' is not a valid IPv4 address") from error
    own = tuple(map(ipaddress.IPv4Network, blocks))
    if not any(found in network for network in (*own, *_PRIVATE)):
        raise ELBClientError(
            "InvalidTarget",
            f"The IP address '{address}' is not within the VPC or a range that can be registered",
        )


# --- rules
def rule_of(rule: Any, pools: Mapping[str, str]) -> Rule:
    """Return a rule of the API as the data plane knows it. pools: by target group's ARN."""
    final = [action.data for action in rule.actions][-1]
    conditions = tuple(map(_condition, rule.conditions))
    return Rule(conditions, _action(final, pools), priority_of(rule))


def priority_of(rule: Any) -> int:
    """Return a rule's priority; the default rule's is 0."""
    return 0 if rule.priority == "default" else int(rule.priority)


def _condition(data: Mapping[str, Any]) -> Condition:
    field = data["Field"]
    config: Mapping[str, Any] = next((data[key] for key in data if key.endswith("Config")), {})
    values = config.get("Values") or data.get("Values") or []
    if field == "query-string":
        texts = [f"{v['Key']}={v['Value']}" if v.get("Key") else v["Value"] for v in values]
    else:
        texts = list(values)
    return Condition(field, tuple(texts), config.get("HttpHeaderName", ""))


def _action(data: Mapping[str, Any], pools: Mapping[str, str]) -> Forward | Fixed | Redirect:
    if data["Type"] == "fixed-response":
        config = data["FixedResponseConfig"]
        return Fixed(
            int(config["StatusCode"]), config.get("ContentType", ""), config.get("MessageBody", "")
        )
    if data["Type"] == "redirect":
        config = data["RedirectConfig"]
        names = ("Protocol", "Host", "Port", "Path", "Query")
        parts = {name.lower(): str(config[name]) for name in names if config.get(name) is not None}
        return Redirect(int(config["StatusCode"].removeprefix("HTTP_")), **parts)
    weights = dict.fromkeys(groups_of(data), 0)
    for entry in (data.get("ForwardConfig") or {}).get("TargetGroups") or []:
        weights[entry["TargetGroupArn"]] += int(entry.get("Weight", 1))
    if len(weights) == 1:
        weights = dict.fromkeys(weights, 1)
    return Forward(tuple((pools[arn], weight) for arn, weight in weights.items() if arn in pools))


def groups_of(data: Mapping[str, Any]) -> list[str]:
    """Return the target groups that an action passes on to."""
    found = [
        e["TargetGroupArn"] for e in (data.get("ForwardConfig") or {}).get("TargetGroups") or []
    ]
    if data.get("TargetGroupArn"):
        found.insert(0, data["TargetGroupArn"])
    return list(dict.fromkeys(found))


def check_actions(actions: Iterable[Mapping[str, Any]]) -> None:
    """Raise unless the lab can do what a rule or a listener says."""
    found = list(actions)
    if not found:
        raise ValidationError("You must specify at least one action")
    for action in found:
        kind = action.get("Type")
        if str(kind).startswith("authenticate-") or kind == "jwt-validation":
            raise not_true(f"an action of the type {kind}")
        config = action.get("ForwardConfig") or {}
        sticky = str((config.get("TargetGroupStickinessConfig") or {}).get("Enabled", "false"))
        if sticky.lower() == "true":
            raise not_true("stickiness among target groups")
        if kind == "forward" and not groups_of(action):
            raise ValidationError("A target group ARN must be specified")
        if kind == "redirect":
            _check_redirect(action.get("RedirectConfig") or {})
    if len(found) > 1:
        raise ValidationError("Only one forward, redirect or fixed-response action is allowed")


def check_network_actions(actions: Iterable[Mapping[str, Any]]) -> None:
    """Raise unless a listener of a network load balancer can do this."""
    for action in actions:
        if action.get("Type") != "forward":
            raise ELBClientError(
                "InvalidLoadBalancerAction",
                "Listeners of network load balancers can only forward to a target group",
            )
        if len(groups_of(action)) > 1:
            raise not_true("a listener of a network load balancer with several target groups")


def _check_redirect(config: Mapping[str, Any]) -> None:
    if config.get("StatusCode") not in ("HTTP_301", "HTTP_302"):
        raise ValidationError("A redirect's status code must be HTTP_301 or HTTP_302")
    given = {key: config[key] for key in ("Protocol", "Host", "Port", "Path") if config.get(key)}
    same = {
        "Protocol": "#{protocol}", "Host": "#{host}", "Port": "#{port}", "Path": "/#{path}",
    }  # fmt: skip
    if all(str(value) == same[key] for key, value in given.items()):
        raise ELBClientError(
            "InvalidLoadBalancerAction",
            "The redirect configuration is not valid because it creates a loop.",
        )


def check_conditions(conditions: Iterable[Mapping[str, Any]]) -> None:
    """Raise unless the lab can tell requests apart so."""
    for data in conditions:
        if any(key.endswith("Config") and data[key].get("RegexValues") for key in data):
            raise not_true("a condition with a regular expression")
        if data.get("RegexValues"):
            raise not_true("a condition with a regular expression")
        condition = _condition(data)
        if condition.kind == "http-header" and not re.fullmatch(r"[\w.-]+", condition.header):
            raise not_true(f"a condition on the header '{condition.header}'")
        if condition.kind == "source-ip":
            for value in condition.values:
                try:
                    ipaddress.IPv4Network(value)
                except ValueError as error:
                    raise ValidationError(f"'{value}' is not a valid IPv4 CIDR block") from error
        texts = condition.values
        if not texts or any(not text or not text.isprintable() for text in texts):
            raise ValidationError("A condition value must be specified")
