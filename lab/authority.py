"""The lab's certificate authorities.

Hosts trust one of them as they trust Amazon's, for AWS's names alone. It is kept with the hosts'
image, which bears its certificate, so that every lab of the machine uses the same one and no image
is built for a lab. Its name constraints keep it from vouching for anything but names of AWS:
whoever gets hold of its key can fool hosts of labs, and nobody else.

Another one stands behind ACM. It may vouch for any name, so nobody trusts it unless told to, and it
dies with its lab.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import ssl
from pathlib import Path

from botocore.session import Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SUFFIX = "amazonaws.com"
_LIFETIME = datetime.timedelta(days=3650)


class Authority:
    """Makes itself once, and certificates for servers of the lab."""

    def __init__(self, cache: Path, name: str = "authority", only_aws: bool = True) -> None:
        self._folder = cache / name
        self._only_aws = only_aws

    @property
    def certificate(self) -> bytes:
        """The authority's certificate in PEM; made if there is none."""
        return self._load()[1]

    def server(self, names: list[str], folder: Path) -> ssl.SSLContext:
        """Return a TLS server's side with a new certificate for these names.

        Its files are written to `folder`, since OpenSSL takes files alone.
        """
        key, certificate = self.issue(names)
        file = folder / "s3.pem"
        _write(file, key + certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def issue(self, names: list[str]) -> tuple[bytes, bytes]:
        """Return a new key and a server's certificate for these names, in PEM."""
        key_pem, own_pem = self._load()
        issuer = x509.load_pem_x509_certificate(own_pem)
        signing = serialization.load_pem_private_key(key_pem, None)
        assert isinstance(signing, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        # X.509 allows a subject 64 characters; clients look at the names alone.
        subject = names[0] if len(names[0]) <= 64 else SUFFIX
        certificate = (
            _builder(subject, issuer.subject, key)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), False
            )
            .sign(signing, hashes.SHA256())
        )
        return _private(key), _public(certificate)

    def _load(self) -> tuple[bytes, bytes]:
        key, certificate = self._folder / "authority.key", self._folder / "authority.crt"
        if not certificate.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / "lock").open("w") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if not certificate.exists():
                    made_key, made = _make(self._only_aws)
                    _write(key, made_key)
                    _write(certificate, made)
        return key.read_bytes(), certificate.read_bytes()


def s3_names() -> list[str]:
    """Return the names under which S3 serves, in every region; buckets are its wildcards.

    Source: AWS General Reference, "Amazon Simple Storage Service endpoints and quotas".
    """
    regions = sorted(Session().get_available_regions("s3"))
    ends = [f"s3.{SUFFIX}", *(f"s3.{region}.{SUFFIX}" for region in regions)]
    return [name for end in ends for name in (end, f"*.{end}")]


def is_s3(host: str, names: frozenset[str]) -> bool:
    """Say whether a host name is S3's or a bucket's, as its certificate says it."""
    name = host.partition(":")[0].lower()
    return name in names or f"*.{name.partition('.')[2]}" in names


def _make(only_aws: bool) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    whom = "for hosts of labs" if only_aws else "ACM"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Ascent lab, {whom}")])
    usage = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        _builder(None, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    if only_aws:
        builder = builder.add_extension(x509.NameConstraints([x509.DNSName(SUFFIX)], None), True)
    certificate = builder.sign(key, hashes.SHA256())
    return _private(key), _public(certificate)


def _builder(
    subject: str | None, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]) if subject else issuer
    return (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _LIFETIME)
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(file: Path, content: bytes) -> None:
    """Write a file whole, for root alone from its first byte."""
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(content)
    fresh.replace(file)
