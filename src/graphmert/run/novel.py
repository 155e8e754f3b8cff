"""Tails beyond the seed: unlinked candidates of the corpus, scored beside the known entities."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow.compute as pc
import torch

from graphmert.domains.text.linking import normal_name
from graphmert.errors import ConfigError
from graphmert.extract import TokenCandidates, encode_entities
from graphmert.feed import NameTable
from graphmert.run.answers import Scorer, autocast
from graphmert.run.prepared import HeadSpan, Prepared
from graphmert.sentences import Span
from graphmert.shards import Ledger

NOVEL = "novel:"
UNKNOWN_TYPE = "unknown"

Standing = Mapping[int, Sequence[tuple[int, int, int]]]
"""Chain -> (row, character start, character end) of what stands in its sequence."""


@dataclass(frozen=True)
class Phrases:
    """Names that may be entities and are none of the seed.

    Attributes:
        ids: `novel:` and 16 hex digits of the SHA-256 of the name as names are compared.
        names: the commonest surface.
        tokens: of each name.
        standing: where they stand.
        n_occurrences, n_documents: how often, and in how many documents.
    """

    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    standing: Standing = field(default_factory=dict)
    n_occurrences: tuple[int, ...] = ()
    n_documents: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def in_document(self, prepared: Prepared) -> dict[tuple[str, int], list[Span]]:
        """Return where each phrase stands in each document."""
        found: dict[tuple[str, int], list[Span]] = defaultdict(list)
        for chain, spans in self.standing.items():
            for row, start, end in spans:
                found[prepared.chain_documents[chain], row].append((start, end))
        return found


def novel_id(name: str) -> str:
    """Return the content hash that a name beyond the seed has as its id."""
    digest = hashlib.sha256(normal_name(name).encode("utf-8")).hexdigest()
    return f"{NOVEL}{digest[:16]}"


def find_phrases(prepared: Prepared, *, min_count: int) -> tuple[Phrases, Ledger]:
    """Gather the unlinked candidates of preparation: spellings of one name are one phrase.

    Args:
        prepared: a run over a corpus of documents.
        min_count: fewer occurrences leave a phrase out.

    Returns: the phrases by falling number of occurrences, and the ledger, which counts spans.

    Raises:
        ConfigError: the run has no candidates; its corpus are definitions.
    """
    if not prepared.run.has("corpus/candidates"):
        raise ConfigError(
            "tails beyond the seed need candidate entities, which definitions have not",
            where="extract.corpus.tails",
            expected="entities",
            fix="Give documents as data.corpus, or set extract.corpus.tails to entities.",
        )
    ledger = Ledger("extract: phrases")
    spans, surfaces = _unlinked(prepared, ledger)
    common = []
    for name in sorted(spans, key=lambda one: (-len(spans[one]), one)):
        if len(spans[name]) < min_count:
            reason = f"fewer than {min_count} occurrences"
            ledger.leave_out(reason, len(spans[name]), name)
        else:
            common.append(name)
    names = [min(surfaces[one], key=lambda s, own=surfaces[one]: (-own[s], s)) for one in common]
    tokens = [tuple(one.ids.tolist()) for one in prepared.tokenizer.encode_batch(names)]
    kept: list[int] = []
    for place, own in enumerate(tokens):
        n_spans = len(spans[common[place]])
        if 1 <= len(own) <= prepared.max_tail_tokens:
            kept.append(place)
            ledger.keep(n_spans)
        else:
            reason = f"no token, or more than {prepared.max_tail_tokens}"
            ledger.leave_out(reason, n_spans, names[place])
    own_spans = [spans[common[place]] for place in kept]
    documents = prepared.chain_documents
    phrases = Phrases(
        ids=tuple(novel_id(names[place]) for place in kept),
        names=tuple(names[place] for place in kept),
        tokens=tuple(tokens[place] for place in kept),
        standing=_by_chain(own_spans),
        n_occurrences=tuple(map(len, own_spans)),
        n_documents=tuple(len({documents[chain] for chain, _, _ in own}) for own in own_spans),
    )
    return phrases, ledger.check()


_Spans = dict[str, list[tuple[int, int, int]]]


def _unlinked(prepared: Prepared, ledger: Ledger) -> tuple[_Spans, dict[str, Counter[str]]]:
    """Spans and spellings of unlinked candidates by their name as names are compared."""
    table = prepared.run.read("corpus/candidates")
    ledger.offered(table.num_rows)
    free = table.filter(pc.field("entity_id").is_null())
    ledger.leave_out("linked to an entity", table.num_rows - free.num_rows)
    chain_of = {chain.chain_id: row for row, chain in enumerate(prepared.chains)}
    entities = prepared.run.read("seed/entities")
    known = {normal_name(name) for name in prepared.names}
    known.update(normal_name(one) for own in entities["synonyms"].to_pylist() for one in own)
    spans: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    surfaces: dict[str, Counter[str]] = defaultdict(Counter)
    columns = (free[name].to_pylist() for name in ("seq_id", "start", "end", "surface"))
    for seq_id, start, end, surface in zip(*columns, strict=True):
        name = normal_name(surface)
        if name in known:
            ledger.leave_out("an entity's own name", example=surface)
        else:
            spans[name].append((chain_of[seq_id], start, end))
            surfaces[name][surface] += 1
    return spans, surfaces


@dataclass(frozen=True)
class Stand:
    """Mentions of known entities, to be scored as phrases are: by their surface, where they stand.

    What is known of these tells how far the score of a phrase can be trusted.

    Attributes:
        tokens: of each distinct surface.
        standing: where they stand; the row is that of `tokens`.
        entity_of: (chain, start, end) -> the entity mentioned.
    """

    tokens: tuple[tuple[int, ...], ...] = ()
    standing: Standing = field(default_factory=dict)
    entity_of: Mapping[tuple[int, int, int], int] = field(default_factory=dict)


def stand_ins(prepared: Prepared, chains: Collection[int], text_of: Mapping[str, str]) -> Stand:
    """Gather the mentions of some sequences as stand-ins of phrases.

    Args:
        prepared: the run.
        chains: the sequences.
        text_of: text of each document.
    """
    wanted = set(chains)
    entity_of: dict[tuple[int, int, int], int] = {}
    surface_of: dict[tuple[int, int, int], str] = {}
    for span in prepared.heads:
        if span.chain in wanted:
            key = (span.chain, span.char_start, span.char_end)
            text = text_of[prepared.chain_documents[span.chain]]
            entity_of[key] = span.entity
            surface_of[key] = text[span.char_start : span.char_end]
    surfaces = sorted(set(surface_of.values()))
    tokens = [tuple(one.ids.tolist()) for one in prepared.tokenizer.encode_batch(surfaces)]
    row_of = {
        surface: row
        for row, surface in enumerate(
            surface
            for surface, own in zip(surfaces, tokens, strict=True)
            if 1 <= len(own) <= prepared.max_tail_tokens
        )
    }
    spans: list[list[tuple[int, int, int]]] = [[] for _ in row_of]
    for key, surface in surface_of.items():
        if surface in row_of:
            spans[row_of[surface]].append(key)
    kept = tuple(own for surface, own in zip(surfaces, tokens, strict=True) if surface in row_of)
    return Stand(kept, _by_chain(spans), entity_of)


def _by_chain(spans: Sequence[Sequence[tuple[int, int, int]]]) -> Standing:
    found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for row, own in enumerate(spans):
        for chain, start, end in own:
            found[chain].append((row, start, end))
    return {chain: sorted(own, key=lambda one: (one[1], one[2])) for chain, own in found.items()}


def beside(standing: Standing, span: HeadSpan) -> list[tuple[int, int, int]]:
    """Return what stands in a head's sequence and does not overlap the head."""
    return [
        one
        for one in standing.get(span.chain, ())
        if one[2] <= span.char_start or span.char_end <= one[1]
    ]


def with_names(
    scorer: Scorer, tokens: Sequence[tuple[int, ...]], *, vectors: torch.Tensor | None = None
) -> Scorer:
    """Return a scorer with more candidates behind the known entities, encoded as these are.

    Args:
        tokens: of their names.
        vectors: of the names, where they are known already.
    """
    if not tokens:
        return scorer
    tokenizer = scorer.prepared.tokenizer
    table = NameTable(tuple((tokenizer.cls_id, *own, tokenizer.sep_id) for own in tokens))
    if vectors is None:
        with autocast(scorer.precision):
            vectors = encode_entities(scorer.model, table, pad_id=scorer.asker.pad_id)
    grouped = scorer.tokens
    if grouped is not None:
        names = [*scorer.prepared.name_tokens, *tokens]
        grouped = TokenCandidates.build(names, max_tokens=scorer.prepared.max_tail_tokens)
    both = torch.cat([scorer.entity_vectors, vectors])
    return replace(scorer, entity_vectors=both, tokens=grouped)


class NovelTypes:
    """The type of each novel entity: that of the nearest known name within the relation's range.

    It is fixed when a triple with the entity is first accepted; a relation whose range is open
    leaves it unknown.
    """

    def __init__(self, prepared: Prepared, vectors_CD: torch.Tensor) -> None:
        self.prepared = prepared
        self._vectors = vectors_CD
        self._types = np.array(prepared.types)
        self.fixed: dict[int, str] = {}

    def type_of(self, phrase: int, relation: str) -> str:
        """Return the phrase's type, or what it would be as a tail of the relation."""
        if phrase in self.fixed:
            return self.fixed[phrase]
        allowed = self.prepared.schema.relations[relation].range
        rows = np.flatnonzero(np.isin(self._types, sorted(allowed)))
        if not len(rows):
            return min(allowed, default=UNKNOWN_TYPE)
        own = self._vectors[len(self._types) + phrase]
        cosine = (self._vectors[torch.from_numpy(rows)] @ own).numpy()
        return str(self._types[rows[int(cosine.argmax())]])

    def fix(self, phrase: int, kind: str) -> None:
        """Keep the type with which the entity was accepted."""
        self.fixed.setdefault(phrase, kind)
