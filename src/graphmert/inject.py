"""Choose which seed triples go onto which sequence. Tables in, tables out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from graphmert.config import Settings
from graphmert.errors import FormatError
from graphmert.kg.types import triple_id
from graphmert.shards import Ledger

MENTION_COLUMNS = ("seq_id", "entity_id", "start", "end", "is_title")
CANDIDATE_COLUMNS = ("seq_id", "head_id", "head_start", "head_end", "is_title", "triple", "score")


class InjectSettings(Settings):
    """Which candidate triples are injected: best score first, then diversity."""

    method: Literal["all", "scored"] = Field(
        default="all",
        description="all: every triple of a mentioned head; scored: by similarity, as below",
    )
    alpha: float = Field(
        default=0.55, ge=-1, le=1, description="least cosine of triple and sequence"
    )
    sequences_per_triple: int = Field(
        default=1, ge=0, description="sequences that may hold a triple, the best; 0 is no limit"
    )
    triples_per_head: int = Field(
        default=1, ge=0, description="triples of a head in a sequence; 0 is no limit"
    )
    score_bucket: float = Field(
        default=0.01, gt=0, description="scores that differ by less count as equal"
    )
    relation_bucket: int = Field(
        default=100, ge=1, description="relations whose counts differ by less count as equal"
    )
    min_triples_per_relation: int = Field(
        default=0, ge=0, description="relations with fewer candidates are left out"
    )
    max_per_relation: int = Field(
        default=0, ge=0, description="most injected triples of a relation; 0 is no limit"
    )
    max_per_head: int = Field(
        default=0, ge=0, description="most injected triples of one entity as head; 0 is no limit"
    )


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
    triples = _sorted(triples)
    ledger = Ledger("inject")

    seq, seq_ids = _codes(mentions["seq_id"])
    mention_row, triple_row = pair_mentions(mentions, triples, ledger)
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


def training_triples(triples: pa.Table, *, leave_out: Collection[str] = ()) -> pa.Table:
    """Return the triples that may be injected, sorted: split "train", and no unwanted relation."""
    if "split" in triples.column_names:
        triples = triples.filter(pc.field("split") == "train")
    if leave_out:
        triples = triples.filter(~pc.field("relation").isin(sorted(leave_out)))
    return _sorted(triples.select(["head_id", "relation", "tail_id"]))


def _sorted(triples: pa.Table) -> pa.Table:
    return triples.sort_by([(name, "ascending") for name in ("head_id", "relation", "tail_id")])


def pair_mentions(
    mentions: pa.Table, triples: pa.Table, ledger: Ledger
) -> tuple[np.ndarray, np.ndarray]:
    """Pair each entity's first mention in a sequence with its triples, as rows of both tables.

    Args:
        mentions: as for `inject_simple`.
        triples: sorted by head_id.
        ledger: is offered the pairs of all mentions; those of repeated mentions are left out.
    """
    seq, _ = _codes(mentions["seq_id"])
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


def inject_scored(
    candidates: pa.Table,
    triples: pa.Table,
    settings: InjectSettings,
    *,
    n_tail_tokens: Mapping[str, int],
    max_tail_tokens: int = 16,
    max_triples_per_chain: int = 32,
) -> tuple[pa.Table, Ledger]:
    """Choose among scored candidates: highest score first, then the rarer relation.

    1. Leave out tails without tokens or too long, and scores below alpha.
    2. Keep a triple only in the `sequences_per_triple` sequences where it scores highest.
    3. Leave out relations with fewer than `min_triples_per_relation` rows left.
    4. With score bucket = floor((max − score) / score_bucket) and relation bucket =
       floor(rows of the relation / relation_bucket), sort by (score bucket, relation bucket,
       −score) and keep the first `triples_per_head` rows of every (sequence, head).
    5. In that order, keep at most `max_per_relation`, `max_per_head` and
       `max_triples_per_chain`.

    Args:
        candidates: columns seq_id, head_id, head_start, head_end, is_title, triple (a row of
            `triples`), score; rows of a sequence together.
        triples: columns head_id, relation, tail_id.
        settings: the limits.
        n_tail_tokens: tokens of the name of each entity that is a tail.
        max_tail_tokens: triples with longer tails are left out.
        max_triples_per_chain: the most triples on one sequence.

    Returns:
        Columns seq_id, head_start, head_end, triple (its id), score; by sequence, title first,
        then by place and falling score; and the ledger, which counts candidates.

    Raises:
        FormatError: a column is missing.

    Source: GraphMERT, injection algorithm. Differs: with the defaults in nothing; the other
    limits are ours. Checked by: tests/golden/test_injection.py
    """
    _require(candidates, CANDIDATE_COLUMNS, "candidates")
    _require(triples, ("head_id", "relation", "tail_id"), "triples")
    choice = _Choice(candidates, triples)
    choice.drop_tails(n_tail_tokens, max_tail_tokens)
    choice.drop(f"score below alpha = {settings.alpha:g}", choice.score < settings.alpha)
    if settings.sequences_per_triple:
        choice.keep_best_sequences(settings.sequences_per_triple)
    if settings.min_triples_per_relation:
        rare = choice.n_of_relation() < settings.min_triples_per_relation
        choice.drop(f"relation with fewer than {settings.min_triples_per_relation}", rare)
    for limit, name, reason in (
        (settings.triples_per_head, "seq_head", "a better triple of the same head in the sequence"),
        (settings.max_per_relation, "relation", "more than {} triples of the relation"),
        (settings.max_per_head, "head", "more than {} triples of the entity as head"),
        (max_triples_per_chain, "seq", "more than {} triples on the sequence"),
    ):
        if limit:
            order = choice.score_then_diversity(settings)
            place = _nth_of(getattr(choice, name)[order])
            choice.drop_ordered(reason.format(limit), order, place >= limit)
    return choice.table()


class _Choice:
    """Candidate rows as arrays, from which rows are dropped, each with its reason."""

    def __init__(self, candidates: pa.Table, triples: pa.Table) -> None:
        self.candidates, self.triples = candidates, triples
        self.ledger = Ledger("inject")
        self.ledger.offered(candidates.num_rows)
        self.row = np.arange(candidates.num_rows)
        self._relation, _ = _codes(triples["relation"])
        self._all_triple = candidates["triple"].to_numpy().astype(np.int64)
        self._all_score = candidates["score"].to_numpy().astype(np.float64)
        self._all_seq, self.seq_ids = _codes(candidates["seq_id"])
        self._all_head, heads = _codes(candidates["head_id"])
        self._all_seq_head = self._all_seq * max(1, len(heads)) + self._all_head
        # The score bucket's origin and the counts of relations are fixed when first asked for.
        self._max: float | None = None
        self._counts: np.ndarray | None = None

    triple = property(lambda self: self._all_triple[self.row])
    score = property(lambda self: self._all_score[self.row])
    seq = property(lambda self: self._all_seq[self.row])
    head = property(lambda self: self._all_head[self.row])
    seq_head = property(lambda self: self._all_seq_head[self.row])
    relation = property(lambda self: self._relation[self.triple])

    def drop_tails(self, n_tokens: Mapping[str, int], max_tokens: int) -> None:
        """Leave out triples whose tail has no token, or too many."""
        tails = self.triples["tail_id"].to_pylist()
        length = np.array([n_tokens.get(tail, 0) for tail in tails], dtype=np.int64)
        self.drop("tail has no token", length[self.triple] == 0)
        self.drop(f"tail longer than {max_tokens} tokens", length[self.triple] > max_tokens)

    def keep_best_sequences(self, n_sequences: int) -> None:
        """Leave a triple out but in the sequences where it scores highest."""
        order = np.lexsort((self.row, -self.score, self.triple))
        place = _place_in_group(self.triple[order])
        self.drop_ordered("scores higher in another sequence", order, place >= n_sequences)

    def n_of_relation(self) -> np.ndarray:
        """Rows left of each row's relation."""
        return np.bincount(self.relation, minlength=1)[self.relation]

    def score_then_diversity(self, settings: InjectSettings) -> np.ndarray:
        """Return the order of the rows left: by score bucket, relation bucket, score."""
        if self._max is None or self._counts is None:
            self._max = float(self.score.max(initial=0.0))
            self._counts = np.bincount(self.relation, minlength=len(self._relation) + 1)
        score_bucket = np.floor((self._max - self.score) / settings.score_bucket)
        relation_bucket = self._counts[self.relation] // settings.relation_bucket
        return np.lexsort((self.row, -self.score, relation_bucket, score_bucket))

    def drop(self, reason: str, bad: np.ndarray) -> None:
        """Leave rows out."""
        if bad.any():
            self.ledger.leave_out(reason, int(bad.sum()), self._shown(int(self.row[bad][0])))
            self.row = self.row[~bad]

    def drop_ordered(self, reason: str, order: np.ndarray, bad: np.ndarray) -> None:
        """Leave rows out that are marked in another order than their own."""
        marked = np.zeros(len(self.row), dtype=bool)
        marked[order] = bad
        self.drop(reason, marked)

    def _shown(self, row: int) -> str:
        triple = self.triples.slice(int(self._all_triple[row]), 1).to_pylist()[0]
        ends = (triple["head_id"], triple["relation"], triple["tail_id"])
        return f"{self.seq_ids[self._all_seq[row]]}: {' '.join(ends)}"

    def table(self) -> tuple[pa.Table, Ledger]:
        """Return the rows left as a table, and the ledger."""
        starts = self.candidates["head_start"].to_numpy()[self.row]
        later = ~self.candidates["is_title"].to_numpy(zero_copy_only=False)[self.row]
        order = np.lexsort((self.triple, -self.score, starts, later, self.seq))
        rows = pa.array(self.row[order])
        self.ledger.keep(len(rows))
        columns = [self.triples[name].to_pylist() for name in ("head_id", "relation", "tail_id")]
        used = self.triple[order].tolist()
        ids = [triple_id(*(column[row] for column in columns)) for row in used]
        table = pa.table(
            {
                "seq_id": self.candidates["seq_id"].take(rows),
                "head_start": self.candidates["head_start"].take(rows).cast(pa.int32()),
                "head_end": self.candidates["head_end"].take(rows).cast(pa.int32()),
                "triple": pa.array(ids, pa.string()),
                "score": self.candidates["score"].take(rows).cast(pa.float32()),
            }
        )
        return table, self.ledger.check()


def _nth_of(groups: np.ndarray) -> np.ndarray:
    """Return for every row how many earlier rows have the same value."""
    order = np.argsort(groups, kind="stable")
    place = np.empty(len(groups), dtype=np.int64)
    place[order] = _place_in_group(groups[order])
    return place


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
