"""The similarity filter: a triple's words must be near the words of its sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphmert.domains.text.embedding import Embedder
from graphmert.progress import Progress
from graphmert.run.prepared import Prepared

Name = Callable[[int], str]
Row = tuple[int, int, int, int]
"""head, relation, tail (a candidate's column), chain."""


class Similarity:
    """cosine("head relation tail", sequence), as the embedding model sees both.

    Args:
        prepared: names and labels.
        embedder: gives unit vectors.
        name_of: name of a candidate's column.
        progress: told how far it is.
        texts: of the sequences; None reads those of the run.

    Source: GraphMERT, similarity filter. Differs: none.
    Checked by: tests/unit/run/test_corpus_extraction.py
    """

    def __init__(
        self,
        prepared: Prepared,
        embedder: Embedder,
        name_of: Name,
        progress: Progress,
        *,
        texts: Sequence[str] | None = None,
    ) -> None:
        self.prepared = prepared
        self.embedder = embedder
        self.name_of = name_of
        self.progress = progress
        self._texts = _texts_of_run(prepared) if texts is None else texts
        self._known: dict[Row, float] = {}

    def of(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the cosine of each (head, relation, tail, chain), float32."""
        new = sorted(set(rows) - self._known.keys())
        if new:
            triples = sorted({row[:3] for row in new})
            chains = sorted({row[3] for row in new})
            labels = self.prepared.relation_labels
            words = [f"{self.name_of(h)} {labels[r]} {self.name_of(t)}" for h, r, t in triples]
            triple_TD = self.embedder.embed(words, progress=self.progress)
            text_SD = self.embedder.embed([self._texts[c] for c in chains], progress=self.progress)
            triple_row = {one: row for row, one in enumerate(triples)}
            text_row = {one: row for row, one in enumerate(chains)}
            first = np.array([triple_row[row[:3]] for row in new])
            second = np.array([text_row[row[3]] for row in new])
            for start in range(0, len(new), _BLOCK):
                part = slice(start, start + _BLOCK)
                cosine = np.einsum("nd,nd->n", triple_TD[first[part]], text_SD[second[part]])
                self._known.update(zip(new[part], cosine.tolist(), strict=True))
        return np.array([self._known[row] for row in rows], np.float32)


_BLOCK = 65_536


def _texts_of_run(prepared: Prepared) -> list[str]:
    documents = prepared.run.read("corpus/documents")
    columns = (documents[name].to_pylist() for name in ("doc_id", "text"))
    text_of = dict(zip(*columns, strict=True))
    sequences = prepared.run.read("corpus/sequences")
    rows = zip(*(sequences[name].to_pylist() for name in ("doc_id", "start", "end")), strict=True)
    return [text_of[doc_id][start:end] for doc_id, start, end in rows]
