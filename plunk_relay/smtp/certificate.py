"""Which certificate do the doors show? One from files, read again when they change, or the one that ACME has stored."""

import ssl
from pathlib import Path
from typing import Protocol

from plunk_relay.acme.actions import acme_files
from plunk_relay.errors import SetupError
from plunk_relay.log import get_logger
from plunk_relay.settings import Settings

log = get_logger("smtp")


class CertificateSource(Protocol):
    """Where a door has its certificate from."""

    def context(self) -> ssl.SSLContext | None:
        """Return the TLS context of the present certificate, None while there is none."""
        ...


class Certificate:
    """A certificate with its key, read again when one of the files changes."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self._stamp: tuple[int, int] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return the TLS context of the present files; broken new files leave the old one in use.

        Raises SetupError when there is no context yet.
        """
        stamp = self._read_stamp()
        if self._context is not None and stamp == self._stamp:
            return self._context
        self._stamp = stamp
        try:
            self._context = self._load()
        except (OSError, ssl.SSLError) as error:
            if self._context is None:
                raise SetupError(f"cannot read the certificate {self._certificate} with {self._key}: {error}") from error
            log.error("new certificate cannot be read; the old one stays in use", error=str(error))
        return self._context

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns
        except OSError:
            return None

    def _load(self) -> ssl.SSLContext:
        context = server_context()
        context.load_cert_chain(self._certificate, self._key)
        return context


class AwaitedCertificate:
    """A certificate that may not be there yet; its key is in the same file."""

    def __init__(self, path: Path) -> None:
        self._certificate = Certificate(path, path)

    def context(self) -> ssl.SSLContext | None:
        """Return the TLS context; None while there is no certificate that can be read."""
        try:
            return self._certificate.context()
        except SetupError:
            return None


def find_certificate(settings: Settings) -> CertificateSource | None:
    """Return where the settings say that the certificate is; None: the doors have no TLS."""
    smtp = settings.smtp
    if smtp.tls_certificate is not None and smtp.tls_key is not None:
        return Certificate(smtp.tls_certificate, smtp.tls_key)
    return AwaitedCertificate(acme_files(settings).certificate) if settings.acme.email is not None else None


def server_context() -> ssl.SSLContext:
    """Return a context for a door; without a certificate as yet, no handshake succeeds with it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def renewing_context(source: CertificateSource) -> ssl.SSLContext:
    """Return a context that takes the present certificate at each handshake, and refuses it while there is none.

    Raises SetupError when the files of the settings cannot be read.
    """
    outer = source.context() or server_context()

    def refresh(tls: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        present = source.context()
        if present is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        tls.context = present
        return None

    outer.sni_callback = refresh
    return outer
