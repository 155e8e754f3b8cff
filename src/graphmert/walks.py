"""Feed the completion of a graph: walks over known triples, every entity a chain with its text.

The chains of an update are at once where tails are asked for and the candidates: the roots of a
chain are its entity's text, the leaves shown on it are triples known of it, and a query is a
masked leaf that no other node sees. A triple that is asked for is hidden at both of its ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import Field

from graphmert.batch import ChainBatch, KnownBatch, Labels, RelationNames, collate
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.config import Settings
from graphmert.errors import ConfigError
from graphmert.known import KnownGraph, choose_shown, features, turned


class WalkSettings(Settings):
    """How the triples of an update are drawn, asked for and shown."""

    walk_length: int = Field(
        default=4, ge=1, description="triples of a walk; each is asked for from both ends"
    )
    ask_rate: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of the other triples between two chains of an update that is asked too",
    )
    pair_rate: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of the pairs asked about of which all triples are hidden; of the others "
        "what else is known between the two stays visible",
    )
    max_shown: int = Field(default=6, ge=0, description="triples shown on a chain, at most")
    blind_share: float = Field(
        default=0.0, ge=0, le=1, description="share of chains that show their text alone"
    )
    n_random: int = Field(
        default=32, ge=0, description="chains of an update that are random entities"
    )


@dataclass(frozen=True)
class EntityTexts:
    """What a chain is made of, by entity.

    Attributes:
        roots: token ids with both specials.
        head_end: the entity's name is roots[1:head_end].
        leaves: token ids of the name as a leaf group, at least one.
        mask_id, pad_id: special tokens.
    """

    roots: Sequence[tuple[int, ...]]
    head_end: Sequence[int]
    leaves: Sequence[tuple[int, ...]]
    mask_id: int
    pad_id: int

    def chain(
        self, entity: int, graph: KnownGraph, shown: np.ndarray, asked: Sequence[int]
    ) -> LeafyChain:
        """The chain of an entity: shown triples first, then a masked leaf for each relation."""
        head = (1, int(self.head_end[entity]))
        triples = [
            LeafTriple(relation, *head, self.leaves[tail], tail, entity, shown=True)
            for relation, tail in zip(
                graph.relation_T[shown].tolist(), graph.tail_T[shown].tolist(), strict=True
            )
        ]
        triples += [
            LeafTriple(relation, *head, (self.mask_id,), head_entity=entity) for relation in asked
        ]
        return LeafyChain(self.roots[entity], tuple(triples))


@dataclass(frozen=True)
class _Asked:
    """Directed triples of an update by row: asked for, and all that are true between its rows."""

    query_Q3: np.ndarray
    true_X3: np.ndarray
    link_L3: np.ndarray
    is_hidden_T: np.ndarray


class WalkFeed:
    """Updates for `graphmert.train.train`, each one micro-batch, a pure function of its number.

    Args:
        texts: of every entity.
        graph: what is known; shown, walked along, and no negative.
        seeds: int64 (S, 3), triples that walks begin with, each once an epoch. Those that the
            graph does not hold are asked for too.
        batch_size: chains of an update, at most.
    """

    def __init__(
        self,
        texts: EntityTexts,
        graph: KnownGraph,
        seeds: np.ndarray,
        *,
        settings: WalkSettings,
        batch_size: int,
        seed: int,
        relation_names: RelationNames | None = None,
    ) -> None:
        self.texts = texts
        self.graph = graph
        self.seeds = np.asarray(seeds, dtype=np.int64).reshape(-1, 3)
        self.settings = settings
        self.batch_size = min(batch_size, graph.n_entities)
        self.seed = seed
        self.relation_names = relation_names
        self.n_walks = (self.batch_size - settings.n_random) // (settings.walk_length + 1)
        if self.n_walks < 1 or not len(self.seeds):
            raise ConfigError(
                "an update holds no walk",
                where="train.batch_size",
                got=f"{batch_size} chains, {len(self.seeds)} triples",
                expected=f"more than {settings.n_random + settings.walk_length} chains",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Updates that begin a walk with every seed once."""
        return -(-len(self.seeds) // self.n_walks)

    def batch(self, step: int) -> list[ChainBatch]:
        """The one micro-batch of an update."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, step]))
        entities, asked, extra = self._draw(step, rng)
        return [self._collate(entities, self._between(entities, asked, extra, rng), rng)]

    def _draw(self, step: int, rng: np.random.Generator) -> tuple[np.ndarray, list[int], list]:
        """Walk; return the entities, the places of the triples walked, and unknown seeds."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.seeds))
        rows = self.seeds[order[place * self.n_walks : (place + 1) * self.n_walks]]
        graph = self.graph
        found: dict[int, None] = {}
        asked: list[int] = []
        extra: list[tuple[int, int, int]] = []
        for row, known in zip(rows.tolist(), graph.find(rows).tolist(), strict=True):
            head, _, tail = row
            found.update({head: None, tail: None})
            if known >= 0:
                asked.append(known)
            else:
                extra.append((head, row[1], tail))
            here = tail if rng.random() < 0.5 else head
            for _ in range(self.settings.walk_length - 1):
                own = graph.of(here)
                if not len(own):
                    break
                next_one = int(own[rng.integers(len(own))])
                asked.append(next_one)
                here = int(graph.tail_T[next_one])
                found[here] = None
        for entity in rng.permutation(graph.n_entities)[: self.batch_size].tolist():
            if len(found) >= self.batch_size:
                break
            found[entity] = None
        return np.array(list(found), dtype=np.int64), asked, extra

    def _between(
        self, entities: np.ndarray, asked: list[int], extra: list, rng: np.random.Generator
    ) -> _Asked:
        """Find the triples between the chains, and decide which are asked for and hidden."""
        graph, settings = self.graph, self.settings
        row_of = np.full(graph.n_entities, -1)
        row_of[entities] = np.arange(len(entities))
        inside = graph.around(entities)
        inside = inside[row_of[graph.tail_T[inside]] >= 0]
        walked = np.array(asked, dtype=np.int64)
        is_asked = np.isin(inside, np.concatenate([walked, graph.partner_T[walked]]))
        single, which = np.unique(np.minimum(inside, graph.partner_T[inside]), return_inverse=True)
        is_asked |= (rng.random(len(single)) < settings.ask_rate)[which]
        ends = np.sort(np.stack([graph.head_T[inside], graph.tail_T[inside]]), axis=0)
        pairs, which = np.unique(ends[0] * graph.n_entities + ends[1], return_inverse=True)
        whole = rng.random(len(pairs)) < settings.pair_rate
        is_asked |= (whole & (np.bincount(which[is_asked], minlength=len(pairs)) > 0))[which]
        is_hidden_T = np.zeros(len(graph), dtype=bool)
        is_hidden_T[inside[is_asked]] = True
        local = np.stack(
            [row_of[graph.head_T[inside]], graph.relation_T[inside], row_of[graph.tail_T[inside]]],
            axis=1,
        )
        more = np.array(extra, dtype=np.int64).reshape(-1, 3)
        more = np.concatenate([more, turned(more, graph.n_relations)])
        more = np.stack([row_of[more[:, 0]], more[:, 1], row_of[more[:, 2]]], axis=1)
        asked_for = np.concatenate([local[is_asked], more])
        if extra:  # known triples are asked for only in training
            asked_for = more
        return _Asked(asked_for, np.concatenate([local, more]), local[~is_asked], is_hidden_T)

    def _collate(self, entities: np.ndarray, asked: _Asked, rng: np.random.Generator) -> ChainBatch:
        graph, settings = self.graph, self.settings
        is_shown_C = rng.random(len(entities)) >= settings.blind_share
        relations: dict[int, list[int]] = defaultdict(list)
        for row, relation in np.unique(asked.query_Q3[:, :2], axis=0).tolist():
            relations[row].append(relation)
        chains: list[LeafyChain] = []
        triple_of: dict[tuple[int, int], int] = {}
        n_triples = 0
        for row, entity in enumerate(entities.tolist()):
            own = graph.of(entity)
            own = own[~asked.is_hidden_T[own]] if is_shown_C[row] else own[:0]
            shown = choose_shown(graph, own, settings.max_shown, rng)
            chains.append(self.texts.chain(entity, graph, shown, relations[row]))
            for place, relation in enumerate(relations[row], start=n_triples + len(shown)):
                triple_of[row, relation] = place
            n_triples += len(chains[-1].triples)
        batch = collate(chains, relation_names=self.relation_names, pad_id=self.texts.pad_id)
        triple_Q = torch.tensor(
            [triple_of[row, relation] for row, relation in asked.query_Q3[:, :2].tolist()],
            dtype=torch.int64,
        )
        none = torch.zeros(0, dtype=torch.int64)
        labels = Labels(
            *(none for _ in range(10)),
            entity_triple_Q=triple_Q,
            entity_positive_Q=torch.from_numpy(asked.query_Q3[:, 2].copy()),
            entity_excluded_QC=self._excluded(asked, len(entities)),
            name_entity_C=torch.from_numpy(entities),
            name_row_C=torch.arange(len(entities)),
            known=self._known(entities, asked, is_shown_C),
        )
        return replace(batch, labels=labels)

    def _excluded(self, asked: _Asked, n_rows: int) -> torch.Tensor:
        """Other true tails of each query among the chains, bool (Q, C)."""
        graph = self.graph
        excluded_QC = np.zeros((len(asked.query_Q3), n_rows), dtype=bool)
        queries: dict[int, list[int]] = defaultdict(list)
        for query, key in enumerate(_keys(asked.query_Q3, graph.n_directed)):
            queries[key].append(query)
        true_keys = _keys(asked.true_X3, graph.n_directed)
        for key, column in zip(true_keys, asked.true_X3[:, 2].tolist(), strict=True):
            excluded_QC[queries.get(key, []), column] = True
        excluded_QC[np.arange(len(excluded_QC)), asked.query_Q3[:, 2]] = False
        return torch.from_numpy(excluded_QC)

    def _known(self, entities: np.ndarray, asked: _Asked, is_shown_C: np.ndarray) -> KnownBatch:
        graph, settings = self.graph, self.settings
        count_CE = graph.counts[entities].copy()
        row_of = {entity: row for row, entity in enumerate(entities.tolist())}
        hidden = np.flatnonzero(asked.is_hidden_T)
        rows = np.array([row_of[one] for one in graph.head_T[hidden].tolist()], dtype=np.int64)
        np.subtract.at(count_CE, (rows, graph.relation_T[hidden]), 1)
        queries: dict[int, list[int]] = defaultdict(list)
        for query, row in enumerate(asked.query_Q3[:, 0].tolist()):
            queries[row].append(query)
        links = [
            (query, column, relation)
            for row, relation, column in asked.link_L3.tolist()
            if is_shown_C[row] and is_shown_C[column]
            for query in queries.get(row, ())
        ]
        link_L3 = torch.tensor(links, dtype=torch.int64).reshape(-1, 3)
        # The chance to be drawn: walks visit entities by their degree, the rest are even.
        degree = np.diff(graph.first_N)[entities] / max(1, len(graph))
        n_walked = self.n_walks * (settings.walk_length + 1)
        chance = n_walked * degree + (self.batch_size - n_walked) / graph.n_entities
        return KnownBatch(
            feature_CF=torch.from_numpy(features(count_CE, is_shown_C)),
            link_query_L=link_L3[:, 0],
            link_column_L=link_L3[:, 1],
            link_relation_L=link_L3[:, 2],
            offset_C=torch.from_numpy(-np.log(chance.clip(max=1.0, min=1e-9))).float(),
        )


def _keys(triples_X3: np.ndarray, n_directed: int) -> list[int]:
    """Head row and relation as one number each."""
    return (triples_X3[:, 0] * n_directed + triples_X3[:, 1]).tolist()
