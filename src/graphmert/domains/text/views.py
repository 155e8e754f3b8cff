"""A text as names are compared with it, and where each of its characters stands in the original."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np

# Blanks but single spaces, characters that are not seen, variants of hyphen and apostrophe.
_VARIANT = re.compile(
    r" \s+|[^\S ]\s*|[\u00ad\u200b\u2060\ufeff]+|[\u2010\u2011\u2012\u2013\u2212]|[’ʼ]"
)
_PLAIN = {**dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"), "’": "'", "ʼ": "'"}
_LINE_ENDS = re.compile(r"\r\n|\n|\r|\u2028|\u2029")


@dataclass(frozen=True)
class View:
    """A text with composed characters, single blanks and plain hyphens.

    Attributes:
        text: the view.
        start, end: int32 (len(text),), the half-open span of each character's original; None
            where the view is the original.
    """

    text: str
    start: np.ndarray | None = None
    end: np.ndarray | None = None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return the span of the original that a non-empty span of the view stands for."""
        if self.start is None or self.end is None:
            return start, end
        return int(self.start[start]), int(self.end[end - 1])


def view_of(text: str) -> View:
    """Return the view of a text.

    Characters are composed (NFC), a run of blanks and a single line end become one blank, a
    paragraph's end one line end, hyphens and apostrophes of other kinds the plain ones; soft
    hyphens and zero-width blanks are left out. Case is untouched.
    """
    if text.isascii() and _is_plain(text):
        return View(text)
    pieces: list[tuple[str, int, int]] = []
    place = 0
    for match in _VARIANT.finditer(text):
        _add_composed(pieces, text, place, match.start())
        found = match[0]
        if found.isspace():
            new = "\n" if len(_LINE_ENDS.findall(found)) > 1 else " "
        else:
            new = _PLAIN.get(found, "")
        if new:
            pieces.append((new, match.start(), match.end()))
        place = match.end()
    _add_composed(pieces, text, place, len(text))
    joined = "".join(one for one, _, _ in pieces)
    if joined == text:
        return View(text)
    start, end = _places(pieces)
    return View(joined, start, end)


def _is_plain(text: str) -> bool:
    """Return whether an ASCII text has no blank but single spaces."""
    return "  " not in text and not any(blank in text for blank in "\t\n\r\v\f\x1c\x1d\x1e\x1f")


def _places(pieces: list[tuple[str, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    n_chars = sum(len(one) for one, _, _ in pieces)
    start, end = np.empty(n_chars, np.int32), np.empty(n_chars, np.int32)
    place = 0
    for one, first, last in pieces:
        stop = place + len(one)
        if len(one) == last - first:
            start[place:stop] = np.arange(first, last)
            end[place:stop] = np.arange(first + 1, last + 1)
        else:
            start[place:stop] = first
            end[place:stop] = last
        place = stop
    return start, end


def _add_composed(pieces: list[tuple[str, int, int]], text: str, start: int, end: int) -> None:
    part = text[start:end]
    if not part:
        return
    if part.isascii() or unicodedata.is_normalized("NFC", part):
        pieces.append((part, start, end))
        return
    group_start = start
    for place in range(start + 1, end + 1):
        group = text[group_start:place]
        if place < end and _joins(group, text[place]):
            continue
        composed = unicodedata.normalize("NFC", group)
        if composed == group:
            pieces.append((group, group_start, place))
        else:
            # Each character of the result stands for the whole group.
            pieces.extend((one, group_start, place) for one in composed)
        group_start = place


def _joins(group: str, following: str) -> bool:
    """Return whether composing the group with what follows differs from composing it alone."""
    if following.isascii():
        return False
    if unicodedata.combining(following):
        return True
    alone = unicodedata.normalize("NFC", group)
    return unicodedata.normalize("NFC", group + following) != alone + unicodedata.normalize(
        "NFC", following
    )
