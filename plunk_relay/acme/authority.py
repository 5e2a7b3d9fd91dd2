"""How is a certificate authority asked? Account, order, challenge, certificate (RFC 8555 7), with the `acme` library.

All of it blocks: it is for a thread. The library and what it brings along take 20 MB, so this module is imported when a
certificate is due and not before.
"""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from acme import challenges, client, crypto_util, errors, messages
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from josepy.jwa import ES256
from josepy.jwk import JWKEC

T = TypeVar("T")
_REQUEST_SECONDS = 10
"""Longest silence of the authority; a server that is told to stop waits for it as well."""
_SLICE = timedelta(seconds=5)
_MOST_SLICES = 24


class AcmeFailed(Exception):
    """The authority gave no certificate."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, of whom, and how the challenge is answered."""

    directory_url: str
    ca_file: Path | None
    email: str
    account_key: str
    """PEM."""
    names: Sequence[str]
    key: str
    """PEM; the certificate's own."""
    answers: MutableMapping[str, str]
    """By token; what is in it the HTTP door shows to everybody."""
    now: Callable[[], datetime]
    is_stopping: Callable[[], bool]


def issue(request: Request) -> str:
    """Return the certificate with its chain as PEM; raises AcmeFailed, OSError, and what the library raises."""
    account_key = _read_account_key(request.account_key)
    verify = str(request.ca_file) if request.ca_file else True
    net = client.ClientNetwork(
        account_key,
        alg=ES256,
        verify_ssl=verify,  # type: ignore[arg-type]  # the library hands it to requests, which takes a path as well
        user_agent="Plunk-Relay",
        timeout=_REQUEST_SECONDS,
    )
    authority = client.ClientV2(client.ClientV2.get_directory(request.directory_url, net), net)
    _sign_in(authority, request.email)
    order = authority.new_order(crypto_util.make_csr(request.key.encode(), list(request.names)))
    tokens = [_prove(authority, authorization, account_key, request.answers) for authorization in order.authorizations]
    try:
        proven = _patiently(request, lambda until: authority.poll_authorizations(order, until))
    finally:
        for token in filter(None, tokens):
            request.answers.pop(token, None)
    started = authority.begin_finalization(proven)
    return str(_patiently(request, lambda until: authority.poll_finalization(started, until)).fullchain_pem)


def _read_account_key(pem: str) -> JWKEC:
    key = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise AcmeFailed("the account's key is not one of P-256: remove account.key, and a new account is made")
    return JWKEC(key=key)


def _sign_in(authority: client.ClientV2, email: str) -> None:
    """Make the account, or find the one that has our key (RFC 8555 7.3.1)."""
    new = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
    try:
        authority.new_account(new)
    except errors.ConflictError as known:
        authority.net.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())


def _prove(
    authority: client.ClientV2,
    authorization: messages.AuthorizationResource,
    account_key: JWKEC,
    answers: MutableMapping[str, str],
) -> str | None:
    """Show the answer to a name's challenge, and say that it is there; return its token, None when nothing is asked."""
    if authorization.body.status == messages.STATUS_VALID:
        return None
    for offered in authorization.body.challenges:
        if isinstance(offered.chall, challenges.HTTP01):
            response, answer = offered.response_and_validation(account_key)
            token = offered.chall.encode("token")
            answers[token] = answer
            authority.answer_challenge(offered, response)
            return str(token)
    raise AcmeFailed(f"the authority offers no http-01 challenge for {authorization.body.identifier.value}")


def _patiently(request: Request, poll: Callable[[datetime], T]) -> T:
    """Let the library wait for the authority, a few seconds at a time, so that the server can be stopped meanwhile."""
    for _ in range(_MOST_SLICES):
        if request.is_stopping():
            raise AcmeFailed("the server is stopping")
        try:
            return poll(_as_library(request.now()) + _SLICE)
        except errors.TimeoutError:
            continue
    raise AcmeFailed(f"the authority was not done within {_MOST_SLICES * _SLICE.seconds} seconds")


def _as_library(moment: datetime) -> datetime:
    """Return a moment as the library compares it: local time without a zone."""
    return moment.astimezone().replace(tzinfo=None)
