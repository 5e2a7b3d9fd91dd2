"""What can an operator set? Every section, key and default; read from TOML, then environment, then secret files.

`PLUNK_RELAY_SECTION__KEY` overrides the file; `<key>_file` names a file that holds a secret. An unknown key is an error
that names the nearest known one. Only `serve.py`, `cli/` and tests load settings; everyone else is handed values.
"""

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from plunk_relay.errors import UsageError

DEFAULT_PATH = Path("/etc/plunk-relay/plunk-relay.toml")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Port = Annotated[int, Field(ge=0, le=65535)]
Route = Literal["mx", "smarthost", "capture"]
RETRY_MINUTES = (1.0, 5.0, 10.0, 20.0, 30.0, 60.0, *[120.0] * 12, 240.0)


class Section(BaseModel):
    """One table of the file. Keys named in `secret_keys` may also be given as `<key>_file`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    secret_keys: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        values = dict(data)
        for key in cls.secret_keys:
            path = values.pop(f"{key}_file", None)
            if path is not None:
                values[key] = _read_secret(key, Path(path))
        return values


def _read_secret(key: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ValueError(f"{key}_file: cannot read {path}: {error.strerror}") from error


class ServerSettings(Section):
    """The process as a whole."""

    secret_keys = ("secret_key",)
    public_url: str = Field("http://127.0.0.1:8080", description="URL under which people and mail links reach this server.")
    data_dir: Path = Field(
        Path("/var/lib/plunk-relay"), description="Directory of the database, the secret key and the lock."
    )
    secret_key: str | None = Field(
        None,
        min_length=32,
        repr=False,
        description="Key that seals stored secrets, at least 32 characters; made and kept in data_dir on first start.",
    )
    grace_seconds: float = Field(30, ge=0, description="How long work in hand may take after SIGTERM, in seconds.")
    log_format: Literal["console", "json", "auto"] = Field(
        "auto", description="`console`, `json`, or `auto`: console on a terminal, else json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least important level shown.")


class HttpSettings(Section):
    """The HTTP door."""

    host: str = Field("127.0.0.1", description="Address to listen on; put a TLS proxy in front of any other.")
    port: Port = Field(8080, description="Port to listen on.")
    trusted_proxies: tuple[Network, ...] = Field((), description="Networks whose X-Forwarded-For and -Proto are believed.")
    max_body_bytes: int = Field(52428800, ge=1024, description="Largest request body (50 MB).")


class DatabaseSettings(Section):
    """Where data is kept."""

    url: str | None = Field(None, description="Database URL; unset: sqlite:///<data_dir>/relay.db.")
    readers: int = Field(2, ge=1, le=16, description="Connections for reading, each with a thread.")


class TrustedNetwork(Section):
    """Clients that may submit mail without AUTH, as one project."""

    network: Network = Field(description="Address or network, such as 127.0.0.1/32.")
    project: str = Field(description="Id or name of the project they submit as.")


class SmtpSettings(Section):
    """The SMTP doors."""

    hostname: str | None = Field(None, description="Name in the greeting and in Received; unset: this machine's full name.")
    host: str = Field("0.0.0.0", description="Address to listen on.")
    submission_port: Port = Field(587, description="Submission with STARTTLS; 0 = off.")
    submissions_port: Port = Field(465, description="Submission with implicit TLS; needs a certificate; 0 = off.")
    inbound_port: Port = Field(25, description="Reserved for inbound mail, which this version does not serve; 0 = off.")
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificate chain; read again when it changes."
    )
    tls_key: Path | None = Field(None, description="PEM file with the private key.")
    auth_without_tls: bool = Field(False, description="Allow AUTH on unencrypted connections; for loopback only.")
    max_message_bytes: int = Field(26214400, ge=1024, description="Largest message (25 MB), announced as SIZE.")
    max_recipients: int = Field(100, ge=1, le=10000, description="Most recipients of one message.")
    max_connections_per_ip: int = Field(50, ge=1, description="Most connections at once from one address.")
    max_command_bytes: int = Field(2048, ge=512, description="Longest command line.")
    max_header_bytes: int = Field(262144, ge=1024, description="Largest header block.")
    max_received_headers: int = Field(50, ge=1, description="More Received headers than this is a mail loop.")
    errors_before_slow: int = Field(10, ge=1, description="Errors after which a session is answered slowly.")
    errors_before_close: int = Field(20, ge=1, description="Errors after which a session is closed with 421.")
    idle_seconds: float = Field(300, gt=0, description="Longest silence of a client.")
    session_seconds: float = Field(3600, gt=0, description="Longest session.")
    trusted_proxies: tuple[Network, ...] = Field((), description="Sources whose PROXY protocol header is believed.")
    trusted: tuple[TrustedNetwork, ...] = Field((), description="Networks that submit without AUTH; none by default.")

    @model_validator(mode="after")
    def _check_certificate(self) -> "SmtpSettings":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: set both or neither")
        return self


class DeliveryRoute(Section):
    """A route of its own for some recipients."""

    secret_keys = ("smarthost_url",)
    domain: str = Field(description="Recipient domain, exact.")
    route: Route = Field(description="`mx`, `smarthost` or `capture`.")
    smarthost_url: str | None = Field(None, repr=False, description="The smarthost of this route; unset: the general one.")


class DeliverySettings(Section):
    """How mail leaves."""

    secret_keys = ("smarthost_url",)
    route: Route = Field("mx", description="`mx` (direct delivery), `smarthost`, or `capture` (kept, never sent).")
    smarthost_url: str | None = Field(
        None,
        repr=False,
        description="smtp[s]://user:pass@host:port?starttls=required|may|off; for the smarthost route.",
    )
    port: Port = Field(25, description="Port of the mail exchangers.")
    resolvers: tuple[str, ...] = Field((), description="DNS servers, each IP or IP:PORT; empty = the system's.")
    allow_networks: tuple[Network, ...] = Field((), description="Private networks that mail may be delivered to.")
    source_addresses: tuple[str, ...] = Field(
        (), description="Local addresses to send from, in turn; empty = the system's choice."
    )
    concurrency: int = Field(50, ge=1, le=1000, description="Most connections at once.")
    per_destination: int = Field(10, ge=1, description="Most connections at once to one destination.")
    retry_minutes: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        RETRY_MINUTES, min_length=1, description="Waits between attempts (+-10 %); the last one repeats."
    )
    lifetime_hours: float = Field(96, gt=0, description="A message not delivered by then expires.")
    connect_seconds: float = Field(30, gt=0, description="Longest wait for a connection.")
    reply_seconds: float = Field(300, gt=0, description="Longest wait for a reply to a command.")
    final_reply_seconds: float = Field(
        600, gt=0, description="Longest wait for the reply to the final dot (RFC 5321 4.5.3.2.6)."
    )
    attempt_seconds: float = Field(1200, gt=0, description="Longest attempt, all hosts together.")
    messages_per_connection: int = Field(1000, ge=1, description="Most messages on one connection.")
    connection_idle_seconds: float = Field(10, gt=0, description="How long an unused connection is kept.")
    routes: tuple[DeliveryRoute, ...] = Field((), description="Routes by recipient domain.")

    @model_validator(mode="after")
    def _check_smarthost(self) -> "DeliverySettings":
        needing = [r.domain for r in self.routes if r.route == "smarthost" and not r.smarthost_url]
        if (self.route == "smarthost" or needing) and not self.smarthost_url:
            raise ValueError("smarthost_url is needed for the route `smarthost`")
        return self


class DkimSettings(Section):
    """Signatures of new domains."""

    rsa_bits: Literal[2048, 3072, 4096] = Field(2048, description="Size of new RSA keys.")
    ed25519: bool = Field(True, description="Sign with Ed25519 as well (RFC 8463).")
    selector_prefix: str = Field(
        "pr", pattern=r"^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$", description="Start of new selectors."
    )


class LimitSettings(Section):
    """What one project may do; 0 switches a limit off."""

    api_requests_per_minute: int = Field(1000, ge=0, description="Authenticated requests a minute and project.")
    send_per_second: float = Field(20, ge=0, description="POST /v1/send a second and project, sustained.")
    send_burst: int = Field(50, ge=1, description="POST /v1/send at once.")
    track_per_second: float = Field(100, ge=0, description="POST /v1/track a second and project, sustained.")
    track_burst: int = Field(200, ge=1, description="POST /v1/track at once.")
    contacts_per_second: float = Field(50, ge=0, description="Contact writes a second and project, sustained.")
    contacts_burst: int = Field(100, ge=1, description="Contact writes at once.")
    attachment_count: int = Field(10, ge=0, description="Most attachments of one mail.")
    attachment_megabytes: float = Field(10, ge=0, description="Most attachment bytes of one mail, decoded.")
    idempotency_hours: float = Field(24, gt=0, description="How long an Idempotency-Key is remembered.")
    minimum_free_megabytes: int = Field(100, ge=0, description="Below this much free disk nothing is accepted.")


class Settings(BaseSettings):
    """All sections."""

    model_config = SettingsConfigDict(
        env_prefix="PLUNK_RELAY_", env_nested_delimiter="__", frozen=True, extra="forbid", env_ignore_empty=True
    )
    server: ServerSettings = ServerSettings()
    http: HttpSettings = HttpSettings()
    database: DatabaseSettings = DatabaseSettings()
    smtp: SmtpSettings = SmtpSettings()
    delivery: DeliverySettings = DeliverySettings()
    dkim: DkimSettings = DkimSettings()
    limits: LimitSettings = LimitSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file; read nothing else."""
        return env_settings, init_settings

    @property
    def database_url(self) -> str:
        """The database's URL with its default filled in."""
        return self.database.url or f"sqlite:///{self.server.data_dir / 'relay.db'}"


def load_settings(path: Path | None = None, *, overrides: Mapping[str, Mapping[str, object]] | None = None) -> Settings:
    """Read settings; `overrides` (section to key to value) win over the file, the environment wins over both.

    Raises UsageError with one line per bad key: its name, what is wrong, and the nearest known name.
    """
    chosen = path or _default_path()
    values = _read_toml(chosen) if chosen else {}
    for section, keys in (overrides or {}).items():
        values[section] = {**values.get(section, {}), **keys}
    _check_environment()
    try:
        return Settings(**values)
    except ValidationError as error:
        raise UsageError(_explain(error, str(chosen or "environment"))) from None


def notify_socket() -> str | None:
    """Return the address systemd wants to be told of readiness at (sd_notify(3)), if any."""
    return os.environ.get("NOTIFY_SOCKET")


def _default_path() -> Path | None:
    named = os.environ.get("PLUNK_RELAY_CONFIG")
    if named:
        return Path(named)
    return DEFAULT_PATH if DEFAULT_PATH.exists() else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def _check_environment() -> None:
    """Refuse PLUNK_RELAY_ variables that name no section: pydantic-settings would pass over them."""
    for name in os.environ:
        if not name.startswith("PLUNK_RELAY_") or "__" not in name:
            continue
        section = name.removeprefix("PLUNK_RELAY_").split("__")[0].lower()
        if section not in Settings.model_fields:
            raise UsageError(
                f"environment variable {name}: unknown section `{section}`" + _nearest(section, list(Settings.model_fields))
            )


def _explain(error: ValidationError, source: str) -> str:
    return "; ".join(
        f"{source}: {_explain_one(dict(item))}" for item in error.errors(include_url=False, include_input=False)
    )


def _explain_one(item: dict[str, Any]) -> str:
    path = [str(part) for part in item["loc"]]
    name = ".".join(path)
    if item["type"] == "extra_forbidden":
        return f"unknown setting `{name}`{_nearest(path[-1], known_keys(path[:-1]), path[:-1])}"
    message = item["msg"].removeprefix("Value error, ")
    return f"setting `{name}`: {message[0].lower()}{message[1:]}"


def _nearest(word: str, known: list[str], parents: list[str] | None = None) -> str:
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean `{'.'.join([*(parents or []), close[0]])}`?" if close else f"; known: {', '.join(known)}"


def known_keys(path: list[str]) -> list[str]:
    """Return the keys allowed below a path, `<key>_file` of secrets included; empty for an unknown path."""
    model: type[BaseModel] | None = Settings
    for part in path:
        if part.isdigit():
            continue
        model = _section_of(model.model_fields.get(part)) if model else None
    if model is None:
        return []
    secrets = getattr(model, "secret_keys", ())
    return [*model.model_fields, *(f"{key}_file" for key in secrets)]


def _section_of(field: FieldInfo | None) -> type[BaseModel] | None:
    if field is None:
        return None
    candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
