"""Who vouches for the certificates of a test's servers? An authority that only a relay with its `ca_file` trusts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256, sha512
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.kit.certificates import CertificateFiles


@dataclass(frozen=True, slots=True)
class Issued:
    """A server's certificate with those above it, first its own."""

    files: CertificateFiles
    chain: Sequence[bytes]
    """DER; the root is not in it."""


class Authority:
    """A root, and what it issued into a directory."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._name = name
        self._ca = trustme.CA()
        self._count = 0
        self.ca_file = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))

    @property
    def certificate(self) -> bytes:
        """The root as DER."""
        return _der(self._ca.cert_pem.bytes())

    def issue(self, *names: str, days: float = 1, with_root: bool = False, intermediate: bool = False) -> Issued:
        """Issue a certificate that is valid for so many days from now; negative: it has expired."""
        self._count += 1
        issuer = self._ca.create_child_ca() if intermediate else self._ca
        made = issuer.issue_cert(*names, not_after=datetime.now(UTC) + timedelta(days=days))
        files = CertificateFiles(
            self._directory / f"{self._name}-{self._count}.crt", self._directory / f"{self._name}-{self._count}.key"
        )
        pems = [blob.bytes() for blob in made.cert_chain_pems] + ([self._ca.cert_pem.bytes()] if with_root else [])
        files.certificate.write_bytes(b"".join(pems))
        files.key.write_bytes(made.private_key_pem.bytes())
        return Issued(files, [_der(pem) for pem in pems])


def tlsa(certificate: bytes, usage: int = 3, selector: int = 1, matching: int = 1) -> str:
    """Return the TLSA record of a certificate in presentation form."""
    part = certificate
    if selector == 1:
        key = x509.load_der_x509_certificate(certificate).public_key()
        part = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    data = {0: part, 1: sha256(part).digest(), 2: sha512(part).digest()}[matching]
    return f"{usage} {selector} {matching} {data.hex()}"


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
