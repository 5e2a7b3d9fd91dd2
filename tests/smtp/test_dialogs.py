"""Does the submission door keep to the dialogs? One test a file; dialogs/README tells how to write one."""

import ssl
from pathlib import Path

import pytest

from tests.kit.certificates import CertificateFiles, make_certificate
from tests.kit.dialog import play, read_dialog
from tests.kit.smtp import Stage, running_site

_DIALOGS = Path(__file__).parent / "dialogs"
_NAMES = sorted(path.stem for path in _DIALOGS.glob("*.dialog"))


@pytest.mark.parametrize("name", _NAMES)
async def test_the_door_keeps_to_the_dialog(stage: Stage, tmp_path: Path, name: str) -> None:
    files = make_certificate(tmp_path)
    text = (_DIALOGS / f"{name}.dialog").read_text()
    dialog = read_dialog(text, _variables(stage, files), name=f"{name}.dialog")
    async with running_site(stage, tmp_path, **dialog.settings) as site:

        async def count_stored() -> int:
            return len(await site.stored())

        tls = ssl.create_default_context(cafile=str(files.certificate))
        await play(dialog, site.door(dialog.door).port, tls=tls, count_stored=count_stored)


def _variables(stage: Stage, files: CertificateFiles) -> dict[str, str]:
    variables = {"CERTIFICATE": str(files.certificate), "KEY": str(files.key)}
    for prefix, tenant in (("", stage.acme), ("RIVAL_", stage.rival), ("CLOSED_", stage.closed)):
        variables |= {f"{prefix}SECRET": tenant.secret, f"{prefix}PUBLIC": tenant.public, f"{prefix}PROJECT": tenant.id}
    return variables
