"""What does a refusal mean? The table `reply_rules.toml` says, read from top to bottom: the first rule that fits counts.

A rule fits when one of its `when` tables does, and that one when everything it names does. Words with an `@` are taken out
of the text first: what a recipient is called decides nothing. What no rule knows is judged by its code alone, and never as
a bad address.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, get_args

from plunk_relay.mail.outcome import Reply

ReplyClass = Literal["recipient", "policy", "reputation", "content", "temporary", "infrastructure"]
Pace = Literal["slow", "pause"]

_GAP = " ... "
_LETTERS = 4
_RULE_KEYS = {"name", "class", "when", "meaning", "advice", "address_is_bad", "pace", "minutes", "fallback"}
_CONDITION_KEYS = {"code", "status", "says", "matches", "provider", "not_provider"}
_CODE = re.compile(r"([45])xx|([45]\d\d)(?:-([45]\d\d))?")
_STATUS = re.compile(r"([45x])\.(\d{1,3})\.(?:(\*)|(\d{1,3})(?:-(\d{1,3}))?)")
_WRITTEN_STATUS = re.compile(r"([45])\.(\d{1,3})\.(\d{1,3})", re.ASCII)
_LATE_STATUS = re.compile(rf"#{_WRITTEN_STATUS.pattern}\b", re.ASCII)


@dataclass(frozen=True, slots=True)
class Classification:
    """What a rule says of a reply."""

    rule: str
    """The rule's name in the table."""
    reply_class: ReplyClass
    meaning: str
    """One sentence for people."""
    action: str
    """What was done about it and, where there is something, what people can do."""
    pace: Pace | None = None
    """What mail to this provider does for `pause_minutes`; None: it goes on."""
    pause_minutes: float | None = None
    fallback: bool = False
    """Our address is blocked there: the provider's mail should take another way."""
    address_is_bad: bool = False
    """For good, and about the address: nobody can be reached there. Only this unsubscribes and suppresses."""


class BadRules(ValueError):
    """A rule table cannot be read; the text names the rule and the key."""


@dataclass(frozen=True, slots=True)
class _Condition:
    """What a reply must be like; an empty part does not matter."""

    codes: tuple[tuple[int, int], ...] = ()
    statuses: tuple[tuple[str, int, int, int], ...] = ()
    """Class digit or x, subject, lowest and highest detail."""
    phrases: tuple[tuple[str, ...], ...] = ()
    """Any of these; the parts of a phrase in their order, whatever is between them."""
    expression: re.Pattern[str] | None = None
    providers: frozenset[str] = frozenset()
    other_providers: frozenset[str] = frozenset()
    """Not these."""

    def fits(self, seen: "_Seen") -> bool:
        return (
            (not self.phrases or any(_says(seen.text, phrase) for phrase in self.phrases))
            and (not self.codes or any(low <= seen.code <= high for low, high in self.codes))
            and (not self.statuses or any(_covers(pattern, seen.status) for pattern in self.statuses))
            and (not self.providers or seen.provider in self.providers)
            and seen.provider not in self.other_providers
            and (self.expression is None or self.expression.search(seen.text) is not None)
        )


@dataclass(frozen=True, slots=True)
class _Seen:
    """A reply, made ready to be compared."""

    code: int
    status: tuple[str, int, int] | None
    text: str
    """Lower case, without addresses, words with one blank between them."""
    provider: str | None


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    reply_class: ReplyClass
    conditions: tuple[_Condition, ...]
    meaning: str
    advice: str | None
    address_is_bad: bool
    pace: Pace | None
    minutes: float | None
    fallback: bool

    def describe(self, *, permanent: bool) -> Classification:
        bad = self.address_is_bad and permanent
        steps = [_what_was_done(permanent=permanent, bad=bad), self._pacing(), self.advice]
        return Classification(
            rule=self.name,
            reply_class=self.reply_class,
            meaning=self.meaning,
            action=" ".join(step for step in steps if step),
            pace=self.pace,
            pause_minutes=self.minutes,
            fallback=self.fallback,
            address_is_bad=bad,
        )

    def _pacing(self) -> str | None:
        if self.pace is None:
            return None
        word = "slowed down" if self.pace == "slow" else "paused"
        return f"Mail to this provider is {word} for {self.minutes:g} minutes."


class _Lookup:
    """The conditions that can fit 4xx or 5xx, in their order; those with phrases are found by a few letters of these.

    Comparing a reply with every phrase would take milliseconds.
    """

    def __init__(self, rules: Sequence[_Rule], digit: str) -> None:
        self._pairs = [(rule, one) for rule in rules for one in rule.conditions if _concerns(one, digit)]
        self._always = [place for place, (_, one) in enumerate(self._pairs) if not one.phrases]
        self._by_letters: dict[str, list[int]] = {}
        phrases = [(phrase, place) for place, (_, one) in enumerate(self._pairs) for phrase in one.phrases]
        common = Counter(letters for phrase, _ in phrases for part in phrase for letters in _letters_of(part))
        for phrase, place in phrases:
            rarest = min((letters for part in phrase for letters in _letters_of(part)), key=lambda it: (common[it], it))
            self._by_letters.setdefault(rarest, []).append(place)

    def find(self, seen: _Seen) -> _Rule | None:
        places = set(self._always)
        for letters in _letters_of(seen.text) & self._by_letters.keys():
            places.update(self._by_letters[letters])
        for place in sorted(places):
            rule, condition = self._pairs[place]
            if condition.fits(seen):
                return rule
        return None


class Rulebook:
    """Rules in their order."""

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._lookups = {permanent: _Lookup(rules, "5" if permanent else "4") for permanent in (True, False)}

    @classmethod
    def read(cls, text: str) -> "Rulebook":
        """Read a table in TOML; raises BadRules."""
        try:
            tables = tomllib.loads(text).get("rule", [])
        except tomllib.TOMLDecodeError as error:
            raise BadRules(f"not valid TOML: {error}") from error
        rules = [_read_rule(table) for table in tables]
        names = [rule.name for rule in rules]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise BadRules(f"rule {twice}: there are two of this name")
        return cls(rules)

    @property
    def names(self) -> list[str]:
        """The names of the rules, first one first."""
        return list(self._rules)

    @property
    def providers(self) -> set[str]:
        """The providers that rules name."""
        conditions = [one for rule in self._rules.values() for one in rule.conditions]
        return {name for one in conditions for name in one.providers | one.other_providers}

    def classify(self, reply: Reply, provider: str | None, *, about_recipient: bool = True) -> Classification:
        """Find the first rule that fits a refusal; see `classify`."""
        permanent = reply.code // 100 == 5
        rule = self._lookups[permanent].find(_look_at(reply, provider)) or _UNKNOWN[permanent]
        if rule.reply_class == "recipient" and not about_recipient:
            rule = _NOT_ABOUT_RECIPIENT
        return rule.describe(permanent=permanent)

    def explain(self, rule: str, *, permanent: bool) -> Classification | None:
        """Say again what a rule said of a reply; None: there is no such rule any more."""
        found = self._rules.get(rule) or next((one for one in _BUILT_IN if one.name == rule), None)
        return found.describe(permanent=permanent) if found else None


def classify(reply: Reply, provider: str | None, *, about_recipient: bool = True) -> Classification:
    """Find the rule for a refusal (4xx or 5xx); `provider` is whose exchanger said it, where that is known.

    What was not said of one recipient (to EHLO, to MAIL, to a message for many) makes no address a bad one.
    """
    return BUILT_IN.classify(reply, provider, about_recipient=about_recipient)


def explain(rule: str, *, permanent: bool) -> Classification | None:
    """Say again what a rule said of a reply that was classified earlier; None: there is no such rule any more."""
    return BUILT_IN.explain(rule, permanent=permanent)


def _look_at(reply: Reply, provider: str | None) -> _Seen:
    text = " ".join(word for word in reply.text.lower().replace("\u2019", "'").split() if "@" not in word)
    return _Seen(reply.code, _status_of(reply), text, provider)


def _status_of(reply: Reply) -> tuple[str, int, int] | None:
    """Take the enhanced status; qmail and others write it at the end, as in `(#5.1.1)`."""
    found = _LATE_STATUS.search(reply.text) if reply.enhanced is None else _WRITTEN_STATUS.fullmatch(reply.enhanced)
    if found is None or found[1] != str(reply.code)[0]:
        return None
    return found[1], int(found[2]), int(found[3])


def _letters_of(text: str) -> set[str]:
    return {text[place : place + _LETTERS] for place in range(len(text) - _LETTERS + 1)}


def _says(text: str, phrase: tuple[str, ...]) -> bool:
    place = 0
    for part in phrase:
        found = text.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return True


def _covers(pattern: tuple[str, int, int, int], status: tuple[str, int, int] | None) -> bool:
    if status is None:
        return False
    digit, subject, low, high = pattern
    return digit in ("x", status[0]) and subject == status[1] and low <= status[2] <= high


def _concerns(condition: _Condition, digit: str) -> bool:
    """Tell whether a condition can fit replies of 4xx or 5xx at all."""
    of_code = not condition.codes or any(str(low)[0] == digit for low, _ in condition.codes)
    return of_code and (not condition.statuses or any(one[0] in ("x", digit) for one in condition.statuses))


def _what_was_done(*, permanent: bool, bad: bool) -> str:
    if not permanent:
        return "It is tried again until its lifetime is over."
    if bad:
        return "It is not tried again; the contact was unsubscribed and the address is suppressed."
    return "It is not tried again; the contact stays subscribed."


def _read_rule(table: dict[str, Any]) -> _Rule:
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise BadRules(f"a rule has no name: {table}")
    if unknown := set(table) - _RULE_KEYS:
        raise BadRules(f"rule {name}: unknown key `{min(unknown)}`")
    if table.get("class") not in get_args(ReplyClass):
        raise BadRules(f"rule {name}: `class` must be one of {', '.join(get_args(ReplyClass))}")
    if not isinstance(table.get("meaning"), str) or not isinstance(table.get("advice", ""), str):
        raise BadRules(f"rule {name}: `meaning` must be a sentence, and `advice`, if there is one")
    pace, minutes = table.get("pace"), table.get("minutes")
    if pace not in (None, *get_args(Pace)) or (pace is None) != (minutes is None):
        raise BadRules(f"rule {name}: `pace` must be slow or pause, and go with `minutes`")
    if minutes is not None and not (isinstance(minutes, int | float) and minutes > 0):
        raise BadRules(f"rule {name}: `minutes` must be a number above 0")
    conditions = table.get("when")
    if not isinstance(conditions, list) or not conditions:
        raise BadRules(f"rule {name}: `when` must be a list of conditions")
    return _Rule(
        name=name,
        reply_class=table["class"],
        conditions=tuple(_read_condition(name, one) for one in conditions),
        meaning=table["meaning"],
        advice=table.get("advice"),
        address_is_bad=table.get("address_is_bad") is True,
        pace=pace,
        minutes=minutes,
        fallback=table.get("fallback") is True,
    )


def _read_condition(rule: str, table: dict[str, Any]) -> _Condition:
    if unknown := set(table) - _CONDITION_KEYS:
        raise BadRules(f"rule {rule}: unknown key `{min(unknown)}` in `when`")
    if not table:
        raise BadRules(f"rule {rule}: an empty condition would fit every reply")
    try:
        return _Condition(
            codes=tuple(_read_code(str(item)) for item in _listed(table, "code")),
            statuses=tuple(_read_status(item) for item in _listed(table, "status")),
            phrases=tuple(_read_phrase(item) for item in _listed(table, "says")),
            expression=re.compile(table["matches"]) if "matches" in table else None,
            providers=frozenset(_listed(table, "provider")),
            other_providers=frozenset(_listed(table, "not_provider")),
        )
    except (ValueError, AttributeError, TypeError, re.error) as error:
        raise BadRules(f"rule {rule}: {error}") from error


def _listed(table: dict[str, Any], key: str) -> list[Any]:
    value = table.get(key, [])
    return value if isinstance(value, list) else [value]


def _read_code(text: str) -> tuple[int, int]:
    """Read 550, 550-559 or 5xx."""
    found = _CODE.fullmatch(text)
    if found is None:
        raise ValueError(f"`code` must be like 550, 550-559 or 5xx, not {text}")
    if found[1]:
        return int(found[1]) * 100, int(found[1]) * 100 + 99
    low, high = int(found[2]), int(found[3] or found[2])
    if low // 100 != high // 100:
        raise ValueError(f"`code` must not mix 4xx and 5xx: {text}")
    return low, high


def _read_status(text: str) -> tuple[str, int, int, int]:
    """Read 5.1.1, x.1.1 (4 or 5), 5.7.606-649 or x.7.*."""
    found = _STATUS.fullmatch(text)
    if found is None:
        raise ValueError(f"`status` must be like 5.1.1, x.1.1, 5.7.606-649 or x.7.*, not {text}")
    low, high = (0, 999) if found[3] else (int(found[4]), int(found[5] or found[4]))
    return found[1], int(found[2]), low, high


def _read_phrase(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(_GAP))
    if text != text.lower() or not any(len(part) >= _LETTERS for part in parts):
        raise ValueError(f"`says` must be in lower case and have {_LETTERS} letters in a row: {text!r}")
    return parts


def _unknown(name: str, reply_class: ReplyClass, meaning: str, advice: str | None) -> _Rule:
    return _Rule(name, reply_class, (), meaning, advice, address_is_bad=False, pace=None, minutes=None, fallback=False)


_UNKNOWN = {
    True: _unknown(
        "unknown-refusal", "policy", "The server refused the message for a reason of its own.", "Its text may tell more."
    ),
    False: _unknown("unknown-delay", "temporary", "The server cannot take the message at the moment.", None),
}
_NOT_ABOUT_RECIPIENT = _unknown(
    "not-about-recipient",
    "policy",
    "The server refused the session, the sender, or the message for all its recipients.",
    "Its text may tell more.",
)
_BUILT_IN = (*_UNKNOWN.values(), _NOT_ABOUT_RECIPIENT)
BUILT_IN = Rulebook.read(files("plunk_relay.mail").joinpath("reply_rules.toml").read_text("utf-8"))
