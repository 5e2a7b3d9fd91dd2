"""What did the route `capture` keep? Two pages of dev mode: the list, and a message as it would have left."""

from functools import cache
from typing import TYPE_CHECKING

from plunk_relay.clock import format_time
from plunk_relay.emails.queries import list_captured, load_captured
from plunk_relay.errors import NotFound
from plunk_relay.relay import Relay
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import Answer, Endpoint, endpoint

if TYPE_CHECKING:
    import jinja2

_TAG = "Development"
_POLICY = ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Kept mail</title>
<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:58rem;margin:0 auto;padding:1rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8884}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#8881;padding:1rem;border-radius:6px}</style></head><body>
{% if message is defined %}<p><a href="/dev/mail">All kept mail</a></p><h1>{{ id }}</h1><pre>{{ message }}</pre>
{% else %}<h1>Kept mail</h1>
{% if mails %}<table><tr><th>Time</th><th>From</th><th>To</th><th>Subject</th></tr>
{% for mail in mails %}<tr><td>{{ mail.time }}</td><td>{{ mail.sender }}</td><td>{{ mail.recipient }}</td>
<td><a href="/dev/mail/{{ mail.id }}">{{ mail.subject or "(no subject)" }}</a></td></tr>{% endfor %}</table>
{% else %}<p>Nothing yet. Send a mail and load this page again.</p>{% endif %}{% endif %}
</body></html>"""


@endpoint("GET", "/dev/mail", tag=_TAG, auth=Auth.NONE)
async def list_mail(relay: Relay) -> Answer:
    """List the kept mails, newest first."""
    mails = [
        {
            "id": mail.delivery_id,
            "time": format_time(mail.created_at),
            "sender": mail.sender,
            "recipient": mail.recipient,
            "subject": mail.subject,
        }
        for mail in await relay.db.read(list_captured)
    ]
    return _render(mails=mails)


@endpoint("GET", "/dev/mail/{delivery_id}", tag=_TAG, auth=Auth.NONE)
async def show_mail(relay: Relay, delivery_id: str) -> Answer:
    """Show a message with its headers and signatures."""
    message = await relay.db.read(load_captured, delivery_id)
    if message is None:
        raise NotFound.of("Mail", delivery_id)
    return _render(id=delivery_id, message=message.decode("utf-8", "replace"))


def _render(**values: object) -> Answer:
    page = _template().render(values).encode()
    return Answer(page, content_type="text/html; charset=utf-8", headers=[_POLICY])


@cache
def _template() -> "jinja2.Template":
    import jinja2  # noqa: PLC0415  2 MB that a server without readers does not need

    return jinja2.Environment(autoescape=True).from_string(_PAGE)


MAILBOX_PAGES: list[Endpoint] = [list_mail, show_mail]
