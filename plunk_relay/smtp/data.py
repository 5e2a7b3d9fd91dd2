"""Where does a message end? Only at CRLF.CRLF; and what is in it must have clean line ends (RFC 5321 4.1.1.4, 2.3.8).

The chunks of the network are searched as they come; nothing is split into lines, and the message is held once: a small
one in memory, a large one in a spooled file, of which never more than a few chunks are in memory.
"""

from pathlib import Path

from plunk_relay.log import get_logger
from plunk_relay.smtp.replies import CANNOT_STORE, SmtpReply
from plunk_relay.spool import SpooledFile

log = get_logger("smtp")
SPOOLED_BYTES = 262144
"""A message up to this size costs no file."""
_END = b"\r\n.\r\n"
_STUFFED = b"\r\n."
_LEAD = 2
_BARE = SmtpReply(550, "5.6.0", "Lines must end with CR LF; the message has a bare CR or LF")
_NUL = SmtpReply(550, "5.6.0", "The message contains a NUL")


class MessageReader:
    """Collects DATA. Above `most_bytes` (RFC 1870: dots unstuffed) the rest is read and thrown away, to stay in step."""

    def __init__(self, most_bytes: int, directory: Path | None = None) -> None:
        self._most = most_bytes
        self._directory = directory
        self._data = bytearray(b"\r\n")  # as if a line had ended: a dot may be the very first line
        self._file: SpooledFile | None = None
        self._ends = _LineEnds()
        self._refusal: SmtpReply | None = None

    @property
    def too_large(self) -> bool:
        """Whether the message is larger than allowed."""
        return self._refusal is not None and self._refusal.code == 552

    @property
    def overflows(self) -> bool:
        """Whether `spool` should be called before more is fed."""
        return len(self._data) > SPOOLED_BYTES

    @property
    def spooled(self) -> bool:
        """Whether `take` waits for the disk."""
        return self._file is not None

    def feed(self, buffer: bytearray) -> bool:
        """Take what is in the buffer; True when the message is complete, with what follows it left in the buffer."""
        start = max(0, len(self._data) - len(_END) + 1)
        self._data += buffer
        end = self._data.find(_END, start)
        if end < 0:
            buffer.clear()
            self._check_size(self._most + len(_END))  # the beginning of the end may be in it
            return False
        buffer[:] = self._data[end + len(_END) :]
        del self._data[end + _LEAD :]
        self._check_size(self._most)
        return True

    def spool(self) -> None:
        """Move what has come to the file, but for the last bytes: the end may begin in them. May wait for the disk."""
        self._move(len(self._data) - len(_END) + 1)

    def take(self) -> bytearray | SpooledFile | SmtpReply:
        """Return the message, dots unstuffed, or its refusal, and forget it. A file belongs to this reader: `close`."""
        if self._file is not None:
            self._move(len(self._data))
        if self._refusal is not None:
            return self._refusal
        if self._file is not None:
            return self._ends.judge() or self._file
        data, self._data = self._data, bytearray()
        if _STUFFED in data:
            data = data.replace(_STUFFED, b"\r\n")
        del data[:_LEAD]
        return check_line_ends(data) or data

    def close(self) -> None:
        """Give the file back, if there is one."""
        if self._file is not None:
            self._file.close()

    def _move(self, end: int) -> None:
        """Write `_data[2:end]` to the file; the two bytes before it stay as its context."""
        if end <= _LEAD or self._refusal is not None:
            return
        moved = self._data[:end]
        self._ends.count(moved, _LEAD)
        if _STUFFED in moved:
            moved = moved.replace(_STUFFED, b"\r\n")
        try:
            self._file = self._file or SpooledFile(self._directory)
            self._file.append(memoryview(moved)[_LEAD:])
        except OSError as error:
            log.error("a large message cannot be spooled", error=error.strerror)
            self._refuse(CANNOT_STORE)
            return
        del self._data[: end - _LEAD]

    def _check_size(self, most: int) -> None:
        if self._refusal is not None:
            del self._data[: -len(_END)]
            return
        size = len(self._data) - _LEAD + (self._file.size if self._file else 0)
        if size > most and size - self._data.count(_STUFFED) > most:
            self._refuse(SmtpReply(552, "5.3.4", f"The message is larger than {self._most} bytes"))

    def _refuse(self, refusal: SmtpReply) -> None:
        """Keep nothing any more but the bytes in which the end may begin."""
        self._refusal = refusal
        del self._data[: -len(_END)]
        self.close()


class _LineEnds:
    """Counts over pieces what `check_line_ends` finds in the whole."""

    def __init__(self) -> None:
        self._ends = self._feeds = self._returns = self._nuls = 0

    def count(self, data: bytearray, start: int) -> None:
        """Count from `start` on; the byte before it has been counted, and a line end may begin with it."""
        self._ends += data.count(b"\r\n", start - 1)
        self._feeds += data.count(b"\n", start)
        self._returns += data.count(b"\r", start)
        self._nuls += data.count(b"\x00", start)

    def judge(self) -> SmtpReply | None:
        """Return the refusal, if any."""
        if not self._ends == self._feeds == self._returns:
            return _BARE
        return _NUL if self._nuls else None


def check_line_ends(message: bytearray) -> SmtpReply | None:
    """Refuse a message with a bare CR, a bare LF or a NUL: what one server calls a line another may not (smuggling)."""
    ends = message.count(b"\r\n")
    if message.count(b"\n") != ends or message.count(b"\r") != ends:
        return _BARE
    return _NUL if b"\x00" in message else None
