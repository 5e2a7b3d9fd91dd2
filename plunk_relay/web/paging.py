"""How is a list read in pieces? By cursor, by page, or by a limit alone (contract section 1.1)."""

from collections.abc import Callable
from typing import Annotated

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema

from plunk_relay.web.endpoint import ApiModel

MOST = 100
USUAL = 20
ANY_NUMBER: dict[str, JsonValue] = {"type": ["integer", "string"]}
"""What the document says of a number that is read leniently: any text is taken."""


ANY_WORD = WithJsonSchema({"type": "string"})
"""What the document says of a word that is read leniently: any text is taken."""


def one_of(*allowed: str) -> BeforeValidator:
    """Make a reader of words: any other is as good as none."""
    return BeforeValidator(lambda value: value if value in allowed else None)


def lenient(usual: int, most: int) -> Callable[[object], int]:
    """Make a reader of numbers: what is none, or 0, is the usual one; too small and too large ones are moved inside."""

    def read(value: object) -> int:
        try:
            wanted = int(str(value))
        except ValueError:
            return usual
        return max(1, min(wanted, most)) if wanted else usual

    return read


class CursorQuery(ApiModel):
    """Which piece of a list."""

    limit: Annotated[int, BeforeValidator(lenient(USUAL, MOST))] = Field(
        USUAL,
        description=f"Most items of the page, up to {MOST}; what is no number counts as {USUAL}",
        json_schema_extra=ANY_NUMBER,
    )
    cursor: str | None = Field(None, description="`cursor` of the page before; an unknown one gives an empty page")


class CursorPage(ApiModel):
    """A piece of a list; subclasses add `data`."""

    total: int = Field(description="How many items fit, on the first page; 0 on later ones")
    cursor: str | None = Field(
        None, description="Asks for the next page; absent on the last one", exclude_if=lambda value: value is None
    )
    has_more: bool = Field(description="Whether there is a next page")


class PageQuery(ApiModel):
    """Which page of a list."""

    page: Annotated[int, BeforeValidator(lenient(1, 1_000_000_000))] = Field(
        1, description="Number of the page, from 1 on", json_schema_extra=ANY_NUMBER
    )
    page_size: Annotated[int, BeforeValidator(lenient(USUAL, MOST))] = Field(
        USUAL,
        description=f"Most items of the page, up to {MOST}; what is no number counts as {USUAL}",
        json_schema_extra=ANY_NUMBER,
    )


class Page(ApiModel):
    """A page of a list; subclasses add `data`."""

    total: int = Field(description="How many items there are")
    page: int = Field(description="Number of this page, from 1 on")
    page_size: int = Field(description="Most items of a page")
    total_pages: int = Field(description="How many pages there are")
