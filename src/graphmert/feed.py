"""Feed training: from chains to masked micro-batches, a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphmert.batch import ChainBatch, RelationNames, collate, collate_masked
from graphmert.chain import LeafyChain, crop
from graphmert.facts import FactSource
from graphmert.masking import MaskedChain, MaskingConfig, MaskVocabulary, mask_chain
from graphmert.recipe import bucket_schedule


@dataclass(frozen=True)
class NameTable:
    """Entity names as root token ids, specials included; row i belongs to entity row i."""

    roots: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.roots)

    def batch(self, rows: Sequence[int] | np.ndarray, *, pad_id: int) -> ChainBatch:
        """Collate the names of some entities as chains without leaves."""
        return collate([LeafyChain(self.roots[int(row)]) for row in rows], pad_id=pad_id)


class ChainFeed:
    """Micro-batches of masked chains for `graphmert.train.train`.

    Args:
        chains: training chains.
        names: entity names, or None where MNM-entity is not trained.
        known_tails: (head entity, relation) -> entity rows that are true in training; they
            are no negatives for one another.
        n_negatives: entity rows drawn per micro-batch beside the tails of the batch.
        isolated: leaf visibility of the model.
        curriculum: pairs (first update, most roots): from then on chains are cropped to that.
        facts: triples for the regularisers, a batch of them with every micro-batch.
    """

    def __init__(
        self,
        chains: Sequence[LeafyChain],
        *,
        masking: MaskingConfig,
        vocabulary: MaskVocabulary,
        relation_names: RelationNames,
        names: NameTable | None,
        known_tails: Mapping[tuple[int, int], frozenset[int]],
        n_negatives: int,
        isolated: bool,
        pad_id: int,
        batch_size: int,
        micro_batch_size: int | None = None,
        max_tokens_per_micro_batch: int | None = None,
        n_steps: int,
        seed: int,
        vectors: np.ndarray | None = None,
        curriculum: Sequence[tuple[int, int]] = (),
        facts: FactSource | None = None,
    ) -> None:
        self.chains = chains
        self.masking = masking
        self.vocabulary = vocabulary
        self.relation_names = relation_names
        self.names = names
        self.known_tails = known_tails
        self.n_negatives = n_negatives
        self.isolated = isolated
        self.pad_id = pad_id
        self.seed = seed
        self.vectors = vectors
        self.facts = facts
        self._n_steps = n_steps
        # One schedule for each phase: lengths, and so micro-batches, change with it.
        self._phases = [
            (
                first,
                max_roots,
                bucket_schedule(
                    np.array([self._sized(chain, max_roots).n_nodes for chain in chains]),
                    batch_size=batch_size,
                    micro_batch_size=micro_batch_size,
                    max_tokens_per_micro_batch=max_tokens_per_micro_batch,
                    seed=seed,
                    n_steps=n_steps,
                ),
            )
            for first, max_roots in (curriculum or ((0, None),))
        ]

    @staticmethod
    def _sized(chain: LeafyChain, max_roots: int | None) -> LeafyChain:
        return chain if max_roots is None else crop(chain, max_roots)

    @property
    def steps_per_epoch(self) -> int:
        """Updates that see every chain once."""
        return self._phases[0][2].steps_per_epoch

    def __len__(self) -> int:
        return self._n_steps

    def batch(self, step: int) -> list[ChainBatch]:
        """The micro-batches of one update."""
        _, max_roots, schedule = [phase for phase in self._phases if phase[0] <= step][-1]
        return [
            self.masked_batch(rows, key=(self.seed, step, micro), max_roots=max_roots)
            for micro, rows in enumerate(schedule[step])
        ]

    def masked_batch(
        self,
        rows: Sequence[int] | np.ndarray,
        *,
        key: tuple[int, ...],
        max_roots: int | None = None,
    ) -> ChainBatch:
        """Mask and collate the given chains; `key` seeds every draw."""
        rng = np.random.default_rng(np.random.SeedSequence(key))
        masked = [
            mask_chain(
                self._sized(self.chains[int(row)], max_roots),
                self.masking,
                self.vocabulary,
                rng,
                isolated=self.isolated,
            )
            for row in rows
        ]
        names, entities, excluded = None, None, []
        if self.names is not None:
            entities, excluded = self._candidates(masked, rng)
            names = self.names.batch(entities, pad_id=self.pad_id)
        return collate_masked(
            masked,
            relation_names=self.relation_names,
            pad_id=self.pad_id,
            names=names,
            name_entities=entities,
            excluded=excluded,
            vectors=self.vectors,
            constraints=None if self.facts is None else self.facts.draw(rng),
        )

    def _candidates(
        self, masked: Sequence[MaskedChain], rng: np.random.Generator
    ) -> tuple[np.ndarray, list[frozenset[int]]]:
        """Entities to compare with: the tails asked for, and random others."""
        assert self.names is not None
        tails: list[int] = []
        excluded: list[frozenset[int]] = []
        for item in masked:
            for triple, label in zip(item.chain.triples, item.entity_labels, strict=True):
                if label >= 0:
                    tails.append(int(label))
                    key = (triple.head_entity, triple.relation)
                    excluded.append(self.known_tails.get(key, frozenset()))
        drawn = rng.choice(
            len(self.names), size=min(self.n_negatives, len(self.names)), replace=False
        )
        return np.unique(np.concatenate([np.array(tails, np.int64), drawn])), excluded
