"""Is a file the image that it says it is? By the first bytes; SVG, which may hold scripts, is none of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageKind:
    """A kind of image: its registered type, the ending of its files, and how a file of it begins."""

    content_type: str
    ending: str
    starts: tuple[bytes, ...]

    def fits(self, data: bytes) -> bool:
        """Tell whether a file begins as one of this kind does."""
        return data.startswith(self.starts) and (self.ending != "webp" or data[8:12] == b"WEBP")


_JPEG = ImageKind("image/jpeg", "jpg", (b"\xff\xd8\xff",))
KINDS = {
    "image/jpeg": _JPEG,
    "image/jpg": _JPEG,
    "image/png": ImageKind("image/png", "png", (b"\x89PNG\r\n\x1a\n",)),
    "image/gif": ImageKind("image/gif", "gif", (b"GIF87a", b"GIF89a")),
    "image/webp": ImageKind("image/webp", "webp", (b"RIFF",)),
}
"""By what a client may declare."""
