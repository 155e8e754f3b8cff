"""GraphMERT-LVM with leaves: five vectors as roots, entity vectors of linked triples on them.

The core encoder with relation embeddings and H-GAT reads context vectors and entity vectors alike.
Two objectives share one pass: the next vector, from the mean of the roots, and MNM: which entity a
masked leaf is, by InfoNCE over a pool of entity vectors. A masked leaf becomes a learned vector and
keeps its relation and its head; every leaf of the window with the same head entity and tail is
masked with it.

Legend: B batch, W window, N nodes, C channels, D width, T triples, Q masked leaves, E candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from graphmert.batch import ChainBatch, collate
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.config import Settings
from graphmert.errors import DataError
from graphmert.forecast.feed import WindowSource
from graphmert.forecast.forecaster import (
    Forecast,
    load_network,
    read_config,
    save_network,
    vector_losses,
)
from graphmert.forecast.networks import LVMSettings, lvm_config, pooled_head, vector_batch
from graphmert.model import GraphMERT
from graphmert.objectives import INITIAL_LOG_SCALE, entity_loss, mean_states, root_mean, unit
from graphmert.recipe import bucket_schedule

FORMAT = "graphmert-forecast-leaves-1"


class LeafSettings(Settings):
    """GraphMERT-LVM with leaves, and what is asked of them in training."""

    kind: Literal["lvm-leaves"] = "lvm-leaves"
    dim: int = Field(default=768, ge=1, description="Channels of vectors and entity vectors.")
    length: int = Field(default=5, ge=1, description="Vectors of a context.")
    n_relations: int = Field(default=1, ge=1, description="Relations of the leaves.")
    width: int = Field(default=384, ge=1, description="Width of the layers.")
    n_layers: int = Field(default=6, ge=1, description="Layers.")
    n_attn_heads: int = Field(default=8, ge=1, description="Attention heads.")
    ffn_width: int = Field(default=1024, ge=1, description="Width of the feed-forward networks.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Of attention, head, relations.")
    decay_base: float = Field(default=0.6, gt=0, le=1, description="Lambda of the decay.")
    hgat_rank: int = Field(default=16, ge=1, description="Rank of a relation's own matrix.")
    visibility: Literal["open", "isolated"] = Field(
        default="open",
        description="open: roots see leaves, so leaves can help the next vector; isolated: they "
        "do not, and leaves see their own triple only.",
    )
    use_leaves: bool = Field(default=True, description="False trains the same network without.")
    leaves_per_root: int = Field(default=4, ge=1, description="Leaves taken of each vector, best.")
    mask_rate: float = Field(
        default=0.3, gt=0, le=1, description="Share of leaves masked; equal leaves together."
    )
    n_negatives: int = Field(
        default=512, ge=1, description="Entities drawn per micro-batch beside the masked ones."
    )
    leaf_weight: float = Field(default=0.01, ge=0, description="Weight of MNM beside the MSE.")

    @model_validator(mode="after")
    def _divides(self) -> LeafSettings:
        if self.width % self.n_attn_heads:
            raise ValueError("width is a multiple of n_attn_heads")
        return self


class LeafSource(Protocol):
    """Leaves of every row of the vectors, and the entities they are."""

    @property
    def entities(self) -> NDArray[np.float32]:
        """Entity vectors, (E, C)."""
        ...

    @property
    def head(self) -> NDArray[np.int32]:
        """Entity that the row was linked to, by leaf."""
        ...

    @property
    def relation(self) -> NDArray[np.int32]:
        """Relation by leaf."""
        ...

    @property
    def tail(self) -> NDArray[np.int32]:
        """Entity of the leaf."""
        ...

    def of_row(self, row: int) -> slice:
        """Return where the leaves of a row lie, best first."""
        ...


class RowWindows(WindowSource, Protocol):
    """Windows that know their rows."""

    @property
    def vectors(self) -> NDArray[np.float32]:
        """All vectors, (N, C)."""
        ...

    def context_rows(self, index: Any) -> NDArray[np.int64]:
        """Return the rows of contexts, (B, W)."""
        ...


@dataclass(frozen=True)
class LeafBatch:
    """Windows with leaves, a micro-batch of training.

    Attributes:
        chains: roots are the context; a masked leaf has no vector of its own.
        targets_BC: float32, the next vectors.
        query_Q: triple index of each masked leaf.
        positive_Q: its entity's column among the candidates.
        excluded_QE: bool, candidates that are true as well.
        candidates_EC: float32 entity vectors.
    """

    chains: ChainBatch
    targets_BC: Tensor
    query_Q: Tensor
    positive_Q: Tensor
    excluded_QE: Tensor
    candidates_EC: Tensor

    @property
    def n_samples(self) -> int:
        """Number of windows."""
        return int(self.targets_BC.shape[0])

    def to(self, device: torch.device | str) -> LeafBatch:
        """Return it on a device."""
        tensors = (self.targets_BC, self.query_Q, self.positive_Q, self.excluded_QE)
        moved = [tensor.to(device) for tensor in (*tensors, self.candidates_EC)]
        return LeafBatch(self.chains.to(device), *moved)

    def counts(self) -> dict[str, int]:
        """Predictions of each objective."""
        return {"mse": self.n_samples, "cosine": self.n_samples, "leaf": len(self.query_Q)}


class LeafForecaster(nn.Module):
    """The core encoder over roots and leaves, with a head for each objective.

    Source: GraphMERT, H-GAT, decay and MNM. Differs: nodes are vectors, and entities are compared
    in the space of the vectors.
    Checked by: tests/unit/test_leaves.py
    """

    def __init__(self, settings: LeafSettings) -> None:
        super().__init__()
        self.settings = s = settings
        shape = LVMSettings(
            dim=s.dim, length=s.length, width=s.width, n_layers=s.n_layers,
            n_attn_heads=s.n_attn_heads, ffn_width=s.ffn_width, dropout=s.dropout,
            decay_base=s.decay_base,
        )  # fmt: skip
        config = lvm_config(
            shape,
            input_projection=True,
            input_mask=True,
            n_types=2,
            n_relations=s.n_relations,
            relation_embedding=True,
            relation_dropout=s.dropout,
            hgat="low_rank",
            hgat_rank=s.hgat_rank,
            leaf_visibility=s.visibility,
        )
        self.core = GraphMERT(config)
        std = config.initializer_std
        self.head = pooled_head(s.width, s.dim, s.dropout, std=std)
        self.leaf_head = nn.Linear(s.width, s.dim, bias=False)
        nn.init.normal_(self.leaf_head.weight, std=std)
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_LOG_SCALE))
        self.on_step: Callable[[int, int], None] | None = None

    @property
    def dim(self) -> int:
        """Channels of the vectors."""
        return self.settings.dim

    def forward(self, contexts_BWC: Tensor) -> Tensor:
        """Predict the next vector without leaves, raw, (B, C)."""
        return self.next_vectors(vector_batch(contexts_BWC))

    def predict(self, contexts_BWC: Tensor) -> Forecast:
        """Predict the next vector without leaves, raw and at length one."""
        raw_BC = self(contexts_BWC)
        return Forecast(raw_BC, unit(raw_BC))

    def next_vectors(self, chains: ChainBatch) -> Tensor:
        """Predict the next vector from roots and leaves, raw, (B, C)."""
        return self.head(root_mean(self.core(chains), chains))

    def leaf_queries(self, states_BND: Tensor, chains: ChainBatch, query_Q: Tensor) -> Tensor:
        """Unit vectors to compare with entity vectors, (Q, C)."""
        flat_ND = states_BND.reshape(-1, states_BND.shape[-1])
        leaf_QD = mean_states(flat_ND, chains.leaf_index_TL[query_Q], chains.leaf_mask_TL[query_Q])
        return unit(self.leaf_head(leaf_QD))

    def loss(self, batch: LeafBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """Sums and counts of the MSE, the cosine (reported only) and InfoNCE of masked leaves."""
        states_BND = self.core(batch.chains)
        raw_BC = self.head(root_mean(states_BND, batch.chains))
        leaf = entity_loss(
            self.leaf_queries(states_BND, batch.chains, batch.query_Q),
            unit(batch.candidates_EC),
            self.log_scale,
            batch.positive_Q,
            batch.excluded_QE,
        )
        return {**vector_losses(raw_BC, batch.targets_BC), "leaf": leaf}

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors and config.json.

        Raises:
            CapabilityError: the disk is full.
        """
        save_network(folder, self, {"format": FORMAT, "network": self.settings})

    @classmethod
    def load(cls, folder: Path | str) -> LeafForecaster:
        """Read a folder that `save` wrote; the model is in evaluation mode.

        Raises:
            CheckpointError: a file is missing, damaged or of another model.
        """
        folder = Path(folder)
        record = read_config(folder, FORMAT)
        return load_network(folder, lambda: cls(LeafSettings.model_validate(record["network"])))


class StackedVectors:
    """Rows of the corpus and, after them, rows of the entities, as one table."""

    def __init__(self, vectors: NDArray[np.float32], entities: NDArray[np.float32]) -> None:
        if vectors.shape[1] != entities.shape[1]:
            raise DataError(
                "entities and vectors have different dimensions",
                got=entities.shape[1],
                expected=vectors.shape[1],
                fix="Embed both with one model.",
            )
        self._vectors, self._entities = vectors, entities
        self.n_vectors = len(vectors)

    def __getitem__(self, row: NDArray[np.int64]) -> NDArray[np.float32]:
        found = np.empty((*row.shape, self._vectors.shape[1]), np.float32)
        is_entity = row >= self.n_vectors
        found[~is_entity] = self._vectors[row[~is_entity]]
        found[is_entity] = self._entities[row[is_entity] - self.n_vectors]
        return found


Masking = Literal["rate", "one", "none"]
KnownTails = Mapping[tuple[int, int], frozenset[int]]


class LeafFeed:
    """Micro-batches of windows with leaves for `graphmert.train.train`.

    A window's leaves are those of its context rows, never of its target.

    Args:
        windows: windows that know their rows.
        leaves: leaves of rows.
        settings: of the network and its leaves.
        known: (head entity, relation) -> tails that are true; they are no negatives for each
            other.
        batch_size: windows of an update, over all processes.
        n_processes: an update is cut into a multiple of so many micro-batches.
        masking: rate: each head entity and tail of a window by chance, with all their leaves; one:
            one leaf of each window is asked for, and hidden wherever it hangs; none.
        seed: of order, masks and negatives.
    """

    def __init__(
        self,
        windows: RowWindows,
        leaves: LeafSource,
        settings: LeafSettings,
        *,
        known: KnownTails,
        batch_size: int,
        n_processes: int = 1,
        masking: Masking = "rate",
        seed: int,
    ) -> None:
        self.windows, self.leaves, self.settings = windows, leaves, settings
        self.known, self.masking, self.seed = known, masking, seed
        self.table = StackedVectors(windows.vectors, leaves.entities)
        self._schedule = bucket_schedule(
            np.ones(len(windows), np.int64),
            batch_size=batch_size,
            micro_batch_size=-(-batch_size // n_processes),
            multiple_of=n_processes,
            window=1,
            seed=seed,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Updates that see every window once."""
        return self._schedule.steps_per_epoch

    def batch(self, step: int) -> list[LeafBatch]:
        """Return the micro-batches of an update."""
        return [
            self.take(rows, key=(self.seed, step, micro))
            for micro, rows in enumerate(self._schedule[step])
        ]

    def take(self, index: NDArray[np.int64], *, key: tuple[int, ...]) -> LeafBatch:
        """Return some windows as a batch; `key` seeds every draw."""
        rng = np.random.default_rng(np.random.SeedSequence(key))
        chains = [self.chain(rows) for rows in self.windows.context_rows(index)]
        queries: list[LeafTriple] = []
        places: list[int] = []
        masked_chains, n_triples = [], 0
        for chain in chains:
            asked, masked = self._mask(chain.triples, rng)
            queries += [chain.triples[place] for place in asked]
            places += [n_triples + place for place in asked]
            triples = tuple(
                hidden(triple) if place in masked else triple
                for place, triple in enumerate(chain.triples)
            )
            masked_chains.append(LeafyChain(chain.roots, triples))
            n_triples += len(triples)
        candidates, positive, excluded = self._candidates(queries, rng)
        return LeafBatch(
            chains=collate(masked_chains, vectors=self.table),  # type: ignore[arg-type]
            targets_BC=torch.from_numpy(self.windows.targets(index)),
            query_Q=torch.tensor(places, dtype=torch.int64),
            positive_Q=torch.from_numpy(positive),
            excluded_QE=torch.from_numpy(excluded),
            candidates_EC=torch.from_numpy(np.asarray(self.leaves.entities[candidates])),
        )

    def chain(self, rows: NDArray[np.int64]) -> LeafyChain:
        """Return the leafy chain of a context."""
        triples: list[LeafTriple] = []
        if self.settings.use_leaves:
            for place, row in enumerate(rows.tolist()):
                span = self.leaves.of_row(row)
                stop = min(span.stop, span.start + self.settings.leaves_per_root)
                for leaf in range(span.start, stop):
                    tail = int(self.leaves.tail[leaf])
                    triples.append(
                        LeafTriple(
                            relation=int(self.leaves.relation[leaf]),
                            head_start=place,
                            head_end=place + 1,
                            tail=(self.table.n_vectors + tail,),
                            tail_entity=tail,
                            head_entity=int(self.leaves.head[leaf]),
                        )
                    )
        return LeafyChain(tuple(rows.tolist()), tuple(triples))

    def _mask(
        self, triples: Sequence[LeafTriple], rng: np.random.Generator
    ) -> tuple[list[int], set[int]]:
        """Return which leaves are asked for and which are masked.

        Neighbouring rows are linked to the same entities, so that a leaf often hangs on several
        rows of a window. All leaves of one head entity and tail are masked together: any of them
        would tell the others.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for place, one in enumerate(triples):
            groups.setdefault((one.head_entity, one.tail_entity), []).append(place)
        if self.masking == "none" or not triples:
            return [], set()
        if self.masking == "one":
            place = int(rng.integers(len(triples)))
            one = triples[place]
            return [place], set(groups[one.head_entity, one.tail_entity])
        drawn = rng.random(len(groups)) < self.settings.mask_rate
        masked = {
            place
            for is_drawn, group in zip(drawn, groups.values(), strict=True)
            if is_drawn
            for place in group
        }
        return sorted(masked), masked

    def _candidates(
        self, queries: Sequence[LeafTriple], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Entities to compare with, the column of each query's own, and other true ones."""
        n_entities = len(self.leaves.entities)
        drawn = rng.choice(n_entities, min(self.settings.n_negatives, n_entities), replace=False)
        own = np.array([query.tail_entity for query in queries], np.int64)
        candidates = np.unique(np.concatenate([own, drawn]))
        positive = np.searchsorted(candidates, own)
        excluded = np.zeros((len(queries), len(candidates)), bool)
        for row, query in enumerate(queries):
            true = self.known.get((query.head_entity, query.relation), frozenset())
            others = np.fromiter(true - {query.tail_entity}, np.int64)
            excluded[row, np.flatnonzero(np.isin(candidates, others))] = True
        return candidates, positive, excluded


def hidden(triple: LeafTriple) -> LeafTriple:
    """Return a triple whose leaf is masked; relation and head stay."""
    return LeafTriple(
        triple.relation, triple.head_start, triple.head_end, (-1,),
        triple.tail_entity, triple.head_entity,
    )  # fmt: skip


def known_tails(leaves: LeafSource, rows: NDArray[np.int64] | None = None) -> KnownTails:
    """Return (head entity, relation) -> tails over the leaves of some rows, or of all."""
    chosen = np.arange(len(leaves.tail))
    if rows is not None:
        spans = [leaves.of_row(int(row)) for row in rows]
        parts = [np.arange(span.start, span.stop) for span in spans]
        chosen = np.concatenate([np.zeros(0, np.int64), *parts])
    found: dict[tuple[int, int], set[int]] = {}
    columns = (leaves.head[chosen], leaves.relation[chosen], leaves.tail[chosen])
    for head, relation, tail in zip(*(column.tolist() for column in columns), strict=True):
        found.setdefault((head, relation), set()).add(tail)
    return {key: frozenset(tails) for key, tails in found.items()}
