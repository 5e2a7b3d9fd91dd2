"""What does a refusal mean, whom does it concern, and what follows from it? `replies.txt` is the specification."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plunk_relay.mail.classify import BUILT_IN, BadRules, Classification, Rulebook, classify, explain
from plunk_relay.mail.outcome import Reply, read_reply
from plunk_relay.mail.providers import built_in


@dataclass(frozen=True, slots=True)
class Labelled:
    """A line of the file."""

    reply_class: str
    follows: frozenset[str]
    provider: str | None
    reply: Reply


def _read(line: str) -> Labelled:
    reply_class, follows, provider, reply = (part.strip() for part in line.split("|", 3))
    words = frozenset() if follows == "-" else frozenset(follows.split(","))
    return Labelled(reply_class, words, None if provider == "-" else provider, read_reply(int(reply[:3]), reply[3:].strip()))


LINES = [line for line in Path(__file__).with_name("replies.txt").read_text().splitlines() if line.strip(" ")[:1] not in "#"]
LABELLED = [_read(line) for line in LINES]


def _follows(found: Classification) -> set[str]:
    marks = {"bad": found.address_is_bad, "fallback": found.fallback, found.pace or "": found.pace is not None}
    return {mark for mark, set_ in marks.items() if set_}


@pytest.mark.parametrize("labelled", LABELLED, ids=[str(one.reply)[:90] for one in LABELLED])
def test_a_known_reply_has_its_class_and_its_consequences(labelled: Labelled) -> None:
    found = classify(labelled.reply, labelled.provider)
    assert str(found.reply_class) == labelled.reply_class, found.rule
    assert _follows(found) == set(labelled.follows), found.rule


def test_the_specification_has_all_classes_and_every_rule() -> None:
    found = [classify(one.reply, one.provider) for one in LABELLED]
    assert len(LABELLED) >= 250
    assert {one.reply_class for one in found} == {
        "recipient",
        "policy",
        "reputation",
        "content",
        "temporary",
        "infrastructure",
    }
    assert set(BUILT_IN.names) - {one.rule for one in found} == set()


def test_every_rule_says_what_it_means_in_sentences() -> None:
    for name in BUILT_IN.names:
        found = BUILT_IN.explain(name, permanent=True)
        assert found is not None
        for text in (found.meaning, found.action):
            assert text[0].isupper(), name
            assert text.endswith("."), name


def test_providers_of_rules_are_in_the_table_of_providers() -> None:
    assert {one.provider for one in LABELLED} - {None} <= set(built_in().names)
    assert BUILT_IN.providers <= set(built_in().names)


@pytest.mark.parametrize("reply", ["450 4.1.1 user unknown", "451 4.2.1 mailbox disabled", "450 4.1.2 domain not found"])
def test_a_temporary_refusal_is_never_about_a_bad_address(reply: str) -> None:
    found = classify(read_reply(int(reply[:3]), reply[4:]), None)
    assert not found.address_is_bad
    assert found.action.startswith("It is tried again")


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("550 5.1.1 user unknown", "It is not tried again; the contact was unsubscribed and the address is suppressed."),
        (
            "554 5.7.1 spam message rejected",
            "It is not tried again; the contact stays subscribed. Look at its text and links;",
        ),
        (
            "450 4.7.1 too much mail from 192.0.2.7",
            "It is tried again until its lifetime is over. Mail to this provider is slowed",
        ),
        (
            "550 5.7.606 access denied, banned",
            "It is not tried again; the contact stays subscribed. Mail to this provider is pau",
        ),
    ],
)
def test_the_action_tells_what_was_done(reply: str, action: str) -> None:
    assert classify(read_reply(int(reply[:3]), reply[4:]), None).action.startswith(action)


def test_what_is_not_said_of_one_recipient_makes_no_address_bad() -> None:
    found = classify(Reply(550, "5.1.1", "user unknown"), None, about_recipient=False)
    assert (found.reply_class, found.rule, found.address_is_bad) == ("policy", "not-about-recipient", False)
    blocked = Reply(550, "5.7.606", "Access denied, banned sending IP")
    assert classify(blocked, None, about_recipient=False) == classify(blocked, None)


@pytest.mark.parametrize("code", [500, 501, 503, 550, 551, 554, 571, 599])
def test_a_refusal_that_no_rule_knows_is_policy_and_never_a_bad_address(code: int) -> None:
    found = classify(Reply(code, None, "zzz"), None)
    assert (found.reply_class, found.rule, found.address_is_bad) == ("policy", "unknown-refusal", False)


@given(
    code=st.integers(400, 599) | st.integers(0, 999),
    enhanced=st.none() | st.from_regex(r"[245]\.\d{1,3}\.\d{1,3}", fullmatch=True) | st.text(),
    text=st.text(),
    provider=st.none() | st.sampled_from(["google", "gmx", ""]) | st.text(),
)
@example(code=550, enhanced=None, text="#5.1.1" * 80, provider=None)
@example(code=550, enhanced=None, text="a@" * 250, provider=None)
@example(code=550, enhanced=None, text="wait " * 100, provider=None)
def test_any_reply_has_a_class(code: int, enhanced: str | None, text: str, provider: str | None) -> None:
    found = classify(Reply(code, enhanced, text), provider)
    assert found.reply_class in ("recipient", "policy", "reputation", "content", "temporary", "infrastructure")
    assert not found.address_is_bad or code // 100 == 5
    assert (found.pace is None) == (found.pause_minutes is None)


@given(
    local=st.sampled_from(["user-unknown", "spamhaus", "rate-limit", "mailbox.full", "tss04", "greylist"]), text=st.text()
)
def test_an_address_in_the_text_decides_nothing(local: str, text: str) -> None:
    with_address = classify(Reply(550, "5.7.1", f"{text} <{local}@example.org>"), None)
    assert with_address == classify(Reply(550, "5.7.1", f"{text} <ann@example.org>"), None)


def test_a_stored_rule_can_be_explained_later() -> None:
    found = classify(Reply(550, "5.1.1", "user unknown"), None)
    assert explain(found.rule, permanent=True) == found
    assert explain("unknown-delay", permanent=False) == classify(Reply(450, None, "zzz"), None)
    assert explain("gone", permanent=True) is None


def _rules(*conditions: str, more: str = "") -> Rulebook:
    """Make a table with a rule for each condition: r1, r2, ..."""
    return Rulebook.read(
        "\n".join(
            f'[[rule]]\nname = "r{number}"\nclass = "content"\nmeaning = "M."\n{more}\nwhen = [{condition}]'
            for number, condition in enumerate(conditions, 1)
        )
    )


@pytest.mark.parametrize(
    ("condition", "reply", "fits"),
    [
        ("{ code = 550 }", "550 x", True),
        ("{ code = 550 }", "551 x", False),
        ('{ code = "550-552" }', "552 x", True),
        ('{ code = ["4xx", 550] }', "499 x", True),
        ('{ code = "4xx" }', "550 x", False),
        ('{ status = "5.1.1" }', "550 5.1.1 x", True),
        ('{ status = "5.1.1" }', "550 5.1.10 x", False),
        ('{ status = "5.1.1" }', "450 4.1.1 x", False),
        ('{ status = "x.1.1" }', "450 4.1.1 x", True),
        ('{ status = "5.7.606-649" }', "550 5.7.649 x", True),
        ('{ status = "5.7.606-649" }', "550 5.7.650 x", False),
        ('{ status = "x.7.*" }', "550 5.7.999 x", True),
        ('{ status = "5.1.1" }', "550 x", False),
        ('{ status = "5.1.1" }', "550 sorry, no mailbox (#5.1.1)", True),
        ('{ status = "x.1.1" }', "550 sorry, no mailbox (#4.1.1)", False),
        ('{ says = "go away" }', "550 Now  GO\taway!", True),
        ('{ says = ["other", "go away"] }', "550 go away", True),
        ('{ says = "goes ... away" }', "550 it goes far away", True),
        ('{ says = "goes ... away" }', "550 away it goes", False),
        ('{ says = "don\'t" , code = 550 }', "550 we don\u2019t", True),
        ('{ says = "away", code = 551 }', "550 away", False),
        ('{ says = "away", matches = "^far a" }', "550 far away", True),
        ('{ says = "away", matches = "^far a" }', "550 so far away", False),
        ('{ code = 550, provider = ["here"] }', "550 x", True),
        ('{ code = 550, provider = "there" }', "550 x", False),
        ('{ code = 550, not_provider = "there" }', "550 x", True),
        ('{ code = 550, not_provider = "here" }', "550 x", False),
        ("{ code = 500 }, { code = 550 }", "550 x", True),
    ],
)
def test_a_condition_fits_when_all_it_names_holds(condition: str, reply: str, fits: bool) -> None:
    found = _rules(condition).classify(read_reply(int(reply[:3]), reply[4:]), "here")
    assert (found.rule == "r1") == fits


def test_the_first_rule_that_fits_counts() -> None:
    book = _rules('{ says = "beta" }', "{ code = 550 }", '{ says = "alpha" }')
    assert [book.classify(Reply(550, None, text), None).rule for text in ("alpha beta", "alpha", "x")] == ["r1", "r2", "r2"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[rule", "not valid TOML"),
        ('[[rule]]\nclass = "content"', "has no name"),
        ('[[rule]]\nname = "r"\nkind = "content"', "rule r: unknown key `kind`"),
        ('[[rule]]\nname = "r"\nclass = "bad"', "rule r: `class` must be one of recipient, policy"),
        ('[[rule]]\nname = "r"\nclass = "content"', "rule r: `meaning` must be a sentence"),
        ('[[rule]]\nname = "r"\nclass = "content"\nmeaning = "M."', "rule r: `when` must be a list"),
        ('[[rule]]\nname = "r"\nclass = "content"\nmeaning = "M."\nwhen = [{}]', "an empty condition would fit every reply"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_by_rule_and_key(text: str, complaint: str) -> None:
    with pytest.raises(BadRules, match=complaint.replace("[", "\\[")):
        Rulebook.read(text)


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        ("{ text = 'x' }", "unknown key `text` in `when`"),
        ("{ code = 250 }", "not 250"),
        ("{ code = '450-550' }", "must not mix 4xx and 5xx"),
        ("{ status = '1.1' }", "not 1.1"),
        ("{ status = 5.1 }", "rule r1"),
        ("{ says = 'Upper' }", "must be in lower case"),
        ("{ says = 'abc' }", "4 letters in a row"),
        ("{ code = 550, matches = '(' }", "rule r1"),
    ],
)
def test_a_condition_that_cannot_be_read_is_told(condition: str, complaint: str) -> None:
    with pytest.raises(BadRules, match=complaint):
        _rules(condition)


@pytest.mark.parametrize(
    "more", ['pace = "slow"', 'pace = "fast"\nminutes = 1', "minutes = 1", 'pace = "slow"\nminutes = 0']
)
def test_a_pace_goes_with_its_minutes(more: str) -> None:
    with pytest.raises(BadRules, match="rule r1"):
        _rules("{ code = 550 }", more=more)


def test_two_rules_of_one_name_are_refused() -> None:
    one = '[[rule]]\nname = "r"\nclass = "content"\nmeaning = "M."\nwhen = [{ code = 550 }]\n'
    with pytest.raises(BadRules, match="there are two of this name"):
        Rulebook.read(one + one)
