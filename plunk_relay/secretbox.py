"""How are secrets kept in the database? Sealed with a key that is not in it.

AES-256-GCM; the key is derived from `server.secret_key`, and so are those that authenticate what we hand out. A sealed text
is `1.` + base64url(nonce + ciphertext), and is bound to a purpose, so that a DKIM key cannot be passed off as an API key.
"""

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from plunk_relay.errors import SetupError

_NONCE_BYTES = 12


class SecretBox:
    """Seal and open short secrets."""

    def __init__(self, secret_key: str) -> None:
        self._secret_key = secret_key.encode()
        self._cipher = AESGCM(self._derive("secret box"))
        self._mac_keys: dict[str, bytes] = {}

    def mac_key(self, purpose: str) -> bytes:
        """Return the key that authenticates what is handed out for `purpose`: it opens no sealed secret."""
        key = self._mac_keys.get(purpose)
        if key is None:
            key = self._mac_keys[purpose] = self._derive(f"mac: {purpose}")
        return key

    def _derive(self, use: str) -> bytes:
        return HKDF(SHA256(), 32, salt=None, info=f"plunk-relay {use}".encode()).derive(self._secret_key)

    def seal(self, secret: str, *, purpose: str) -> str:
        """Encrypt `secret` for `purpose`."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, secret.encode(), purpose.encode())
        return "1." + base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, sealed: str, *, purpose: str) -> str:
        """Decrypt what `seal` made; raises SetupError for a wrong key or purpose, or a text that was changed."""
        try:
            raw = base64.urlsafe_b64decode(sealed.removeprefix("1."))
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise SetupError(
                "server.secret_key does not fit this database: a stored secret cannot be decrypted; "
                "restore the key that was in use when the data was written"
            ) from error
