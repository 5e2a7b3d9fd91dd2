"""`plunk-relay dev`: a working relay on loopback in one command; mail is kept and shown, never sent."""

from pathlib import Path

import click

from plunk_relay import commands
from plunk_relay.cli.run import run_async
from plunk_relay.log import configure_logging
from plunk_relay.mailbox import MAILBOX_PAGES
from plunk_relay.relay import Relay
from plunk_relay.serve import serve
from plunk_relay.settings import NO_FILE, Settings, load_settings

EMAIL, PASSWORD = "dev@example.com", "plunk-relay"
PROJECT, DOMAIN = "dev", "example.com"


@click.command()
@click.option("--http", default="127.0.0.1:8080", show_default=True, help="Address of the HTTP API")
@click.option("--smtp", default="127.0.0.1:2587", show_default=True, help="Address for SMTP submission")
@click.option("--inbound", default="127.0.0.1:2525", show_default=True, help="Address for mail of other servers")
@click.option("--data", default="./.plunk-relay", show_default=True, type=click.Path(path_type=Path), help="Data directory")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="File with further settings [default: none]")
def dev(http: str, smtp: str, inbound: str, data: Path, config_path: Path | None) -> None:
    """Run a relay on loopback that keeps all mail. It has a user, a project and a verified domain."""
    settings = _dev_settings(http, smtp, inbound, data, config_path or NO_FILE)
    configure_logging(settings.server.log_format, settings.server.log_level)

    async def prepare(relay: Relay) -> None:
        made = await commands.setup(relay, email=EMAIL, project=PROJECT, password=PASSWORD, domain=DOMAIN, trust=True)
        click.echo(_welcome(settings, made))

    run_async(serve(settings, prepare=prepare, pages=MAILBOX_PAGES))


def _dev_settings(http: str, smtp: str, inbound: str, data: Path, config_path: Path) -> Settings:
    http_host, http_port = _split(http, "--http")
    smtp_host, smtp_port = _split(smtp, "--smtp")
    inbound_host, inbound_port = _split(inbound, "--inbound")
    return load_settings(
        config_path,
        overrides={
            "server": {"public_url": f"http://{http}", "data_dir": data.absolute(), "grace_seconds": 3},
            "http": {"host": http_host, "port": http_port},
            "smtp": {
                "hostname": "localhost",
                "host": smtp_host,
                "submission_port": smtp_port,
                "submissions_port": 0,
                "inbound_host": inbound_host,
                "inbound_port": inbound_port,
                "auth_without_tls": True,
                "trusted": [],
            },
            "acme": {"email": None},
            "database": {"url": None},
            "delivery": {"route": "capture", "routes": []},
        },
    )


def _split(address: str, option: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"write HOST:PORT, not {address}", param_hint=option)
    return host.strip("[]"), int(port)


def _welcome(settings: Settings, made: dict[str, dict[str, str]]) -> str:
    url, secret = settings.server.public_url, made["project"]["secret"]
    smtp = f"{settings.smtp.host}:{settings.smtp.submission_port}"
    inbound = f"{settings.smtp.inbound_host}:{settings.smtp.inbound_port}"
    return f"""
  Plunk Relay is starting. Mail is kept here and never sent.

  API         {url}         reference: {url}/docs
  Kept mail   {url}/dev/mail
  SMTP        {smtp}  user: plunk  password: the secret key
  Inbound     {inbound}  bounces, complaints and mail to receiving domains
  Login       {EMAIL} / {PASSWORD}
  Secret key  {secret}
  Public key  {made["project"]["public"]}

  Send a mail:

curl -X POST {url}/v1/send -H 'Authorization: Bearer {secret}' -H 'Content-Type: application/json' \\
  -d '{{"from":"hello@{DOMAIN}","to":"you@example.net","subject":"Hello","body":"<p>It works.</p>"}}'
"""


COMMANDS = (dev,)
