"""Link surfaces beyond exact names to entities: near in meaning and alike in letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import Field

from graphmert.config import Settings
from graphmert.domains.text.embedding import Embedder
from graphmert.domains.text.mentions import fold
from graphmert.domains.text.views import view_of
from graphmert.progress import Progress, Silent
from graphmert.shards import Ledger

_BLOCK = 64


class LinkSettings(Settings):
    """How candidate entities are linked to the KG's."""

    enabled: bool = Field(default=True, description="link candidates to entities")
    top_k: int = Field(
        default=10, ge=1, description="an entity's name must be among the nearest by cosine"
    )
    min_jaccard: float = Field(
        default=0.5, ge=0, lt=1, description="and share more of its 3-letter pieces than this"
    )
    min_cosine: float = Field(
        default=0.9, ge=-1, le=1, description="and be at least this near; the paper has no limit"
    )


@dataclass(frozen=True)
class Link:
    """A surface linked to an entity by one of its names."""

    entity_id: str
    name: str
    cosine: float
    jaccard: float


def normal_name(text: str) -> str:
    """Return a name as names are compared: composed, single blanks, folded case."""
    return fold(view_of(text).text.strip())


def trigrams(text: str) -> frozenset[str]:
    """Return the pieces of three characters of a text; a shorter text is its own piece."""
    if len(text) < 3:
        return frozenset([text]) if text else frozenset()
    return frozenset(text[place : place + 3] for place in range(len(text) - 2))


def jaccard(one: frozenset[str], two: frozenset[str]) -> float:
    """Return |A ∩ B| / |A ∪ B|, 0 where both are empty."""
    n_both = len(one & two)
    n_any = len(one) + len(two) - n_both
    return n_both / n_any if n_any else 0.0


class LetterIndex:
    """Find all names that share more than a given share of 3-letter pieces with a surface.

    Exact: where |A ∩ B| > t·|A ∪ B|, more than t·|A| pieces of A are in B, so that of any
    |A| − ⌊t·|A|⌋ pieces one is; the rarest ones are looked up.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.pieces = [trigrams(name) for name in names]
        self.size = np.array([len(one) for one in self.pieces], dtype=np.int64)
        count = Counter(piece for one in self.pieces for piece in one)
        self.number = {piece: place for place, piece in enumerate(sorted(count))}
        self.count = np.array([count[piece] for piece in self.number], dtype=np.int64)
        owner = np.repeat(np.arange(len(names)), self.size)
        piece = np.array(
            [self.number[piece] for one in self.pieces for piece in one], dtype=np.int64
        )
        order = np.argsort(piece, kind="stable")
        self.owner = owner[order].astype(np.int32)
        self.first = np.concatenate([[0], np.cumsum(self.count)])

    def alike(self, text: str, min_jaccard: float) -> list[tuple[int, float]]:
        """Return (row, Jaccard) of the names above the limit, in order of row."""
        own = trigrams(text)
        if not own:
            return []
        known = sorted(
            (number for piece in own if (number := self.number.get(piece)) is not None),
            key=lambda number: (self.count[number], number),
        )
        n_needed = int(np.floor(min_jaccard * len(own))) + 1
        n_looked_up = len(known) - n_needed + 1
        if n_looked_up < 1:
            return []
        lists = [self.owner[self.first[n] : self.first[n + 1]] for n in known[:n_looked_up]]
        rows = np.unique(np.concatenate(lists))
        size = self.size[rows]
        fits = (size > min_jaccard * len(own)) & (len(own) > min_jaccard * size)
        found = []
        for row in rows[fits].tolist():
            share = jaccard(own, self.pieces[row])
            if share > min_jaccard:
                found.append((row, share))
        return found


class Linker:
    """Link surfaces to entities: a name among the nearest by cosine that is alike in letters.

    Only surfaces with a name alike in letters are embedded: the others cannot be linked. Of
    several names the nearest by cosine is taken, then the most alike, then the smallest id.

    Args:
        entities: columns entity_id, name, synonyms.
        embedder: gives unit vectors.
        settings: limits.

    Source: GraphMERT, entity linking. Differs: any sentence embedding, not SapBERT; a least
    cosine.
    Checked by: tests/unit/domains/text/test_linking.py
    """

    def __init__(self, entities: pa.Table, embedder: Embedder, settings: LinkSettings) -> None:
        self.embedder = embedder
        self.settings = settings
        self.owners, self.names = names_of(entities)
        self.index = LetterIndex([normal_name(name) for name in self.names])
        self._vectors: np.ndarray | None = None

    def link(
        self, surfaces: Sequence[str], *, progress: Progress | None = None
    ) -> tuple[dict[str, Link], Ledger]:
        """Return the links by surface, and the ledger, which counts surfaces.

        Args:
            surfaces: distinct texts.
            progress: told how far it is.
        """
        progress = progress or Silent()
        settings = self.settings
        ledger = Ledger("linking")
        ledger.offered(len(surfaces))
        alike = self._alike(surfaces, ledger, progress)
        links: dict[str, Link] = {}
        asked = list(alike)
        if not asked:
            return links, ledger.check()
        if self._vectors is None:
            self._vectors = self.embedder.embed(self.names, progress=progress)
        vectors = self.embedder.embed(asked, progress=progress)
        progress.begin("link", total=len(asked), unit="surfaces")
        for first in range(0, len(asked), _BLOCK):
            block = asked[first : first + _BLOCK]
            cosine = vectors[first : first + len(block)] @ self._vectors.T
            for row, surface in enumerate(block):
                link = _best(alike[surface], cosine[row], self.owners, self.names, settings.top_k)
                if link is None:
                    reason = f"no such name among the {settings.top_k} nearest by cosine"
                    ledger.leave_out(reason, example=surface)
                elif link.cosine < settings.min_cosine:
                    reason = f"nearest such name below cosine {settings.min_cosine:g}"
                    ledger.leave_out(reason, example=f"{surface} -> {link.name}")
                else:
                    ledger.keep()
                    links[surface] = link
            progress.update(first + len(block))
        progress.end()
        return links, ledger.check()

    def _alike(
        self, surfaces: Sequence[str], ledger: Ledger, progress: Progress
    ) -> dict[str, list[tuple[int, float]]]:
        """Return (row of the name, Jaccard) of the names alike in letters, where there are any."""
        least = self.settings.min_jaccard
        found: dict[str, list[tuple[int, float]]] = {}
        progress.begin("names alike in letters", total=len(surfaces), unit="surfaces")
        for place, surface in enumerate(surfaces):
            if own := self.index.alike(normal_name(surface), least):
                found[surface] = own
            else:
                reason = f"no name with more than {least:g} of its 3-letter pieces"
                ledger.leave_out(reason, example=surface)
            if place % 1_000 == 0:
                progress.update(place)
        progress.end()
        return found


def link_surfaces(
    surfaces: Sequence[str],
    entities: pa.Table,
    embedder: Embedder,
    settings: LinkSettings,
    *,
    progress: Progress | None = None,
) -> tuple[dict[str, Link], Ledger]:
    """Link surfaces to entities once; see `Linker`."""
    return Linker(entities, embedder, settings).link(surfaces, progress=progress)


def _best(
    alike: Sequence[tuple[int, float]],
    cosine: np.ndarray,
    owners: Sequence[str],
    names: Sequence[str],
    top_k: int,
) -> Link | None:
    best: tuple[float, float, str, str] | None = None
    for row, share in alike:
        if int((cosine > cosine[row]).sum()) >= top_k:
            continue
        key = (-float(cosine[row]), -share, owners[row], names[row])
        best = key if best is None else min(best, key)
    if best is None:
        return None
    return Link(best[2], best[3], -best[0], -best[1])


def names_of(entities: pa.Table) -> tuple[list[str], list[str]]:
    """Return entity ids and texts of all names and synonyms, end to end."""
    owners: list[str] = []
    names: list[str] = []
    columns = (entities[one].to_pylist() for one in ("entity_id", "name", "synonyms"))
    for entity_id, name, synonyms in zip(*columns, strict=True):
        for text in dict.fromkeys([name, *(synonyms or ())]):
            if text.strip():
                owners.append(entity_id)
                names.append(text)
    return owners, names
