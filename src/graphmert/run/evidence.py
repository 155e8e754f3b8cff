"""Evidence rows: the sentence of a head, widened to where the text names the tail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from graphmert.run.prepared import Prepared
from graphmert.sentences import Span, sentences


class TextEvidence:
    """The documents of a run, and where they name each entity.

    Args:
        prepared: the run.
        documents: columns doc_id, text, sha256; None reads the run's own.
    """

    def __init__(self, prepared: Prepared, documents: pa.Table | None = None) -> None:
        table = prepared.run.read("corpus/documents") if documents is None else documents
        columns = (table[name].to_pylist() for name in ("doc_id", "text", "sha256"))
        self.texts = {doc_id: (text, sha256) for doc_id, text, sha256 in zip(*columns, strict=True)}
        self._mentions: dict[tuple[str, int], list[Span]] = defaultdict(list)
        for span in prepared.heads:
            document = prepared.chain_documents[span.chain]
            self._mentions[document, span.entity].append((span.char_start, span.char_end))
        self._sentences: dict[str, list[Span]] = {}

    def nearest(self, document: str, entity: int, place: int) -> Span | None:
        """Return the mention of an entity in a document that begins nearest to a place."""
        return nearest_span(self._mentions.get((document, entity), ()), place)

    def row(self, document: str, head: Span, tail: Span | None) -> dict[str, Any]:
        """Return the columns of kg/evidence that the text alone decides.

        Args:
            document: its id.
            head: character span of the head.
            tail: of the tail, None where the text does not name it.
        """
        text, sha256 = self.texts[document]
        spans = self._sentences.get(document)
        if spans is None:
            spans = self._sentences[document] = sentences(text)
        start, end = _containing(spans, *head)
        if tail is not None:
            other = _containing(spans, *tail)
            start, end = min(start, other[0]), max(end, other[1])
        return {
            "domain": "text",
            "doc_id": document,
            "sha256": sha256,
            "sent_start": start,
            "sent_end": end,
            "sentence": text[start:end],
            "head_start": head[0],
            "head_end": head[1],
            "head_surface": text[slice(*head)],
            "tail_start": None if tail is None else tail[0],
            "tail_end": None if tail is None else tail[1],
            "tail_surface": None if tail is None else text[slice(*tail)],
        }


def nearest_span(spans: Iterable[Span], place: int) -> Span | None:
    """Return the span that begins nearest to a place; None of none."""
    return min(spans, key=lambda s: (abs(s[0] - place), s), default=None)


def _containing(spans: Sequence[Span], start: int, end: int) -> Span:
    """The smallest run of sentences that covers a span."""
    touched = [s for s in spans if s[0] < end and s[1] > start]
    if not touched:
        return start, end
    return min(start, touched[0][0]), max(end, touched[-1][1])
