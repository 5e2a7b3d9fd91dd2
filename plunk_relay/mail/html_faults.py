"""What will mail programs show otherwise than it is meant? What is cheap to find in a finished HTML body."""

from collections.abc import Iterable, Sequence

from plunk_relay.mail.html import list_tags

LARGEST_HTML = 102 * 1024
"""Bytes of HTML behind which Gmail cuts a message off and hides the rest, with an unsubscribe link in it."""
_MOST_TAGS = 10_000
_SHOWN = 3
_LONGEST_URL = 100
_LEADING_NOWHERE = ("", "#")


def find_html_faults(html: str, *, own_url: str) -> list[str]:
    """Return one sentence a kind of fault; links below `own_url` are as they have to be."""
    tags = list_tags(html, ("a", "img"), most=_MOST_TAGS)
    links = [attributes["href"] for name, attributes in tags if name == "a" and "href" in attributes]
    images = [attributes for name, attributes in tags if name == "img"]
    sources = [attributes.get("src", "") for attributes in images]
    own = own_url.rstrip("/") + "/"
    checks = (
        _size_fault(html),
        _say("{} without an address", "link", [link for link in links if link in _LEADING_NOWHERE]),
        _say("{} to an address without https://", "link", _insecure(links, own)),
        _say("{} to an address that is not complete, which leads nowhere in a mail", "link", _relative(links)),
        _say("{} from an address without https://, which mail programs may not load", "image", _insecure(sources, own)),
        _say("{} from an address that is not complete, which cannot be loaded", "image", _relative(sources)),
        _say("{} inside the HTML itself, which Gmail does not show", "image", _embedded(sources)),
        _say("{} without a text (alt) for readers who do not load images", "image", _without_text(images)),
    )
    return [fault for fault in checks if fault]


def _size_fault(html: str) -> str | None:
    size = len(html.encode("utf-8", "replace"))
    if size <= LARGEST_HTML:
        return None
    return f"The HTML has {size} bytes: Gmail shows the first {LARGEST_HTML} and hides the rest"


def _insecure(urls: Iterable[str], own: str) -> list[str]:
    return [url for url in urls if url.lower().startswith("http:") and not url.startswith(own)]


def _relative(urls: Iterable[str]) -> list[str]:
    return [url for url in urls if url not in _LEADING_NOWHERE and not url.startswith("#") and not _has_scheme(url)]


def _has_scheme(url: str) -> bool:
    """Tell an absolute address, such as `https:`, `mailto:`, `tel:` or `cid:`, from a path (RFC 3986 4.2)."""
    scheme, colon, _ = url.partition(":")
    return bool(colon) and scheme.isascii() and scheme[:1].isalpha() and scheme.replace("-", "").replace("+", "").isalnum()


def _embedded(sources: Iterable[str]) -> list[str]:
    return [url for url in sources if url.lower().startswith("data:")]


def _without_text(images: Iterable[dict[str, str]]) -> list[str]:
    """Return the images without an `alt`; an empty one says that the image is decoration."""
    return [attributes.get("src", "") for attributes in images if "alt" not in attributes]


def _say(sentence: str, kind: str, urls: Sequence[str]) -> str | None:
    if not urls:
        return None
    text = sentence.format(f"1 {kind}" if len(urls) == 1 else f"{len(urls)} {kind}s")
    shown = [url[:_LONGEST_URL] for url in dict.fromkeys(urls) if url][:_SHOWN]
    return f"{text}: {', '.join(shown)}" if shown else text
