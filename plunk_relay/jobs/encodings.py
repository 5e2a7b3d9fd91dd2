"""In which encoding is an uploaded text? A byte order mark says it, UTF-8 proves itself, and the rest is a good guess.

Letters of western Europe are told from others well, Cyrillic and the scripts of east Asia in most cases; the rest often
passes for something else, so the result of an import says what was assumed.
"""

import codecs
import io
import re
from dataclasses import dataclass
from typing import TextIO

from charset_normalizer import from_bytes

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # begins like the next one
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_CANDIDATES = {
    "cp1252": "windows-1252",
    "cp1250": "windows-1250",
    "cp1251": "windows-1251",
    "cp1253": "windows-1253",
    "cp1254": "windows-1254",
    "cp1255": "windows-1255",
    "cp1256": "windows-1256",
    "cp1257": "windows-1257",
    "cp1258": "windows-1258",
    "koi8_r": "KOI8-R",
    "mac_roman": "macintosh",
    "cp932": "Shift_JIS",
    "euc_jp": "EUC-JP",
    "gb18030": "GB18030",
    "big5": "Big5",
    "cp949": "EUC-KR",
}
"""What spreadsheets write, by the names of Python and of IANA."""
_USUAL = "cp1252"
_FOREIGN_LINE = re.compile(rb"[^\r\n]{0,500}[\x80-\xff][^\r\n]{0,500}")
_SAMPLE_BYTES = 16_384
_LEAST_SAMPLE_BYTES = 1024
_PIECE_BYTES = 65_536
_BROKEN_SHARE = 10
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How bytes become text; what cannot be read becomes U+FFFD."""

    codec: str
    name: str
    """As IANA calls it."""

    def open(self, data: bytes) -> tuple[io.BytesIO, TextIO]:
        """Return the bytes, which know how far they were read, and their text, with its line ends as they are."""
        raw = io.BytesIO(data)
        return raw, io.TextIOWrapper(raw, encoding=self.codec, errors="replace", newline="")


def find_encoding(data: bytes) -> Encoding:
    """Return the encoding of a text; windows-1252 where others fit no better."""
    for mark, codec, name in _MARKS:
        if data.startswith(mark):
            return Encoding(codec, name)
    return Encoding("utf-8", "UTF-8") if _is_mostly_utf8(data) else _guess(data)


def _is_mostly_utf8(data: bytes) -> bool:
    """Tell whether it is UTF-8 with hardly a broken character: one that is cut off must not spoil all others."""
    if data.isascii():
        return True
    foreign = broken = 0
    _, text = Encoding("utf-8", "UTF-8").open(data)
    while piece := text.read(_PIECE_BYTES):
        if not piece.isascii():
            broken += piece.count(_UNREADABLE)
            foreign += len(piece) - len(piece.encode("ascii", "ignore"))
    return broken * _BROKEN_SHARE < foreign


def _guess(data: bytes) -> Encoding:
    found = list(
        from_bytes(_sample(data), cp_isolation=list(_CANDIDATES), preemptive_behaviour=False, enable_fallback=False)
    )
    best = found[0].encoding if found else _USUAL
    if any(_USUAL in match.could_be_from_charset and match.chaos <= found[0].chaos for match in found):
        best = _USUAL
    return Encoding(best, _CANDIDATES[best])


def _sample(data: bytes) -> bytes:
    """Return lines that are not ASCII, few ones repeated: only they tell encodings apart, and by how often letters meet."""
    lines, size = [], 0
    for match in _FOREIGN_LINE.finditer(data):
        lines.append(match[0])
        size += len(match[0])
        if size >= _SAMPLE_BYTES:
            break
    return b"\n".join(lines * (1 + _LEAST_SAMPLE_BYTES // size))
