"""Which part of a name did somebody register? The label below the public suffix: `co.uk` is one, `example.co.uk` is not."""

import functools

from publicsuffixlist import PublicSuffixList


def registered_domain(name: str) -> str:
    """Return the registered domain of a lower-case A-label name; the name itself when it is a public suffix."""
    return _public_suffixes().privatesuffix(name) or name


def public_suffix(name: str) -> str | None:
    """Return the suffix of a name that is on the list; None: its top-level domain does not exist, or it is one itself."""
    found = _public_suffixes().publicsuffix(name, accept_unknown=False)
    return found if isinstance(found, str) and found != name else None


@functools.cache
def _public_suffixes() -> PublicSuffixList:
    """Read the list once, when it is first needed: it takes 50 ms."""
    return PublicSuffixList()
