"""Where does a setting come from, and what is said when it is wrong?"""

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from plunk_relay.errors import UsageError
from plunk_relay.settings import NO_FILE, Settings, load_settings

KEY = "k" * 40
SECTIONS: dict[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
EVERY_KEY = [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]
OTHER: dict[str, Any] = {
    "server.public_url": "https://mail.example.com",
    "server.secret_key": KEY,
    "server.log_format": "json",
    "server.log_level": "debug",
    "http.trusted_proxies": ["10.0.0.0/8", "::1/128"],
    "smtp.trusted_proxies": ["10.0.0.0/8"],
    "smtp.postmaster": "postmaster@mail.example.com",
    "smtp.trusted": [{"network": "127.0.0.1/32", "project": "acme"}],
    "acme.email": "op@example.com",
    "acme.directory_url": "https://ca.example.com/directory",
    "acme.names": ["mx.example.com", "relay.example.com"],
    "delivery.route": "capture",
    "delivery.trust_ad": True,
    "delivery.tls_report_from": "tls@mail.example.com",
    "delivery.smarthost_url": "smtp://user:pass@relay.test",
    "delivery.resolvers": ["9.9.9.9", "127.0.0.1:5353", "[::1]:53"],
    "delivery.allow_networks": ["127.0.0.0/8"],
    "delivery.source_addresses": ["192.0.2.1", "2001:db8::1"],
    "delivery.retry_minutes": [0.5, 3.0],
    "delivery.warmup_per_day": [50, 100],
    "delivery.suppress": "marketing",
    "delivery.routes": [
        {"domain": "example.com", "provider": None, "route": "capture", "smarthost_url": None, "tls": "required"}
    ],
    "dkim.rsa_bits": 4096,
    "accounts.jwt_secret": KEY,
    "dkim.selector_prefix": "s1",
    "uploads.public_url": "https://cdn.example.com/mail",
    "uploads.s3_endpoint": "https://s3.example.com",
}
S3 = {"s3_endpoint": "https://s3.test", "s3_bucket": "images", "s3_access_key": "reader", "s3_secret_key": "hidden"}
TOGETHER = {
    "smtp.tls_certificate": {"tls_key": "/k.pem"},
    "smtp.tls_key": {"tls_certificate": "/c.pem"},
    **{f"uploads.{key}": {other: S3[other] for other in S3 if other != key} for key in S3},
}
SECRETS = [
    ("server", "secret_key", KEY),
    ("delivery", "smarthost_url", "smtp://user:pass@relay.test"),
    ("uploads", "s3_secret_key", "hidden"),
    ("accounts", "jwt_secret", KEY),
]


@pytest.mark.parametrize(("section", "key"), EVERY_KEY)
def test_every_key_can_be_set_in_the_file(tmp_path: Path, section: str, key: str) -> None:
    value = _other_value(section, key)
    settings = _load(tmp_path, **{section: {key: value} | TOGETHER.get(f"{section}.{key}", {})})
    assert _plain(settings, section, key) == value


@pytest.mark.parametrize(("section", "key"), EVERY_KEY)
def test_every_key_can_be_set_in_the_environment(environment: dict[str, str], section: str, key: str) -> None:
    value = _other_value(section, key)
    for name, one in ({key: value} | TOGETHER.get(f"{section}.{key}", {})).items():
        text = json.dumps(one) if isinstance(one, list) else str(one)
        environment[f"PLUNK_RELAY_{section}__{name}".upper()] = text
    assert _plain(load_settings(NO_FILE), section, key) == value


@pytest.mark.parametrize(("section", "key"), EVERY_KEY)
def test_every_setting_has_a_description(section: str, key: str) -> None:
    description = SECTIONS[section].model_fields[key].description
    assert description
    assert description.endswith(".")


@pytest.mark.parametrize(("section", "key", "secret"), SECRETS)
def test_every_secret_can_be_in_a_file_of_its_own(tmp_path: Path, section: str, key: str, secret: str) -> None:
    (tmp_path / "secret").write_text(f"  {secret}\n")
    named = {f"{key}_file": str(tmp_path / "secret")}
    settings = _load(tmp_path, **{section: named | TOGETHER.get(f"{section}.{key}", {})})
    assert getattr(getattr(settings, section), key) == secret


def test_secrets_are_the_keys_that_repr_hides() -> None:
    hidden = {(section, key) for section, key in EVERY_KEY if not SECTIONS[section].model_fields[key].repr}
    assert hidden == {(section, key) for section, key, _ in SECRETS}
    assert KEY not in repr(load_settings(NO_FILE, overrides={"server": {"secret_key": KEY}}))


def test_the_environment_wins_over_the_file(tmp_path: Path, environment: dict[str, str]) -> None:
    environment["PLUNK_RELAY_HTTP__PORT"] = "2"
    settings = _load(tmp_path, http={"port": 1, "host": "127.0.0.2"})
    assert (settings.http.port, settings.http.host) == (2, "127.0.0.2")


def test_the_command_line_wins_over_the_environment(environment: dict[str, str]) -> None:
    environment["PLUNK_RELAY_HTTP__PORT"] = "2"
    assert load_settings(NO_FILE, overrides={"http": {"port": 3}}).http.port == 3


def test_a_secret_of_the_environment_replaces_the_file_of_the_configuration(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    environment["PLUNK_RELAY_SERVER__SECRET_KEY"] = KEY
    assert _load(tmp_path, server={"secret_key_file": "/absent"}).server.secret_key == KEY


def test_a_secret_file_of_the_environment_replaces_the_secret_of_the_configuration(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "secret").write_text("e" * 40)
    environment["PLUNK_RELAY_SERVER__SECRET_KEY_FILE"] = str(tmp_path / "secret")
    assert _load(tmp_path, server={"secret_key": KEY}).server.secret_key == "e" * 40


@pytest.mark.parametrize(("text", "servers"), [("9.9.9.9", ("9.9.9.9",)), ("9.9.9.9, 1.1.1.1", ("9.9.9.9", "1.1.1.1"))])
def test_a_list_of_the_environment_may_be_words_with_commas(
    environment: dict[str, str], text: str, servers: tuple[str, ...]
) -> None:
    environment["PLUNK_RELAY_DELIVERY__RESOLVERS"] = text
    assert load_settings(NO_FILE).delivery.resolvers == servers


def test_an_empty_variable_sets_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    environment["PLUNK_RELAY_SMTP__HOSTNAME"] = ""
    assert _load(tmp_path, smtp={"hostname": "file.test"}).smtp.hostname == "file.test"


@pytest.mark.parametrize(("section", "key"), [(s, k) for s, k in EVERY_KEY if SECTIONS[s].model_fields[k].default is None])
def test_an_empty_text_leaves_an_optional_setting_unset(tmp_path: Path, section: str, key: str) -> None:
    assert getattr(getattr(_load(tmp_path, **{section: {key: ""}}), section), key) is None


def test_a_named_configuration_is_read(tmp_path: Path, environment: dict[str, str]) -> None:
    _load(tmp_path, http={"port": 99})
    environment["PLUNK_RELAY_CONFIG"] = str(tmp_path / "settings.toml")
    assert load_settings().http.port == 99


def test_no_file_is_read_when_none_is_wanted(tmp_path: Path, environment: dict[str, str]) -> None:
    _load(tmp_path, http={"port": 99})
    environment["PLUNK_RELAY_CONFIG"] = str(tmp_path / "settings.toml")
    assert load_settings(NO_FILE) == Settings()


def test_other_variables_of_the_product_are_no_settings(environment: dict[str, str]) -> None:
    environment["PLUNK_RELAY_CI"] = "1"
    assert load_settings(NO_FILE) == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[smtp]\nhostnme = 'x'", "unknown setting `smtp.hostnme`; did you mean `smtp.hostname`?"),
        ("[smpt]\nhostname = 'x'", "unknown setting `smpt`; did you mean `smtp`?"),
        (
            "[server]\nsecret_key_fil = 'x'",
            "unknown setting `server.secret_key_fil`; did you mean `server.secret_key_file`?",
        ),
        ("[dkim]\nxyz = 1", "unknown setting `dkim.xyz`; known: rsa_bits, ed25519, selector_prefix"),
        (
            "[[smtp.trusted]]\nnetwrk = '::1'\nproject = 'a'",
            "unknown setting `smtp.trusted.0.netwrk`; did you mean `smtp.trusted.0.network`?",
        ),
        ("[http]\nport = 'many'", "setting `http.port`: input should be a valid integer"),
        ("[http]\nport = 70000", "setting `http.port`: input should be less than or equal to 65535"),
        ("[smtp]\nhostname = 5", "setting `smtp.hostname`: input should be a valid string"),
        ("[delivery]\nresolvers = '9.9.9.9'", "setting `delivery.resolvers`: input should be a list"),
        ("[delivery]\nresolvers = ['dns.test']", "setting `delivery.resolvers.0`: 'dns.test' does not appear to be an IPv4"),
        ("[delivery]\nresolvers = ['127.0.0.1:dns']", "127.0.0.1:dns does not end in a port"),
        ("[delivery]\nsource_addresses = ['eth0']", "setting `delivery.source_addresses.0`: 'eth0' does not appear to be"),
        ("[delivery]\nallow_networks = ['10.0.0.1/8']", "`delivery.allow_networks.0`: 10.0.0.1/8 has host bits set"),
        ("[delivery]\nretry_minutes = []", "setting `delivery.retry_minutes`"),
        ("[delivery]\nretry_minutes = [inf]", "setting `delivery.retry_minutes.0`: input should be a finite number"),
        ("[delivery]\nroute = 'fly'", "setting `delivery.route`: input should be 'mx', 'smarthost' or 'capture'"),
        ("[delivery]\nroute = 'smarthost'", "smarthost_url is needed for the route `smarthost`"),
        ("[acme]\nnames = ['*.example.com']", "setting `acme.names.0`"),
        ("[acme]\ndirectory_url = 'http://ca.example.com'", "setting `acme.directory_url`"),
        ("[smtp]\ntls_key = 'k.pem'", "tls_certificate and tls_key go together"),
        ("[server]\npublic_url = 'mail.example.com'", "setting `server.public_url`"),
        ("[server]\nsecret_key = 'short'", "setting `server.secret_key`: string should have at least 32 characters"),
        ("[server]\nsecret_key_file = '/absent'", "secret_key_file: cannot read /absent: No such file"),
        ("[server]\nsecret_key_file = 5", "secret_key_file: write the path of a file"),
        (f"[server]\nsecret_key = '{KEY}'\nsecret_key_file = '/x'", "secret_key and secret_key_file are both set"),
        ("smtp = 5", "setting `smtp`: input should be a table"),
        ("[[smtp]]\nhost = '::1'", "setting `smtp`: input should be a table"),
        ("[smtp\n", "is not valid TOML"),
        ("[smtp]\nhost = '\udcff'", "is not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_file_and_setting(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    message = _refusal(path)
    assert message.startswith(str(path))
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HTTP__PORT", "many", "PLUNK_RELAY_HTTP__PORT: setting `http.port`: input should be a valid integer"),
        ("SMTP__HOSTNAM", "x", "PLUNK_RELAY_SMTP__HOSTNAM: unknown setting `smtp.hostnam`; did you mean `smtp.hostname`?"),
        ("SMPT__HOSTNAME", "x", "PLUNK_RELAY_SMPT__HOSTNAME: unknown setting `smpt`; did you mean `smtp`?"),
        ("HTTP_PORT", "80", "PLUNK_RELAY_HTTP_PORT: write the section, two underscores and the key: PLUNK_RELAY_HTTP__PORT"),
        ("HTTP", "{}", "PLUNK_RELAY_HTTP: write the section, two underscores and the key: PLUNK_RELAY_HTTP__KEY"),
        ("SMTP__TRUSTED", "[{", "PLUNK_RELAY_SMTP__TRUSTED: not valid JSON"),
        ("SERVER__SECRET_KEY_FILE", "/absent", "PLUNK_RELAY_SERVER__SECRET_KEY_FILE: setting `server`: secret_key_file"),
    ],
)
def test_a_mistake_in_the_environment_is_one_line_that_names_the_variable(
    environment: dict[str, str], name: str, value: str, said: str
) -> None:
    environment[f"PLUNK_RELAY_{name}"] = value
    message = _refusal(NO_FILE)
    assert said in message
    assert "\n" not in message


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[http]\nport = 'x'\nhots = 'y'\n[smtp]\nmax_recipients = 0\n")
    message = _refusal(path)
    assert all(name in message for name in ("`http.port`", "`http.hots`", "`smtp.max_recipients`"))


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe" * 40])
def test_a_secret_file_that_holds_no_secret_is_a_mistake(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(UsageError, match=r"secret_key_file: .*secret is (empty|not text)"):
        _load(tmp_path, server={"secret_key_file": str(tmp_path / "secret")})


@pytest.mark.parametrize("case", ["absent", "a directory"])
def test_a_configuration_that_cannot_be_read_is_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path if case == "a directory" else tmp_path / "absent.toml"
    assert _refusal(path).startswith(f"cannot read the configuration {path}: ")


def test_a_wrong_value_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[server]\nsecret_key = 'short-secret'\n[delivery]\nsmarthost_url = 5\n")
    assert "short-secret" not in _refusal(path)


def test_a_single_address_is_a_network() -> None:
    settings = load_settings(NO_FILE, overrides={"http": {"trusted_proxies": ["127.0.0.1", "::1"]}})
    assert settings.http.trusted_proxies == (ip_network("127.0.0.1/32"), ip_network("::1/128"))


def _refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_settings(path)
    return caught.value.message


def _load(directory: Path, **sections: dict[str, Any]) -> Settings:
    path = directory / "settings.toml"
    path.write_text("\n".join(f"{section} = {_toml(keys)}" for section, keys in sections.items()))
    return load_settings(path)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items() if item is not None) + "}"
    return "[" + ", ".join(map(_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def _other_value(section: str, key: str) -> Any:
    """Return a value that is allowed and not the default, as it is written in JSON."""
    if f"{section}.{key}" in OTHER:
        return OTHER[f"{section}.{key}"]
    field: FieldInfo = SECTIONS[section].model_fields[key]
    match field.default:
        case bool(default):
            return not default
        case int(default) | float(default):
            return default - 1
    return "/some/path" if "Path" in str(field.annotation) else "other.test"


def _plain(settings: Settings, section: str, key: str) -> Any:
    return settings.model_dump(mode="json")[section][key]
