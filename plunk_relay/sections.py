"""What can be set? One model a table of the file; the description of a key is its line in config/plunk-relay.toml.

Where the values come from is the business of `settings.py`, which puts the sections together.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _read_network(value: object) -> object:
    return ipaddress.ip_network(value) if isinstance(value, str) else value


def _read_switch(value: object) -> object:
    """Read the words of an environment variable."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _check_address(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _check_server(text: str) -> str:
    """Check an `IP`, `IP:PORT` or `[IPv6]:PORT`."""
    address, _, port = text.rpartition(":") if text.count(":") == 1 or text.startswith("[") else (text, "", "53")
    ipaddress.ip_address(address.strip("[]"))
    if not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text} does not end in a port")
    return text


Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, BeforeValidator(_read_network)]
Address = Annotated[str, AfterValidator(_check_address)]
DnsServer = Annotated[str, AfterValidator(_check_server)]
Port = Annotated[int, Field(ge=0, le=65535)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", max_length=253)]
Route = Literal["mx", "smarthost", "capture"]
TlsFloor = Literal["may", "required", "verified"]
TrustAd = Annotated[Literal["auto", True, False], BeforeValidator(_read_switch)]
RETRY_MINUTES = (1.0, 5.0, 10.0, 20.0, 30.0, 60.0, *[120.0] * 12, 240.0)


class Section(BaseModel):
    """One table of the file. Keys named in `secret_keys` may also be given as `<key>_file`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    secret_keys: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        values = {key: value for key, value in data.items() if value != "" or not cls._may_be_unset(key)}
        for key in cls.secret_keys:
            path = values.pop(f"{key}_file", "")
            if path != "" and key in values:
                raise ValueError(f"{key} and {key}_file are both set: keep one of them")
            if path != "":
                values[key] = _read_secret(f"{key}_file", path)
        return values

    @classmethod
    def _may_be_unset(cls, key: str) -> bool:
        field = cls.model_fields.get(key)
        return field is not None and field.default is None


def _read_secret(name: str, path: object) -> str:
    if not isinstance(path, str | Path):
        raise ValueError(f"{name}: write the path of a file")
    try:
        secret = Path(path).read_text().strip()
    except OSError as error:
        raise ValueError(f"{name}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: {path} is not text") from error
    if not secret:
        raise ValueError(f"{name}: {path} is empty")
    return secret


class ServerSettings(Section):
    """The process as a whole."""

    secret_keys = ("secret_key",)
    public_url: str = Field(
        "http://127.0.0.1:8080",
        pattern="^https?://",
        description="URL under which people and mail links reach this server.",
    )
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

    network: Network = Field(examples=["127.0.0.1/32"], description="Address or network.")
    project: str = Field(examples=["my project"], description="Id or name of the project they submit as.")


class SmtpSettings(Section):
    """The SMTP doors."""

    hostname: str | None = Field(None, description="Name in the greeting and in Received; unset: this machine's full name.")
    host: str = Field("0.0.0.0", description="Address to listen on.")
    submission_port: Port = Field(587, description="Submission with STARTTLS; 0 = off.")
    submissions_port: Port = Field(465, description="Submission with implicit TLS; needs a certificate; 0 = off.")
    inbound_port: Port = Field(
        25, description="Mail from other servers: bounces, complaints, mail to receiving domains; 0 = off."
    )
    inbound_host: str | None = Field(None, description="Address to listen on for it; unset: `host`.")
    postmaster: str | None = Field(
        None,
        pattern=r"^[^@\s]+@[^@\s]+$",
        description="Address that gets mail to postmaster@ and abuse@; unset: that of the first account.",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificate chain; read again when it changes."
    )
    tls_key: Path | None = Field(None, description="PEM file with the private key.")
    auth_without_tls: bool = Field(False, description="Allow AUTH on unencrypted connections; for loopback only.")
    max_message_bytes: int = Field(26214400, ge=1024, description="Largest message (25 MB), announced as SIZE.")
    max_recipients: int = Field(100, ge=1, le=10000, description="Most recipients of one message.")
    max_connections: int = Field(1000, ge=1, description="Most connections at once to one door.")
    max_connections_per_ip: int = Field(
        50, ge=1, description="Most connections at once from one address; `trusted` networks have no such limits."
    )
    max_connections_per_network: int = Field(
        200, ge=1, description="Most connections at once from one network (/24, of IPv6 /48); this machine has no limit."
    )
    max_new_connections_per_minute: int = Field(
        3000, ge=1, description="Most new connections a minute from one address; this machine has no limit."
    )
    max_command_bytes: int = Field(2048, ge=512, description="Longest command line.")
    max_header_bytes: int = Field(262144, ge=1024, description="Largest header block.")
    max_received_headers: int = Field(50, ge=1, description="More Received headers than this is a mail loop.")
    errors_before_slow: int = Field(10, ge=1, description="Errors after which a session is answered slowly.")
    errors_before_close: int = Field(20, ge=1, description="Errors after which a session is closed with 421.")
    max_idle_commands: int = Field(
        100, ge=1, description="Most commands before AUTH, or that lead to no message on the inbound door."
    )
    idle_seconds: float = Field(300, gt=0, description="Longest silence of a client, or wait for a whole line of it.")
    session_seconds: float = Field(3600, gt=0, description="Longest session.")
    trusted_proxies: tuple[Network, ...] = Field((), description="Sources whose PROXY protocol header is believed.")
    trusted: tuple[TrustedNetwork, ...] = Field((), description="Networks that submit without AUTH; none by default.")

    @model_validator(mode="after")
    def _check_certificate(self) -> "SmtpSettings":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: set both or neither")
        return self


class AcmeSettings(Section):
    """Certificates from an authority that speaks ACME (RFC 8555)."""

    email: str | None = Field(
        None,
        pattern=r"^[^@\s]+@[^@\s]+$",
        description="Address for the authority's notices; setting it gets the SMTP doors a certificate by ACME and agrees "
        "to the authority's terms of service. Port 80 of each name must lead to the HTTP door. Unset: off.",
    )
    directory_url: str = Field(
        "https://acme-v02.api.letsencrypt.org/directory",
        pattern="^https://",
        description="URL of the authority's directory (Let's Encrypt).",
    )
    names: tuple[HostName, ...] = Field((), description="Host names the certificate is for; empty = `smtp.hostname`.")
    ca_file: Path | None = Field(
        None, description="PEM file of authorities that the directory's own server may have, instead of the usual ones."
    )


class DeliveryRoute(Section):
    """A route of its own for some recipients."""

    secret_keys = ("smarthost_url",)
    domain: str | None = Field(None, examples=["example.com"], description="Recipient domain, exact.")
    provider: str | None = Field(
        None,
        description="Instead: whose exchangers the domain has, as in `google`: a name of mail/providers.toml, or a "
        "domain of exchangers.",
    )
    route: Route = Field(examples=["mx"], description="`mx`, `smarthost` or `capture`.")
    smarthost_url: str | None = Field(None, repr=False, description="The smarthost of this route; unset: the general one.")
    tls: TlsFloor = Field(
        "may",
        description="`may` (what the peer and its policies say), `required`, or `verified` (for the exchanger's name).",
    )

    @model_validator(mode="after")
    def _check_whose(self) -> "DeliveryRoute":
        if (self.domain is None) == (self.provider is None):
            raise ValueError("a route is for one `domain` or for one `provider`: set exactly one of them")
        return self


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
    resolvers: tuple[DnsServer, ...] = Field((), description="DNS servers, each IP or IP:PORT; empty = the system's.")
    trust_ad: TrustAd = Field(
        "auto",
        description="Believe the DNS servers' DNSSEC validation, which DANE needs: `true`, `false`, or `auto`: when all of "
        "them are on this machine.",
    )
    allow_networks: tuple[Network, ...] = Field(
        (), description="Private networks that mail may be delivered to; a door of this relay only if listed by its address."
    )
    ca_file: Path | None = Field(
        None, description="PEM file of authorities that other servers' certificates may have, beside the system's."
    )
    mta_sts_port: Port = Field(443, description="Port of the HTTPS servers that MTA-STS policies are fetched from.")
    tls_report_from: str | None = Field(
        None,
        pattern=r"^[^@\s<>]+@[^@\s<>]+\.[^@\s<>]+$",
        description="Address that daily TLS reports (RFC 8460) come from; unset: none are made.",
    )
    source_addresses: tuple[Address, ...] = Field(
        (), description="Local addresses to send from, chosen by domain and host; empty = the system's choice."
    )
    warmup_per_day: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (),
        description="Most messages a day from one source address to one provider, for its first day, second day, ...; "
        "empty = no warm-up.",
    )
    fallback: bool = Field(
        True,
        description="With route `mx` and a smarthost_url: send by the smarthost what goes to a provider that blocks our "
        "address, or all while port 25 is closed.",
    )
    concurrency: int = Field(50, ge=1, le=1000, description="Most connections at once.")
    per_destination: int = Field(10, ge=1, description="Most connections at once to one destination.")
    retry_minutes: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        RETRY_MINUTES, min_length=1, description="Waits between attempts (+-10 %); the last one repeats."
    )
    lifetime_hours: float = Field(96, gt=0, description="A message not delivered by then expires.")
    delay_notice_hours: float = Field(
        4, ge=0, description="A sender by SMTP is told of mail that still waits after so many hours; 0 = never."
    )
    connect_seconds: float = Field(30, gt=0, description="Longest wait for a connection.")
    reply_seconds: float = Field(300, gt=0, description="Longest wait for a reply to a command.")
    final_reply_seconds: float = Field(
        600, gt=0, description="Longest wait for the reply to the final dot (RFC 5321 4.5.3.2.6)."
    )
    attempt_seconds: float = Field(1200, gt=0, description="Longest attempt, all hosts together.")
    verp: bool = Field(
        True,
        description="Send from an address of its own for each mail, so that bounces are recognised; needs "
        "`smtp.inbound_port` and the return-path MX record of the domain.",
    )
    suppress: Literal["all", "marketing", "off"] = Field(
        "all",
        description="What the suppression lists hold: `all` mail to addresses that bounced or were entered, and marketing "
        "mail to those that complained; `marketing` = that alone; `off`.",
    )
    messages_per_connection: int = Field(1000, ge=1, description="Most messages on one connection.")
    connection_idle_seconds: float = Field(10, gt=0, description="How long an unused connection is kept.")
    routes: tuple[DeliveryRoute, ...] = Field((), description="Routes by recipient domain or provider.")

    @model_validator(mode="after")
    def _check_smarthost(self) -> "DeliverySettings":
        needing = [route for route in self.routes if route.route == "smarthost" and not route.smarthost_url]
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
    minimum_free_inodes: int = Field(1000, ge=0, description="Below this many free inodes of the disk nothing is accepted.")


class AccountSettings(Section):
    """People who sign in."""

    secret_keys = ("jwt_secret",)
    jwt_secret: str | None = Field(
        None,
        min_length=32,
        repr=False,
        description="Key that signs sessions, at least 32 characters; unset: derived from server.secret_key. Another one "
        "ends every session.",
    )


def _check_list(text: str) -> str:
    if "://" in text and not text.startswith("https://"):
        raise ValueError(f"{text} is neither a path nor an https:// URL")
    return text


ListSource = Annotated[str, AfterValidator(_check_list)]


class VerifySettings(Section):
    """What POST /v1/verify knows and asks. Lists are files or https:// URLs, with a domain a line."""

    disposable_list: ListSource | None = Field(
        None, description="Domains of throw-away addresses, in place of the list that comes with the relay."
    )
    personal_list: ListSource | None = Field(
        None, description="Domains of providers where anybody may have a mailbox; likewise."
    )
    alias_list: ListSource | None = Field(None, description="Domains of services that forward mail; likewise.")
    refresh_hours: float = Field(24, gt=0, description="Lists are read at start, and again after so many hours.")
    dns_seconds: float = Field(5, gt=0, le=5, description="Longest wait for the DNS, all questions together.")


class UploadSettings(Section):
    """Where uploaded images are kept: in a directory, or in an S3-compatible store."""

    secret_keys = ("s3_secret_key",)
    directory: Path | None = Field(None, description="Directory of the files; unset: <data_dir>/uploads.")
    public_url: str | None = Field(
        None,
        pattern="^https?://[!-~]+$",
        description="URL below which everybody finds the files, such as a CDN's; unset: <server.public_url>/uploads/files, "
        "with S3 <s3_endpoint>/<s3_bucket>.",
    )
    prefix: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*/?$",
        max_length=200,
        description="Folder that the keys of new files begin with, such as `mail/`.",
    )
    s3_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[A-Za-z0-9.:\[\]-]+/?$",
        description="URL of an S3-compatible store for new files, instead of the directory; needs the extra `s3`.",
    )
    s3_bucket: str | None = Field(
        None, pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Bucket, whose objects everybody may read."
    )
    s3_region: str = Field("us-east-1", description="Region that requests are signed for.")
    s3_access_key: str | None = Field(None, description="Access key.")
    s3_secret_key: str | None = Field(None, repr=False, description="Secret key.")
    s3_seconds: float = Field(10, gt=0, description="Longest wait for a connection to the store, and for its answer.")

    @model_validator(mode="after")
    def _check_store(self) -> "UploadSettings":
        keys = ("s3_endpoint", "s3_bucket", "s3_access_key", "s3_secret_key")
        missing = [key for key in keys if not getattr(self, key)]
        if missing and len(missing) < len(keys):
            raise ValueError(f"{', '.join(keys)} go together: set all or none; missing: {', '.join(missing)}")
        return self
