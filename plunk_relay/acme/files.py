"""Where are the account's key and the certificate kept? In `data_dir/acme/<authority>/`, for the owner alone.

A certificate and its key are one file, so that a door that reads it again never sees a pair that does not match. Each
authority has a directory of its own: after a change of `acme.directory_url` nothing of the old one is shown or sent.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from plunk_relay.datadir import write_private_file


@dataclass(frozen=True, slots=True)
class Validity:
    """Whom a certificate is for, and when."""

    names: frozenset[str]
    begins: datetime
    ends: datetime


class AcmeFiles:
    """The files of one authority; nothing is made before it is needed."""

    def __init__(self, data_dir: Path, directory_url: str) -> None:
        authority = re.sub(r"[^A-Za-z0-9.-]+", "_", directory_url.removeprefix("https://")).strip("_.")
        self._directory = data_dir / "acme" / authority[:200]
        self.certificate = self._directory / "certificate.pem"
        """The key, the certificate and the chain."""

    def load_account_key(self, make: Callable[[], str]) -> str:
        """Return the account's key as PEM, made and kept the first time; raises OSError."""
        path = self._directory / "account.key"
        if not path.exists():
            self._write(path, make())
        return path.read_text()

    def store_certificate(self, key: str, chain: str) -> None:
        """Put a new key and certificate in the place of the old ones, both at once; raises OSError."""
        self._write(self.certificate, key + chain)

    def read_validity(self) -> Validity | None:
        """Return what the stored certificate says; None when there is none that can be read."""
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (OSError, ValueError, x509.ExtensionNotFound):
            return None
        return Validity(
            frozenset(names.get_values_for_type(x509.DNSName)),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )

    def _write(self, path: Path, text: str) -> None:
        for directory in (self._directory.parent, self._directory):
            directory.mkdir(mode=0o700, exist_ok=True)
        write_private_file(path, text)


def make_key() -> str:
    """Return a new P-256 key as PEM."""
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
