"""Find entities by what a person would call them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rapidfuzz import fuzz, process

How = Literal["id", "name", "synonym", "words", "like"]

LIKE_SCORE = 75.0
_BLANKS = re.compile(r"\s+")
_WORDS = re.compile(r"\w+")


def fold_name(text: str) -> str:
    """Return a name without case and with single blanks, for comparison."""
    return _BLANKS.sub(" ", text.casefold()).strip()


@dataclass(frozen=True)
class Found:
    """An entity that a text may mean.

    Attributes:
        entity_id: the entity.
        how: by its id, its name, a synonym, all the words asked for within a name, or likeness
            of the letters.
        name: the name that matched.
        likeness: 100 but for `like`.
    """

    entity_id: str
    how: How
    name: str
    likeness: float = 100.0


class NameTable:
    """Names and synonyms of entities.

    Args:
        entities: (entity_id, name, synonyms) of each.
    """

    def __init__(self, entities: Iterable[tuple[str, str, Iterable[str]]]) -> None:
        self._ids: set[str] = set()
        self._names: dict[str, list[str]] = defaultdict(list)
        self._synonyms: dict[str, list[str]] = defaultdict(list)
        self._written: dict[str, str] = {}
        for entity_id, name, synonyms in entities:
            self._ids.add(entity_id)
            for text, table in ((name, self._names), *((s, self._synonyms) for s in synonyms)):
                folded = fold_name(text)
                table[folded].append(entity_id)
                self._written.setdefault(folded, text)

    def exact(self, text: str) -> list[Found]:
        """Return the entities with that id, name or synonym, each once, in this order."""
        folded = fold_name(text)
        ways: list[tuple[How, Iterable[str]]] = [
            ("id", [text] if text in self._ids else []),
            ("name", self._names.get(folded, ())),
            ("synonym", self._synonyms.get(folded, ())),
        ]
        found: dict[str, Found] = {}
        for how, entity_ids in ways:
            for entity_id in sorted(entity_ids):
                name = text if how == "id" else self._written[folded]
                found.setdefault(entity_id, Found(entity_id, how, name))
        return list(found.values())

    def find(self, text: str, *, limit: int = 10) -> list[Found]:
        """Return entities that a text may mean, the surest first.

        Exact ids, names and synonyms come first; then names that hold all words of the text,
        shorter ones first; and where there is nothing at all, names of like spelling.
        """
        found = {one.entity_id: one for one in self.exact(text)}
        words = set(_WORDS.findall(fold_name(text)))
        if words and len(found) < limit:
            for folded in sorted(self._with_words(words), key=lambda one: (len(one), one)):
                for entity_id in sorted({*self._names[folded], *self._synonyms[folded]}):
                    name = self._written[folded]
                    found.setdefault(entity_id, Found(entity_id, "words", name))
        if not found:
            for folded, likeness, _ in process.extract(
                fold_name(text), self._written.keys(), scorer=fuzz.ratio, limit=limit,
                score_cutoff=LIKE_SCORE,
            ):  # fmt: skip
                for entity_id in sorted({*self._names[folded], *self._synonyms[folded]}):
                    one = Found(entity_id, "like", self._written[folded], round(likeness, 1))
                    found.setdefault(entity_id, one)
        return list(found.values())[:limit]

    def _with_words(self, words: set[str]) -> list[str]:
        longest = max(words, key=len)
        return [
            folded
            for folded in self._written
            if longest in folded and words <= set(_WORDS.findall(folded))
        ]
