"""What does HTML say as plain text, and when is it a whole document?"""

import re
from html import unescape

from selectolax.lexbor import LexborHTMLParser, LexborNode

_SKIPPED = {"head", "style", "script", "title", "template", "noscript"}
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "blockquote", "pre", "hr"}
_LINES = {"br", "div", "tr", "section", "article", "header", "footer", "dt", "dd"}
_CUSTOM = re.compile(
    r"<(?:!doctype|html|head|body|table|div|section|article|header|footer|main|nav|style|link|meta|img|picture|video"
    r"|audio|svg|form|button|center|font)\b|\s(?:class|style|id|role|data-[\w-]+|aria-[\w-]+)\s*=",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"[ \t]+")
_BREAKS = re.compile(r" *\n *")
_GAPS = re.compile(r"\n{3,}")
_SPACES = re.compile(r"\s+")


def html_to_text(html: str) -> str:
    """Return the readable text: links as `text (url)`, list items with dashes, paragraphs apart; may be empty."""
    if "<" not in html:
        return unescape(html).strip()
    root = LexborHTMLParser(html).body
    if root is None:
        return ""
    text = _BLANKS.sub(" ", "".join(_walk(root)))
    return _GAPS.sub("\n\n", _BREAKS.sub("\n", text)).strip()


def _walk(root: LexborNode) -> list[str]:
    """Visit nodes with a stack, not by recursion: customers' HTML may nest deeply."""
    parts: list[str] = []
    stack: list[LexborNode | str] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            parts.append(node)
            continue
        if node.tag == "-text":
            parts.append(_SPACES.sub(" ", node.text(deep=False) or ""))
            continue
        if node.tag in _SKIPPED or node.tag == "-comment":
            continue
        before, after = _frame(node)
        parts.append(before)
        stack.append(after)
        stack.extend(reversed(list(node.iter(include_text=True))))
    return parts


def _frame(node: LexborNode) -> tuple[str, str]:
    tag = node.tag
    if tag == "a":
        url = (node.attributes.get("href") or "").strip()
        shown = url.startswith(("http:", "https:")) and url not in (node.text() or "")
        return "", f" ({url})" if shown else ""
    if tag == "img":
        return (node.attributes.get("alt") or "").strip(), ""
    if tag == "li":
        return "\n- ", ""
    if tag in ("td", "th"):
        return "", " "
    if tag in _PARAGRAPHS:
        return "\n\n", "\n\n"
    return ("\n", "" if tag == "br" else "\n") if tag in _LINES else ("", "")


def wrap_fragment(html: str) -> str:
    """Make a plain fragment a whole document with readable type; anything with markup of its own stays untouched."""
    if _CUSTOM.search(html):
        return html
    return (
        '<!doctype html>\n<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '</head>\n<body style="margin:0;padding:24px;font:16px/1.5 -apple-system,Segoe UI,Roboto,Helvetica,Arial,'
        'sans-serif;color:#222;background:#fff">\n<div style="max-width:600px;margin:0 auto">\n'
        f"{html}\n</div>\n</body></html>\n"
    )


def add_footer(html: str, footer_html: str) -> str:
    """Put a footer before the first `</body>`, else at the end."""
    place = html.lower().find("</body>")
    return html + footer_html if place < 0 else html[:place] + footer_html + html[place:]
