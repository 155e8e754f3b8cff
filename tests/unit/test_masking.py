"""Masking of what a code chain holds: tails written in the roots, several relations of a pair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from golden.forms import CLS, MASK, N_RELATIONS, SEP, make_vocabulary
from graphmert.chain import LeafTriple, LeafyChain, crop
from graphmert.masking import IGNORE, MaskedChain, MaskingConfig, mask_chain

VOCABULARY = make_vocabulary()
# def 6 : 20 21 ( ) ; 20 21 again: the tail 20 21 is written twice
ROOTS = (CLS, 6, 7, 20, 21, 8, 20, 21, 9, SEP)
CALL = LeafTriple(0, 1, 2, (20, 21), 4, 3, mentions=((3, 5), (6, 8)))
NO_MLM = {"mlm_rate": 0.0, "entity_rate": 1.0, "both_rate": 0.0}


def mask(
    triples: tuple[LeafTriple, ...], seed: int = 0, *, isolated: bool = True, **changes: object
) -> MaskedChain:
    config = MaskingConfig.model_validate({**NO_MLM, **changes})
    rng = np.random.default_rng(seed)
    return mask_chain(LeafyChain(ROOTS, triples), config, VOCABULARY, rng, isolated=isolated)


def test_every_mention_of_a_masked_tail_is_hidden() -> None:
    masked = mask((CALL,), tail_rate=1.0, relation_rate=0.0, mention_rate=1.0)
    assert masked.chain.roots == (CLS, 6, 7, MASK, MASK, 8, MASK, MASK, 9, SEP)
    assert (masked.root_labels == IGNORE).all()  # hidden, not asked for
    shown = mask((CALL,), tail_rate=1.0, relation_rate=0.0)
    assert shown.chain.roots == ROOTS


def test_mentions_may_be_hidden_now_and_then() -> None:
    seen = {
        mask((CALL,), seed, tail_rate=1.0, relation_rate=0.0, mention_rate=0.5).chain.roots
        for seed in range(30)
    }
    assert seen == {ROOTS, (CLS, 6, 7, MASK, MASK, 8, MASK, MASK, 9, SEP)}


def test_a_visible_tail_keeps_its_mentions_and_is_not_asked_for() -> None:
    masked = mask((CALL,), tail_rate=0.0, relation_rate=1.0, mention_rate=1.0)
    assert masked.chain.roots == ROOTS
    assert (masked.entity_labels == -1).all()
    asked = mask((CALL,), tail_rate=0.0, relation_rate=1.0)
    assert (asked.entity_labels >= 0).any()  # isolated leaves: nothing leaks, so it may be


def test_a_kept_or_random_root_inside_a_mention_is_hidden_too() -> None:
    """MLM may leave a masked token as it is; where a hidden tail is written it may not."""
    for seed in range(30):
        masked = mask(
            (CALL,), seed, tail_rate=1.0, relation_rate=0.0, mlm_rate=1.0, mention_rate=1.0
        )
        places = [3, 4, 6, 7]
        assert [masked.chain.roots[i] for i in places] == [MASK] * 4
        assert masked.root_labels[places].tolist() == [20, 21, 20, 21]


PAIR = (CALL, replace(CALL, relation=2, mentions=()), replace(CALL, relation=1, tail_entity=7))


@pytest.mark.parametrize("rates", [(1.0, 0.0), (0.0, 1.0), (0.4, 0.4)])
def test_triples_of_one_pair_are_masked_together(rates: tuple[float, float]) -> None:
    for seed in range(20):
        masked = mask(
            PAIR, seed, tail_rate=rates[0], relation_rate=rates[1], facts="pair", entity_rate=0.0
        )
        tails = {t.tail for t in masked.chain.triples}
        assert len(tails) == 1  # hidden in all, or in none
        asked = masked.relation_labels != IGNORE
        assert asked.all() or not asked.any()
        if not asked.any():
            assert [t.relation for t in masked.chain.triples] == [0, 2, 1]
        else:
            assert masked.relation_labels.tolist() == [0, 2, 1]


def test_alone_the_relations_of_a_pair_are_drawn_apart() -> None:
    modes = set()
    for seed in range(20):
        masked = mask(PAIR[:2], seed, tail_rate=0.0, relation_rate=0.5, entity_rate=0.0)
        modes.add(tuple((masked.relation_labels != IGNORE).tolist()))
    assert len(modes) == 4


def test_a_masked_relation_shows_one_id_for_its_pair() -> None:
    seen = set()
    for seed in range(60):
        masked = mask(PAIR[:2], seed, tail_rate=0.0, relation_rate=1.0, facts="pair")
        first, second = (t.relation for t in masked.chain.triples[:2])
        seen.add("own" if (first, second) == (0, 2) else "hidden")
        assert (first, second) == (0, 2) or first == second
        assert first <= N_RELATIONS
    assert seen == {"own", "hidden"}


def test_crop_keeps_the_last_root_and_the_triples_before_it() -> None:
    late = LeafTriple(1, 8, 9, (11,))
    chain = LeafyChain(ROOTS, (CALL, late), "f")
    short = crop(chain, 6)
    assert short.roots == (CLS, 6, 7, 20, 21, SEP)
    assert short.triples == (replace(CALL, mentions=((3, 5),)),)
    assert short.chain_id == "f"
    assert crop(chain, 10) is chain
