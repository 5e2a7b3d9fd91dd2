"""How does marketing mail end? With a line in the reader's language that says who writes, and a way out."""

from html import escape

from plunk_relay.mail.html import add_footer, wrap_fragment

_SENTENCES = {
    "en": ("You receive this mail because you subscribed to {project}.", "Unsubscribe"),
    "de": ("Sie erhalten diese E-Mail, weil Sie {project} abonniert haben.", "Abmelden"),
    "fr": ("Vous recevez ce message car vous êtes abonné à {project}.", "Se désabonner"),
    "es": ("Recibe este correo porque está suscrito a {project}.", "Cancelar la suscripción"),
    "it": ("Riceve questa e-mail perché è iscritto a {project}.", "Annulla l'iscrizione"),
    "nl": ("U ontvangt deze e-mail omdat u bent ingeschreven bij {project}.", "Afmelden"),
    "pt": ("Recebe este e-mail porque subscreveu {project}.", "Cancelar subscrição"),
}


def footer_html(*, project_name: str, language: str, url: str) -> str:
    """Return the footer block; an unknown language gets English."""
    sentence, link = _SENTENCES.get(language.replace("_", "-").partition("-")[0].lower(), _SENTENCES["en"])
    text = sentence.format(project=escape(project_name))
    return (
        '<hr style="border:none;border-top:1px solid #ddd;margin:32px 0 16px">'
        f'<p style="font-size:12px;color:#666">{text} <a href="{escape(url)}" style="color:#666">{link}</a></p>'
    )


def finish_html(html: str, *, mail_class: str, project_name: str, language: str, unsubscribe_url: str) -> str:
    """Return a rendered body as it is sent: a whole document, and with the footer when it is marketing mail."""
    if mail_class != "marketing":
        return wrap_fragment(html)
    return wrap_fragment(add_footer(html, footer_html(project_name=project_name, language=language, url=unsubscribe_url)))
