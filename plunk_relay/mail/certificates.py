"""Is a peer's certificate good? The chain that it showed, the authorities we trust, and names, after the handshake."""

import ssl
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

_DER = 2  # _ssl.ENCODING_DER
_SHORT = 200


class Untrusted(Exception):
    """A certificate is not good; `result` is the word of RFC 8460 4.3 for it."""

    def __init__(self, result: str, text: str) -> None:
        super().__init__(text)
        self.result = result


def shown_chain(tls: ssl.SSLObject) -> list[bytes]:
    """Return the certificates that the peer sent, its own one first, as DER."""
    return _read_chain(tls, "get_unverified_chain")


def built_chain(tls: ssl.SSLObject) -> list[bytes]:
    """Return the chain that OpenSSL built from them and its trust store; it may end nowhere."""
    return _read_chain(tls, "get_verified_chain")


def _read_chain(tls: ssl.SSLObject, method: str) -> list[bytes]:
    public: Any = getattr(tls, method, None)  # Python 3.13 and newer
    if public is not None:
        return list(public())
    private: Any = getattr(tls._sslobj, method)  # type: ignore[attr-defined]  # noqa: SLF001  3.11 and 3.12 have it there
    return [certificate.public_bytes(_DER) for certificate in private() or ()]


def check_trusted(tls: ssl.SSLObject, context: ssl.SSLContext, host: str) -> None:
    """Raise Untrusted unless an authority of the context vouches for `host`; for handshakes that did not check it."""
    chain = built_chain(tls)
    if not chain or chain[-1] not in context.get_ca_certs(binary_form=True):
        raise Untrusted("certificate-not-trusted", "no trusted authority vouches for the certificate")
    check_chain(chain, [chain[-1]], [host])


def check_chain(chain: Sequence[bytes], anchors: Sequence[bytes], names: Sequence[str]) -> None:
    """Raise Untrusted unless the chain leads to one of the anchors, is valid now, and is for one of the names.

    Extensions that RFC 5280 does not demand for this are not looked at: mail servers' certificates are often home-made.
    """
    try:
        leaf, *others = [x509.load_der_x509_certificate(one) for one in chain]
        builder = PolicyBuilder().store(Store([x509.load_der_x509_certificate(one) for one in anchors]))
        builder = builder.extension_policies(ca_policy=_authority_policy(), ee_policy=_server_policy())
        verifiers = [builder.build_server_verifier(x509.DNSName(name)) for name in names]
    except ValueError as error:
        raise Untrusted("validation-failure", f"the certificate cannot be read: {str(error)[:_SHORT]}") from error
    trouble: VerificationError | None = None
    for verifier in verifiers:
        try:
            verifier.verify(leaf, others)
        except VerificationError as error:
            trouble = error
        else:
            return
    raise _explain(str(trouble))


def public_key_of(certificate: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate, both as DER; raises ValueError."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_failure(error: ssl.SSLError) -> Untrusted | None:
    """Say what a handshake that checks certificates did not like; None: it failed for another reason."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return None
    words = {10: "certificate-expired", 62: "certificate-host-mismatch"}  # X509_V_ERR_CERT_HAS_EXPIRED, _HOSTNAME_MISMATCH
    result = words.get(error.verify_code, "certificate-not-trusted")
    return Untrusted(result, f"certificate verify failed: {error.verify_message}")


def _authority_policy() -> ExtensionPolicy:
    return ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)


def _server_policy() -> ExtensionPolicy:
    return ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


def _explain(text: str) -> Untrusted:
    if "subjectAltName" in text or "2.5.29.17" in text:
        return Untrusted("certificate-host-mismatch", "the certificate is for another name")
    if "not valid at" in text:
        return Untrusted("certificate-expired", "the certificate is not valid now")
    return Untrusted("certificate-not-trusted", f"the certificate is not trusted: {text[:_SHORT]}")
