"""Do the doors keep to the dialogs? One test a file; dialogs/README tells how to write one."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.ids import new_id
from plunk_relay.mail.verp import MAC_PURPOSE, make_return_address
from plunk_relay.send.actions import send_message
from plunk_relay.send.request import SendRequest
from plunk_relay.web.binding import bind
from tests.kit.certificates import CertificateFiles, make_certificate
from tests.kit.dialog import play, read_dialog
from tests.kit.process import free_port
from tests.kit.smtp import Site, Stage, running_site

_DIALOGS = Path(__file__).parent / "dialogs"
_ADDRESSES = ("BOUNCE", "BOUNCE_UPPER", "COMPLAINT", "FORGED", "OTHER_USE", "OTHER_DOMAIN", "NO_BOUNCE_HOST")
_MAIL = {"to": "bob@example.org", "from": "app@acme.test", "subject": "Hello", "body": "Hi"}
_NAMES = sorted(path.stem for path in _DIALOGS.glob("*.dialog"))


@pytest.mark.parametrize("name", _NAMES)
async def test_the_door_keeps_to_the_dialog(stage: Stage, tmp_path: Path, name: str) -> None:
    files = make_certificate(tmp_path)
    text = (_DIALOGS / f"{name}.dialog").read_text()
    variables = _variables(stage, files)
    dialog = read_dialog(text, variables | dict.fromkeys(_ADDRESSES, "-"), name=f"{name}.dialog")
    inbound: dict[str, Any] = {"inbound_port": free_port()} if dialog.door == "inbound" else {}
    async with running_site(stage, tmp_path, **dialog.settings, **inbound) as site:
        if inbound:
            dialog = read_dialog(text, variables | await _send_one(site), name=f"{name}.dialog")
        before = len(await site.stored())

        async def count_stored() -> int:
            return len(await site.stored()) - before

        tls = ssl.create_default_context(cafile=str(files.certificate))
        await play(dialog, site.door(dialog.door).port, tls=tls, count_stored=count_stored)


async def _send_one(site: Site) -> dict[str, str]:
    """Let acme send a mail; return addresses that are about it, and some that only look so."""
    [queued] = await send_message(site.relay, site.acme.id, bind(SendRequest, _MAIL))
    key = site.relay.secrets.mac_key(MAC_PURPOSE)
    bounce = make_return_address("bounce", queued.delivery_id, domain="acme.test", key=key)
    local = bounce.partition("@")[0]
    other = make_return_address("bounce", new_id(), domain="acme.test", key=key).partition("@")[0]
    values = (
        bounce,
        bounce.upper(),
        make_return_address("complaint", queued.delivery_id, domain="acme.test", key=key),
        f"{local[:28]}{other[28:]}@bounce.acme.test",
        f"f{local[1:]}@bounce.acme.test",
        f"{local}@bounce.rival.test",
        f"{local}@acme.test",
    )
    return dict(zip(_ADDRESSES, values, strict=True))


def _variables(stage: Stage, files: CertificateFiles) -> dict[str, str]:
    variables = {"CERTIFICATE": str(files.certificate), "KEY": str(files.key)}
    for prefix, tenant in (("", stage.acme), ("RIVAL_", stage.rival), ("CLOSED_", stage.closed)):
        variables |= {f"{prefix}SECRET": tenant.secret, f"{prefix}PUBLIC": tenant.public, f"{prefix}PROJECT": tenant.id}
    return variables
