"""What file is in a form? The one part that an endpoint asks for (RFC 7578); the others are passed over."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from plunk_relay.errors import BadRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM_BYTES = 65_536
"""How much larger than the file a form may be."""


@dataclass(frozen=True, slots=True)
class UploadField:
    """The part an endpoint asks for: its name in the form, and how many bytes it may have."""

    name: str
    most_bytes: int


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file as the client sent it: nothing of it is checked."""

    filename: str
    """Empty: the client gave none."""
    content_type: str
    """In lower case, without parameters; empty: the client gave none."""
    data: bytes


def read_upload(raw: bytes, content_type: str, field: UploadField) -> UploadedFile:
    """Return the part of a form's body; raises BadRequest when the body is no form, or has no such part."""
    missing = BadRequest(f"Send the file as `{field.name}` of a multipart/form-data request.")
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise missing
    reader = _Reader(field.name)
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        parser.write(raw)
        parser.finalize()
    except FormParserError as error:
        raise BadRequest(f"The multipart/form-data body is malformed: {error}") from error
    if reader.found is None:
        raise missing
    return reader.found


class _Reader:
    """Collects the headers of each part, and the bytes of the first one that is wanted."""

    def __init__(self, wanted: str) -> None:
        self.found: UploadedFile | None = None
        self._wanted = wanted.encode()
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = bytearray(), bytearray()
        self._options: dict[bytes, bytes] = {}
        self._data: bytearray | None = None

    def callbacks(self) -> "MultipartCallbacks":
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._headers, self._options, self._data = {}, {}, None

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _end_headers(self) -> None:
        _, self._options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if self.found is None and self._options.get(b"name") == self._wanted:
            self._data = bytearray()

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._data is not None:
            self._data += data[start:end]

    def _end(self) -> None:
        if self._data is None:
            return
        kind, _ = parse_options_header(self._headers.get(b"content-type", b""))
        filename = self._options.get(b"filename", b"").decode("utf-8", "replace")
        self.found = UploadedFile(filename, kind.decode("latin-1").lower(), bytes(self._data))
        self._data = None
