"""The passes over a corpus, one row group of documents at a time.

Each function here is one shard's work: top-level, the same result every time, and dependent on
files and arguments alone, so that one process or many give the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from graphmert.chain import LeafTriple
from graphmert.domains.text.candidates import find_candidates, phrase_index
from graphmert.domains.text.chains import (
    encode_roots,
    encode_tails,
    hang_leaves,
    head_spans,
)
from graphmert.domains.text.mentions import NameIndex, find_mentions
from graphmert.domains.text.phrases import RunCounts, count_runs, spell_runs
from graphmert.domains.text.quality import drop_low_information
from graphmert.domains.text.sequences import make_sequences
from graphmert.domains.text.tagger import MentionTagger
from graphmert.inject import training_triples
from graphmert.kg import triple_id
from graphmert.shards import Ledger, read_group, read_table
from graphmert.store import RunDir, chains_to_table, make_table, schema_of
from graphmert.tokens import Tokenizer


@dataclass(frozen=True)
class Source:
    """Where a shard finds its documents and the names and tokens to read them with.

    Attributes:
        run: the run directory; documents, entities and the tokenizer lie there.
        key: hash of the entities and the tokenizer; what a process keeps is kept under it.
    """

    run: str
    key: str

    def documents(self, group: int) -> pa.Table:
        """Return the documents of a row group."""
        return read_group(RunDir(self.run).documents, group)


@lru_cache(maxsize=2)
def _tokenizer(source: Source) -> Tokenizer:
    return Tokenizer.load(Path(source.run) / "chains")


@lru_cache(maxsize=2)
def _names(source: Source) -> NameIndex:
    entities = read_table(RunDir(source.run).seed_entities)
    return NameIndex(entities, normalise=True)


@lru_cache(maxsize=2)
def _phrases(source: Source, digest: str) -> NameIndex:
    return phrase_index(read_table(RunDir(source.run).table_path("corpus/phrases")))


@dataclass(frozen=True)
class ReadPart:
    """Sequences and exact mentions of some documents, and counts of their word runs."""

    sequences: pa.Table
    mentions: pa.Table
    counts: RunCounts | None
    ledgers: tuple[Ledger, ...]


def read_part(
    group: int, *, source: Source, max_tokens: int, drop_low: bool, max_words: int
) -> ReadPart:
    """Cut documents into sequences, leave out those that say little, find exact names.

    Args:
        group: row group of the documents.
        source: where they are.
        max_tokens: of a sequence.
        drop_low: leave out measurements and lists of numbers.
        max_words: longest phrase to count, 0 counts none.
    """
    documents = source.documents(group)
    sequences, mentions, ledgers = sequences_and_mentions(
        documents, _tokenizer(source), _names(source), max_tokens=max_tokens, drop_low=drop_low
    )
    counts = None
    if max_words:
        counts = count_runs(documents["text"].to_pylist(), max_words=max_words)
    return ReadPart(sequences, mentions, counts, ledgers)


def sequences_and_mentions(
    documents: pa.Table,
    tokenizer: Tokenizer,
    names: NameIndex,
    *,
    max_tokens: int,
    drop_low: bool,
) -> tuple[pa.Table, pa.Table, tuple[Ledger, ...]]:
    """Return the sequences and exact mentions of documents, and the ledgers of both.

    Args:
        max_tokens: of a sequence.
        drop_low: leave out measurements and lists of numbers.
    """
    sequences, cut = make_sequences(documents, tokenizer, max_tokens=max_tokens)
    ledgers = [cut]
    if drop_low:
        sequences, low = drop_low_information(sequences, documents)
        ledgers.append(low)
    mentions, found = find_mentions(sequences, documents, names)
    return sequences, mentions, (*ledgers, found)


def spell_part(group: int, *, source: Source, keys: np.ndarray, max_words: int) -> dict[int, str]:
    """Return the words of the recurring runs that stand in the documents of a group."""
    texts = source.documents(group)["text"].to_pylist()
    return spell_runs(texts, keys, max_words=max_words)


def candidate_part(
    shard: tuple[int, pa.Table, pa.Table],
    *,
    source: Source,
    phrases: str,
    tagger: MentionTagger | None,
    min_score: float,
) -> tuple[pa.Table, Ledger]:
    """Find candidate entities in the sequences of a group.

    Args:
        shard: row group, its sequences, its exact mentions.
        source: where the documents are.
        phrases: hash of the phrases table, "" where there is none.
        tagger: or None.
        min_score: of the tagger.
    """
    group, sequences, mentions = shard
    return find_candidates(
        sequences,
        source.documents(group),
        mentions,
        phrases=_phrases(source, phrases) if phrases else None,
        tagger=tagger,
        min_score=min_score,
    )


@dataclass(frozen=True)
class ChainPart:
    """Chains of the sequences of a group, their heads (entity rows), what hangs on them."""

    chains: pa.Table
    heads: pa.Table
    injected: pa.Table
    ledgers: tuple[Ledger, ...]


def chain_part(
    shard: tuple[int, int, pa.Table, pa.Table, pa.Table],
    *,
    source: Source,
    relations: tuple[str, ...],
) -> ChainPart:
    """Build the chains of a group with the triples chosen for them.

    Args:
        shard: row group, number of the first chain, sequences, mentions, injected rows.
        source: where documents, entities and triples are.
        relations: names in the order of their indices.
    """
    group, first_chain, sequences, mentions, chosen = shard
    documents = source.documents(group)
    roots = encode_roots(sequences, documents, _tokenizer(source))
    spans, span_ledger = head_spans(roots, mentions)
    placed = Ledger("place triples")
    placed.offered(chosen.num_rows)
    placed.keep(chosen.num_rows)
    row_of, leaf_of = _leaves(source, relations)
    built = hang_leaves(roots, chosen, leaf_of, placed)
    columns: dict[str, list[object]] = {name: [] for name in schema_of("chains/heads").names}
    for chain, found in enumerate(spans):
        for span in found:
            columns["chain"].append(first_chain + chain)
            columns["entity"].append(row_of[span.entity_id])
            for name in ("root_start", "root_end", "char_start", "char_end", "is_title"):
                columns[name].append(getattr(span, name))
    return ChainPart(
        chains_to_table(built.chains),
        make_table("chains/heads", columns),
        built.injected,
        (span_ledger, built.ledger),
    )


@lru_cache(maxsize=2)
def _leaves(
    source: Source, relations: tuple[str, ...]
) -> tuple[Mapping[str, int], Mapping[str, LeafTriple]]:
    """Return entity rows by id, and the leaf of every training triple by the triple's id."""
    run = RunDir(source.run)
    entities = run.read("seed/entities")
    triples = training_triples(run.read("seed/triples"))
    row_of = {one: row for row, one in enumerate(entities["entity_id"].to_pylist())}
    relation_of = {name: place for place, name in enumerate(relations)}
    tail_of = encode_tails(triples, entities, _tokenizer(source))
    columns = (triples[name].to_pylist() for name in ("head_id", "relation", "tail_id"))
    leaf_of = {
        triple_id(head, relation, tail): LeafTriple(
            relation_of[relation], 0, 1, tail_of[tail], row_of[tail], row_of[head]
        )
        for head, relation, tail in zip(*columns, strict=True)
        if tail_of[tail]
    }
    return row_of, leaf_of
