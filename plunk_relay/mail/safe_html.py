"""Which HTML of strangers may be shown? What nh3 leaves of it: the usual tags, pictures and styles; no scripts, no forms.

A tree of HTML may have a million times the nodes of its text: every unclosed `<b ...>` is opened again in each later
paragraph, and deep trees take quadratic time. Markup that could grow like that is not parsed; its text is shown.
"""

import re
from html import escape

import nh3

from plunk_relay.mail.html import html_to_text

_MOST_CHARACTERS = 2_000_000
_MOST_TAGS = 20_000  # a second of work when all are inside each other
_MOST_NODES = 400_000  # about 100 MB while it is parsed
_REOPENED = re.compile(r"<(?:b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)(?=[\s/>])[^>]*>?", re.IGNORECASE)
_TAGS = frozenset(
    "a abbr address article aside b bdi bdo big blockquote br caption center cite code col colgroup dd del dfn div dl dt em"
    " figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark nav ol p pre q rp rt ruby s samp"
    " section small span strike strong sub summary sup table tbody td tfoot th thead time tr tt u ul var wbr".split()
)
_ATTRIBUTES = {
    "*": {"style", "title", "dir", "lang", "align"},
    "a": {"href", "name"},
    "img": {"src", "alt", "width", "height"},
    "table": {"width", "border", "cellpadding", "cellspacing", "bgcolor"},
    "td": {"width", "height", "colspan", "rowspan", "valign", "bgcolor"},
    "th": {"width", "height", "colspan", "rowspan", "valign", "bgcolor"},
    "tr": {"valign", "bgcolor"},
    "col": {"width", "span"},
    "font": {"color", "face", "size"},
    "ol": {"start", "type"},
    "time": {"datetime"},
}
_STYLES = frozenset(
    "background-color border border-bottom border-collapse border-color border-left border-radius border-right"
    " border-spacing border-style border-top border-width color direction display font font-family font-size font-style"
    " font-weight height letter-spacing line-height list-style-type margin margin-bottom margin-left margin-right margin-top"
    " max-width min-width padding padding-bottom padding-left padding-right padding-top text-align text-decoration"
    " text-indent text-transform vertical-align white-space width word-break word-wrap".split()
)
"""No position and no url(): a mail must not lie over the page that shows it, or call home by its style."""
_BREAKS = re.compile(r"\n{2,}")


def clean_html(html: str) -> str:
    """Return HTML that is safe to show; links lead to http, https and mailto only."""
    html = html[:_MOST_CHARACTERS]
    if _may_explode(html):
        return text_to_html(html_to_text(html))
    return nh3.clean(
        html,
        tags=set(_TAGS),
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        filter_style_properties=set(_STYLES),
    ).strip()


def text_to_html(text: str) -> str:
    """Return plain text as paragraphs."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    if not lines.strip():
        return ""
    paragraphs = _BREAKS.split(escape(lines, quote=False))
    return "\n".join(f"<p>{paragraph.replace(chr(10), '<br>')}</p>" for paragraph in paragraphs)


def _may_explode(html: str) -> bool:
    """Bound the nodes of the tree: of each different formatting tag at most three are opened again (HTML 13.2.4.3)."""
    tags = html.count("<")
    if tags > _MOST_TAGS:
        return True
    found = _REOPENED.findall(html)
    # a tag with quotes may go on behind its first `>`: it counts as different from all others
    different = len({tag for tag in found if not _is_open_ended(tag)}) + sum(map(_is_open_ended, found))
    return tags * (1 + 3 * different) > _MOST_NODES


def _is_open_ended(tag: str) -> bool:
    return tag.count('"') % 2 == 1 or tag.count("'") % 2 == 1
