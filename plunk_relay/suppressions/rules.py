"""Which recipients does a rule catch? Its pattern, compared with the whole address or a part of it, in any case."""

import re
from collections.abc import Sequence
from functools import lru_cache

from plunk_relay.mail.address import domain_of, normalize_address, to_ascii_domain
from plunk_relay.suppressions.queries import Rule

_REMEMBERED_PATTERNS = 10_000


def find_match(rules: Sequence[Rule], address: str) -> Rule | None:
    """Return the first rule that is on and catches an address, or None."""
    return next((rule for rule in rules if rule.enabled and catches(rule, address)), None)


def catches(rule: Rule, address: str) -> bool:
    """Tell whether a rule's pattern fits an address."""
    whole, pattern = normalize_address(address), normalize_address(rule.pattern)
    local = whole.rpartition("@")[0]
    match rule.kind:
        case "ADDRESS":
            return whole == pattern
        case "DOMAIN":
            return to_ascii_domain(domain_of(whole)) == to_ascii_domain(pattern)
        case "PREFIX":
            return local.startswith(pattern)
        case "SUFFIX":
            return local.endswith(pattern)
        case "WILDCARD":
            return _wildcard(pattern).match(whole) is not None


def explain_misfit(kind: str, pattern: str) -> str | None:
    """Return None for a pattern that can catch something, else one sentence that says why it never will."""
    if kind == "ADDRESS" and "@" not in pattern:
        return "An ADDRESS pattern is a whole address such as ann@example.com"
    if kind in ("DOMAIN", "PREFIX", "SUFFIX") and "@" in pattern:
        part = "the domain" if kind == "DOMAIN" else "what stands before the @"
        return f"A {kind} pattern is compared with {part}: leave the @ out"
    return None


@lru_cache(_REMEMBERED_PATTERNS)
def _wildcard(pattern: str) -> re.Pattern[str]:
    """Compile `*` (any characters) and `?` (one). Atomic groups: what a `*` has skipped is never tried again."""
    first, *others = [re.escape(piece).replace(r"\?", ".") for piece in pattern.split("*")]
    if not others:
        return re.compile(first + r"\Z", re.DOTALL)
    *middle, last = others
    skipping = "".join(f"(?>.*?{piece})" for piece in middle)
    return re.compile(f"{first}{skipping}.*{last}\\Z", re.DOTALL)
