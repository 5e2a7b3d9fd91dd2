"""How is an address judged? By lists and spelling, which need nobody; then by what the DNS says within some seconds."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from plunk_relay.mail.address import domain_of, to_ascii_domain
from plunk_relay.mail.dns import DnsError, MxRecord, NameNotFound, Resolver
from plunk_relay.mail.registered_domain import registered_domain
from plunk_relay.relay import Relay
from plunk_relay.verify.lists import DomainLists
from plunk_relay.verify.spelling import shipped_spelling

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Presence:
    """What the DNS says of a domain."""

    exists: bool
    receives: bool
    """It has a mail exchanger."""
    has_website: bool
    problem: str | None
    """Why no mail can be received, for people; None: it can."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known about an address."""

    disposable: bool
    personal: bool
    alias: bool
    plus_addressed: bool
    suggestion: str | None
    """The address that was probably meant; None: it looks right."""
    presence: Presence
    reasons: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether mail to it can be delivered, as far as the DNS knows."""
        return self.presence.problem is None


async def judge_address(relay: Relay, address: str) -> Judgement:
    """Judge a well-formed address; takes as long as `verify.dns_seconds` at most."""
    local, _, written = address.rpartition("@")
    domain, lists = to_ascii_domain(domain_of(address)), relay.domain_lists
    meant = None if _is_provider(lists, domain) else shipped_spelling().suggest(domain)
    presence = await look_up(relay.resolver, domain, seconds=relay.settings.verify.dns_seconds)
    hints = [f"{written} looks mistyped: did you mean {meant}?"] if meant else []
    hints += [presence.problem] if presence.problem else []
    return Judgement(
        disposable=lists.get("disposable").covers(domain),
        personal=domain in lists.get("personal"),
        alias=lists.get("alias").covers(domain),
        plus_addressed="+" in local,
        suggestion=f"{local}@{meant}" if meant else None,
        presence=presence,
        reasons=tuple(hints) or ("The address appears valid",),
    )


def _is_provider(lists: DomainLists, domain: str) -> bool:
    """Tell whether a domain is known and cannot be a slip; many throw-away domains lie in wait for one."""
    return domain in lists.get("personal") or domain in lists.get("alias")


async def look_up(resolver: Resolver, domain: str, *, seconds: float) -> Presence:
    """Ask for name servers, exchangers and addresses at once; what is not there in time counts as not there.

    A domain exists when it has name servers, or an exchanger, or is a name in the zone of the registered domain above it.
    """
    exchangers, website, own, above = await _gather(
        [
            _find(resolver.mx(domain)),
            _find(resolver.addresses(domain)),
            _find(_name_servers(resolver, domain)),
            _find(_name_servers(resolver, registered_domain(domain))),
        ],
        seconds=seconds,
    )
    absent = any(one.absent for one in (exchangers, website, own))
    if not (exchangers.found or own.found or (above.found and not absent)):
        answered = absent or own.found is not None
        says = f"The domain {domain} does not exist" if answered else f"The name servers of {domain} do not answer"
        return Presence(exists=False, receives=False, has_website=False, problem=says)
    hosts = [record.host for record in exchangers.found or [] if isinstance(record, MxRecord)]
    return Presence(
        exists=True,
        receives=any(hosts),
        has_website=bool(website.found),
        problem=None if any(hosts) else _explain_no_mail(domain, exchangers, hosts),
    )


def _explain_no_mail(domain: str, exchangers: "_Found", hosts: list[str]) -> str:
    if hosts:
        return f"The domain {domain} says that it receives no mail (null MX)"
    if exchangers.found is None and not exchangers.absent:
        return f"The mail servers of {domain} could not be looked up"
    return f"The domain {domain} cannot receive mail: it has no MX record"


@dataclass(frozen=True, slots=True)
class _Found:
    """The answer to one question: records, or None; `absent`: the name does not exist."""

    found: list[Any] | None = None
    absent: bool = False


async def _find(question: Coroutine[Any, Any, list[Any]]) -> _Found:
    try:
        return _Found(await question)
    except NameNotFound:
        return _Found(absent=True)
    except DnsError:
        return _Found()


async def _name_servers(resolver: Resolver, name: str) -> list[str]:
    return (await resolver.ask(name, "NS")).values


async def _gather(questions: list[Coroutine[Any, Any, _Found]], *, seconds: float) -> list[_Found]:
    """Return the answers that come in time, an empty one for the others."""
    tasks = [asyncio.ensure_future(question) for question in questions]
    done, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    return [task.result() if task in done else _Found() for task in tasks]
