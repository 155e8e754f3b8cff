"""Rank both ends of held-out triples among all entities.

Legend: N entities, D width, Q queries, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from graphmert.batch import KnownBatch, collate
from graphmert.evaluate.ranks import Targets, filtered_ranks
from graphmert.known import KnownGraph, choose_shown, features, turned
from graphmert.model import GraphMERT
from graphmert.objectives import root_mean, unit
from graphmert.progress import Progress
from graphmert.run.answers import autocast
from graphmert.run.completion.prepared import Completion
from graphmert.run.completion.training import words_for

SIDES = ("tail", "head")
_NODES = 16_384
_BLOCK = 256


@dataclass(frozen=True)
class Encoded:
    """Vectors of all entities, and of the queries (head, directed relation).

    Attributes:
        entity_ND: float32, unit length.
        query: (head, relation) -> row of query_QD.
        query_QD: float32, unit length.
    """

    entity_ND: torch.Tensor
    query: Mapping[tuple[int, int], int]
    query_QD: torch.Tensor


@torch.no_grad()
def encode_graph(
    model: GraphMERT,
    prepared: Completion,
    graph: KnownGraph,
    asked: np.ndarray,
    *,
    max_shown: int,
    precision: str,
    progress: Progress,
) -> Encoded:
    """Encode the chain of every entity with known triples shown, and the queries on it.

    Args:
        graph: what is shown; of one entity always the same triples.
        asked: int64 (Q, 2), head and directed relation of every query.
    """
    model.eval()
    texts, words = prepared.texts, words_for(prepared, model.config)
    relations: dict[int, list[int]] = {}
    pairs = np.unique(asked, axis=0).tolist()
    for head, relation in pairs:
        relations.setdefault(head, []).append(relation)
    row_of = {(head, relation): row for row, (head, relation) in enumerate(pairs)}
    entity_ND = torch.zeros(graph.n_entities, model.config.hidden_size)
    query_QD = torch.zeros(len(pairs), model.config.hidden_size)
    order = np.argsort([len(roots) for roots in texts.roots], kind="stable")
    n_done = 0
    progress.begin("encode entities", total=len(order), unit="entities")
    for block in _blocks(order, [len(roots) + 4 * max_shown for roots in texts.roots]):
        chains, places = [], []
        for entity in block.tolist():
            rng = np.random.default_rng([11, entity])
            shown = choose_shown(graph, graph.of(entity), max_shown, rng)
            own = relations.get(entity, [])
            first = sum(len(chain.triples) for chain in chains) + len(shown)
            places += [(row_of[entity, one], first + k) for k, one in enumerate(own)]
            chains.append(texts.chain(entity, graph, shown, own))
        batch = collate(chains, relation_names=words, pad_id=texts.pad_id).to(model.device)
        with autocast(precision):
            states_BND = model(batch)
            entity_ND[torch.from_numpy(block)] = unit(root_mean(states_BND, batch)).cpu()
            if places:
                rows, triples = (torch.tensor(one) for one in zip(*places, strict=True))
                query_QD[rows] = model.entity_queries(states_BND, batch)[triples].float().cpu()
        n_done += len(block)
        progress.update(n_done)
    progress.end()
    return Encoded(entity_ND, row_of, query_QD)


def _blocks(order: np.ndarray, size: list[int]) -> Iterator[np.ndarray]:
    """Runs of entities that fit a forward pass."""
    start = 0
    while start < len(order):
        longest = size[int(order[min(start + 255, len(order) - 1)])]
        stop = start + max(1, _NODES // longest)
        yield order[start:stop]
        start = stop


class Ranker:
    """Filtered ranks under one graph: what of it is known to the model, and what is true."""

    def __init__(
        self,
        model: GraphMERT,
        prepared: Completion,
        graph: KnownGraph,
        encoded: Encoded,
        *,
        shows: bool,
    ) -> None:
        self.model, self.prepared = model, prepared
        self.graph, self.encoded = graph, encoded
        self.true = prepared.graph("train", "mirrors", "valid", "test")
        told = np.full(graph.n_entities, shows)
        self.feature_NF = torch.from_numpy(features(graph.counts, told))
        assert model.entity_head is not None
        self.scale = float(model.entity_head.log_scale.detach().clamp(max=np.log(100.0)).exp())

    @torch.no_grad()
    def scores(self, asked: np.ndarray) -> np.ndarray:
        """Scores of every entity, float32 (Q, N), for queries (head, directed relation)."""
        rows = torch.tensor([self.encoded.query[head, one] for head, one in asked.tolist()])
        score_QN = self.encoded.query_QD[rows] @ self.encoded.entity_ND.T * self.scale
        if self.model.known_terms is not None:
            links = [
                (query, int(self.graph.tail_T[place]), int(self.graph.relation_T[place]))
                for query, head in enumerate(asked[:, 0].tolist())
                for place in self.graph.of(head).tolist()
            ]
            link_L3 = torch.tensor(links, dtype=torch.int64).reshape(-1, 3)
            known = KnownBatch(
                self.feature_NF, link_L3[:, 0], link_L3[:, 1], link_L3[:, 2], torch.zeros(0)
            )
            relation_Q = torch.from_numpy(asked[:, 1].copy())
            score_QN = score_QN + self.model.known_terms(relation_Q, known)
        return score_QN.numpy()

    def ranks(self, triples_X3: np.ndarray) -> dict[str, np.ndarray]:
        """Filtered realistic rank of the tail and of the head of every triple."""
        n_relations = len(self.prepared.relations)
        sides = {"tail": triples_X3, "head": turned(triples_X3, n_relations)}
        return {side: self._ranks(rows) for side, rows in sides.items()}

    def _ranks(self, directed_X3: np.ndarray) -> np.ndarray:
        parts = [np.zeros(0)]
        for start in range(0, len(directed_X3), _BLOCK):
            block = directed_X3[start : start + _BLOCK]
            targets = Targets(
                query=np.arange(len(block)),
                tail=block[:, 2].copy(),
                known=[self.true.tails(head, one) for head, one, _ in block.tolist()],
            )
            parts.append(filtered_ranks(self.scores(block[:, :2]), targets))
        return np.concatenate(parts)
