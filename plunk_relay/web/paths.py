"""Which slashes of a path separate, and which belong to a name? `%2F` is part of a name: of an event's, of a field's."""

from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_MARK = "\ufdd0"  # a noncharacter (Unicode 23.7): nobody's name has one


class SlashMarker:
    """ASGI middleware: what routes match has a mark where the client wrote %2F; `unmark_slashes` gives the slash back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        raw = scope.get("raw_path") or b""
        if b"%2f" in raw.lower():
            path = raw.decode("ascii", "replace").replace("%2f", _MARK).replace("%2F", _MARK)
            scope = {**scope, "path": unquote(path)}
        await self._app(scope, receive, send)


def unmark_slashes(text: str) -> str:
    """Return a path, or a part of one, with its slashes."""
    return text.replace(_MARK, "/")
