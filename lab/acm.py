"""ACM's certificates: issued by an authority of the lab's own, so that a chain leads to it.

moto's are signed by nobody, and no client could ever verify one that a load balancer presents.
"""

from __future__ import annotations

from typing import Any

from moto.acm.models import CertBundle

from lab.authority import Authority
from lab.mends._replace import replace


def install(authority: Authority) -> None:
    """Put the lab's authority behind certificates that are requested."""

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

    replace(CertBundle, "generate_cert", lambda _: staticmethod(generate))
