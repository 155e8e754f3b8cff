"""Choose which seed triples go onto which sequence. Tables in, tables out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphmert.errors import FormatError
from graphmert.kg.types import triple_id
from graphmert.shards import Ledger

MENTION_COLUMNS = ("seq_id", "entity_id", "start", "end", "is_title")


def inject_simple(
    mentions: pa.Table,
    triples: pa.Table,
    *,
    n_tail_tokens: Mapping[str, int],
    max_tail_tokens: int = 16,
    max_triples_per_chain: int = 32,
) -> tuple[pa.Table, Ledger]:
    """Put every triple of a mentioned entity on the entity's first mention in the sequence.

    Within a sequence the title's entity comes first, then the others by place in the text; the
    triples of one head by relation and tail id. A title mention counts as the first one.

    Args:
        mentions: columns seq_id, entity_id, start, end, is_title; rows of a sequence together.
        triples: columns head_id, relation, tail_id; with a column `split`, only its rows
            "train" are used, and none other is ever seen.
        n_tail_tokens: tokens of the name of each entity that is a tail.
        max_tail_tokens: triples with longer tails are left out.
        max_triples_per_chain: the most triples on one sequence.

    Returns:
        Columns seq_id, head_start, head_end (character offsets of the mention), triple (its
        id), score (1), and the ledger, which counts pairs of mention and triple.

    Raises:
        FormatError: a column is missing.
    """
    _require(mentions, MENTION_COLUMNS, "mentions")
    _require(triples, ("head_id", "relation", "tail_id"), "triples")
    if "split" in triples.column_names:
        triples = triples.filter(pc.field("split") == "train")
    triples = triples.sort_by([(name, "ascending") for name in ("head_id", "relation", "tail_id")])
    ledger = Ledger("inject")

    seq, seq_ids = _codes(mentions["seq_id"])
    mention_row, triple_row = _pairs(mentions, triples, seq, ledger)
    tails = triples["tail_id"].to_pylist()
    length = np.array([n_tail_tokens.get(tail, 0) for tail in tails], dtype=np.int64)[triple_row]
    for reason, bad in (
        ("tail has no token", length == 0),
        (f"tail longer than {max_tail_tokens} tokens", length > max_tail_tokens),
    ):
        example = tails[triple_row[np.flatnonzero(bad)[0]]] if bad.any() else None
        ledger.leave_out(reason, int(bad.sum()), example)
    keep = (length > 0) & (length <= max_tail_tokens)
    mention_row, triple_row = mention_row[keep], triple_row[keep]

    place = _place_in_group(seq[mention_row])
    over = place >= max_triples_per_chain
    example = seq_ids[seq[mention_row[np.flatnonzero(over)[0]]]] if over.any() else None
    ledger.leave_out(
        f"more than {max_triples_per_chain} triples on the sequence", int(over.sum()), example
    )
    mention_row, triple_row = mention_row[~over], triple_row[~over]
    ledger.keep(len(mention_row))
    ledger.check()

    return _as_table(mentions, triples, mention_row, triple_row), ledger


def _pairs(
    mentions: pa.Table, triples: pa.Table, seq: np.ndarray, ledger: Ledger
) -> tuple[np.ndarray, np.ndarray]:
    """Pair each entity's first mention in a sequence with its triples, as rows of both tables."""
    first_of, n_of = _groups(triples["head_id"])
    entity_ids = mentions["entity_id"].to_pylist()
    count = np.array([n_of.get(one, 0) for one in entity_ids], dtype=np.int64)
    first = np.array([first_of.get(one, 0) for one in entity_ids], dtype=np.int64)
    ledger.offered(int(count.sum()))

    entity, _ = _codes(mentions["entity_id"])
    title_last = ~mentions["is_title"].to_numpy(zero_copy_only=False)
    order = np.lexsort((entity, mentions["start"].to_numpy(), title_last, seq))
    again = _is_repeated(seq[order] * (int(entity.max(initial=0)) + 1) + entity[order])
    ledger.leave_out("entity mentioned again in the sequence", int(count[order][again].sum()))
    order = order[~again]

    mention_row = np.repeat(order, count[order])
    stop = np.cumsum(count[order])
    within = np.arange(len(mention_row)) - np.repeat(stop - count[order], count[order])
    return mention_row, first[mention_row] + within


def _as_table(
    mentions: pa.Table, triples: pa.Table, mention_row: np.ndarray, triple_row: np.ndarray
) -> pa.Table:
    columns = [triples[name].to_pylist() for name in ("head_id", "relation", "tail_id")]
    ids = [triple_id(*row) for row in zip(*columns, strict=True)]
    return pa.table(
        {
            "seq_id": mentions["seq_id"].take(pa.array(mention_row)),
            "head_start": pa.array(mentions["start"].to_numpy()[mention_row], pa.int32()),
            "head_end": pa.array(mentions["end"].to_numpy()[mention_row], pa.int32()),
            "triple": pa.array([ids[row] for row in triple_row.tolist()], pa.string()),
            "score": pa.array(np.ones(len(mention_row)), pa.float32()),
        }
    )


def _require(table: pa.Table, columns: tuple[str, ...], name: str) -> None:
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise FormatError(
            f"the {name} lack columns", got=table.column_names, expected=list(columns)
        )


def _groups(column: pa.ChunkedArray) -> tuple[dict[str, int], dict[str, int]]:
    """Return first row and number of rows of each value of a sorted column."""
    first: dict[str, int] = {}
    n_rows: dict[str, int] = {}
    for row, value in enumerate(column.to_pylist()):
        first.setdefault(value, row)
        n_rows[value] = n_rows.get(value, 0) + 1
    return first, n_rows


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Return int64 codes in order of first appearance, and the values."""
    code_of: dict[str, int] = {}
    codes = [code_of.setdefault(value, len(code_of)) for value in column.to_pylist()]
    return np.array(codes, dtype=np.int64), list(code_of)


def _is_repeated(keys: np.ndarray) -> np.ndarray:
    """Return True where the key has been seen before."""
    repeated = np.ones(len(keys), dtype=bool)
    repeated[np.unique(keys, return_index=True)[1]] = False
    return repeated


def _place_in_group(groups: np.ndarray) -> np.ndarray:
    """Return 0, 1, 2, … within each run of equal values."""
    if not len(groups):
        return np.zeros(0, dtype=np.int64)
    index = np.arange(len(groups))
    starts = np.r_[True, groups[1:] != groups[:-1]]
    return index - np.maximum.accumulate(np.where(starts, index, 0))
