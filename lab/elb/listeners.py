"""Listeners, their rules and certificates: what the API says of what is passed on where."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from moto.acm.exceptions import CertificateNotFound
from moto.acm.models import AWS_ROOT_CA, acm_backends
from moto.elbv2 import models
from moto.elbv2.exceptions import (
    ActionTargetGroupNotFoundError,
    DuplicateListenerError,
    ELBClientError,
    InvalidConfigurationRequest,
    LoadBalancerNotFoundError,
    RuleNotFoundError,
    TargetGroupNotFoundError,
    ValidationError,
)
from moto.elbv2.ssl_policies import SSL_POLICIES
from moto.iam.models import iam_backends

from lab.elb import rules
from lab.elb.balancer import LabLoadBalancer
from lab.elb.group import LabTargetGroup
from lab.elb.rules import not_true

_SECURE = ("HTTPS", "TLS")


def _check_protocol(balancer: LabLoadBalancer, protocol: str | None) -> None:
    known = ("TCP", "TLS") if balancer.network else ("HTTP", "HTTPS")
    if protocol in known:
        return
    if balancer.network and protocol in ("UDP", "TCP_UDP", "QUIC", "TCP_QUIC"):
        raise not_true(f"a listener of the protocol {protocol}: there are TCP and TLS")
    raise ValidationError(f"Listener protocol '{protocol}' must be one of '{', '.join(known)}'")


@lru_cache(maxsize=256)
def fingerprint(pem: str) -> str:
    """Return the SHA-1 of the first certificate of a chain, in capitals."""
    block = pem[pem.index("-----BEGIN CERTIFICATE") :]
    found = x509.load_pem_x509_certificate(block.encode())
    return found.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - a name, no proof


class Listeners(models.ELBv2Backend):
    """moto's listeners and rules, with what AWS refuses."""

    __module__ = "moto.elbv2.models"
    load_balancers: Any
    target_groups: Any

    # --- listeners
    def create_listener(
        self,
        load_balancer_arn: str,
        protocol: str,
        port: str,
        ssl_policy: str,
        certificate: str | None,
        actions: list[dict[str, Any]],
        alpn_policy: list[str] | None = None,
        tags: list[dict[str, str]] | None = None,
    ) -> Any:
        """Open a port."""
        balancer = self._balancer(load_balancer_arn)
        self._check_port(balancer, port)
        _check_protocol(balancer, protocol)
        if alpn_policy and list(alpn_policy) != ["None"]:
            raise not_true("a listener with an ALPN policy")
        self._check_forward(balancer, protocol, actions)
        secure = protocol in _SECURE
        if secure:
            ssl_policy = ssl_policy or "ELBSecurityPolicy-2016-08"
            self._check_tls(protocol, ssl_policy, [certificate] if certificate else [])
        elif certificate:
            raise ValidationError(f"A certificate cannot be specified for {protocol} listeners")
        listener = super().create_listener(
            load_balancer_arn, protocol, port, ssl_policy, certificate, actions, alpn_policy, tags
        )
        if not secure:
            listener.ssl_policy = None  # type: ignore[assignment]
        return listener

    def modify_listener(
        self,
        arn: str,
        port: str | None = None,
        protocol: str | None = None,
        ssl_policy: str | None = None,
        certificates: list[dict[str, Any]] | None = None,
        actions: list[dict[str, Any]] | None = None,
    ) -> Any:
        """Change a listener."""
        listener = self.describe_listeners(None, [arn])[0]
        balancer = self._balancer(listener.load_balancer_arn)
        if port is not None and int(port) != int(listener.port):
            self._check_port(balancer, port)
        speaks = protocol or listener.protocol
        _check_protocol(balancer, speaks)
        kept = [action.data for action in listener.default_actions]
        self._check_forward(balancer, speaks, actions or kept)
        if speaks in _SECURE:
            policy = ssl_policy or listener.ssl_policy or "ELBSecurityPolicy-2016-08"
            named = [c["CertificateArn"] for c in certificates or []]
            self._check_tls(speaks, policy, named or listener.certificates)
            ssl_policy = policy
            if speaks == "TLS" and named:  # of which moto knows nothing here
                listener.certificate, listener.certificates = named[0], named
        changed = super().modify_listener(
            arn,
            port,
            None if speaks == "TLS" else protocol,
            ssl_policy,
            certificates or [],
            actions or [],
        )
        changed.protocol = speaks
        if speaks not in _SECURE:
            changed.ssl_policy = None  # type: ignore[assignment]
            changed.certificate, changed.certificates = None, []
        return changed

    def add_listener_certificates(self, arn: str, certificates: list[dict[str, Any]]) -> list[str]:
        """Have further names served."""
        for entry in certificates:
            self.certificate(entry["CertificateArn"])
        listener = self.describe_listeners(None, [arn])[0]
        fresh = [c for c in certificates if c["CertificateArn"] not in listener.certificates]
        return super().add_listener_certificates(arn, fresh)

    def create_rule(
        self,
        listener_arn: str,
        conditions: list[dict[str, Any]],
        priority: int,
        actions: list[dict[str, Any]],
        tags: list[dict[str, str]] | None = None,
    ) -> Any:
        """Add a rule to a listener."""
        listener = self.describe_listeners(None, [listener_arn])[0]
        balancer = self._balancer(listener.load_balancer_arn)
        if balancer.network:
            raise ELBClientError(
                "OperationNotPermitted", "Listeners of network load balancers have no rules"
            )
        rules.check_conditions(conditions)
        self._check_forward(balancer, listener.protocol, actions)
        if not 1 <= int(priority) <= 50000:
            raise ValidationError(f"Priority '{priority}' must be in the range 1-50000")
        return super().create_rule(listener_arn, conditions, int(priority), actions, tags)

    def modify_rule(
        self, rule_arn: str, conditions: list[dict[str, Any]], actions: list[dict[str, Any]]
    ) -> Any:
        """Change a rule."""
        rule = self.describe_rules(None, [rule_arn])[0]
        if conditions:
            rules.check_conditions(conditions)
        if actions:
            listener = self.describe_listeners(None, [rule.listener_arn])[0]
            balancer = self._balancer(listener.load_balancer_arn)
            self._check_forward(balancer, listener.protocol, actions)
        return super().modify_rule(rule_arn, conditions, actions)

    def delete_rule(self, arn: str) -> None:
        """Remove a rule, but no default rule."""
        for balancer in self.load_balancers.values():
            for listener in balancer.listeners.values():
                rule = listener.rules.get(arn)
                if rule is not None:
                    listener.remove_rule(arn)
                    return
                if any(r.arn == arn for r in listener.rules.values()):
                    raise ELBClientError(
                        "OperationNotPermitted", f"Default rule '{arn}' cannot be deleted"
                    )
        raise RuleNotFoundError()

    def _check_port(self, balancer: LabLoadBalancer, port: Any) -> None:
        if port is None or not 1 <= int(port) <= 65535:
            raise ValidationError("A listener port must be specified, within 1-65535")
        if any(int(each.port) == int(port) for each in balancer.listeners.values()):
            raise DuplicateListenerError()

    def _check_forward(
        self, balancer: LabLoadBalancer, protocol: str, actions: list[dict[str, Any]]
    ) -> None:
        rules.check_actions(actions)
        if balancer.network:
            rules.check_network_actions(actions)
        for action in actions:
            for arn in rules.groups_of(action):
                group = self.target_groups.get(arn)
                if group is None:
                    raise ActionTargetGroupNotFoundError(arn)
                if group.vpc_id != balancer.vpc_id:
                    raise InvalidConfigurationRequest(
                        f"The target group '{arn}' and the load balancer are in different VPCs"
                    )
                if group.protocol not in rules.FITTING[protocol]:
                    raise ELBClientError(
                        "IncompatibleProtocols",
                        f"A listener of the protocol {protocol} cannot forward to the target group "
                        f"'{arn}' of the protocol {group.protocol}",
                    )
                if any(other != balancer.arn for other in group.load_balancer_arns):
                    raise ELBClientError(
                        "TargetGroupAssociationLimit",
                        f"The following target groups cannot be associated with more than one "
                        f"load balancer: {arn}",
                    )

    def _check_tls(self, protocol: str, policy: str, certificates: list[str]) -> None:
        if policy not in SSL_POLICIES:
            raise ELBClientError("SSLPolicyNotFound", f"SSL policy '{policy}' not found")
        if not certificates:
            raise ValidationError(f"A certificate must be specified for {protocol} listeners")
        for arn in certificates:
            self.certificate(arn)

    def certificate(self, arn: str) -> str:
        """Return key and chain of a certificate that can be presented. Raises ELBClientError."""
        bundle = self._bundle(arn)
        if bundle is not None and bundle.status != "ISSUED":
            raise ELBClientError(
                "UnsupportedCertificate",
                f"The certificate '{arn}' must have a fully-qualified domain name, a supported "
                f"signature, and a supported key size; its status is {bundle.status}",
            )
        found = self.pem(arn)
        if found is None:
            raise ELBClientError("CertificateNotFound", f"Certificate '{arn}' not found")
        return found

    def pem(self, arn: str) -> str | None:
        """Return key and chain of a certificate, expired or not; None if it is gone."""
        bundle = self._bundle(arn)
        if bundle is not None:
            chain = (bundle.chain or b"").replace(AWS_ROOT_CA, b"")
            parts = [part.decode() for part in (bundle.key, bundle.cert, chain)]
        else:
            found = iam_backends[self.account_id][self.partition].get_certificate_by_arn(arn)
            if found is None:
                return None
            parts = [found.private_key, found.cert_body, found.cert_chain or ""]
        return "\n".join(part.strip() for part in parts if part.strip()) + "\n"

    def _bundle(self, arn: str) -> Any:
        try:
            return acm_backends[self.account_id][self.region_name].get_certificate(arn)
        except CertificateNotFound:
            return None

    # --- what requests name
    def _balancer(self, arn: str) -> LabLoadBalancer:
        balancer: LabLoadBalancer | None = self.load_balancers.get(arn)
        if balancer is None:
            raise LoadBalancerNotFoundError()
        return balancer

    def _group(self, arn: str) -> LabTargetGroup:
        group: LabTargetGroup | None = self.target_groups.get(arn)
        if group is None:
            raise TargetGroupNotFoundError()
        return group
