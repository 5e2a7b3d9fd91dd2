"""Did the signers of a received message sign it? DKIM verification (RFC 6376 6, RFC 8301, RFC 8463) of hostile mail.

dkimpy verifies as well and is our reference in the tests; its regular expressions take quadratic time on runs of blanks,
and its RSA is pure Python without a bound. Here the work for each signature is one hash over the message.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from plunk_relay.mail.dkim import canonicalize_body, canonicalize_field, select_fields, split_fields
from plunk_relay.mail.dns import DnsTemporary, NameNotFound, Resolver

Result = Literal["pass", "fail", "policy", "permerror", "temperror"]
MOST_SIGNATURES = 5
_MOST_NAMES = 300
_MOST_HEADER_BYTES = 262144
_LONGEST_RECORD = 4096
_RSA_BITS = range(1024, 4097)  # RFC 8301 3.2
_Field = tuple[bytes, bytes]
_Key = RSAPublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class SignatureResult:
    """What became of one signature; domain and selector are as written in it, empty when they cannot be read."""

    domain: str
    selector: str
    result: Result
    reason: str = ""


class _Unusable(Exception):
    """The signature or its key cannot count; `result` says how."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.result = result


@dataclass(frozen=True, slots=True)
class _Signature:
    """The tags of a DKIM-Signature field that passed the checks of RFC 6376 6.1.1."""

    field: _Field
    algorithm: str
    domain: str
    selector: str
    names: Sequence[bytes]
    body_hash: bytes
    signature: bytes
    relaxed_header: bool
    relaxed_body: bool
    identity_domain: str


async def check_signatures(message: bytes, resolver: Resolver, *, now: datetime) -> list[SignatureResult]:
    """Verify the topmost signatures of a message (CRLF lines); a look-up that fails is a temperror."""
    head = message[: max(message.find(b"\r\n\r\n", 0, _MOST_HEADER_BYTES), 0) + 2]
    fields = split_fields(head)
    body_start = len(head) + 2
    signed = [field for field in fields if field[0].lower().rstrip() == b"dkim-signature"][:MOST_SIGNATURES]
    return [await _check(message, body_start, fields, field, resolver, now) for field in signed]


async def _check(
    message: bytes, body_start: int, fields: Sequence[_Field], field: _Field, resolver: Resolver, now: datetime
) -> SignatureResult:
    tags: Mapping[bytes, bytes] = {}
    try:
        tags = _read_tags(field[1])
        signature = _read_signature(field, tags, now)
        key = await _find_key(resolver, signature)
        await asyncio.to_thread(_verify, message, body_start, fields, signature, key)
    except _Unusable as unusable:
        return SignatureResult(_text(tags.get(b"d")), _text(tags.get(b"s")), unusable.result, str(unusable))
    return SignatureResult(signature.domain, signature.selector, "pass")


def _read_tags(value: bytes) -> dict[bytes, bytes]:
    """Read `name=value; ...` (RFC 6376 3.2); a name that comes twice makes it unreadable."""
    tags: dict[bytes, bytes] = {}
    for part in value.replace(b"\r\n", b"").split(b";"):
        name, equals, content = part.partition(b"=")
        if not part.strip():
            continue
        if not equals or name.strip() in tags:
            raise _Unusable("permerror", "the signature's tags cannot be read")
        tags[name.strip()] = content.strip()
    return tags


def _read_signature(field: _Field, tags: Mapping[bytes, bytes], now: datetime) -> _Signature:
    missing = [name for name in (b"v", b"a", b"b", b"bh", b"d", b"h", b"s") if not tags.get(name)]
    if missing or tags[b"v"] != b"1":
        raise _Unusable("permerror", "a tag that is needed is missing, or the version is unknown")
    algorithm, domain = _text(tags[b"a"]).lower(), _text(tags[b"d"]).lower()
    if algorithm not in ("rsa-sha256", "ed25519-sha256"):
        raise _Unusable("permerror", f"the algorithm {algorithm[:30]} is not accepted")
    names = [name.strip().lower() for name in tags[b"h"].split(b":")]
    if b"from" not in names or len(names) > _MOST_NAMES:
        raise _Unusable("permerror", "the signature does not cover From")
    identity = _text(tags.get(b"i", b"@" + tags[b"d"])).lower().rpartition("@")[2]
    if identity != domain and not identity.endswith(f".{domain}"):
        raise _Unusable("permerror", "i= is not inside d=")
    if b"l" in tags:
        raise _Unusable("policy", "only a part of the body is signed (l=)")
    if b"x" in tags and tags[b"x"].isdigit() and int(tags[b"x"][:15]) < now.timestamp():
        raise _Unusable("fail", "the signature has expired")
    header_form, _, body_form = _text(tags.get(b"c", b"simple/simple")).lower().partition("/")
    if header_form not in ("simple", "relaxed") or body_form not in ("", "simple", "relaxed"):
        raise _Unusable("permerror", "the canonicalization is unknown")
    return _Signature(
        field=field,
        algorithm=algorithm,
        domain=domain,
        selector=_text(tags[b"s"]).lower(),
        names=names,
        body_hash=_decode(tags[b"bh"]),
        signature=_decode(tags[b"b"]),
        relaxed_header=header_form == "relaxed",
        relaxed_body=body_form == "relaxed",
        identity_domain=identity,
    )


async def _find_key(resolver: Resolver, signature: _Signature) -> _Key:
    """Look up the public key and check what it is for (RFC 6376 6.1.2)."""
    try:
        records = await resolver.txt(f"{signature.selector}._domainkey.{signature.domain}")
    except NameNotFound:
        records = []
    except DnsTemporary as error:
        raise _Unusable("temperror", str(error)) from None
    usable = [text for text in records if "p=" in text and len(text) <= _LONGEST_RECORD]
    if not usable:
        raise _Unusable("permerror", "there is no key record")
    return _read_key(usable[0], signature)


def _read_key(record: str, signature: _Signature) -> _Key:
    tags = _read_tags(record.encode())
    services = _words(tags.get(b"s", b"*"))
    if tags.get(b"v", b"DKIM1") != b"DKIM1" or not {b"*", b"email"} & services:
        raise _Unusable("permerror", "the key record is not for mail")
    if b"h" in tags and b"sha256" not in _words(tags[b"h"]):
        raise _Unusable("permerror", "the key record does not allow sha256")
    if tags.get(b"k", b"rsa").lower() != signature.algorithm.partition("-")[0].encode():
        raise _Unusable("permerror", "the key is for another algorithm")
    if b"s" in _words(tags.get(b"t", b"")) and signature.identity_domain != signature.domain:
        raise _Unusable("permerror", "the key is not for subdomains")
    public = _decode(tags.get(b"p", b""))
    if not public:
        raise _Unusable("permerror", "the key is revoked")
    return _load_key(public, signature.algorithm)


def _load_key(public: bytes, algorithm: str) -> _Key:
    try:
        if algorithm == "ed25519-sha256":
            return Ed25519PublicKey.from_public_bytes(public)
        key = load_der_public_key(public)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _Unusable("permerror", "the key cannot be read") from None
    if not isinstance(key, RSAPublicKey) or key.key_size not in _RSA_BITS:
        raise _Unusable("permerror", "the key is no RSA key of 1024 to 4096 bits")
    return key


def _verify(message: bytes, body_start: int, fields: Sequence[_Field], signature: _Signature, key: _Key) -> None:
    """Compare both hashes; for a thread."""
    body = message[body_start:]
    canonical = canonicalize_body(body) if signature.relaxed_body else _simple_body(body)
    if hashlib.sha256(canonical).digest() != signature.body_hash:
        raise _Unusable("fail", "the body was changed")
    write = canonicalize_field if signature.relaxed_header else _simple_field
    data = b"".join(write(field) for field in select_fields(fields, signature.names))
    data += write((signature.field[0], _without_signature(signature.field[1]))).removesuffix(b"\r\n")
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signature.signature, data, PKCS1v15(), SHA256())
        else:
            key.verify(signature.signature, hashlib.sha256(data).digest())
    except InvalidSignature:
        raise _Unusable("fail", "the headers were changed, or somebody else signed") from None


def _simple_field(field: _Field) -> bytes:
    return field[0] + b":" + field[1]


def _simple_body(body: bytes) -> bytes:
    """Write a body in simple form (RFC 6376 3.4.3): no empty lines at the end, at least one line end."""
    end = len(body)
    while body.endswith(b"\r\n", 0, end):
        end -= 2
    return body[:end] + b"\r\n"


def _without_signature(value: bytes) -> bytes:
    """Return the field with its b= empty, everything else as it is (RFC 6376 3.7)."""
    parts = value.split(b";")
    return b";".join(
        part[: part.index(b"=") + 1] if part.partition(b"=")[0].strip() == b"b" and b"=" in part else part for part in parts
    )


def _decode(value: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _Unusable("permerror", "what should be base64 is none") from None


def _words(value: bytes) -> set[bytes]:
    return {word.strip().lower() for word in value.split(b":")}


def _text(value: bytes | None) -> str:
    return (value or b"").decode("ascii", "replace")[:255]
