"""A language model widens what extraction considers; the encoder still scores and decides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from graphmert.domains.text.helper import (
    HelperSettings,
    RelationCase,
    TailCase,
    choose_relations,
    combine_tails,
    discover_heads,
)
from graphmert.extract import Query, predict_tokens
from graphmert.llm import LLM
from graphmert.progress import Progress
from graphmert.query import NameTable
from graphmert.run.answers import Scorer, asked_heads, autocast
from graphmert.run.prepared import Prepared
from graphmert.shards import Ledger
from graphmert.store import SCHEMAS, make_table
from graphmert.tokens import Encoding


@dataclass(frozen=True)
class Helped:
    """What the helper yields.

    Attributes:
        tails: (head, relation) -> rows of known entities to score as tails besides the best.
        table: every proposal that kept the rules, known tail or not.
        ledgers: heads, relations and tails proposed.
        summary: counts.
        bill: calls, tokens and cost of this time; what the cache answers costs nothing.
    """

    tails: Mapping[tuple[int, int], frozenset[int]]
    table: pa.Table
    ledgers: tuple[Ledger, ...]
    summary: dict[str, Any]
    bill: dict[str, Any]


@dataclass(frozen=True)
class _Head:
    """A head in a sequence; `entity` is -1 where the surface is no known name."""

    chain: int
    entity: int
    start: int
    end: int
    root_start: int
    root_end: int


@dataclass(frozen=True)
class _Asked:
    head: _Head
    relation: int


def help_extraction(
    settings: HelperSettings, scorer: Scorer, cache_dir: Path, progress: Progress
) -> Helped:
    """Ask the helper about the sequences of test heads: heads, their relations, their tails.

    Tails that are names of known entities are handed to extraction, which scores, calibrates and
    checks them like its own. Others stay in the table: no calibrated score can be given to them.

    Args:
        settings: the model and the limits.
        scorer: the trained encoder.
        cache_dir: folder of kept answers.
    """
    llm = LLM(settings.llm, cache_dir=cache_dir)
    reading = _Reading(scorer.prepared, settings)
    texts = [reading.text_of(chain) for chain in reading.chains]
    progress.begin("helper: heads", total=len(texts), unit="sequences")
    spans, head_ledger = discover_heads(texts, llm, max_heads=settings.max_heads, progress=progress)
    progress.end()
    heads = reading.heads(spans)
    asked, relation_ledger = _relations_of(heads, reading, settings, llm, progress)
    rows, tail_ledger = _tails_of(asked, reading, scorer, settings, llm, progress)
    tails: dict[tuple[int, int], set[int]] = defaultdict(set)
    for one, (_, entity, _) in rows:
        if one.head.entity >= 0 and entity is not None and entity != one.head.entity:
            tails[one.head.entity, one.relation].add(entity)
    summary = {
        "n_sequences": len(texts),
        "n_heads": len(heads),
        "n_heads_without_entity": sum(head.entity < 0 for head in heads),
        "n_queries": len(asked),
        "n_tails": len(rows),
        "n_tails_known": sum(entity is not None for _, (_, entity, _) in rows),
        "model": settings.llm.model,
    }
    return Helped(
        tails={key: frozenset(found) for key, found in tails.items()},
        table=_table(rows, reading, settings.llm.model),
        ledgers=(head_ledger, relation_ledger, tail_ledger),
        summary=summary,
        bill={**llm.usage.to_dict(), "cost": llm.cost()},
    )


class _Reading:
    """The sequences the helper reads, and the heads in them."""

    def __init__(self, prepared: Prepared, settings: HelperSettings) -> None:
        self.prepared, self.settings = prepared, settings
        asked = asked_heads(prepared, "test")[0]
        chains = sorted({prepared.title_heads[head].chain for head in asked})
        self.chains = chains[: settings.n_sequences or len(chains)]
        sequences = prepared.run.read("corpus/sequences")
        self._spans = list(
            zip(*(sequences[one].to_pylist() for one in ("start", "end")), strict=True)
        )
        self.seq_ids: list[str] = sequences["seq_id"].to_pylist()
        documents = prepared.run.read("corpus/documents")
        ids = documents["doc_id"].to_pylist()
        self._texts = dict(zip(ids, documents["text"].to_pylist(), strict=True))
        self.names = NameTable((str(row), name, ()) for row, name in enumerate(prepared.names))

    def text_of(self, chain: int) -> str:
        """The text of a sequence."""
        start, end = self._spans[chain]
        return self._texts[self.prepared.chain_documents[chain]][start:end]

    def surface(self, head: _Head) -> str:
        """The head as the text writes it."""
        offset = self._spans[head.chain][0]
        return self.text_of(head.chain)[head.start - offset : head.end - offset]

    def entity_named(self, name: str) -> int | None:
        """The one entity of that name, or None."""
        found = [one for one in self.names.exact(name) if one.how == "name"]
        return int(found[0].entity_id) if len(found) == 1 else None

    def heads(self, spans: Sequence[Sequence[tuple[int, int]]]) -> list[_Head]:
        """Known mentions first, then what was discovered beside them, each entity once."""
        known: dict[int, list[_Head]] = defaultdict(list)
        wanted = set(self.chains)
        order = sorted(self.prepared.heads, key=lambda one: (not one.is_title, one.char_start))
        for one in order:
            if one.chain in wanted:
                head = _Head(one.chain, one.entity, one.char_start, one.char_end,
                             one.root_start, one.root_end)  # fmt: skip
                known[one.chain].append(head)
        heads: list[_Head] = []
        for chain, found in zip(self.chains, spans, strict=True):
            encoding = self.prepared.tokenizer.encode(self.text_of(chain))
            own: dict[str, _Head] = {}
            taken: list[tuple[int, int]] = []
            offset = self._spans[chain][0]
            placed = [self._placed(chain, a + offset, b + offset, encoding) for a, b in found]
            for head in (*known[chain], *(one for one in placed if one is not None)):
                key = str(head.entity) if head.entity >= 0 else self.surface(head).casefold()
                overlaps = any(head.start < b and a < head.end for a, b in taken)
                if key not in own and not overlaps and len(own) < self.settings.max_heads:
                    own[key] = head
                    taken.append((head.start, head.end))
            heads += own.values()
        return heads

    def _placed(self, chain: int, start: int, end: int, encoding: Encoding) -> _Head | None:
        """A discovered head as a span of roots, counted with CLS as root 0."""
        offset = self._spans[chain][0]
        touching = [
            place
            for place, (first, last) in enumerate(encoding.offsets.tolist())
            if first < end - offset and last > start - offset
        ]
        if not touching:
            return None
        name = self.text_of(chain)[start - offset : end - offset]
        entity = self.entity_named(name)
        found = -1 if entity is None else entity
        return _Head(chain, found, start, end, touching[0] + 1, touching[-1] + 2)


def _relations_of(
    heads: Sequence[_Head],
    reading: _Reading,
    settings: HelperSettings,
    llm: LLM,
    progress: Progress,
) -> tuple[list[_Asked], Ledger]:
    prepared = reading.prepared
    relations = prepared.schema.relations

    def allowed(head: _Head) -> tuple[str, ...]:
        if head.entity < 0:
            return prepared.relations
        kind = prepared.types[head.entity]
        return tuple(
            name
            for name in prepared.relations
            if not relations[name].domain or kind in relations[name].domain
        )

    cases = [
        RelationCase(reading.text_of(head.chain), reading.surface(head), allowed(head))
        for head in heads
    ]
    progress.begin("helper: relations", total=len(cases), unit="heads")
    labels = dict(zip(prepared.relations, prepared.relation_labels, strict=True))
    chosen, ledger = choose_relations(
        cases, llm, labels, max_relations=settings.max_relations, progress=progress
    )
    progress.end()
    index = {name: place for place, name in enumerate(prepared.relations)}
    asked = [
        _Asked(head, index[name])
        for head, names in zip(heads, chosen, strict=True)
        for name in names
    ]
    return asked, ledger


def _tails_of(
    asked: Sequence[_Asked],
    reading: _Reading,
    scorer: Scorer,
    settings: HelperSettings,
    llm: LLM,
    progress: Progress,
) -> tuple[list[tuple[_Asked, tuple[str, int | None, float]]], Ledger]:
    """Tails of every (head, relation): name, row of the entity or None, mean token score."""
    prepared = reading.prepared
    special = frozenset(prepared.tokenizer.special_ids)
    predicted: list[dict[int, float]] = []
    progress.begin("helper: tokens", total=len(asked), unit="queries")
    for done, one in enumerate(asked, start=1):
        head = one.head
        query = Query(head.chain, head.root_start, head.root_end, one.relation, head.entity)
        with autocast(scorer.precision):
            tokens = predict_tokens(
                scorer.model,
                prepared.chains[head.chain],
                query,
                asker=scorer.asker,
                max_tokens=prepared.max_tail_tokens,
                top_k=settings.top_k,
                banned=special,
            )
        predicted.append(tokens)
        progress.update(done)
    progress.end()
    cases = [
        TailCase(
            reading.text_of(one.head.chain),
            reading.surface(one.head),
            prepared.relation_labels[one.relation],
            {token: prepared.tokenizer.token(token) for token in tokens},
        )
        for one, tokens in zip(asked, predicted, strict=True)
    ]
    progress.begin("helper: tails", total=len(cases), unit="queries")
    tails, ledger = combine_tails(
        cases,
        llm,
        lambda text: prepared.tokenizer.encode(text).ids.tolist(),
        max_tails=settings.max_tails,
        progress=progress,
    )
    progress.end()
    rows = []
    for one, tokens, names in zip(asked, predicted, tails, strict=True):
        for name in names:
            ids = prepared.tokenizer.encode(name).ids.tolist()
            score = sum(tokens[token] for token in ids) / len(ids)
            rows.append((one, (name, reading.entity_named(name), score)))
    return rows, ledger


def _table(
    rows: Sequence[tuple[_Asked, tuple[str, int | None, float]]], reading: _Reading, llm: str
) -> pa.Table:
    prepared = reading.prepared
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMAS["kg/helper"].names}
    for one, (name, entity, score) in rows:
        head = one.head
        values = {
            "seq_id": reading.seq_ids[head.chain],
            "doc_id": prepared.chain_documents[head.chain],
            "head_start": head.start,
            "head_end": head.end,
            "head_surface": reading.surface(head),
            "head_id": prepared.entity_ids[head.entity] if head.entity >= 0 else None,
            "relation": prepared.relations[one.relation],
            "tail": name,
            "tail_id": None if entity is None else prepared.entity_ids[entity],
            "token_score": score,
            "llm": llm,
        }
        for column, value in values.items():
            columns[column].append(value)
    return make_table("kg/helper", columns)
