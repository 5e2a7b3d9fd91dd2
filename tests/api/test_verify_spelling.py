"""Which domains are slips of the fingers, and which only look like one?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.verify.lists import shipped_list
from plunk_relay.verify.spelling import shipped_spelling

SLIPS = {
    # letters that changed places, fell out, came twice, or were hit beside
    "gmial.com": "gmail.com",
    "gamil.com": "gmail.com",
    "gmali.com": "gmail.com",
    "gmal.com": "gmail.com",
    "gmil.com": "gmail.com",
    "gmai.com": "gmail.com",
    "gmaill.com": "gmail.com",
    "ggmail.com": "gmail.com",
    "gnail.com": "gmail.com",
    "hmail.com": "gmail.com",
    "gmeil.com": "gmail.com",
    "googlemial.com": "googlemail.com",
    "hotmial.com": "hotmail.com",
    "hotmial.co.uk": "hotmail.co.uk",
    "hotmai.com": "hotmail.com",
    "hotmal.fr": "hotmail.fr",
    "hotmaill.com": "hotmail.com",
    "hotnail.com": "hotmail.com",
    "jotmail.com": "hotmail.com",
    "otmail.com": "hotmail.com",
    "yaho.com": "yahoo.com",
    "yahooo.com": "yahoo.com",
    "yhoo.com": "yahoo.com",
    "yahho.com": "yahoo.com",
    "yaho.co.uk": "yahoo.co.uk",
    "outlok.com": "outlook.com",
    "outloook.com": "outlook.com",
    "oulook.com": "outlook.com",
    "outllok.com": "outlook.com",
    "iclod.com": "icloud.com",
    "icluod.com": "icloud.com",
    "protonmial.com": "protonmail.com",
    "protnmail.com": "protonmail.com",
    "protonmaul.ch": "protonmail.ch",
    "rediffmial.com": "rediffmail.com",
    "comast.net": "comcast.net",
    "sbcgloabl.net": "sbcglobal.net",
    "btinterent.com": "btinternet.com",
    "wandoo.fr": "wanadoo.fr",
    "lapost.net": "laposte.net",
    "yandx.ru": "yandex.ru",
    "t-onlien.de": "t-online.de",
    # short names and words: only what changed places
    "lvie.com": "live.com",
    "ilve.fr": "live.fr",
    "mial.ru": "mail.ru",
    "ornage.fr": "orange.fr",
    # another top-level domain
    "gmail.con": "gmail.com",
    "gmail.co": "gmail.com",
    "gmail.cm": "gmail.com",
    "gmail.om": "gmail.com",
    "gmail.comm": "gmail.com",
    "gmail.vom": "gmail.com",
    "hotmail.couk": "hotmail.co.uk",
    "yahoo.co.ku": "yahoo.co.uk",
    "yahoo.cok": "yahoo.com",
    "aol.con": "aol.com",
    "me.con": "me.com",
    "comcast.ner": "comcast.net",
    "live.con": "live.com",
    "example.con": "example.com",
    "example.nett": "example.net",
    "example.ogr": "example.org",
    "example.co.ukk": "example.co.uk",
    # both
    "gmial.con": "gmail.com",
    "hotmial.cmo": "hotmail.com",
    # the dot
    "gmailcom": "gmail.com",
    "hotmailcouk": "hotmail.co.uk",
}
RIGHT = """
    gmail.com googlemail.com gmail.de yahoo.com yahoo.co.uk hotmail.com hotmail.hu outlook.dk live.dk live.be icloud.com
    mail.com ymail.com email.com rocketmail.com me.com mac.com msn.com aol.com gmx.at gmx.de gmx.net web.de t-online.de
    proton.me pm.me protonmail.com tuta.com fastmail.com hey.com zoho.com comcast.net comcast.com cox.net sky.com att.net
    free.fr orange.fr sfr.fr libero.it mail.ru yandex.ru ya.ru qq.com 163.com naver.com posteo.de mailbox.org
    line.com love.com like.com life.com wire.com grail.com hotel.com outlet.com cloud.com skype.com google.com range.fr
    tree.fr free.de aol.jp example.co example.cm example.org company.de firm.io t-mobile.de mail.gmial.com
    hotmail.hr outlook.es outlook.hr live.bg gmx.se icloud.co.uk web.be
    my.local relay.test localhost host.internal xn--bcher-kva.example blogspot.com co.uk com
""".split()


@pytest.mark.parametrize("written", SLIPS)
def test_a_slip_of_the_fingers_has_a_suggestion(written: str) -> None:
    assert shipped_spelling().suggest(written) == SLIPS[written]


@pytest.mark.parametrize("domain", RIGHT)
def test_what_only_looks_like_a_slip_has_none(domain: str) -> None:
    assert domain in shipped_list("personal") or shipped_spelling().suggest(domain) is None


@pytest.mark.parametrize(
    "domain", ["ymail.com", "mail.com", "me.com", "live.dk", "gmx.at", "web.de", "y7mail.com", "homemail.com"]
)
def test_a_provider_that_resembles_another_is_on_the_list_of_providers(domain: str) -> None:
    assert domain in shipped_list("personal")


def test_what_is_suggested_is_right_itself() -> None:
    spelling = shipped_spelling()
    assert [meant for meant in SLIPS.values() if spelling.suggest(meant) is not None] == []


def test_every_provider_that_is_suggested_is_known_as_one() -> None:
    spelling, personal = shipped_spelling(), shipped_list("personal")
    homes = [f"{name}.{suffix}" for name, suffixes in spelling.homes.items() for suffix in suffixes]
    assert [domain for domain in homes if domain not in personal] == []


@given(st.from_regex(r"[a-z0-9.-]{0,40}", fullmatch=True))
def test_any_text_has_a_suggestion_or_none(text: str) -> None:
    meant = shipped_spelling().suggest(text)
    assert meant is None or shipped_spelling().suggest(meant) is None
