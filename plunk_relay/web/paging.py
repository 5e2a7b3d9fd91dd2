"""How is a list read in pieces? By cursor: the id of a page's last item asks for the next page (contract section 1.1)."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from plunk_relay.web.endpoint import ApiModel

MOST = 100
USUAL = 20


def _read_limit(value: object) -> int:
    """Read a number leniently: what is none, or 0, is the usual one; too small and too large ones are moved inside."""
    try:
        wanted = int(str(value))
    except ValueError:
        return USUAL
    return max(1, min(wanted, MOST)) if wanted else USUAL


class CursorQuery(ApiModel):
    """Which piece of a list."""

    limit: Annotated[int, BeforeValidator(_read_limit)] = Field(
        USUAL, description=f"Most items of the page, up to {MOST}; what is no number counts as {USUAL}"
    )
    cursor: str | None = Field(None, description="`cursor` of the page before; an unknown one gives an empty page")


class CursorPage(ApiModel):
    """A piece of a list; subclasses add `data`."""

    total: int = Field(description="How many items fit, on the first page; 0 on later ones")
    cursor: str | None = Field(
        None, description="Asks for the next page; absent on the last one", exclude_if=lambda value: value is None
    )
    has_more: bool = Field(description="Whether there is a next page")
