"""Which part of a name did somebody register? The label below the public suffix: `co.uk` is one, `example.co.uk` is not."""

import functools

from publicsuffixlist import PublicSuffixList


def registered_domain(name: str) -> str:
    """Return the registered domain of a lower-case A-label name; the name itself when it is a public suffix."""
    return _public_suffixes().privatesuffix(name) or name


@functools.cache
def _public_suffixes() -> PublicSuffixList:
    """Read the list once, when it is first needed: it takes 50 ms."""
    return PublicSuffixList()
