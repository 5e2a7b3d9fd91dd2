"""What happens to accounts? Made, and given passwords (argon2id, computed in a thread)."""

import asyncio

from argon2 import PasswordHasher

from plunk_relay.accounts import queries
from plunk_relay.accounts.queries import User
from plunk_relay.errors import BadRequest, Conflict, NotFound
from plunk_relay.ids import new_id
from plunk_relay.mail.address import check_address, normalize_address
from plunk_relay.relay import Relay

MINIMUM_PASSWORD_LENGTH = 6
_hasher = PasswordHasher()


async def create_user(relay: Relay, email: str, *, password: str) -> User:
    """Make a PASSWORD account whose address counts as verified; raises BadRequest or Conflict."""
    address = normalize_address(email)
    if reason := check_address(address):
        raise BadRequest(f"email: {reason}")
    user = User(new_id(), address, await _hash(password), "PASSWORD", True, relay.clock.now())
    if await relay.db.read(queries.find_user_by_email, address):
        raise Conflict(f"An account with the address {address} exists already.")
    await relay.db.write(queries.insert_user, user)
    return user


async def change_password(relay: Relay, email: str, *, password: str) -> User:
    """Give the account with this address a new password; raises NotFound or BadRequest."""
    user = await relay.db.read(queries.find_user_by_email, normalize_address(email))
    if user is None:
        raise NotFound.of("User", email)
    await relay.db.write(queries.set_password, user.id, await _hash(password), now=relay.clock.now())
    return user


async def _hash(password: str) -> str:
    if len(password) < MINIMUM_PASSWORD_LENGTH:
        raise BadRequest(f"password: use at least {MINIMUM_PASSWORD_LENGTH} characters.")
    return await asyncio.to_thread(_hasher.hash, password)
