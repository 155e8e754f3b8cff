"""Queries of held-out heads, their scores, and the rule that combines names and tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from graphmert.errors import ConfigError
from graphmert.evaluate import QueryRow, Targets, filtered_ranks, rank_metrics
from graphmert.extract import (
    Answers,
    Asker,
    Query,
    TokenCandidates,
    encode_entities,
    score_queries,
)
from graphmert.model import GraphMERT
from graphmert.progress import Progress
from graphmert.run.prepared import Prepared
from graphmert.run.training import name_table, relation_names

TOKEN_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0)
SYSTEMS = ("graphmert", "graphmert_entity", "graphmert_tokens")


@dataclass(frozen=True)
class Scorer:
    """A trained model, ready for queries: entity names encoded once."""

    model: GraphMERT
    prepared: Prepared
    asker: Asker
    entity_vectors: torch.Tensor
    tokens: TokenCandidates | None
    scale: float
    precision: str

    @classmethod
    def build(
        cls,
        model: GraphMERT,
        prepared: Prepared,
        *,
        query_slots: int,
        token_scores: bool,
        precision: str,
        entity_vectors: torch.Tensor | None = None,
        added: Collection[int] = (),
    ) -> Scorer:
        """Encode every entity name, and group names by length for MNM-leaf.

        Args:
            entity_vectors: those of the names, where they are known already.
            added: relations that came after training.
        """
        if model.entity_head is None:
            raise _without_entities()
        asker = Asker(
            mask_id=prepared.tokenizer.mask_id,
            pad_id=prepared.tokenizer.pad_id,
            relation_names=relation_names(prepared, model.config),
            query_slots=query_slots,
            added=frozenset(added),
        )
        vectors = entity_vectors
        if vectors is None:
            with autocast(precision):
                vectors = encode_entities(model, name_table(prepared), pad_id=asker.pad_id)
        tokens = None
        if token_scores and model.vocab_head is not None:
            tokens = TokenCandidates.build(
                prepared.name_tokens, max_tokens=prepared.max_tail_tokens
            )
        scale = float(model.entity_head.log_scale.detach().clamp(max=np.log(100.0)).exp())
        return cls(model, prepared, asker, vectors, tokens, scale, precision)

    def answers(
        self, queries: Sequence[Query], *, tokens: bool, progress: Progress | None = None
    ) -> Iterator[Answers]:
        """Scores block by block; a head is never its own tail."""
        n_done = 0
        with autocast(self.precision):
            for block in score_queries(
                self.model,
                self.prepared.chains,
                queries,
                asker=self.asker,
                entity_vectors=self.entity_vectors,
                tokens=self.tokens if tokens else None,
            ):
                for row, index in enumerate(block.index_Q):
                    head = queries[int(index)].head_entity
                    if head >= 0:
                        block.entity_QE[row, head] = -np.inf
                        if block.token_QE is not None:
                            block.token_QE[row, head] = -np.inf
                n_done += len(block.index_Q)
                if progress is not None:
                    progress.update(n_done)
                yield block

    def combine(self, block: Answers, token_weight: float) -> np.ndarray:
        """scale * cosine + token_weight * token score, (Q, E)."""
        scores_QE = block.entity_QE * np.float32(self.scale)
        if token_weight and block.token_QE is not None:
            scores_QE = scores_QE + np.float32(token_weight) * block.token_QE
        return scores_QE


def _without_entities() -> ConfigError:
    return ConfigError(
        "the model has no MNM-entity output, which extraction ranks entities with",
        where="train.weights",
        expected="a weight for entity",
        fix="add entity = 1.0 under [train.weights], or leave the table empty",
    )


def autocast(precision: str) -> torch.autocast:
    """The precision of inference: as in training."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


def allowed_relations(prepared: Prepared, entity: int) -> list[int]:
    """Relations whose domain admits the entity's type."""
    entity_type = prepared.types[entity]
    return [
        i
        for i, name in enumerate(prepared.relations)
        if not (domain := prepared.schema.relations[name].domain) or entity_type in domain
    ]


def asked_heads(prepared: Prepared, part: str) -> tuple[list[int], dict[str, list[int]]]:
    """Held-out heads to ask about, and by reason those that are not asked about."""
    seen = set(prepared.triples["train"][:, 0].tolist())
    asked: list[int] = []
    left_out: dict[str, list[int]] = defaultdict(list)
    for head in sorted(set(prepared.triples[part][:, 0].tolist())):
        if head in seen:
            # Only the mirror of another head's triple is held out.
            left_out["head of training triples too"].append(head)
        elif head not in prepared.title_heads:
            left_out["title is not within one sequence"].append(head)
        else:
            asked.append(head)
    return asked, dict(left_out)


def head_queries(prepared: Prepared, part: str, *, only_true: bool) -> list[Query]:
    """Queries at the title heads of a held-out part, in order of (head, relation)."""
    known = prepared.known_tails(part)
    queries = []
    for entity in asked_heads(prepared, part)[0]:
        span = prepared.title_heads[entity]
        for relation in allowed_relations(prepared, entity):
            if not only_true or (entity, relation) in known:
                queries.append(Query(span.chain, span.root_start, span.root_end, relation, entity))
    return queries


class Ranker:
    """Collect filtered ranks of true tails while blocks of scores pass by."""

    def __init__(self, prepared: Prepared, queries: Sequence[Query], part: str) -> None:
        self.prepared = prepared
        self.queries = queries
        self.true = prepared.known_tails(part)
        self.known = prepared.known_tails("train", "valid", "test")
        self.rows: dict[str, list[QueryRow]] = defaultdict(list)

    def add(self, name: str, index_Q: np.ndarray, scores_QE: np.ndarray) -> None:
        """Rank the true tails of some queries under one system's scores."""
        asked, tails, keep = [], [], []
        for row, index in enumerate(index_Q):
            query = self.queries[int(index)]
            true = sorted(self.true.get((query.head_entity, query.relation), ()))
            if true:
                asked += [len(keep)] * len(true)
                tails += true
                keep.append(row)
        if not keep:
            return
        kept = [self.queries[int(index_Q[row])] for row in keep]
        targets = Targets(
            query=np.array(asked, dtype=np.int64),
            tail=np.array(tails, dtype=np.int64),
            known=[
                np.array(sorted(self.known[q.head_entity, q.relation]), dtype=np.int64)
                for q in kept
            ],
        )
        ranks = filtered_ranks(scores_QE[keep], targets)
        for place, tail, rank in zip(asked, tails, ranks, strict=True):
            query = kept[place]
            self.rows[name].append(
                QueryRow(
                    head=query.head_entity,
                    relation=query.relation,
                    tail=tail,
                    tail_length=len(self.prepared.name_tokens[tail]),
                    head_seen_as_tail=query.head_entity in self.prepared.tails_seen,
                    rank=float(rank),
                )
            )


def draw_evenly(queries: Sequence[Query], n: int) -> list[Query]:
    """At most n queries, the same share of every relation, in a fixed random order."""
    by_relation: dict[int, list[Query]] = defaultdict(list)
    for query in queries:
        by_relation[query.relation].append(query)
    rng = np.random.default_rng(0)
    shuffled = [
        [found[int(i)] for i in rng.permutation(len(found))]
        for _, found in sorted(by_relation.items())
    ]
    longest = max(map(len, shuffled), default=0)
    turns = [found[k] for k in range(longest) for found in shuffled if k < len(found)]
    return turns[:n]


def choose_token_weight(
    scorer: Scorer, n_queries: int, progress: Progress
) -> tuple[float, dict[str, float]]:
    """Choose how much token scores count, by macro MRR on validation heads.

    Returns: the weight, and the macro MRR of every weight tried.
    """
    if scorer.tokens is None:
        return 0.0, {}
    queries = draw_evenly(head_queries(scorer.prepared, "valid", only_true=True), n_queries)
    ranker = Ranker(scorer.prepared, queries, "valid")
    progress.begin("choose rule", total=len(queries), unit="queries")
    for block in scorer.answers(queries, tokens=True, progress=progress):
        for weight in TOKEN_WEIGHTS:
            ranker.add(str(weight), block.index_Q, scorer.combine(block, weight))
    progress.end()
    tried = {
        name: float(rank_metrics(rows, scorer.prepared.relations)["mrr_macro"])
        for name, rows in ranker.rows.items()
    }
    best = max(tried, key=lambda name: (tried[name], -float(name)))
    return float(best), tried
