"""Read a new document with what a finished run keeps: sequences, mentions, links, chains.

A document's reading depends on its id and text alone, beside the run: nothing is counted over
the corpus. Phrases and tagger are those of the run, and surfaces are linked document by document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load_file

from graphmert.chain import LeafyChain
from graphmert.domains.text.candidates import (
    add_linked_mentions,
    find_candidates,
    phrase_index,
    with_links,
)
from graphmert.domains.text.chains import encode_roots, head_spans
from graphmert.domains.text.linking import Linker
from graphmert.domains.text.mentions import NameIndex
from graphmert.domains.text.passes import sequences_and_mentions
from graphmert.domains.text.tagger import MentionTagger
from graphmert.errors import DataError
from graphmert.run.frozen import FrozenRun
from graphmert.run.novel import Phrases, find_phrases
from graphmert.run.prepared import HeadSpan, Prepared
from graphmert.shards import Ledger, read_table
from graphmert.store import empty_table

PHRASES, TAGGER = "corpus/phrases.parquet", "corpus/tagger.safetensors"


@dataclass(frozen=True)
class Reading:
    """One document as a run reads it.

    Attributes:
        tables: corpus/sequences, corpus/mentions, corpus/candidates.
        prepared: the run's seed with the chains and mentions of the document.
        ledgers: of every step, in order.
    """

    tables: Mapping[str, pa.Table]
    prepared: Prepared
    ledgers: tuple[Ledger, ...]


class Reader:
    """The means of a finished run to read documents."""

    def __init__(self, run: FrozenRun) -> None:
        self.run = run
        self.prepared = Prepared.load_seed(
            run.path, max_tail_tokens=run.config.text.max_tail_tokens
        )
        self.entities = self.prepared.run.read("seed/entities")
        self.row_of = {one: row for row, one in enumerate(self.prepared.entity_ids)}
        self.names = NameIndex(self.entities, normalise=True)
        self.phrases = None
        if run.has(PHRASES):
            self.phrases = phrase_index(read_table(run.path / PHRASES))
        self.tagger = _load_tagger(run) if run.has(TAGGER) else None

    @cached_property
    def linker(self) -> Linker:
        """Made when a candidate is found first."""
        return Linker(self.entities, self.run.embedder(), self.run.config.link)

    def read(self, document: pa.Table) -> Reading:
        """Read one row of a documents table."""
        config = self.run.config
        tokenizer = self.prepared.tokenizer
        sequences, exact, ledgers = sequences_and_mentions(
            document,
            tokenizer,
            self.names,
            max_tokens=config.text.max_tokens,
            drop_low=config.corpus.drop_low_information,
        )
        candidates, mentions, more = self._candidates(document, sequences, exact)
        roots = encode_roots(sequences, document, tokenizer)
        spans, span_ledger = head_spans(roots, mentions)
        seq_ids = sequences["seq_id"].to_pylist()
        prepared = replace(
            self.prepared,
            chains=tuple(
                LeafyChain(roots.chain_roots(row), (), seq_id) for row, seq_id in enumerate(seq_ids)
            ),
            chain_documents=sequences["doc_id"].to_pylist(),
            heads=tuple(
                HeadSpan(
                    chain,
                    self.row_of[span.entity_id],
                    span.root_start,
                    span.root_end,
                    span.char_start,
                    span.char_end,
                    span.is_title,
                )
                for chain, found in enumerate(spans)
                for span in found
            ),
        )
        tables = {
            "corpus/sequences": sequences,
            "corpus/mentions": mentions,
            "corpus/candidates": candidates,
        }
        return Reading(tables, prepared, (*ledgers, *more, span_ledger))

    def _candidates(
        self, document: pa.Table, sequences: pa.Table, exact: pa.Table
    ) -> tuple[pa.Table, pa.Table, tuple[Ledger, ...]]:
        """Return candidates with their links, all mentions, and the ledgers of both steps."""
        if self.phrases is None and self.tagger is None:
            return empty_table("corpus/candidates"), exact, ()
        found, ledger = find_candidates(
            sequences,
            document,
            exact,
            phrases=self.phrases,
            tagger=self.tagger,
            min_score=self.run.config.candidates.tagger.min_score,
        )
        if not self.run.links:
            return found, exact, (ledger,)
        entity_of: dict[str, str] = {}
        links = Ledger("linking")
        if surfaces := sorted(set(found["surface"].to_pylist())):
            linked, links = self.linker.link(surfaces)
            entity_of = {surface: link.entity_id for surface, link in linked.items()}
        candidates = with_links(found, entity_of)
        return candidates, add_linked_mentions(exact, candidates, sequences), (ledger, links)


def known_phrases(run: FrozenRun, seed: Prepared) -> Phrases:
    """Return the names beyond the seed that may be tails: those of the run's own corpus.

    Where they stand in that corpus is left out.
    """
    settings = run.extract.corpus
    if settings.tails == "entities":
        return Phrases()
    sequences = seed.run.read("corpus/sequences")
    ends = (seed.tokenizer.cls_id, seed.tokenizer.sep_id)
    named = replace(
        seed,
        chains=tuple(LeafyChain(ends, (), one) for one in sequences["seq_id"].to_pylist()),
        chain_documents=sequences["doc_id"].to_pylist(),
    )
    phrases, _ = find_phrases(named, min_count=settings.min_phrase_count)
    return replace(phrases, standing={})


def _load_tagger(run: FrozenRun) -> MentionTagger:
    path = run.path / TAGGER
    try:
        return MentionTagger(load_file(path)["weights"])
    except (SafetensorError, KeyError) as error:
        raise DataError(
            "the mention tagger of the run cannot be read", where=str(path), got=error
        ) from error
