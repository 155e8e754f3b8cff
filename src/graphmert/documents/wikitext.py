"""The running text of a wiki page, and the pages of a MediaWiki XML dump."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import IO
from xml.etree import ElementTree as ET

from graphmert.errors import FormatError

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_REFERENCE = re.compile(r"<ref\b[^>]*?/>|<ref\b.*?</ref\s*>", re.DOTALL | re.IGNORECASE)
_DROPPED = re.compile(
    r"<(?P<tag>math|gallery|timeline|source|syntaxhighlight|pre|code|imagemap|score|nowiki)\b"
    r".*?</(?P=tag)\s*>",
    re.DOTALL | re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_INNERMOST_TEMPLATE = re.compile(r"\{\{(?:(?!\{\{|\}\}).)*\}\}", re.DOTALL)
_INNERMOST_TABLE = re.compile(
    r"^[:\s]*\{\|(?:(?!^[:\s]*\{\|).)*?^\s*\|\}", re.DOTALL | re.MULTILINE
)
_INNERMOST_LINK = re.compile(r"\[\[((?:(?!\[\[|\]\]).)*)\]\]", re.DOTALL)
_OUTSIDE_LINK = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\]]+\s*([^\]]*)\]")
_HEADING = re.compile(r"^(=+)\s*(.*?)\s*\1\s*$", re.MULTILINE)
_QUOTES = re.compile(r"'{2,}")
_MAGIC = re.compile(r"__[A-Z]+__")
_LIST = re.compile(r"^[*#:;]+\s*", re.MULTILINE)
# Links of these kinds stand beside the text; what they show is no part of it.
_BESIDE = ("file:", "image:", "category:", "media:")
_INTERWIKI = re.compile(r"^[a-z]{2,3}(?:-[a-z]+)*:")
_LAST_SECTIONS = re.compile(
    r"^==\s*(?:references|notes|footnotes|citations|sources|bibliography|further reading|"
    r"external links|see also)\s*==\s*$",
    re.IGNORECASE | re.MULTILINE,
)


def wikitext_to_text(source: str) -> str:
    """Return the running text of a page in wiki markup.

    Templates, tables, references, files, formulas and comments are left out, and so is everything
    from the first of the closing sections (references, see also, …); links show their words.
    Paragraphs, headings and list items are set apart by blank lines.
    """
    text = _COMMENT.sub("", source)
    last = _LAST_SECTIONS.search(text)
    text = text[: last.start()] if last else text
    text = _DROPPED.sub("", _REFERENCE.sub("", text))
    text = _repeat(_INNERMOST_TEMPLATE, "", text)
    text = _repeat(_INNERMOST_TABLE, "", text)
    text = _repeat(_INNERMOST_LINK, _shown, text)
    text = _OUTSIDE_LINK.sub(r"\1", text)
    text = _HEADING.sub(r"\n\n\2\n\n", text)
    text = html.unescape(_TAG.sub("", text))
    text = _LIST.sub("\n\n", _MAGIC.sub("", _QUOTES.sub("", text)))
    paragraphs = (" ".join(one.split()) for one in re.split(r"\n\s*\n", text))
    return "\n\n".join(one for one in paragraphs if one)


def _repeat(pattern: re.Pattern[str], by: object, text: str) -> str:
    """Replace from the inside out."""
    count = 1
    while count:
        text, count = pattern.subn(by, text)  # type: ignore[arg-type]
    return text


def _shown(match: re.Match[str]) -> str:
    target, bar, label = match[1].partition("|")
    name = target.strip().lower()
    if name.startswith(_BESIDE) or (_INTERWIKI.match(name) and not bar):
        return ""
    return label.rpartition("|")[2] if bar else target.strip().lstrip(":")


def read_dump(stream: IO[bytes], where: str) -> Iterator[tuple[str, str, str]]:
    """Yield (page id, title, wiki markup) of the articles of a dump, redirects left out.

    Raises:
        FormatError: the file is not XML or ends early.
    """
    try:
        for _, element in ET.iterparse(stream):
            if _local(element) != "page":
                continue
            parts = {_local(child): child for child in element}
            namespace = parts["ns"].text if "ns" in parts else "0"
            if namespace == "0" and "redirect" not in parts and "revision" in parts:
                text = next((one for one in parts["revision"] if _local(one) == "text"), None)
                markup = (text.text or "") if text is not None else ""
                yield parts["id"].text or "", parts["title"].text or "", markup
            element.clear()
    except ET.ParseError as error:
        raise FormatError(
            "dump is not whole XML", where=where, got=error, fix="Fetch the file again."
        ) from error


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
