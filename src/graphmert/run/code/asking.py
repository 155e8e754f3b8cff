"""Questions about held-out triples: which are hidden, how they are asked, and who may answer.

Legend: Q questions, C candidates.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from graphmert.chain import LeafyChain
from graphmert.domains.code.splits import PARTS
from graphmert.extract import Asker, Query, encode_entities, score_queries
from graphmert.feed import NameTable
from graphmert.model import GraphMERT
from graphmert.run.code.prepared import CodePrepared
from graphmert.run.code.training import words_for
from graphmert.shards import Ledger


@dataclass(frozen=True, slots=True)
class Question:
    """A held-out triple and where it is asked.

    Attributes:
        chain: row among the part's chains.
        head, relation, tail: entity rows and relation index.
        head_start, head_end: root span of the head.
        mentions: root spans where the tail is written.
    """

    chain: int
    head: int
    relation: int
    tail: int
    head_start: int
    head_end: int
    mentions: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class HeldOut:
    """A part's triples, some pairs of head and tail hidden from everybody.

    Attributes:
        visible, hidden: int64 (n, 3) triples.
        pairs: the hidden (head, tail) pairs.
        questions: one for each hidden pair that can be asked.
        ledger: of the hidden triples.
    """

    part: str
    visible: np.ndarray
    hidden: np.ndarray
    pairs: frozenset[tuple[int, int]]
    questions: Sequence[Question]
    ledger: Ledger


def hold_out(prepared: CodePrepared, part: str, *, share: float, seed: int) -> HeldOut:
    """Hide a share of the pairs of a part, chosen by a hash of their ids.

    All triples of a hidden pair are hidden, whatever their relations, and those from tail to
    head with them: no copy and no inverse stays visible. One question is asked of each pair.
    """
    triples = prepared.triples(part)
    ids = prepared.vocabulary.entities
    pairs = {
        (int(h), int(t)) for h, _, t in triples if _share_of(ids[int(h)], ids[int(t)], seed) < share
    }
    is_hidden = np.array(
        [(h, t) in pairs or (t, h) in pairs for h, _, t in triples.tolist()], dtype=bool
    )
    ledger = Ledger(f"questions of {part}")
    questions: list[Question] = []
    asked: set[tuple[int, int]] = set()
    for row, chain in enumerate(prepared.chains[part]):
        for triple in chain.triples:
            pair = (triple.head_entity, triple.tail_entity)
            if pair not in pairs:
                continue
            ledger.offered()
            if pair in asked:
                ledger.leave_out("another relation of the pair, or another chain, is asked")
                continue
            if (pair[1], pair[0]) in asked:
                ledger.leave_out("its inverse is asked")
                continue
            asked.add(pair)
            ledger.keep()
            questions.append(
                Question(
                    row, triple.head_entity, triple.relation, triple.tail_entity,
                    triple.head_start, triple.head_end, triple.mentions,
                )
            )  # fmt: skip
    return HeldOut(
        part=part,
        visible=triples[~is_hidden],
        hidden=triples[is_hidden],
        pairs=frozenset(pairs),
        questions=questions,
        ledger=ledger.check(),
    )


def _share_of(head: str, tail: str, seed: int) -> float:
    """A number in [0, 1) that the pair's ids and the seed fix, the same both ways round."""
    text = "\x1f".join([str(seed), *sorted((head, tail))])
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


@dataclass(frozen=True)
class Pool:
    """Candidates of a part: its own entities and those outside all packages.

    Attributes:
        rows: int64 (C,), entity rows.
        vectors: float32 (C, D), their encoded names.
    """

    rows: np.ndarray
    vectors: torch.Tensor

    @cached_property
    def column_of(self) -> dict[int, int]:
        """Columns by entity row."""
        return {int(row): i for i, row in enumerate(self.rows)}


def candidate_rows(prepared: CodePrepared, part: str) -> np.ndarray:
    """Entities of a part's packages and those outside all packages, int64 (C,)."""
    own = PARTS.index(part)
    return np.flatnonzero((prepared.part_of_row == own) | (prepared.part_of_row == -1))


def make_pool(prepared: CodePrepared, model: GraphMERT, part: str) -> Pool:
    """Encode the candidates of a part."""
    rows = candidate_rows(prepared, part)
    names = NameTable(tuple(prepared.names.roots[int(row)] for row in rows))
    vectors = encode_entities(model, names, pad_id=prepared.tokenizer.pad_id)
    return Pool(rows, vectors)


def allowed_tails(prepared: CodePrepared, rows: np.ndarray) -> np.ndarray:
    """Whether each candidate's type fits each relation's range, bool (E, C)."""
    codomain_EY = prepared.facts("train").rules.range_EY
    return codomain_EY[:, prepared.type_of_row[rows]]


@dataclass(frozen=True)
class Asking:
    """How questions become chains.

    Attributes:
        hide_mentions: mask the roots where the tail asked for is written.
        leaves: "visible" keeps the visible triples as leaves, "none" none at all.
        hide_relations: relations of which no triple of the chain stays visible.
    """

    hide_mentions: bool = True
    leaves: str = "visible"
    hide_relations: frozenset[int] = frozenset()


def question_chain(
    chain: LeafyChain,
    question: Question,
    pairs: frozenset[tuple[int, int]],
    asking: Asking,
    mask_id: int,
) -> LeafyChain:
    """The chain as the question's asker sees it: hidden pairs gone, the answer's place masked."""
    roots = list(chain.roots)
    if asking.hide_mentions:
        for start, end in question.mentions:
            roots[start:end] = [mask_id] * (end - start)
    triples = tuple(
        triple
        for triple in chain.triples
        if asking.leaves == "visible"
        and triple.relation not in asking.hide_relations
        and (triple.head_entity, triple.tail_entity) not in pairs
        and (triple.tail_entity, triple.head_entity) not in pairs
    )
    return replace(chain, roots=tuple(roots), triples=triples)


def ask(
    prepared: CodePrepared,
    model: GraphMERT,
    questions: Sequence[Question],
    pool: Pool,
    *,
    part: str,
    pairs: frozenset[tuple[int, int]],
    asking: Asking | None = None,
) -> np.ndarray:
    """Cosine of every question with every candidate, float32 (Q, C)."""
    asking = asking or Asking()
    tokenizer = prepared.tokenizer
    chains = [
        question_chain(prepared.chains[part][q.chain], q, pairs, asking, tokenizer.mask_id)
        for q in questions
    ]
    types = prepared.type_of_row
    queries = [
        Query(i, q.head_start, q.head_end, q.relation, q.head, int(types[q.head]))
        for i, q in enumerate(questions)
    ]
    asker = Asker(
        mask_id=tokenizer.mask_id,
        pad_id=tokenizer.pad_id,
        relation_names=words_for(prepared, model.config),
        query_slots=max(1, prepared.config.masking.query_slots),
        max_nodes_per_forward=8_192,
    )
    scores = np.zeros((len(questions), len(pool.rows)), dtype=np.float32)
    for answers in score_queries(
        model, chains, queries, asker=asker, entity_vectors=pool.vectors, relations=False,
        together=False,
    ):  # fmt: skip
        scores[answers.index_Q] = answers.entity_QE
    return scores


def tails_of(*groups: np.ndarray) -> Mapping[tuple[int, int], frozenset[int]]:
    """(head, relation) -> tails over several arrays of triples."""
    found: dict[tuple[int, int], set[int]] = defaultdict(set)
    for triples in groups:
        for head, relation, tail in triples.tolist():
            found[head, relation].add(tail)
    return {key: frozenset(tails) for key, tails in found.items()}


def even_sample(questions: Sequence[Question], *, per_relation: int, seed: int) -> list[Question]:
    """At most so many questions of each relation, drawn at random, in their order."""
    rng = np.random.default_rng(seed)
    by_relation: dict[int, list[int]] = defaultdict(list)
    for index, question in enumerate(questions):
        by_relation[question.relation].append(index)
    chosen: list[int] = []
    for _, indices in sorted(by_relation.items()):
        if len(indices) > per_relation:
            indices = rng.choice(indices, size=per_relation, replace=False).tolist()
        chosen += indices
    return [questions[i] for i in sorted(chosen)]
