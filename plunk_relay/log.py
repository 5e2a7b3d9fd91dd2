"""How does the relay speak to its operator? One structured line per fact, on stderr.

Console format on a terminal, JSON elsewhere. Mail events carry the queue id. Bodies, passwords and keys are never
logged: callers pass names and numbers only, and the processor below drops known secret keys as a second line.
"""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Literal

import orjson
import structlog

LogFormat = Literal["console", "json", "auto"]
_SECRET_WORDS = ("password", "secret", "authorization", "token", "private_key", "api_key", "body")


def configure_logging(log_format: LogFormat, level: str) -> None:
    """Set up structlog and the standard library's logging; `auto` picks console on a terminal, else json."""
    chosen = log_format if log_format != "auto" else ("console" if sys.stderr.isatty() else "json")
    renderer: structlog.types.Processor = structlog.dev.ConsoleRenderer()
    factory: Callable[..., Any] = structlog.PrintLoggerFactory(sys.stderr)
    if chosen == "json":
        renderer = structlog.processors.JSONRenderer(serializer=_dump_json)
        factory = structlog.BytesLoggerFactory(sys.stderr.buffer)
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _drop_secrets,
            structlog.processors.format_exc_info,  # as text: the renderer's own way shows local variables
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    _redirect_standard_logging(max(number, logging.WARNING))


def get_logger(name: str) -> "structlog.typing.FilteringBoundLogger":
    """Return the logger of one part; its name is the `part` key of every line."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(part=name)
    return logger


def _dump_json(event: object, **_options: object) -> bytes:
    return orjson.dumps(event, default=str)


def _drop_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in event:
        if key in _SECRET_WORDS:
            event[key] = "[redacted]"
    return event


class _ToStructlog(logging.Handler):
    """Libraries' own warnings, in the same format as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(part=record.name).log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)


def _redirect_standard_logging(level: int) -> None:
    root = logging.getLogger()
    root.handlers = [_ToStructlog()]
    root.setLevel(level)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every form that a client gets wrong
