"""Do our pages look as they should in a browser that reaches nothing but this server?"""

import asyncio
from pathlib import Path

import pytest

from plunk_relay.relay import Relay
from tests.kit.api import sent
from tests.kit.http import running_http
from tests.kit.relay import Tenant
from tests.kit.tools import require_tool

pytestmark = pytest.mark.slow

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
WIDTHS = {"desktop": "1200,900", "phone": "500,900"}


@pytest.mark.parametrize("window", WIDTHS.values(), ids=WIDTHS)
async def test_reference_renders_offline(relay: Relay, tmp_path: Path, window: str) -> None:
    async with running_http(relay) as http:
        document = (await http.get("/openapi.json")).json()
        dom, picture = await _open(f"{http.base_url}/docs", tmp_path, window)
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert [name for name in names if f'<section id="{name}">' not in dom] == []
    assert len(picture) > 4 * len(await _blank(tmp_path, window))


@pytest.mark.parametrize("window", WIDTHS.values(), ids=WIDTHS)
async def test_error_codes_render_offline(relay: Relay, tmp_path: Path, window: str) -> None:
    async with running_http(relay) as http:
        dom, picture = await _open(f"{http.base_url}/docs/errors", tmp_path, window)
    assert '<section id="IDEMPOTENCY_KEY_REUSED">' in dom
    assert len(picture) > 4 * len(await _blank(tmp_path, window))


@pytest.mark.parametrize("window", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("page", ["unsubscribe", "manage", "subscribe"])
async def test_page_of_a_contact_renders_offline(relay: Relay, acme: Tenant, tmp_path: Path, window: str, page: str) -> None:
    async with running_http(relay) as http:
        [done] = await sent(http, acme, {"subscribed": True})
        dom, picture = await _open(f"{http.base_url}/{page}/{done['contact']['id']}", tmp_path, window)
    assert "<h1>Mail from acme</h1>" in dom
    assert '<button type="submit">Unsubscribe</button>' in dom
    assert len(picture) > 1.5 * len(await _blank(tmp_path, window))


async def _open(url: str, directory: Path, window: str) -> tuple[str, bytes]:
    """Return the DOM and a screenshot of a page."""
    picture = directory / "page.png"
    dom = await _run(directory, "--dump-dom", url)
    await _run(directory, f"--screenshot={picture}", f"--window-size={window}", url)
    return dom, picture.read_bytes()


async def _blank(directory: Path, window: str) -> bytes:
    picture = directory / "blank.png"
    await _run(directory, f"--screenshot={picture}", f"--window-size={window}", "about:blank")
    return picture.read_bytes()


async def _run(directory: Path, *arguments: str) -> str:
    command = [require_tool("chromium"), *_FLAGS, f"--user-data-dir={directory / 'profile'}", *arguments]
    browser = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        output, _ = await asyncio.wait_for(browser.communicate(), 60)
    finally:
        if browser.returncode is None:
            browser.kill()
    assert browser.returncode == 0
    return output.decode()
