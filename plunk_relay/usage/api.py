"""How is it told where something is used? As the ids and names of its users."""

from collections.abc import Sequence

from plunk_relay.usage.queries import User
from plunk_relay.web.endpoint import ApiModel


class UserBody(ApiModel):
    """A segment, campaign or workflow that uses something."""

    id: str
    name: str


def show_users(users: Sequence[User]) -> list[UserBody]:
    """Return users as the API shows them."""
    return [UserBody(id=one.id, name=one.name) for one in users]
