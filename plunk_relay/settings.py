"""What can an operator set? Every section, key and default; read from TOML, then environment, then secret files.

`PLUNK_RELAY_SECTION__KEY` overrides the file; `<key>_file` names a file that holds a secret; an empty text is as good as
no text. An unknown key is an error that names the nearest known one. Only `serve.py`, `cli/` and tests load settings;
everyone else is handed values.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from plunk_relay.errors import UsageError
from plunk_relay.sections import (
    AccountSettings,
    AcmeSettings,
    DatabaseSettings,
    DeliverySettings,
    DkimSettings,
    HttpSettings,
    LimitSettings,
    ServerSettings,
    SmtpSettings,
    UploadSettings,
    VerifySettings,
)

DEFAULT_PATH = Path("/etc/plunk-relay/plunk-relay.toml")
NO_FILE = Path(os.devnull)
"""As a path of settings: read no file at all."""
_PREFIX = "PLUNK_RELAY_"
Layer = dict[str, Any]


class Settings(BaseModel):
    """All sections."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    server: ServerSettings = ServerSettings()
    http: HttpSettings = HttpSettings()
    database: DatabaseSettings = DatabaseSettings()
    smtp: SmtpSettings = SmtpSettings()
    acme: AcmeSettings = AcmeSettings()
    delivery: DeliverySettings = DeliverySettings()
    dkim: DkimSettings = DkimSettings()
    limits: LimitSettings = LimitSettings()
    accounts: AccountSettings = AccountSettings()
    verify: VerifySettings = VerifySettings()
    uploads: UploadSettings = UploadSettings()

    @property
    def database_url(self) -> str:
        """The database's URL with its default filled in."""
        return self.database.url or f"sqlite:///{self.server.data_dir / 'relay.db'}"


def load_settings(path: Path | None = None, *, overrides: Mapping[str, Mapping[str, object]] | None = None) -> Settings:
    """Read settings; the environment wins over the file, `overrides` (section to key to value) win over both.

    Raises UsageError with one line that lists each bad key: its name, what is wrong, and the nearest known name.
    """
    chosen = path or _default_path()
    values = _read_toml(chosen) if chosen else {}
    _lay_over(values, _read_environment())
    _lay_over(values, overrides or {})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        faults = [_explain(dict(item), chosen) for item in error.errors(include_url=False, include_input=False)]
        raise UsageError("; ".join(dict.fromkeys(faults))) from None


def notify_socket() -> str | None:
    """Return the address systemd wants to be told of readiness at (sd_notify(3)), if any."""
    return os.environ.get("NOTIFY_SOCKET")


def _default_path() -> Path | None:
    named = os.environ.get("PLUNK_RELAY_CONFIG")
    return Path(named) if named else DEFAULT_PATH if os.path.lexists(DEFAULT_PATH) else None


def _read_toml(path: Path) -> Layer:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def _lay_over(values: Layer, above: Mapping[str, Any]) -> None:
    """Let the keys of a layer replace those below; a secret replaces its file and the other way round."""
    for section, keys in above.items():
        below = values.get(section)
        if isinstance(below, dict) and isinstance(keys, Mapping):
            gone = {key.removesuffix("_file") if key.endswith("_file") else f"{key}_file" for key in keys}
            values[section] = {key: value for key, value in below.items() if key not in gone} | dict(keys)
        else:
            values[section] = dict(keys) if isinstance(keys, Mapping) else keys


def _read_environment() -> Layer:
    layer: Layer = {}
    for name, section, key in _variables():
        if os.environ[name] != "":
            layer.setdefault(section, {})[key] = _from_text(name, section, key)
    return layer


def _variables() -> Iterator[tuple[str, str, str]]:
    """Find PLUNK_RELAY_SECTION__KEY; raises UsageError for a section without a key, or with only one underscore."""
    for name in os.environ:
        if not name.startswith(_PREFIX):
            continue
        section, separator, key = name.removeprefix(_PREFIX).lower().partition("__")
        if separator:
            yield name, section, key
            continue
        meant = next((known for known in Settings.model_fields if f"{section}_".startswith(f"{known}_")), None)
        if meant is not None:
            written = f"{_PREFIX}{meant}__{section[len(meant) + 1 :] or 'key'}".upper()
            raise UsageError(f"environment variable {name}: write the section, two underscores and the key: {written}")


def _from_text(name: str, section: str, key: str) -> object:
    """Read a value: a list is JSON, or words with commas between them; other texts are converted when checked."""
    text = os.environ[name]
    model = _section_of(Settings.model_fields.get(section))
    field = model.model_fields.get(key) if model else None
    if field is None or not isinstance(field.default, tuple):
        return int(text) if field and type(field.default) is int and text.isdecimal() else text  # a choice of numbers
    if not text.lstrip().startswith("["):
        return [word.strip() for word in text.split(",")]
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"environment variable {name}: not valid JSON: {error}") from error


_TYPE_WORDS = {"tuple_type": "input should be a list", "model_type": "input should be a table"}


def _explain(item: dict[str, Any], file: Path | None) -> str:
    path = [str(part) for part in item["loc"]]
    name = ".".join(path)
    if item["type"] == "extra_forbidden":
        return f"{_source(path, file)}: unknown setting `{name}`{_nearest(path[-1], known_keys(path[:-1]), path[:-1])}"
    message = _TYPE_WORDS.get(item["type"]) or item["msg"].removeprefix("Value error, ")
    return f"{_source(path, file)}: setting `{name}`: {message[0].lower()}{message[1:]}"


def _source(path: list[str], file: Path | None) -> str:
    """Say where a setting was read from: its variable, else the file; a whole section may come from several places."""
    named = [f"environment variable {name}" for name, *place in _variables() if place[: len(path)] == path[:2]]
    whole_section = len(path) == 1 and path[0] in Settings.model_fields
    if file is not None and (whole_section or not named):
        named.insert(0, str(file))
    return ", ".join(named) or "command line"


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
