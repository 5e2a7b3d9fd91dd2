"""What happens when a certificate is due? A new key, an order, an answer to the challenge, and one file that is replaced."""

import importlib.util
import sys
from datetime import datetime

from plunk_relay.acme.files import AcmeFiles, Validity, make_key
from plunk_relay.errors import SetupError
from plunk_relay.relay import Relay
from plunk_relay.settings import Settings

_LONGEST_REASON = 500


def check_library(settings: Settings) -> None:
    """Raise SetupError when ACME is on and its library is not installed."""
    if settings.acme.email is not None and any(importlib.util.find_spec(name) is None for name in ("acme", "josepy")):
        command = f"{sys.executable} -m pip install acme josepy"
        raise SetupError(f"setting `acme.email`: ACME needs a library that is not installed: {command}")


def acme_files(settings: Settings) -> AcmeFiles:
    """Return the files of the authority of the settings."""
    return AcmeFiles(settings.server.data_dir, settings.acme.directory_url)


def wanted_names(relay: Relay) -> tuple[str, ...]:
    """Return the names that the certificate has to have, in lower case as authorities write them."""
    return tuple(name.lower() for name in relay.settings.acme.names or (relay.hostname,))


def is_due(validity: Validity | None, names: tuple[str, ...], now: datetime) -> bool:
    """Tell whether to ask for a certificate: none is there, it is for other names, or two thirds of its life are over."""
    if validity is None or validity.names != frozenset(names):
        return True
    return now >= validity.begins + (validity.ends - validity.begins) * 2 / 3


def obtain(relay: Relay) -> None:
    """Get a certificate and store it; for a thread. Raises whatever went wrong: `explain` says it in a line."""
    from plunk_relay.acme.authority import Request, issue  # noqa: PLC0415  20 MB, needed for seconds in months

    chosen, files, key = relay.settings.acme, acme_files(relay.settings), make_key()
    request = Request(
        directory_url=chosen.directory_url,
        ca_file=chosen.ca_file,
        email=chosen.email or "",
        account_key=files.load_account_key(make_key),
        names=wanted_names(relay),
        key=key,
        answers=relay.acme_answers,
        now=relay.clock.now,
        is_stopping=relay.stopping.is_set,
    )
    files.store_certificate(key, issue(request))


def explain(error: Exception) -> str:
    """Say in one line why there is no certificate; some of the library's errors have their text in an inner one."""
    text = str(error) or str(getattr(error, "error", "")) or type(error).__name__
    return " ".join(text.split())[:_LONGEST_REASON]
