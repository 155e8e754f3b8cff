"""Contextual triple selection: of a mentioned head's triples those that fit the sequence best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from pydantic import Field

from graphmert.config import Settings
from graphmert.inject import pair_mentions
from graphmert.shards import Ledger

_BLOCK = 65_536


class SelectSettings(Settings):
    """Which triples of a mentioned head are candidates for its sequence."""

    top_k: int = Field(
        default=40, ge=1, description="triples kept for each head in each sequence, by cosine"
    )
    leave_out_relations: tuple[str, ...] = Field(
        default=(), description="relations never injected: tails that a text cannot tell"
    )


def triple_texts(
    triples: pa.Table, names: Mapping[str, str], labels: Mapping[str, str]
) -> list[str]:
    """Return "head relation tail" in words for every triple."""
    columns = (triples[name].to_pylist() for name in ("head_id", "relation", "tail_id"))
    rows = zip(*columns, strict=True)
    return [f"{names[head]} {labels[relation]} {names[tail]}" for head, relation, tail in rows]


def select_triples(
    mentions: pa.Table,
    triples: pa.Table,
    sequence_vectors: np.ndarray,
    sequence_row: Mapping[str, int],
    triple_vectors: np.ndarray,
    *,
    top_k: int,
) -> tuple[pa.Table, Ledger]:
    """Score every triple of every mentioned head by its cosine with the sequence; keep the best.

    Args:
        mentions: columns seq_id, entity_id, start, end, is_title; rows of a sequence together.
        triples: those that may be injected, sorted, see `graphmert.inject.training_triples`.
        sequence_vectors: unit vectors (S, width) of sequences.
        sequence_row: row of each seq_id in them.
        triple_vectors: unit vectors (T, width), one for each triple.
        top_k: kept for each (sequence, head).

    Returns:
        Columns seq_id, head_id, head_start, head_end, triple (a row of `triples`), score, is_title;
        and the ledger, which counts pairs of mention and triple.

    Source: GraphMERT, contextual triple selection.
    Checked by: tests/unit/domains/text/test_selection.py
    """
    ledger = Ledger("select triples")
    mention_row, triple_row = pair_mentions(mentions, triples, ledger)
    rows_of = np.array([sequence_row[one] for one in mentions["seq_id"].to_pylist()], np.int64)
    score = np.empty(len(mention_row), np.float32)
    for first in range(0, len(score), _BLOCK):
        part = slice(first, first + _BLOCK)
        one, two = rows_of[mention_row[part]], triple_row[part]
        score[part] = np.einsum("nd,nd->n", sequence_vectors[one], triple_vectors[two])
    order = np.lexsort((triple_row, -score, mention_row))
    place = _place_in_run(mention_row[order])
    keep = np.sort(order[place < top_k])
    ledger.leave_out(f"not among the {top_k} best of its head", len(order) - len(keep))
    ledger.keep(len(keep))
    chosen = pa.array(mention_row[keep])
    table = pa.table(
        {
            "seq_id": mentions["seq_id"].take(chosen),
            "head_id": mentions["entity_id"].take(chosen),
            "head_start": mentions["start"].take(chosen),
            "head_end": mentions["end"].take(chosen),
            "is_title": mentions["is_title"].take(chosen),
            "triple": pa.array(triple_row[keep], pa.int32()),
            "score": pa.array(score[keep], pa.float32()),
        }
    )
    return table, ledger.check()


def _place_in_run(values: np.ndarray) -> np.ndarray:
    if not len(values):
        return np.zeros(0, np.int64)
    index = np.arange(len(values))
    new = np.r_[True, values[1:] != values[:-1]]
    return index - np.maximum.accumulate(np.where(new, index, 0))


def texts_of(sequences: pa.Table, documents: pa.Table) -> list[str]:
    """Return the text of every sequence."""
    texts = dict(zip(documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True))
    columns: list[Sequence] = [sequences[one].to_pylist() for one in ("doc_id", "start", "end")]
    return [texts[doc_id][start:end] for doc_id, start, end in zip(*columns, strict=True)]
