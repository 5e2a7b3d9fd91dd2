"""In which words does a page speak? The reader's language; English where we do not have it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """One language's texts; `{project}` stands for the sender's name."""

    language: str
    heading: str
    subscribed: str
    unsubscribed: str
    ask_unsubscribe: str
    ask_subscribe: str
    unsubscribe: str
    subscribe: str


_KNOWN = (
    Words(
        "en",
        heading="Mail from {project}",
        subscribed="You are subscribed.",
        unsubscribed="You are unsubscribed.",
        ask_unsubscribe="Do you want to unsubscribe?",
        ask_subscribe="Do you want to subscribe?",
        unsubscribe="Unsubscribe",
        subscribe="Subscribe",
    ),
    Words(
        "de",
        heading="E-Mails von {project}",
        subscribed="Sie sind angemeldet.",
        unsubscribed="Sie sind abgemeldet.",
        ask_unsubscribe="Möchten Sie sich abmelden?",
        ask_subscribe="Möchten Sie sich anmelden?",
        unsubscribe="Abmelden",
        subscribe="Anmelden",
    ),
    Words(
        "fr",
        heading="Messages de {project}",
        subscribed="Vous êtes abonné.",
        unsubscribed="Vous êtes désabonné.",
        ask_unsubscribe="Voulez-vous vous désabonner ?",
        ask_subscribe="Voulez-vous vous abonner ?",
        unsubscribe="Se désabonner",
        subscribe="S'abonner",
    ),
    Words(
        "es",
        heading="Correos de {project}",
        subscribed="Está suscrito.",
        unsubscribed="Ha cancelado la suscripción.",
        ask_unsubscribe="¿Quiere cancelar la suscripción?",
        ask_subscribe="¿Quiere suscribirse?",
        unsubscribe="Cancelar la suscripción",
        subscribe="Suscribirse",
    ),
    Words(
        "it",
        heading="E-mail da {project}",
        subscribed="L'iscrizione è attiva.",
        unsubscribed="L'iscrizione è annullata.",
        ask_unsubscribe="Vuole annullare l'iscrizione?",
        ask_subscribe="Vuole iscriversi?",
        unsubscribe="Annulla l'iscrizione",
        subscribe="Iscriviti",
    ),
    Words(
        "nl",
        heading="E-mail van {project}",
        subscribed="U bent aangemeld.",
        unsubscribed="U bent afgemeld.",
        ask_unsubscribe="Wilt u zich afmelden?",
        ask_subscribe="Wilt u zich aanmelden?",
        unsubscribe="Afmelden",
        subscribe="Aanmelden",
    ),
    Words(
        "pt",
        heading="E-mails de {project}",
        subscribed="A subscrição está ativa.",
        unsubscribed="A subscrição está cancelada.",
        ask_unsubscribe="Quer cancelar a subscrição?",
        ask_subscribe="Quer subscrever?",
        unsubscribe="Cancelar subscrição",
        subscribe="Subscrever",
    ),
)
_BY_LANGUAGE = {words.language: words for words in _KNOWN}


def find_words(locale: str) -> Words:
    """Return the words for a locale such as `de-AT` or `de_AT`."""
    return _BY_LANGUAGE.get(locale.replace("_", "-").partition("-")[0].lower(), _KNOWN[0])
