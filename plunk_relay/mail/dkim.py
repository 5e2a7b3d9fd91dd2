"""Who vouches for a message? DKIM signatures: RSA-2048 and Ed25519 side by side (RFC 6376, 8463), relaxed/relaxed.

Header selection follows dkimpy, which is also the verifier; canonicalisation works with bytes methods and the RSA
operation is `cryptography`'s, which together cost a twentieth of dkimpy's signature. No `l=`: a signature covers the
whole body. From and Subject are signed once more than they occur, so that none can be added.
"""

import base64
import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from plunk_relay.spool import PIECE_BYTES, Buffer, Held

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]
SIGNED_HEADERS = frozenset(dkim.DKIM.SHOULD) | {b"list-unsubscribe-post", b"feedback-id", b"auto-submitted"}
OVERSIGNED_HEADERS = (b"from", b"subject")
_Field = tuple[bytes, bytes]
_UNREADABLE = (dkim.DKIMException, ValueError, TypeError, LookupError, ArithmeticError, AssertionError)
"""What dkimpy raises for signatures and keys that are none; only the first is its own."""


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A private key and the name its public half is published under: `<selector>._domainkey.<domain>`."""

    selector: str
    algorithm: Algorithm
    private_key: RSAPrivateKey | Ed25519PrivateKey


def generate_rsa_pem(bits: int = 2048) -> str:
    """Make an RSA private key, PKCS #8 PEM. Takes about 0.1 s: call it in a thread."""
    return _to_pem(generate_private_key(public_exponent=65537, key_size=bits))


def generate_ed25519_pem() -> str:
    """Make an Ed25519 private key, PKCS #8 PEM."""
    return _to_pem(Ed25519PrivateKey.generate())


def _to_pem(key: RSAPrivateKey | Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def load_key(selector: str, algorithm: Algorithm, pem: str) -> DkimKey:
    """Read a private key; raises ValueError when the PEM holds no key of that algorithm."""
    # made and sealed by ourselves: validating it again costs 30 ms
    key = load_pem_private_key(pem.encode(), password=None, unsafe_skip_rsa_key_validation=True)
    wanted = RSAPrivateKey if algorithm == "rsa-sha256" else Ed25519PrivateKey
    if not isinstance(key, wanted):
        raise ValueError(f"the key for selector {selector} is not for {algorithm}")
    return DkimKey(selector, algorithm, key)


def public_record(key: DkimKey) -> str:
    """Return the TXT value to publish (RFC 6376 3.6.1, RFC 8463 4)."""
    public = key.private_key.public_key()
    if key.algorithm == "rsa-sha256":
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}"
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode()}"


def sign(message: bytes, *, domain: str, keys: Sequence[DkimKey], timestamp: int) -> bytes:
    """Return a DKIM-Signature field for each key, CRLF-terminated, to put in front of the message (CRLF lines)."""
    if len(message) > PIECE_BYTES:
        return sign_pieces(Held(message).pieces(), domain=domain, keys=keys, timestamp=timestamp)
    head, _, body = message.partition(b"\r\n\r\n")
    digest = hashlib.sha256(canonicalize_body(body)).digest()
    return _sign(head, digest, domain=domain, keys=keys, timestamp=timestamp)


def sign_pieces(pieces: Iterable[Buffer], *, domain: str, keys: Sequence[DkimKey], timestamp: int) -> bytes:
    """Do the same for a message that comes in pieces: no more than a few of them are held."""
    rest, start = iter(pieces), b""
    while b"\r\n\r\n" not in start and (piece := next(rest, None)) is not None:
        start += bytes(piece)
    head, _, body = start.partition(b"\r\n\r\n")
    return _sign(head, hash_body(itertools.chain([body], rest)), domain=domain, keys=keys, timestamp=timestamp)


def _sign(head: bytes, body_digest: bytes, *, domain: str, keys: Sequence[DkimKey], timestamp: int) -> bytes:
    fields = split_fields(head + b"\r\n")
    names = signed_names(fields)
    selected = b"".join(canonicalize_field(field) for field in select_fields(fields, names))
    common = _SignedParts(domain, timestamp, names, base64.b64encode(body_digest), selected)
    return b"".join(_signature(common, key) for key in keys)


@dataclass(frozen=True, slots=True)
class _SignedParts:
    domain: str
    timestamp: int
    names: list[bytes]
    body_hash: bytes
    selected: bytes


def _signature(parts: _SignedParts, key: DkimKey) -> bytes:
    value = b"v=1; a=%b; c=relaxed/relaxed; d=%b;\r\n\ts=%b; t=%d;\r\n\th=%b;\r\n\tbh=%b;\r\n\tb=" % (
        key.algorithm.encode(),
        parts.domain.encode(),
        key.selector.encode(),
        parts.timestamp,
        _fold_names(parts.names),
        parts.body_hash,
    )
    own = canonicalize_field((b"DKIM-Signature", b" " + value + b"\r\n"))[:-2]
    signature = base64.b64encode(_sign_bytes(parts.selected + own, key.private_key))
    lines = [signature[start : start + 70] for start in range(0, len(signature), 70)]
    return b"DKIM-Signature: " + value + b"\r\n\t ".join(lines) + b"\r\n"


def _sign_bytes(data: bytes, key: RSAPrivateKey | Ed25519PrivateKey) -> bytes:
    if isinstance(key, RSAPrivateKey):
        return key.sign(data, PKCS1v15(), SHA256())
    return key.sign(hashlib.sha256(data).digest())  # RFC 8463 3: Ed25519 over the SHA-256 hash


def _fold_names(names: Sequence[bytes]) -> bytes:
    lines, line = [], b""
    for name in names:
        if len(line) + len(name) > 68:
            lines.append(line)
            line = b""
        line += name + b":"
    return b"\r\n\t ".join([*lines, line])[:-1]


def split_fields(head: bytes) -> list[_Field]:
    """Split a header block into (name, value) with folds and the last CRLF kept in the value."""
    fields: list[_Field] = []
    for line in head.split(b"\r\n")[:-1]:
        if line[:1] in (b" ", b"\t") and fields:
            name, value = fields[-1]
            fields[-1] = (name, value + line + b"\r\n")
        else:
            name, colon, value = line.partition(b":")
            if colon:
                fields.append((name, value + b"\r\n"))
    return fields


def signed_names(fields: Sequence[_Field]) -> list[bytes]:
    """List the names for `h=`: each occurrence of a header worth signing, From and Subject once more."""
    present = [name.lower().rstrip() for name, _ in fields]
    return [name for name in present if name in SIGNED_HEADERS] + list(OVERSIGNED_HEADERS)


def select_fields(fields: Sequence[_Field], names: Sequence[bytes]) -> list[_Field]:
    """Pick the fields that `h=` means: from the bottom up, one a mention (RFC 6376 5.4.2)."""
    remaining: dict[bytes, list[_Field]] = {}
    for field in fields:
        remaining.setdefault(field[0].lower().rstrip(), []).append(field)
    return [remaining[name].pop() for name in names if remaining.get(name)]


def canonicalize_field(field: _Field) -> bytes:
    """Write one header field in relaxed form (RFC 6376 3.4.2), CRLF-terminated."""
    name, value = field
    return name.lower().rstrip() + b":" + _squeeze(value.replace(b"\r\n", b"").replace(b"\n", b"")).strip() + b"\r\n"


def canonicalize_body(body: bytes) -> bytes:
    """Write a body in relaxed form (RFC 6376 3.4.4): blanks squeezed, none at line ends, no empty lines at the end."""
    body = _relax_lines(body)
    end = len(body)
    while body.endswith(b"\r\n", 0, end):
        end -= 2
    return b"" if end == 0 else body[:end] + b"\r\n"


def hash_body(pieces: Iterable[Buffer]) -> bytes:
    """Return the SHA-256 of a body's relaxed form; its lines must not be longer than what may be held."""
    digest, rest, empty_lines = hashlib.sha256(), b"", 0
    for piece in pieces:
        data = rest + bytes(piece)
        end = data.rfind(b"\r\n") + 2 if b"\r\n" in data else 0
        lines, rest = _relax_lines(data[:end]), data[end:]
        text = canonicalize_body(lines)
        if text:  # so the empty lines before it were not the last ones
            digest.update(b"\r\n" * empty_lines + text)
            empty_lines = 0
        empty_lines += (len(lines) - len(text)) // 2
    if rest:
        digest.update(b"\r\n" * empty_lines + canonicalize_body(rest))
    return digest.digest()


def _relax_lines(text: bytes) -> bytes:
    if b"\t" in text or b"  " in text or b" \r\n" in text:
        return _squeeze(text).replace(b" \r\n", b"\r\n")
    return text


def _squeeze(text: bytes) -> bytes:
    """Make every run of blanks one space; each pass halves the runs, so the passes are few."""
    text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def verify(message: bytes, *, find_txt: Callable[[bytes], bytes | None]) -> list[bool]:
    """Verify every DKIM-Signature, the topmost first, with dkimpy; `find_txt` answers for a DNS name with a final dot."""
    count = sum(name.lower().rstrip() == b"dkim-signature" for name, _ in split_fields(message.partition(b"\r\n\r\n")[0]))
    verdicts = []
    for index in range(count):
        try:
            verdicts.append(bool(dkim.DKIM(message).verify(index, dnsfunc=lambda name, timeout=5: find_txt(name))))
        except _UNREADABLE:
            verdicts.append(False)
    return verdicts
