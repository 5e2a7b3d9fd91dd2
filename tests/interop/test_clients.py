"""Does mail from the usual clients reach a real Postfix byte for byte, with both signatures passing opendkim?

What arrives is what the client submitted: Bcc and X-Plunk options are gone, Date and Message-ID added where they were
missing, signatures and a Received line in front, and above them what Postfix and opendkim write on top.
Debian's opendkim 2.11 verifies Ed25519 as well as RSA, so it judges both signatures; dkimpy judges them once more.
"""

import base64
import email
import email.policy
import json
import re
import smtplib
import ssl
import subprocess
from collections.abc import Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.interop.site import INBOX, SENDER, Internet, Site, check_signatures, unwrap
from tests.kit.postfix import Arrival
from tests.kit.tools import require_node_module, require_tool

pytestmark = pytest.mark.slow

HEAD = b"From: Plunk <hello@example.com>\r\nTo: ada@inbox.test\r\nSubject: First\r\n"
IDENTITY = b"Date: Mon, 02 Mar 2026 10:00:00 +0100\r\nMessage-ID: <first@client.test>\r\n"
PLAIN = HEAD + IDENTITY + b"\r\n"
PICTURE = bytes(range(256)) * 5
MULTIPART = (
    HEAD
    + b"""Date:\tMon, 2 Mar 2026 10:00:00 +0100 (a comment)
message-id: <multipart@client.test>
X-Odd:  two  blanks, \ta tab
 and a fold \x20
MIME-Version: 1.0
Content-Type: multipart/related; type="multipart/alternative";
\tboundary="=-outer"

A preamble that old readers show.
--=-outer
Content-Type: multipart/alternative; boundary="=-inner"

--=-inner
Content-Type: text/plain; charset=utf-8; format=flowed

The text part, which is not made from the HTML. \x20
--=-inner
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

<img src=3D"cid:picture.1@client.test">
--=-inner--
--=-outer
Content-Type: image/png; name="p.png"
Content-ID: <picture.1@client.test>
Content-Transfer-Encoding: base64

""".replace(b"\n", b"\r\n")
    + base64.encodebytes(PICTURE).replace(b"\n", b"\r\n")
    + b"--=-outer--\r\nAn epilogue.\r\n"
)
EIGHT_BIT = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=%b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%b\r\n"
MESSAGES = {
    "multipart": MULTIPART,
    "utf-8": HEAD + IDENTITY + EIGHT_BIT % (b"utf-8", "Grüße aus Köln — ☃".encode()),
    "latin-1": HEAD + IDENTITY + EIGHT_BIT % (b"iso-8859-1", "Grüße aus Köln".encode("latin-1")),
    "utf-8 in the subject": HEAD.replace(b"First", "Grüße".encode()) + IDENTITY + b"\r\nBody\r\n",
    "longest lines": PLAIN + b"x" * 998 + b"\r\n" + b"y " * 499 + b"\r\n",
    "dots": PLAIN + b".\r\n..\r\n.x\r\n...\r\nend\r\n.\r\n",
    "blanks": PLAIN + b" \t \r\nindented\t \r\n\r\n \r\n\r\n\r\n",
    "no body": PLAIN,
    "one megabyte": PLAIN + base64.encodebytes(PICTURE * 600).replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_smtplib_submits_arrives_byte_for_byte(internet: Internet, site: Site, name: str) -> None:
    recipient = f"smtplib-{name.replace(' ', '-')}@{INBOX}"
    _submit(site, MESSAGES[name], recipient)
    arrival = internet.postfix.wait_for_mail(recipient)
    assert unwrap(arrival) == MESSAGES[name]
    check_signatures(site, arrival)


def test_what_python_composes_arrives_byte_for_byte(internet: Internet, site: Site) -> None:
    message, recipient = EmailMessage(), f"python@{INBOX}"
    message["From"], message["To"], message["Subject"] = SENDER, recipient, "Grüße ☃ " * 12
    message["Date"], message["Message-ID"] = "Mon, 02 Mar 2026 10:00:00 +0100", "<python@client.test>"
    message.set_content("Grüße\n")
    message.add_alternative('<p>Grüße <img src="cid:p1"></p>\n', subtype="html")
    message.get_payload(1).add_related(PICTURE, "image", "png", cid="<p1>")  # type: ignore[union-attr]
    message.add_attachment(PICTURE, maintype="application", subtype="pdf", filename="Preisliste für Köln.pdf")
    submitted = message.as_bytes(policy=email.policy.SMTP)  # chooses the boundaries, which stay
    with _session(site) as session:
        session.send_message(message)
    arrival = internet.postfix.wait_for_mail(recipient)
    assert unwrap(arrival) == submitted
    check_signatures(site, arrival)


def test_only_bcc_and_options_are_taken_out(internet: Internet, site: Site) -> None:
    hidden, shown = f"hidden@{INBOX}", f"shown@{INBOX}"
    secrets = b"Bcc: hidden@inbox.test,\r\n  another@inbox.test\r\nX-Plunk-Tag: welcome\r\nx-plunk-track:\r\n\toff\r\n"
    with _session(site) as session:
        session.sendmail(SENDER, [shown, hidden], HEAD + secrets + IDENTITY + b"X-Plunker: stays\r\n\r\nBcc: stays\r\n")
    for recipient in (shown, hidden):
        arrival = internet.postfix.wait_for_mail(recipient)
        assert unwrap(arrival) == HEAD + IDENTITY + b"X-Plunker: stays\r\n\r\nBcc: stays\r\n"
        assert hidden.encode() not in arrival.message
        check_signatures(site, arrival)


def test_date_and_message_id_are_added_when_missing(internet: Internet, site: Site) -> None:
    recipient = f"bare@{INBOX}"
    _submit(site, HEAD + b"\r\nBody\r\n", recipient)
    arrival = internet.postfix.wait_for_mail(recipient)
    added = rb"Date: \w{3}, \d\d \w{3} \d{4} [\d:]{8} [+-]\d{4}\r\nMessage-ID: <[\w-]+@relay\.test>\r\n"
    assert re.fullmatch(re.escape(HEAD) + added + rb"\r\nBody\r\n", unwrap(arrival))
    check_signatures(site, arrival)


def test_curl_sends_over_smtp(internet: Internet, site: Site, tmp_path: Path) -> None:
    recipient, message = f"curl-smtp@{INBOX}", tmp_path / "message.eml"
    message.write_bytes(MULTIPART)
    server = ["--ssl-reqd", "--cacert", str(site.tls.certificate), "--user", f"plunk:{site.secret}"]
    envelope = ["--mail-from", SENDER, "--mail-rcpt", recipient, "--upload-file", str(message)]
    _run("curl", "--silent", "--show-error", *server, *envelope, f"smtp://127.0.0.1:{site.relay.smtp_port}/client.test")
    arrival = internet.postfix.wait_for_mail(recipient)
    assert unwrap(arrival) == MULTIPART
    check_signatures(site, arrival)


def test_curl_sends_over_http(internet: Internet, site: Site, tmp_path: Path) -> None:
    recipient, html = f"curl-http@{INBOX}", f'<p>Grüße <img src="cid:logo"> {"ein langer Satz " * 100}</p>'
    picture = {"filename": "logo.png", "contentType": "image/png", "disposition": "inline", "contentId": "logo"}
    file = {"filename": "Preisliste für Köln.pdf", "contentType": "application/pdf"}
    content = base64.b64encode(PICTURE).decode()
    request = {
        "from": {"email": SENDER, "name": "Plunk — Köln"},
        "to": {"email": recipient, "name": "Ada Lovelace"},
        "subject": "Grüße aus Köln ☃",
        "body": html,
        "headers": {"X-Order": "4711"},
        "attachments": [{**picture, "content": content}, {**file, "content": content}],
    }
    body = tmp_path / "mail.json"
    body.write_text(json.dumps(request))
    headers = ["-H", f"Authorization: Bearer {site.secret}", "-H", "Content-Type: application/json"]
    url = f"http://127.0.0.1:{site.relay.http_port}/v1/send"
    answer = json.loads(_run("curl", "--silent", "--show-error", "--fail-with-body", *headers, "-d", f"@{body}", url))
    assert answer["success"]
    arrival = internet.postfix.wait_for_mail(recipient)
    check_signatures(site, arrival)
    _check_content(arrival, request, html)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_sends_over_starttls(internet: Internet, site: Site, tmp_path: Path, mechanism: str) -> None:
    recipient, file = f"swaks-{mechanism.lower()}@{INBOX}", tmp_path / "prices.bin"
    file.write_bytes(PICTURE)
    server = ["--server", f"127.0.0.1:{site.relay.smtp_port}", "--tls", "--tls-verify"]
    login = ["--auth", mechanism, "--auth-user", "plunk", "--auth-password", site.secret]
    mail = ["--from", SENDER, "--to", recipient, "--header", "Subject: First", "--attach", f"@{file}"]
    said = _run(
        _swaks_with_tls(), *server, "--tls-ca-path", str(site.tls.certificate), *login, *mail, "--body", "Hello\n.\n..\n"
    )
    assert f" ~> AUTH {mechanism}" in said
    arrival = internet.postfix.wait_for_mail(recipient)
    assert unwrap(arrival) == _data_of_transcript(said)
    check_signatures(site, arrival)


def test_nodemailer_sends_over_starttls(internet: Internet, site: Site) -> None:
    recipient, hidden = f"nodemailer@{INBOX}", f"nodemailer-bcc@{INBOX}"
    server = {
        "host": "127.0.0.1",
        "port": site.relay.smtp_port,
        "requireTLS": True,
        "certificate": str(site.tls.certificate),
        "auth": {"user": "plunk", "pass": site.secret},
    }
    content = base64.b64encode(PICTURE).decode()
    mail = {
        "from": {"name": "Plunk — Köln", "address": SENDER},
        "to": f"Ada Lovelace <{recipient}>",
        "bcc": hidden,
        "subject": "Grüße aus Köln ☃",
        "text": "Grüße\n.\nein Punkt\n",
        "html": '<p>Grüße <img src="cid:logo@client.test"></p>',
        "attachments": [
            {"filename": "logo.png", "content": content, "encoding": "base64", "cid": "logo@client.test"},
            {"filename": "Preisliste für Köln.pdf", "content": content, "encoding": "base64"},
        ],
    }
    composed = _send_with_nodemailer(server, mail)
    for address in (recipient, hidden):
        arrival = internet.postfix.wait_for_mail(address)
        assert unwrap(arrival) == composed
        check_signatures(site, arrival)


def _session(site: Site) -> smtplib.SMTP:
    session = smtplib.SMTP("127.0.0.1", site.relay.smtp_port, "client.test", timeout=30)
    session.starttls(context=ssl.create_default_context(cafile=site.tls.certificate))
    session.login("plunk", site.secret)
    return session


def _submit(site: Site, message: bytes, recipient: str) -> None:
    with _session(site) as session:
        session.sendmail(SENDER, [recipient], message, [] if message.isascii() else ["BODY=8BITMIME"])


def _run(program: str, *arguments: str, data: str | None = None, environment: dict[str, str] | None = None) -> str:
    """Run a program that must succeed; return what it printed."""
    command = [require_tool(program), *arguments]
    done = subprocess.run(
        command, input=data, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _swaks_with_tls() -> str:
    """Return the program's name when it can do TLS, which needs another package."""
    if "TLS supported" not in _run("swaks", "--support"):
        require_tool("swaks with TLS (libnet-ssleay-perl)")
    return "swaks"


def _data_of_transcript(said: str) -> bytes:
    """Read from swaks's output what it sent after DATA, dots unstuffed."""
    lines = [line[4:] for line in said.partition(" ~> DATA\n")[2].splitlines() if line.startswith(" ~> ")]
    data = lines[: lines.index(".")]
    return "".join(f"{line.removeprefix('.')}\r\n" for line in data).encode()


def _send_with_nodemailer(server: dict[str, Any], mail: dict[str, Any]) -> bytes:
    script = Path(__file__).with_name("send.js")
    orders = json.dumps({"server": server, "mail": mail})
    said = json.loads(_run("node", str(script), data=orders, environment=require_node_module("nodemailer")))
    assert said["info"]["rejected"] == []
    return re.sub(rb"(?<!\r)\n", b"\r\n", base64.b64decode(said["composed"]))


def _check_content(arrival: Arrival, request: dict[str, Any], html: str) -> None:
    message = email.message_from_bytes(arrival.message, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message["Subject"] == request["subject"]
    assert message["From"] == "Plunk — Köln <hello@example.com>"
    assert message["To"] == f"Ada Lovelace <{request['to']['email']}>"
    assert message["X-Order"] == "4711"
    part = message.get_body(("html",))
    assert part is not None
    assert html in part.get_content()
    files = _files(message)
    assert [(name, content) for name, content, _ in files] == [
        ("logo.png", PICTURE),
        ("Preisliste für Köln.pdf", PICTURE),
    ]
    assert files[0][2] == "<logo>"


def _files(message: EmailMessage) -> Sequence[tuple[str | None, bytes, str | None]]:
    parts = [part for part in message.walk() if part.get_content_disposition() in ("inline", "attachment")]
    return [(part.get_filename(), part.get_payload(decode=True), part["Content-ID"]) for part in parts]  # type: ignore[misc]
