"""Chains from text: tokens as roots, mentions as head spans, training triples as leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphmert.chain import LeafTriple, LeafyChain
from graphmert.errors import DataError
from graphmert.inject import inject_simple
from graphmert.kg.types import triple_id
from graphmert.shards import Ledger
from graphmert.store import schema_of
from graphmert.tokens import Tokenizer

_BATCH = 4_096


@dataclass(frozen=True)
class Roots:
    """The tokens of all sequences, laid end to end, with their places in the documents.

    Attributes:
        seq_ids: one for each sequence.
        first: int64 (n_sequences + 1,), sequence s has the tokens first[s] to first[s + 1].
        token: int32 (n_tokens,).
        start, end: int32 (n_tokens,), character offsets into the document's text.
        cls_id, sep_id: the tokens that open and close a chain; they are not in `token`.
    """

    seq_ids: tuple[str, ...]
    first: np.ndarray
    token: np.ndarray
    start: np.ndarray
    end: np.ndarray
    cls_id: int
    sep_id: int

    def chain_roots(self, sequence: int) -> tuple[int, ...]:
        """Return the roots of a sequence's chain: CLS, its tokens, SEP."""
        tokens = self.token[self.first[sequence] : self.first[sequence + 1]].tolist()
        return (self.cls_id, *tokens, self.sep_id)


@dataclass(frozen=True, slots=True)
class HeadSpan:
    """A mention as a head to ask about: root indices (CLS is root 0) and character offsets."""

    entity_id: str
    root_start: int
    root_end: int
    char_start: int
    char_end: int
    is_title: bool


@dataclass(frozen=True)
class ChainSet:
    """Chains in the order of the sequences, the table of what was injected, and the ledger."""

    chains: list[LeafyChain]
    injected: pa.Table
    ledger: Ledger


def encode_roots(sequences: pa.Table, documents: pa.Table, tokenizer: Tokenizer) -> Roots:
    """Encode the text of every sequence on its own.

    Raises:
        DataError: a sequence of a document that is not there.
    """
    text_of = dict(zip(documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True))
    ids: list[np.ndarray] = [np.zeros(0, np.int32)]
    offsets: list[np.ndarray] = [np.zeros((0, 2), np.int32)]
    lengths: list[int] = []
    for part in sequences.select(["doc_id", "start", "end"]).to_batches(_BATCH):
        rows = list(zip(*(one.to_pylist() for one in part), strict=True))
        missing = [doc_id for doc_id, _, _ in rows if doc_id not in text_of]
        if missing:
            raise DataError("sequences of documents that are not there", got=", ".join(missing[:5]))
        texts = [text_of[doc_id][start:end] for doc_id, start, end in rows]
        for (_, start, _), encoding in zip(rows, tokenizer.encode_batch(texts), strict=True):
            ids.append(encoding.ids)
            offsets.append(encoding.offsets + np.int32(start))
            lengths.append(len(encoding))
    flat = np.concatenate(offsets)
    return Roots(
        seq_ids=tuple(sequences["seq_id"].to_pylist()),
        first=np.cumsum([0, *lengths], dtype=np.int64),
        token=np.concatenate(ids),
        start=np.ascontiguousarray(flat[:, 0]),
        end=np.ascontiguousarray(flat[:, 1]),
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
    )


def spans_to_roots(
    roots: Roots, sequence: np.ndarray, char_start: np.ndarray, char_end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for character spans the root spans that cover them, counted with CLS as root 0.

    A span that starts or ends inside a token takes the whole token; one that no token touches
    gets an empty root span.

    Args:
        roots: the encoded sequences.
        sequence: int64 (n,), the sequence of each span.
        char_start, char_end: int64 (n,), half-open character offsets into the document.

    Returns:
        root_start and root_end, int64 (n,).
    """
    # One sorted key over all tokens (sequence, offset) answers all spans at once.
    width = int(max(roots.end.max(initial=0), char_end.max(initial=0))) + 2
    owner = np.repeat(np.arange(len(roots.seq_ids)), np.diff(roots.first)) * width
    root_start = np.searchsorted(owner + roots.end, sequence * width + char_start, side="right")
    root_end = np.searchsorted(owner + roots.start, sequence * width + char_end, side="left")
    first, last = roots.first[sequence], roots.first[sequence + 1]
    root_start = np.clip(root_start, first, last)
    root_end = np.clip(root_end, root_start, last)
    return root_start - first + 1, root_end - first + 1


def head_spans(roots: Roots, mentions: pa.Table) -> tuple[list[list[HeadSpan]], Ledger]:
    """Return for every sequence its mentions as head spans, in order of place.

    Returns:
        One list for each sequence of `roots`, and the ledger, which counts mentions.
    """
    ledger = Ledger("head_spans")
    ledger.offered(mentions.num_rows)
    spans: list[list[HeadSpan]] = [[] for _ in roots.seq_ids]
    sequence = _sequence_rows(roots, mentions["seq_id"])
    starts, ends = (mentions[one].to_numpy().astype(np.int64) for one in ("start", "end"))
    known = sequence >= 0
    ledger.leave_out("sequence is not encoded", int((~known).sum()))
    safe = np.where(known, sequence, 0) if len(roots.seq_ids) else sequence[:0]
    if not len(safe):
        return spans, ledger.check()
    root_start, root_end = spans_to_roots(roots, safe, starts, ends)
    rows = zip(
        known.tolist(),
        safe.tolist(),
        mentions["entity_id"].to_pylist(),
        root_start.tolist(),
        root_end.tolist(),
        starts.tolist(),
        ends.tolist(),
        mentions["is_title"].to_pylist(),
        strict=True,
    )
    for is_known, row, *fields in rows:
        if not is_known:
            continue
        span = HeadSpan(*fields)
        if span.root_start == span.root_end:
            example = f"{roots.seq_ids[row]} [{span.char_start}, {span.char_end})"
            ledger.leave_out("mention has no token", example=example)
            continue
        ledger.keep()
        spans[row].append(span)
    for found in spans:
        found.sort(key=lambda one: (one.char_start, one.char_end))
    return spans, ledger.check()


def build_chains(
    roots: Roots,
    mentions: pa.Table,
    triples: pa.Table,
    entities: pa.Table,
    relations: Sequence[str],
    tokenizer: Tokenizer,
    *,
    max_tail_tokens: int = 16,
    max_triples_per_chain: int = 32,
) -> ChainSet:
    """Build one chain for each sequence, with the training triples of the entities it mentions.

    A triple hangs on the first root of the mention. Its tail is the tail entity's name in
    tokens; head and tail entities are rows of `entities`, relations places in `relations`.

    Args:
        roots: the encoded sequences.
        mentions: the mentions table, or the rows that may receive triples.
        triples: the seed triples; only those with split "train" are used.
        entities: the seed entities.
        relations: the relations in the order of their indices, `Schema.relation_names`.
        tokenizer: encodes the tails.
        max_tail_tokens: triples with longer tails go to the ledger.
        max_triples_per_chain: triples beyond these go to the ledger.

    Raises:
        DataError: a training triple names an entity or relation that is not there.
    """
    if "split" in triples.column_names:
        triples = triples.filter(pc.field("split") == "train")
    row_of = {one: row for row, one in enumerate(entities["entity_id"].to_pylist())}
    relation_of = {name: place for place, name in enumerate(relations)}
    ends = [triples[one].to_pylist() for one in ("head_id", "relation", "tail_id")]
    _check_known(ends, row_of, relation_of)
    tail_of = encode_tails(triples, entities, tokenizer)
    injected, ledger = inject_simple(
        mentions,
        triples,
        n_tail_tokens={one: len(tail) for one, tail in tail_of.items()},
        max_tail_tokens=max_tail_tokens,
        max_triples_per_chain=max_triples_per_chain,
    )
    leaf_of = {
        triple_id(*row): LeafTriple(
            relation_of[row[1]], 0, 1, tail_of[row[2]], row_of[row[2]], row_of[row[0]]
        )
        for row in zip(*ends, strict=True)
        if tail_of[row[2]]
    }
    return hang_leaves(roots, injected, leaf_of, ledger)


def encode_tails(
    triples: pa.Table, entities: pa.Table, tokenizer: Tokenizer
) -> dict[str, tuple[int, ...]]:
    """Return the tokens of the name of every entity that is a tail."""
    row_of = {one: row for row, one in enumerate(entities["entity_id"].to_pylist())}
    return _encode_names(sorted(set(triples["tail_id"].to_pylist())), row_of, entities, tokenizer)


def hang_leaves(
    roots: Roots, injected: pa.Table, leaf_of: Mapping[str, LeafTriple], ledger: Ledger
) -> ChainSet:
    """Build the chains of some sequences, with the chosen triples on their mentions.

    Args:
        roots: the encoded sequences.
        injected: columns seq_id, head_start, head_end (characters), triple, score.
        leaf_of: relation, tail and entities of each triple by its id; the span is replaced.
        ledger: has counted the rows of `injected` as kept; those without roots are moved.
    """
    injected, sequence, root_start, root_end = _place_heads(roots, injected, ledger)
    leaves: list[list[LeafTriple]] = [[] for _ in roots.seq_ids]
    places = zip(*(one.tolist() for one in (sequence, root_start, root_end)), strict=True)
    for (row, start, end), key in zip(places, injected["triple"].to_pylist(), strict=True):
        leaves[row].append(replace(leaf_of[key], head_start=start, head_end=end))
    chains = [
        LeafyChain(roots.chain_roots(row), tuple(found), roots.seq_ids[row])
        for row, found in enumerate(leaves)
    ]
    return ChainSet(chains, injected.cast(schema_of("chains/injected")), ledger.check())


def _encode_names(
    ids: Sequence[str], row_of: dict[str, int], entities: pa.Table, tokenizer: Tokenizer
) -> dict[str, tuple[int, ...]]:
    names = entities["name"].take(pa.array([row_of[one] for one in ids], pa.int64())).to_pylist()
    encoded = zip(ids, tokenizer.encode_batch(names), strict=True)
    return {one: tuple(encoding.ids.tolist()) for one, encoding in encoded}


def _place_heads(
    roots: Roots, injected: pa.Table, ledger: Ledger
) -> tuple[pa.Table, np.ndarray, np.ndarray, np.ndarray]:
    """Find the head's roots; what has none moves from kept to left out."""
    sequence = _sequence_rows(roots, injected["seq_id"])
    known = sequence >= 0
    starts, ends = (injected[one].to_numpy().astype(np.int64) for one in ("head_start", "head_end"))
    empty = np.zeros(0, np.int64)
    root_start, root_end = empty, empty
    if len(roots.seq_ids):
        root_start, root_end = spans_to_roots(roots, np.where(known, sequence, 0), starts, ends)
    else:
        known = known[:0]
    good = known & (root_end > root_start)
    n_unknown, n_empty = int((~known).sum()), int((known & ~good).sum())
    ledger.keep(-(injected.num_rows - int(good.sum())))
    ledger.leave_out("sequence is not encoded", n_unknown)
    ledger.leave_out("mention has no token", n_empty)
    return injected.filter(pa.array(good)), sequence[good], root_start[good], root_end[good]


def _sequence_rows(roots: Roots, column: pa.ChunkedArray) -> np.ndarray:
    """Return the row of each seq_id, -1 where it is not there."""
    row_of = {seq_id: row for row, seq_id in enumerate(roots.seq_ids)}
    return np.array([row_of.get(one, -1) for one in column.to_pylist()], dtype=np.int64)


def _check_known(
    ends: list[list[str]], row_of: dict[str, int], relation_of: dict[str, int]
) -> None:
    for column, known, what in (
        (ends[0], row_of, "head"),
        (ends[1], relation_of, "relation"),
        (ends[2], row_of, "tail"),
    ):
        missing = sorted(set(column) - known.keys())
        if missing:
            raise DataError(
                f"a training triple names a {what} that is not there",
                got=", ".join(missing[:5]),
                fix="Validate the knowledge graph against its schema first.",
            )
