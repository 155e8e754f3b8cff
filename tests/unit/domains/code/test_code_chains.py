"""Chains of code: triples at their heads' own tokens, whole tails, and where tails are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import code_toy
from graphmert.chain import LeafyChain
from graphmert.domains.code.chains import ChainBuilder
from graphmert.domains.code.ontology import load_ontology, load_profile
from graphmert.domains.code.rules import entity_types, fact_rules
from graphmert.domains.code.samples import make_samples
from graphmert.masking import MaskingConfig, MaskVocabulary, mask_chain
from graphmert.shards import Ledger


@pytest.fixture(scope="module")
def builder(index: Path) -> ChainBuilder:
    return code_toy.toy_builder(index)


def build(builder: ChainBuilder) -> tuple[dict[str, LeafyChain], Ledger]:
    samples, _ = make_samples(builder.tables)
    chains, ledger = builder.build(samples)
    return {chain.chain_id: chain for chain in chains}, ledger


def readable(builder: ChainBuilder, chain: LeafyChain) -> set[tuple[str, str, str]]:
    """(words of the head's roots, relation, words of the tail)."""
    decode, relations = builder.tokenizer.decode, builder.vocabulary.relations
    return {
        (decode(chain.roots[t.head_start : t.head_end]).strip(), relations[t.relation],
         decode(t.tail))
        for t in chain.triples
    }  # fmt: skip


def test_a_function_carries_its_calls_at_its_name(builder: ChainBuilder) -> None:
    chains, _ = build(builder)
    found = readable(builder, chains["alpha/alpha/shapes.py#Circle.area"])
    assert ("area", "invokes", "Base.read") in found
    assert ("area", "calls", "scale") in found
    whole = readable(builder, chains["alpha/alpha/shapes.py#Circle"])
    assert ("Circle", "inherits_from", "Base") in whole
    assert ("Circle", "declares", "Circle.area") in whole
    module = readable(builder, chains["alpha/alpha/shapes.py"])
    assert ("alpha/shapes.py", "defines", "alpha_total") in module


def test_every_mention_is_where_the_tail_is_written(builder: ChainBuilder) -> None:
    chains, _ = build(builder)
    chain = chains["alpha/alpha/shapes.py#alpha_total"]
    (call,) = [t for t in chain.triples if builder.vocabulary.relations[t.relation] == "calls"]
    words = [builder.tokenizer.decode(chain.roots[a:b]).strip() for a, b in call.mentions]
    assert words == ["scale"]
    n_mentioned = n_all = 0
    for one in chains.values():
        for triple in one.triples:
            last = builder.tokenizer.decode(triple.tail).rsplit(".", 1)[-1]
            n_all += 1
            n_mentioned += bool(triple.mentions)
            for start, end in triple.mentions:
                assert last in builder.tokenizer.decode(one.roots[start:end])
    assert n_mentioned / n_all > 0.6


def test_a_masked_triple_leaves_no_copy_in_sight(builder: ChainBuilder) -> None:
    """Neither in other leaves of the pair nor in the roots where the index saw it."""
    chains, _ = build(builder)
    tokenizer = builder.tokenizer
    vocabulary = MaskVocabulary(
        tokenizer.mask_id, tokenizer.special_ids, tokenizer.ordinary_ids,
        len(builder.vocabulary.relations),
    )  # fmt: skip
    config = MaskingConfig(
        mlm_rate=0.0,
        tail_rate=0.5,
        relation_rate=0.1,
        both_rate=0.0,
        mention_rate=1.0,
        facts="pair",
    )
    rng = np.random.default_rng(0)
    n_hidden = 0
    for chain in chains.values():
        masked = mask_chain(chain, config, vocabulary, rng, isolated=False)
        hidden = set()
        for before, after in zip(chain.triples, masked.chain.triples, strict=False):
            if before.tail != after.tail:
                hidden.add((before.head_entity, before.tail_entity))
                for start, end in before.mentions:
                    assert set(masked.chain.roots[start:end]) == {tokenizer.mask_id}
        for before, after in zip(chain.triples, masked.chain.triples, strict=False):
            if (before.head_entity, before.tail_entity) in hidden:
                assert set(after.tail) == {tokenizer.mask_id}
        n_hidden += len(hidden)
    assert n_hidden > 20


def test_what_does_not_fit_is_counted(index: Path) -> None:
    tight = code_toy.toy_builder(index, max_roots=9, max_tail_tokens=3, max_leaves_per_root=3)
    chains, ledger = build(tight)
    left = ledger.to_dict()["left_out"]
    assert {
        "its head lies behind the last root",
        "tail longer than max_tail_tokens",
        "no room at its root (max_leaves_per_root)",
    } <= set(left)
    assert max(len(chain.roots) for chain in chains.values()) <= 9
    for chain in chains.values():
        assert all(len(t.tail) <= 3 for t in chain.triples)
        per_root: dict[int, int] = {}
        for t in chain.triples:
            per_root[t.head_start] = per_root.get(t.head_start, 0) + len(t.tail)
        assert max(per_root.values(), default=0) <= 3


def test_the_same_index_gives_the_same_chains(index: Path) -> None:
    one, two = (build(code_toy.toy_builder(index))[0] for _ in range(2))
    assert one == two


def test_entities_of_training_packages_come_first(builder: ChainBuilder) -> None:
    vocabulary = builder.vocabulary
    first = set(vocabulary.entities[: vocabulary.n_train])
    assert any(e.startswith("alpha/") for e in first)
    assert not any(e.startswith("gamma/") for e in first)
    assert vocabulary.relations == tuple(load_profile("graphmer-se"))


def test_names_tell_equal_names_apart(builder: ChainBuilder) -> None:
    row_of = builder.vocabulary.row_of
    names = {
        builder.tokenizer.decode(builder.name_tokens[row_of[f"{p}/{p}/core.py#scale"]])
        for p in ("alpha", "beta")
    }
    assert names == {"alpha/core scale", "beta/core scale"}


@pytest.mark.parametrize("profile", ["graphmer-se", "codebert", "all"])
def test_rules_of_a_profile_are_those_of_the_ontology(profile: str) -> None:
    relations = load_profile(profile)
    rules = fact_rules(relations)
    types, ontology = entity_types(), load_ontology()
    assert len(types) == 15
    for row, (name, members) in enumerate(relations.items()):
        domain = {t for t, ok in zip(types, rules.domain_EY[row], strict=True) if ok}
        assert domain == set().union(*(ontology.relations[m].domain for m in members)), name
        acyclic = all(ontology.relations[m].acyclic for m in members)
        assert rules.acyclic_E[row] == acyclic
    names = list(relations)
    assert "inherits_from" in relations[names[rules.inherits]]
    declares = names.index("declares")
    assert rules.member_E[declares]


def test_every_triple_of_the_index_is_accounted_for(index: Path, tmp_path: Path) -> None:
    """Those of other relations, of low confidence, and those that name what is not there."""
    import shutil

    import pyarrow as pa

    from graphmert.domains.code.tables import CodeTables
    from graphmert.store import RunDir

    shutil.copytree(index, tmp_path / "index")
    run = RunDir(tmp_path / "index")
    triples = run.read("kg/triples")
    dangling = triples.slice(0, 1).to_pylist()[0] | {"relation": "calls", "tail_id": "nowhere"}
    weak = triples.slice(1, 1).to_pylist()[0] | {"relation": "calls", "score": 0.1}
    more = pa.Table.from_pylist([dangling, weak], schema=triples.schema)
    run.write("kg/triples", pa.concat_tables([triples, more]))
    tables = CodeTables.load(run.path, load_profile("graphmer-se"), min_score=0.5)
    ledger = tables.ledger.to_dict()
    assert ledger["offered"] == triples.num_rows + 2
    assert ledger["kept"] == len(tables.edges)
    assert ledger["left_out"]["an end is no entity of the index"] == 1
    assert ledger["left_out"]["its confidence is below min_score"] >= 1
    assert "nowhere" not in {edge.tail_id for edge in tables.edges}
