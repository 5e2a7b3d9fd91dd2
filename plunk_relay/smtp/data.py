"""Where does a message end? Only at CRLF.CRLF; and what is in it must have clean line ends (RFC 5321 4.1.1.4, 2.3.8).

The chunks of the network are searched as they come; nothing is split into lines, and the message is held once.
"""

from plunk_relay.smtp.replies import SmtpReply

_END = b"\r\n.\r\n"
_STUFFED = b"\r\n."


class MessageReader:
    """Collects DATA. Above `most_bytes` (RFC 1870: dots unstuffed) the rest is read and thrown away, to stay in step."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._data = bytearray(b"\r\n")  # as if a line had ended: a dot may be the very first line
        self.too_large = False

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
        del self._data[end + 2 :]
        self._check_size(self._most)
        return True

    def take(self) -> bytearray:
        """Return the message, dots unstuffed, and forget it."""
        data, self._data = self._data, bytearray()
        if _STUFFED in data:
            data = data.replace(_STUFFED, b"\r\n")
        del data[:2]
        return data

    def _check_size(self, most: int) -> None:
        size = len(self._data) - 2
        if self.too_large or (size > most and size - self._data.count(_STUFFED) > most):
            self.too_large = True
            del self._data[: -len(_END)]


def check_line_ends(message: bytearray) -> SmtpReply | None:
    """Refuse a message with a bare CR, a bare LF or a NUL: what one server calls a line another may not (smuggling)."""
    ends = message.count(b"\r\n")
    if message.count(b"\n") != ends or message.count(b"\r") != ends:
        return SmtpReply(550, "5.6.0", "Lines must end with CR LF; the message has a bare CR or LF")
    if b"\x00" in message:
        return SmtpReply(550, "5.6.0", "The message contains a NUL")
    return None
