"""What happens to projects? Made, identified by key, given new keys, disabled and enabled."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from plunk_relay.errors import BadRequest, NotFound
from plunk_relay.ids import hash_secret, new_api_key, new_id
from plunk_relay.projects import queries
from plunk_relay.projects.queries import Project, StoredKey
from plunk_relay.relay import Relay
from plunk_relay.secretbox import SecretBox
from plunk_relay.web.access import KeyOwner

if TYPE_CHECKING:
    import sqlalchemy as sa

_PURPOSE = "api key"
_KEYS, _PROJECTS = "keys", "projects"


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Both keys in clear; for display only."""

    public: str
    secret: str


async def create_project(relay: Relay, name: str, *, owner_id: str | None) -> tuple[Project, ApiKeys]:
    """Make a project with fresh keys; `owner_id` becomes its OWNER."""
    project_id, keys = new_id(), ApiKeys(new_api_key("pk_"), new_api_key("sk_"))
    public, secret = _stored(relay.secrets, keys.public), _stored(relay.secrets, keys.secret)
    now = relay.clock.now()

    def insert(tx: "sa.Connection") -> Project:
        queries.insert_project(tx, project_id, name=name, public=public, secret=secret, now=now)
        if owner_id is not None:
            queries.add_member(tx, project_id, owner_id, role="OWNER", now=now)
        return _found(queries.find_project(tx, project_id), project_id)

    return await relay.db.write(insert), keys


async def identify_key(relay: Relay, key: str) -> KeyOwner | None:
    """Return whose key this is, or None. Keys are compared by their SHA-256, so in constant time as to the key."""
    key_hash = hash_secret(key)

    async def load() -> KeyOwner | None:
        found = await relay.db.read(queries.find_key_owner, key_hash)
        return KeyOwner(*found) if found else None

    return await relay.memory.remember(_KEYS, key_hash, load)


async def get_project(relay: Relay, project_id: str) -> Project:
    """Return the project, remembered for a few seconds; raises NotFound."""

    async def load() -> Project:
        return _found(await relay.db.read(queries.find_project, project_id), project_id)

    return await relay.memory.remember(_PROJECTS, project_id, load)


async def resolve_project(relay: Relay, name_or_id: str) -> Project:
    """Return the one project with this id or name; raises NotFound, or BadRequest when the name is not unique."""
    found = await relay.db.read(queries.find_projects_named, name_or_id)
    if not found:
        raise NotFound.of("Project", name_or_id)
    if len(found) > 1:
        raise BadRequest(f"{len(found)} projects are named {name_or_id}: use the id, such as {found[0].id}")
    return found[0]


async def regenerate_keys(relay: Relay, project_id: str) -> ApiKeys:
    """Replace both keys at once; the old ones are refused from the next request on."""
    keys = ApiKeys(new_api_key("pk_"), new_api_key("sk_"))
    public, secret = _stored(relay.secrets, keys.public), _stored(relay.secrets, keys.secret)
    now = relay.clock.now()
    await relay.db.write(queries.replace_keys, project_id, public=public, secret=secret, now=now)
    _forget(relay)
    return keys


async def disable_project(relay: Relay, project_id: str, *, reason: str = "MANUAL") -> None:
    """Refuse writes of the project from now on; its queued mail fails when its turn comes."""
    await relay.db.write(queries.set_disabled, project_id, reason=reason, now=relay.clock.now())
    _forget(relay)


async def enable_project(relay: Relay, project_id: str) -> None:
    """Let the project write again."""
    await relay.db.write(queries.set_disabled, project_id, reason=None, now=relay.clock.now())
    _forget(relay)


def open_keys(relay: Relay, project: Project) -> ApiKeys:
    """Decrypt a project's keys for display."""
    return ApiKeys(
        relay.secrets.open(project.public_sealed, purpose=_PURPOSE),
        relay.secrets.open(project.secret_sealed, purpose=_PURPOSE),
    )


def _stored(box: SecretBox, key: str) -> StoredKey:
    return StoredKey(hash_secret(key), box.seal(key, purpose=_PURPOSE))


def _found(project: Project | None, project_id: str) -> Project:
    if project is None:
        raise NotFound.of("Project", project_id)
    return project


def _forget(relay: Relay) -> None:
    relay.memory.forget(_KEYS)
    relay.memory.forget(_PROJECTS)
