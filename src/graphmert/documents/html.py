"""The running text of an HTML page."""

from __future__ import annotations

import re
from html.parser import HTMLParser


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SKIPPED = _words(
    "script style noscript template svg math head nav header footer aside form button select "
    "textarea pre iframe object audio video canvas"
)
_BLOCKS = _words(
    "address article blockquote body caption center dd details dialog div dl dt figcaption figure "
    "h1 h2 h3 h4 h5 h6 hr html legend li main menu ol p section summary table tbody td tfoot th "
    "thead tr ul"
)
_VOID = _words("area base br col embed hr img input link meta param source track wbr")
_SKIPPED_CLASSES = frozenset({"headerlink", "toctree-wrapper", "admonition-title", "noprint"})
_BLANKS = re.compile(r"\s+")


def html_to_text(page: str) -> tuple[str, str]:
    """Return the title and the running text of an HTML page.

    Paragraphs, list items, headings and cells are set apart by blank lines; blanks inside them
    are single spaces. Scripts, styles, forms, navigation and preformatted text (code) are left
    out. Where the page marks its main part (`<main>`, role="main", itemprop="articleBody"), the
    rest of the page is left out.
    """
    parser = _TextParser()
    parser.feed(page)
    parser.close()
    return parser.title.strip(), parser.text()


class _TextParser(HTMLParser):
    """Collect paragraphs; unclosed tags do no harm, because only the skipped are counted."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self._in_title = False
        self._paragraphs: dict[bool, list[str]] = {False: [], True: []}
        self._pieces: list[str] = []
        self._skipped: tuple[str, int] | None = None
        self._main: tuple[str, int] | None = None
        self._found_main = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and not self.title:
            self._in_title = True
        if tag in _VOID:
            if self._skipped is None and tag in ("br", "hr"):
                self._pieces.append(" ") if tag == "br" else self._break()
            return
        values = {name: value or "" for name, value in attrs}
        if self._skipped is not None:
            name, depth = self._skipped
            self._skipped = (name, depth + (tag == name))
        elif tag in _SKIPPED or _SKIPPED_CLASSES & set(values.get("class", "").split()):
            self._skipped = (tag, 1)
        if tag in _BLOCKS:
            self._break()
        if self._main is not None:
            name, depth = self._main
            self._main = (name, depth + (tag == name))
        elif tag == "main" or values.get("role") == "main" or _is_article_body(values):
            self._main, self._found_main = (tag, 1), True

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if tag in _BLOCKS:
            self._break()
        if self._skipped is not None and tag == self._skipped[0]:
            depth = self._skipped[1] - 1
            self._skipped = (tag, depth) if depth else None
        if self._main is not None and tag == self._main[0]:
            depth = self._main[1] - 1
            self._main = (tag, depth) if depth else None

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        elif self._skipped is None:
            self._pieces.append(data)

    def _break(self) -> None:
        paragraph = _BLANKS.sub(" ", "".join(self._pieces)).strip()
        self._pieces = []
        if paragraph:
            self._paragraphs[self._main is not None].append(paragraph)

    def text(self) -> str:
        self._break()
        inside, outside = self._paragraphs[True], self._paragraphs[False]
        return "\n\n".join(inside if self._found_main else outside)


def _is_article_body(values: dict[str, str]) -> bool:
    return values.get("itemprop", "").lower() == "articlebody"
