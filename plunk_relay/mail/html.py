"""What does HTML say as plain text, and when is it a whole document?

Customers' HTML is read tag by tag, in one pass: a tree of it may have a million times its nodes (every unclosed `<b>` is
opened again in every later paragraph).
"""

import re
from collections.abc import Container
from html import unescape

_SKIPPED = {"style", "script", "title", "template", "noscript"}
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "blockquote", "pre", "hr"}
_LINES = {"br", "div", "tr", "section", "article", "header", "footer", "dt", "dd"}
_CUSTOM_TAG = re.compile(
    r"<(?:!doctype|html|head|body|table|div|section|article|header|footer|main|nav|style|link|meta|img|picture|video"
    r"|audio|svg|form|button|center|font)\b",
    re.IGNORECASE,
)
_CUSTOM_ATTRIBUTE = re.compile(r"<[a-z][^<>]*?\s(?:class|id|role|data-[\w-]+|aria-[\w-]+)\s*=", re.IGNORECASE)
_BODY_END = re.compile(r"</body\s*>", re.IGNORECASE)
_TAG = re.compile(r"(/?)([a-zA-Z][^\s/>]*)")
_ATTRIBUTE = re.compile(
    r"""[\s/]*(?:(>)|([^\s/>][^\s/>=]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"'][^\s>]*)))?)""",
)
_LONG_REFERENCE = re.compile(r"&#\d{8,};?")  # no character has such a number, and Python refuses to read it
_BLANKS = re.compile(r"[ \t]+")
_BREAKS = re.compile(r" *\n *")
_GAPS = re.compile(r"\n{3,}")
_SPACES = re.compile(r"\s+")


def html_to_text(html: str) -> str:
    """Return the readable text: links as `text (url)`, list items with dashes, paragraphs apart; may be empty."""
    if "<" not in html:
        return _decode(html).strip()
    text = _BLANKS.sub(" ", "".join(_Reader(html).read()))
    return _GAPS.sub("\n\n", _BREAKS.sub("\n", text)).strip()


def list_tags(html: str, names: Container[str], *, most: int) -> list[tuple[str, dict[str, str]]]:
    """Return the first start tags of these names, at most so many: name and attributes, whose values are decoded."""
    lister = _TagLister(html, names, most)
    lister.read()
    return lister.found


def _decode(text: str) -> str:
    return unescape(_LONG_REFERENCE.sub("\ufffd", text)) if "&" in text else text


class _Reader:
    """Reads markup from left to right as the HTML standard's tokenizer does."""

    def __init__(self, html: str) -> None:
        self._html = html
        self._place = 0
        self._parts: list[str] = []
        self._link: tuple[str, int] | None = None
        """The address of the open link, and where its text begins in the parts."""

    def read(self) -> list[str]:
        """Return the text in parts."""
        html = self._html
        while (start := html.find("<", self._place)) >= 0:
            self._add_text(start)
            tag = _TAG.match(html, start + 1)
            if tag is not None:
                self._read_tag(tag)
            elif html.startswith(("!", "?", "/"), start + 1):
                self._skip_to("-->" if html.startswith("!--", start + 1) else ">", start)
            else:
                self._parts.append("<")
                self._place = start + 1
        self._add_text(len(html))
        self._end_link()
        return self._parts

    def _add_text(self, end: int) -> None:
        if end > self._place:
            self._parts.append(_SPACES.sub(" ", _decode(self._html[self._place : end])))

    def _skip_to(self, closing: str, start: int) -> None:
        end = self._html.find(closing, start)
        self._place = end + len(closing) if end >= 0 else len(self._html)

    def _read_tag(self, tag: re.Match[str]) -> None:
        name = tag[2].lower()
        attributes = self._read_attributes(tag.end())
        if tag[1]:
            self._end_tag(name)
        elif name in _SKIPPED:
            end = re.compile(f"</{name}(?=[\\s/>])", re.IGNORECASE).search(self._html, self._place)
            self._place = end.start() if end else len(self._html)
        else:
            self._start_tag(name, attributes)

    def _read_attributes(self, place: int) -> dict[str, str]:
        """Read up to the `>`; what never gets there is no tag and no text."""
        attributes: dict[str, str] = {}
        while (found := _ATTRIBUTE.match(self._html, place)) is not None:
            place = found.end()
            if found[1]:
                self._place = place
                return attributes
            attributes.setdefault(found[2].lower(), found[3] or found[4] or found[5] or "")
        self._place = len(self._html)
        return attributes

    def _start_tag(self, name: str, attributes: dict[str, str]) -> None:
        if name == "a":
            self._end_link()
            self._link = _decode(attributes.get("href", "")).strip(), len(self._parts)
        elif name == "img":
            self._parts.append(_SPACES.sub(" ", _decode(attributes.get("alt", ""))).strip())
        elif name == "li":
            self._parts.append("\n- ")
        else:
            self._parts.append(_gap(name))

    def _end_tag(self, name: str) -> None:
        if name == "a":
            self._end_link()
        else:
            self._parts.append(" " if name in ("td", "th") else _gap(name))

    def _end_link(self) -> None:
        """Write where the link leads, unless its text says so."""
        if self._link is None:
            return
        url, start = self._link
        self._link = None
        text = "".join(self._parts[start:])
        if url.lower().startswith("mailto:"):
            url = url[len("mailto:") :]
        elif not url.lower().startswith(("http:", "https:")):
            return
        if url not in text:
            self._parts.append(f" ({url})")


class _TagLister(_Reader):
    """Notes the tags instead of what they do to the text."""

    def __init__(self, html: str, names: Container[str], most: int) -> None:
        super().__init__(html)
        self.found: list[tuple[str, dict[str, str]]] = []
        self._names, self._most = names, most

    def _start_tag(self, name: str, attributes: dict[str, str]) -> None:
        if name in self._names and len(self.found) < self._most:
            self.found.append((name, {key: _decode(value).strip() for key, value in attributes.items()}))


def _gap(name: str) -> str:
    if name in _PARAGRAPHS:
        return "\n\n"
    return "\n" if name in _LINES else ""


def wrap_fragment(html: str) -> str:
    """Make a plain fragment a whole document with readable type; anything with markup of its own stays untouched."""
    if _CUSTOM_TAG.search(html) or _CUSTOM_ATTRIBUTE.search(html):
        return html
    return (
        '<!doctype html>\n<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '</head>\n<body style="margin:0;padding:24px;font:16px/1.5 -apple-system,Segoe UI,Roboto,Helvetica,Arial,'
        'sans-serif;color:#222;background:#fff">\n<div style="max-width:600px;margin:0 auto">\n'
        f"{html}\n</div>\n</body></html>\n"
    )


def add_footer(html: str, footer_html: str) -> str:
    """Put a footer before the first `</body>`, else at the end."""
    place = _BODY_END.search(html)
    return html + footer_html if place is None else html[: place.start()] + footer_html + html[place.start() :]
