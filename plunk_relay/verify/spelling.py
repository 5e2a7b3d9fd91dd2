"""Was a domain mistyped? A distance of letters to the names of large providers, and to top-level domains that exist.

A suggestion is a hint to a person at a form, so a missed mistake costs less than a false alarm: short names and words of
a language must be hit almost exactly, and a domain that is known is never one.
"""

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from rapidfuzz.distance import OSA

from plunk_relay.mail.registered_domain import public_suffix

_LONG_NAME = 8
_LEAST_NAME = 4
_NEIGHBOURS = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj", "i": "uojk", "o": "ipkl",
    "p": "ol", "a": "qwsz", "s": "awedzx", "d": "serfxc", "f": "drtgcv", "g": "ftyhvb", "h": "gyujbn", "j": "huiknm",
    "k": "jiolm", "l": "kop", "z": "asx", "x": "zsdc", "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip
Homes = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Spelling:
    """What domains are compared with; see spelling.toml."""

    names: Homes
    words: Homes
    short: Homes
    mistaken_suffixes: Mapping[str, str]
    """What is written to what is meant."""
    known: frozenset[str]

    @property
    def homes(self) -> Homes:
        """All names and their suffixes, the most likely ones first."""
        return {**self.names, **self.words, **self.short}

    def suggest(self, domain: str) -> str | None:
        """Return the domain that a lower-case A-label domain was probably meant to be; None: it looks right.

        The caller asks only for domains that are on no list of known ones.
        """
        if domain in self.known or "xn--" in domain:
            return None
        if "." not in domain:
            return self._add_missing_dot(domain)
        name, suffix = _split(domain)
        if not name or "." in name:
            return None
        meant = self._find_provider(name, suffix) or self._correct_suffix(name, suffix)
        return meant if meant != domain else None

    def _add_missing_dot(self, text: str) -> str | None:
        whole = (f"{name}.{suffix}" for name, suffixes in self.homes.items() for suffix in suffixes)
        return next((domain for domain in whole if domain.replace(".", "") == text), None)

    def _find_provider(self, name: str, suffix: str) -> str | None:
        """Find the provider whose name is nearest and who is at home under the suffix, or under one it was meant to be."""
        found: list[tuple[int, str]] = []
        for meant, suffixes in self.homes.items():
            distance = self._name_distance(name, meant)
            home = None if distance is None else self._find_home(suffix, suffixes)
            if distance is not None and home is not None and (distance == 0 or home == suffix or distance == 1):
                found.append((distance + (home != suffix), f"{meant}.{home}"))
        return min(found, default=(0, None), key=lambda one: one[0])[1]

    def _name_distance(self, name: str, meant: str) -> int | None:
        """Return how many slips lie between two names; None: too many for this name."""
        if name == meant:
            return 0
        if len(meant) < _LEAST_NAME:
            return None
        if meant not in self.names:
            swapped = sorted(name) == sorted(meant) and OSA.distance(name, meant) == 1
            return 1 if swapped else None
        most = 2 if len(meant) >= _LONG_NAME else 1
        distance = OSA.distance(name, meant, score_cutoff=most)
        if distance > most or (distance == 2 and name[0] != meant[0]):
            return None
        return distance if distance == 2 or _is_likely_slip(name, meant) else None

    def _find_home(self, suffix: str, suffixes: Sequence[str]) -> str | None:
        """Return the suffix that is meant: this one, the one it is a known mistake for, or the nearest if it is none."""
        if suffix in suffixes:
            return suffix
        mistaken = self.mistaken_suffixes.get(suffix)
        if mistaken in suffixes:
            return mistaken
        return None if _exists(suffix) else _nearest(suffix, suffixes)

    def _correct_suffix(self, name: str, suffix: str) -> str | None:
        """Correct the suffix of a name that is nobody's we know; only one that does not exist is a mistake."""
        if _exists(suffix):
            return None
        meant = self.mistaken_suffixes.get(suffix) or _nearest(suffix, _COMMON_SUFFIXES)
        return f"{name}.{meant}" if meant else None


_COMMON_SUFFIXES = (
    "com", "net", "org", "info", "co.uk", "com.au", "com.br", "co.nz", "co.za", "co.jp", "co.in", "com.mx", "com.ar",
    "org.uk", "gov", "edu",
)  # fmt: skip
_COMPOUND = frozenset("co com org net gov edu ac c cok uk".split())


@functools.cache
def shipped_spelling() -> Spelling:
    """Read spelling.toml once, when it is first needed."""
    tables = tomllib.loads((files("plunk_relay.verify") / "spelling.toml").read_text())
    homes = {**tables["names"], **tables["words"], **tables["short"]}
    return Spelling(
        tables["names"],
        tables["words"],
        tables["short"],
        {written: meant for meant, mistakes in tables["suffixes"].items() for written in mistakes},
        frozenset(f"{name}.{suffix}" for name, suffixes in homes.items() for suffix in suffixes)
        | frozenset(tables["genuine"]["domains"]),
    )


def _split(domain: str) -> tuple[str, str]:
    """Split a domain into what is before its public suffix and the suffix; one that is mistyped may have two labels."""
    known = public_suffix(domain)
    if known is not None:
        return domain[: -len(known) - 1], known
    labels = domain.split(".")
    parts = 2 if len(labels) > 2 and labels[-2] in _COMPOUND else 1
    return ".".join(labels[:-parts]), ".".join(labels[-parts:])


def _exists(suffix: str) -> bool:
    return public_suffix(f"host.registered.{suffix}") is not None


def _nearest(suffix: str, among: Sequence[str]) -> str | None:
    """Return the suffix that is one slip away, the first of several."""
    return next((one for one in among if len(suffix) > 1 and OSA.distance(suffix, one, score_cutoff=1) == 1), None)


def _is_likely_slip(name: str, meant: str) -> bool:
    """Tell whether a single slip is one of fingers or ears.

    Another letter must be a neighbour on the keyboard, the letter beside it once more, or a vowel for a vowel.
    """
    if len(name) != len(meant):
        return True
    places = [place for place, letter in enumerate(meant) if name[place] != letter]
    if len(places) == 2:  # changed places
        return True
    [place] = places
    written, letter = name[place], meant[place]
    beside = meant[max(place - 1, 0) : place] + meant[place + 1 : place + 2]
    return written in _NEIGHBOURS.get(letter, "") or written in beside or {written, letter} <= set("aeiou")
