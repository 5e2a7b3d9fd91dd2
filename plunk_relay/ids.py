"""What is a new thing called? Identifiers and secrets, made in Python."""

import hashlib
import hmac
import os
import re
import secrets
from threading import Lock

from plunk_relay.clock import epoch_milliseconds

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)
_last_stamp = 0
_lock = Lock()
_stock = bytearray()


def _take_random(count: int) -> bytes:
    """Take bytes of the system's generator from a stock: one system call for hundreds of identifiers."""
    with _lock:
        if len(_stock) < count:
            _stock[:] = os.urandom(4096)
        taken = bytes(_stock[-count:])
        del _stock[-count:]
    return taken


def new_id() -> str:
    """Make a UUIDv7 string (RFC 9562 5.7): ordered by time, so inserts stay at the end of an index.

    48 bits of milliseconds, 12 bits that count within one millisecond, 62 random bits.
    """
    global _last_stamp  # noqa: PLW0603  one counter for the process keeps ids of one millisecond in order
    with _lock:
        stamp = max(epoch_milliseconds() << 12, _last_stamp + 1)
        _last_stamp = stamp
    value = (stamp >> 12) << 80 | 0x7000 << 64 | (stamp & 0xFFF) << 64 | 0x2 << 62
    value |= int.from_bytes(_take_random(8), "big") >> 2
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_id(text: str) -> bool:
    """Tell whether a text is written like an identifier: a UUID of any version, in any case."""
    return _ID.match(text) is not None


def new_api_key(prefix: str) -> str:
    """Make an API key: `pk_` or `sk_`, then 64 hexadecimal digits (32 random bytes)."""
    return prefix + secrets.token_hex(32)


def hash_secret(secret: str) -> str:
    """Hash a high-entropy secret for lookup: SHA-256, hexadecimal. Not for passwords."""
    return hashlib.sha256(secret.encode()).hexdigest()


def same_secret(given: str, known: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode(), known.encode())
