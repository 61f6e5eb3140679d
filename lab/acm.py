"""ACM's certificates: issued by an authority of the lab's own, so that a chain leads to it.

moto's are signed by nobody, and no client could ever verify one that a load balancer presents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.acm.models import AWSCertificateManagerBackend, CertBundle
from moto.core.exceptions import AWSError

from lab.authority import Authority
from lab.mends._replace import replace


class ResourceInUse(AWSError):
    """A certificate that a listener presents."""

    TYPE = "ResourceInUseException"


def install(authority: Authority, in_use: Callable[[str], bool]) -> None:
    """Put the lab's authority behind certificates that are requested.

    in_use: says of a certificate's ARN whether it must stay.
    """

    def generate(
        domain_name: str,
        account_id: str,
        region: str,
        sans: list[str] | None = None,
        cert_authority_arn: str | None = None,
    ) -> Any:
        private = cert_authority_arn is not None
        key, certificate = authority.issue(list(dict.fromkeys([domain_name, *(sans or [])])))
        bundle = CertBundle(
            certificate=certificate,
            private_key=key,
            cert_type="PRIVATE" if private else "AMAZON_ISSUED",
            cert_status="ISSUED" if private else "PENDING_VALIDATION",
            cert_authority_arn=cert_authority_arn,
            account_id=account_id,
            region=region,
        )
        bundle.chain = authority.certificate
        return bundle

    def delete(ours: Any) -> Any:
        def delete_certificate(backend: Any, arn: str) -> None:
            if in_use(arn):
                raise ResourceInUse(f"Certificate {arn} is in use.")
            ours(backend, arn)

        return delete_certificate

    replace(AWSCertificateManagerBackend, "delete_certificate", delete)
    replace(CertBundle, "generate_cert", lambda _: staticmethod(generate))
