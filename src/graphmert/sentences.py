"""Cut a text into sentences, with offsets."""

from __future__ import annotations

import re

Span = tuple[int, int]

_END = re.compile(
    r"""(?P<mark>[.!?…]+)["'”’)\]]*(?P<gap>\s+)(?=(?P<next>\S+))   # mark, closing, blank
      | (?P<paragraph>[ \t]*(?:\r\n|\n|\r)[ \t]*(?:\r\n|\n|\r)\s*)  # blank line
      | (?P<wide>[。！？]+[”’）]*\s*)                             # no blank follows these
    """,
    re.VERBOSE,
)
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘]*$")
_OPENING = "\"'“‘([¿¡"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# These are followed by more of the sentence.
_ABBREVIATIONS = _words(
    "e.g i.e cf vs viz al dr mr mrs ms prof st sr jr fig figs eq eqs no nos vol pp ref refs sec "
    "ch sp spp subsp var ssp approx ca resp incl ed eds dept inc ltd co corp univ jan feb mar apr "
    "jun jul aug sep sept oct nov dec p.o i.v i.m s.c"
)
# These may end one; it ends if the next word is one that starts sentences.
_UNSURE = _words("etc a.m p.m u.s u.k ph.d")
_STARTERS = _words(
    "the this that these those it its they he she we in on at for from with by as a an if when "
    "while where although however thus therefore moreover furthermore also there here"
)


def sentences(text: str) -> list[Span]:
    """Return the sentences of a text as half-open character spans, without outer blanks.

    A sentence ends at . ! ? … before a blank and anything but a lower-case letter, at a blank
    line, and at 。！？. Abbreviations (e.g., i.e., Dr., Fig. …), decimals and initials do not end
    one; "etc." and a single capital do where the next word is one that starts sentences.
    """
    spans: list[Span] = []
    start = 0
    for match in _END.finditer(text):
        if match["mark"] and not _ends_sentence(text, start, match):
            continue
        _append_stripped(spans, text, start, match.end())
        start = match.end()
    _append_stripped(spans, text, start, len(text))
    return spans


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    if len(re.findall(r"\r\n|\n|\r", match["gap"])) > 1:
        return True
    following = match["next"].lstrip(_OPENING)
    if not following or following[0].islower():
        return False
    if match["mark"] != ".":
        return True
    found = _LAST_WORD.search(text, max(start, match.start() - 40), match.start())
    word = found.group() if found else ""
    if word.lower() in _ABBREVIATIONS:
        return False
    if word.lower() in _UNSURE or (len(word) == 1 and word.isalpha() and word.isupper()):
        return following.rstrip(",;:").lower() in _STARTERS
    return True


def _append_stripped(spans: list[Span], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    stripped = piece.strip()
    if stripped:
        first = start + len(piece) - len(piece.lstrip())
        spans.append((first, first + len(stripped)))
