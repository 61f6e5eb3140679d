"""Access logs in S3: buckets are tried when they are enabled, and nodes' files come there."""

from __future__ import annotations

import gzip
import logging
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from moto.elbv2.exceptions import ELBClientError, InvalidConfigurationRequest, ValidationError
from moto.s3.models import s3_backends

from lab.elb import logs
from lab.elb.balancer import BalancerNode, LabLoadBalancer, Place
from lab.elb.listeners import Listeners, fingerprint
from lab.elb.rules import not_true

log = logging.getLogger(__name__)


class Delivery(Listeners):
    """Listeners whose requests are written down."""

    __module__ = "moto.elbv2.models"

    def try_bucket(self, balancer: LabLoadBalancer, attributes: Mapping[str, str]) -> None:
        """Write what is written when access logs are enabled. Raises ELBClientError."""
        if attributes[logs.ENABLED] != "true":
            return
        bucket, prefix = attributes[logs.BUCKET], attributes[logs.PREFIX]
        if not bucket:
            raise ValidationError(f"The attribute {logs.BUCKET} must be set if access logs are on")
        if "AWSLogs" in prefix:
            raise InvalidConfigurationRequest(
                f"The prefix '{prefix}' for access logs must not contain 'AWSLogs'"
            )
        name = logs.trial_key(prefix, balancer.source)
        self._check_bucket(balancer, bucket, name)
        text = f"Enable AccessLog for ELB: {balancer.name} at {datetime.now(UTC):%FT%T.%fZ}"
        self._s3.put_object(bucket, name, text.encode())

    def _check_bucket(self, balancer: LabLoadBalancer, bucket: str, name: str) -> None:
        """Raise ELBClientError unless load balancers may write an object there."""
        found = self._s3.buckets.get(bucket)
        if found is None:
            raise InvalidConfigurationRequest(
                f"S3 bucket '{bucket}' for access logs does not exist: create it first"
            )
        if found.region_name != self.region_name:
            raise InvalidConfigurationRequest(
                f"S3 bucket '{bucket}' for access logs is in {found.region_name}; it must be in "
                f"the load balancer's region {self.region_name}"
            )
        policy = found.policy.decode() if found.policy else None
        try:
            allowed = logs.may_write(policy, bucket, name, balancer.source)
        except logs.Unjudged as part:
            raise not_true(
                f"access logs in the bucket '{bucket}': its policy has {part}, which the lab "
                "cannot judge"
            ) from None
        encryption = (found.encryption or {}).get("Rule", {})
        default = encryption.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm")
        if not allowed or default not in (None, "AES256"):
            raise InvalidConfigurationRequest(
                f"Access Denied for bucket: {bucket}. Please check S3bucket permission"
            )

    def note(self, key: str, lines: Iterable[bytes]) -> None:
        """Take up what a node wrote of requests."""
        for balancer in self.load_balancers.values():
            for node in balancer.nodes:
                if node.key == key and balancer.attrs[logs.ENABLED] == "true":
                    self._note(balancer, node, lines)

    def _note(self, balancer: LabLoadBalancer, node: BalancerNode, lines: Iterable[bytes]) -> None:
        place = Place(balancer.attrs[logs.BUCKET], balancer.attrs[logs.PREFIX], node.address)
        groups = {group.pool: group.arn for group in balancer.target_groups}
        certificates = {
            fingerprint(pem): arn
            for listener in balancer.listeners.values()
            for arn in listener.certificates
            if (pem := self.pem(arn))
        }
        for line in lines:
            try:
                found = logs.entry(line, balancer.source, groups, certificates)
            except (ValueError, KeyError):
                log.exception("%s wrote what is no entry: %r", node.key, line)
                continue
            balancer.entries.setdefault(place, []).append(found)

    def deliver(self, end: datetime) -> None:
        """Write all access logs. end: of the time that they are about."""
        for balancer in self.load_balancers.values():
            self.deliver_of(balancer, end)

    def deliver_of(self, balancer: LabLoadBalancer, end: datetime) -> None:
        """Write one load balancer's access logs."""
        entries, balancer.entries = balancer.entries, {}
        for place, found in entries.items():
            word = secrets.token_hex(4)
            name = logs.key(place.prefix, balancer.source, end, place.address, word)
            try:
                self._check_bucket(balancer, place.bucket, name)
            except ELBClientError as error:
                # As on AWS nobody is told but by the missing files.
                log.warning("%s loses %d entries: %s", balancer.name, len(found), error.message)
                continue
            text = "".join(f"{line}\n" for line in found)
            self._s3.put_object(place.bucket, name, gzip.compress(text.encode()))

    @property
    def _s3(self) -> Any:
        return s3_backends[self.account_id][self.partition]
