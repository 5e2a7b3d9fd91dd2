"""Which mail is a bounce about? The address it comes to says so: an envelope sender of its own for every delivery (VERP).

    b-<token>@bounce.<domain>    where failures come back to: the envelope sender of what leaves
    f-<token>@bounce.<domain>    where complaints about a mail may be sent to (feedback)

The token is the delivery's UUID and a MAC, in base32: letters and digits alone, which survive servers that change the case.
Nobody can make one without the key, so what comes to a guessed address has no effect.
"""

import base64
import binascii
import hashlib
import hmac
import uuid
from dataclasses import dataclass
from typing import Literal

BOUNCE_LABEL = "bounce"
"""The host below a domain that bounces go to."""
MAC_PURPOSE = "return path"
"""What the key is derived for."""
ReturnKind = Literal["bounce", "complaint"]
_PREFIXES: dict[str, ReturnKind] = {"b-": "bounce", "f-": "complaint"}
_LETTERS = {kind: prefix for prefix, kind in _PREFIXES.items()}
_ID_BYTES = 16
_MAC_BYTES = 10
_TOKEN_LETTERS = 42  # of 26 bytes: 208 bits in groups of five
_PADDING = "=" * (-_TOKEN_LETTERS % 8)


@dataclass(frozen=True, slots=True)
class ReturnAddress:
    """What an address of ours is for, and for which delivery."""

    kind: ReturnKind
    delivery_id: str


def make_return_address(kind: ReturnKind, delivery_id: str, *, domain: str, key: bytes) -> str:
    """Return the address of a delivery's bounces or complaints, on the bounce host of `domain` (A-labels)."""
    identity = uuid.UUID(delivery_id).bytes
    token = base64.b32encode(identity + _mac(kind, identity, key)).decode().rstrip("=").lower()
    return f"{_LETTERS[kind]}{token}@{bounce_host(domain)}"


def read_return_address(local_part: str, *, key: bytes) -> ReturnAddress | None:
    """Read the part before the `@`, in any case; None when it is not of our making."""
    kind = _PREFIXES.get(local_part[:2].lower())
    token = local_part[2:].upper()
    if kind is None or len(token) != _TOKEN_LETTERS or not token.isascii():
        return None
    try:
        raw = base64.b32decode(token + _PADDING)
    except binascii.Error:
        return None
    identity, mac = raw[:_ID_BYTES], raw[_ID_BYTES:]
    if not hmac.compare_digest(mac, _mac(kind, identity, key)):
        return None
    return ReturnAddress(kind, str(uuid.UUID(bytes=identity)))


def bounce_host(domain: str) -> str:
    """Return the host that a domain's bounces go to."""
    return f"{BOUNCE_LABEL}.{domain}"


def _mac(kind: ReturnKind, identity: bytes, key: bytes) -> bytes:
    """Authenticate use and delivery: who has seen the one address of a mail cannot make the other."""
    return hmac.digest(key, kind.encode() + b"\0" + identity, hashlib.sha256)[:_MAC_BYTES]
