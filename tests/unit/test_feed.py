"""Batches: a function of (seed, step), with the right names to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from golden.forms import NAMES, PAD, SEP, make_vocabulary, random_chains
from graphmert.batch import ChainBatch
from graphmert.feed import ChainFeed, NameTable
from graphmert.masking import MaskingConfig

N_ENTITIES = 30
CHAINS = random_chains(5, n_chains=12)
TABLE = NameTable(tuple((2, *range(5, 6 + row % 4), SEP) for row in range(N_ENTITIES)))
KNOWN = {
    (triple.head_entity, triple.relation): frozenset({7, 29})
    for chain in CHAINS
    for triple in chain.triples
}


def make(**changes: Any) -> ChainFeed:
    options: dict[str, Any] = {
        "masking": MaskingConfig(),
        "vocabulary": make_vocabulary(),
        "relation_names": NAMES,
        "names": TABLE,
        "known_tails": KNOWN,
        "n_negatives": 6,
        "isolated": True,
        "pad_id": PAD,
        "batch_size": 6,
        "micro_batch_size": 3,
        "n_steps": 5,
        "seed": 1,
    }
    return ChainFeed(CHAINS, **(options | changes))


def values(batch: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif value is not None and not isinstance(value, int):
            found += values(value)
    return found


def equal(one: list[ChainBatch], two: list[ChainBatch]) -> bool:
    left = [tensor for batch in one for tensor in values(batch)]
    right = [tensor for batch in two for tensor in values(batch)]
    return len(left) == len(right) and all(map(torch.equal, left, right))


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    feed = make()
    first = feed.batch(3)
    for step in (0, 4, 1):
        feed.batch(step)
    assert equal(first, feed.batch(3))
    assert equal(first, make().batch(3))
    assert not equal(first, make().batch(2))
    assert not equal(first, make(seed=2).batch(3))


def test_updates_have_the_asked_size() -> None:
    feed = make()
    assert len(feed) == 5
    assert feed.steps_per_epoch == 2
    for step in range(len(feed)):
        batches = feed.batch(step)
        assert sum(batch.n_samples for batch in batches) == 6
        assert all(batch.n_samples <= 3 for batch in batches)


@pytest.mark.parametrize("n_negatives", [0, 6, 1000])
def test_names_are_the_tails_and_random_others(n_negatives: int) -> None:
    feed = make(n_negatives=n_negatives, masking=MaskingConfig(entity_rate=1.0))
    n_asked = 0
    for step in range(len(feed)):
        for batch in feed.batch(step):
            labels = batch.labels
            assert labels is not None
            assert labels.names is not None
            assert labels.name_entity_C is not None
            entities = labels.name_entity_C.tolist()
            assert entities == sorted(set(entities))
            positives = [entities[column] for column in labels.entity_positive_Q.tolist()]
            n_asked += len(positives)
            others = len(set(entities) - set(positives))
            assert min(n_negatives, N_ENTITIES) - len(set(positives)) <= others <= n_negatives
            for row, entity in enumerate(entities):
                name = labels.names.token_BN[row][labels.names.padding_mask_BN[row]]
                assert tuple(name.tolist()) == TABLE.roots[entity]
    assert n_asked > 20


def test_true_tails_are_no_negatives() -> None:
    feed = make(n_negatives=N_ENTITIES)
    for batch in feed.batch(0):
        labels = batch.labels
        assert labels is not None
        excluded = labels.entity_excluded_QC
        positive = labels.entity_positive_Q
        assert excluded.shape == (len(positive), N_ENTITIES)
        for query, column in enumerate(positive.tolist()):
            # Every known tail but the asked one.
            wanted = {7, 29} - {column}
            assert set(excluded[query].nonzero()[:, 0].tolist()) == wanted
            assert not excluded[query, column]


def test_no_table_no_names() -> None:
    known: Mapping[tuple[int, int], frozenset[int]] = {}
    for batch in make(names=None, known_tails=known).batch(0):
        assert batch.labels is not None
        assert batch.labels.names is None
        assert len(batch.labels.entity_positive_Q) == 0


def test_a_name_batch_is_in_the_order_asked_for() -> None:
    batch = TABLE.batch(np.array([3, 0, 3]), pad_id=PAD)
    lengths = batch.padding_mask_BN.sum(dim=1).tolist()
    assert lengths == [len(TABLE.roots[row]) for row in (3, 0, 3)]
    assert len(TABLE) == N_ENTITIES


def test_the_length_curriculum_crops_chains_from_its_updates_on() -> None:
    feed = make(curriculum=((0, 5), (2, 8), (4, 100)), n_steps=6)
    for step in range(6):
        longest = max(
            int(((batch.kind_BN == 0) & batch.padding_mask_BN).sum(1).max())
            for batch in feed.batch(step)
        )
        limit = 5 if step < 2 else 8 if step < 4 else 100
        assert longest <= limit
        assert limit == 100 or longest == limit
    assert len(feed) == 6
    again = make(curriculum=((0, 5), (2, 8), (4, 100)), n_steps=6)
    assert all(equal(feed.batch(step), again.batch(step)) for step in (5, 0, 3))


def test_without_a_curriculum_nothing_changes() -> None:
    """A phase that crops nothing gives the batches of a feed that has none."""
    plain, phased = make(), make(curriculum=((0, 10_000),))
    assert all(equal(plain.batch(step), phased.batch(step)) for step in range(5))
