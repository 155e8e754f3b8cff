from __future__ import annotations

from collections import Counter

import pytest

from graphmert.errors import DataError
from graphmert.kg import KG, Entity, Relation, Schema, Triple, split_by_head


def graph(n_heads: int) -> KG:
    """Heads h0, h1, … with one is_a each; every tenth has a rare relation too."""
    names = [f"h{i}" for i in range(n_heads)]
    rows = [Triple(name, "is_a", "top") for name in names]
    rows += [Triple(name, "rare", "top") for name in names[::10]]
    return KG.build([Entity(one, one, "t") for one in [*names, "top"]], rows)


SCHEMA = Schema(("t",), {"is_a": Relation("is_a"), "rare": Relation("rare")})


def split(kg: KG, **changes: object) -> dict[Triple, str]:
    options = {"n_valid_heads": 10, "n_test_heads": 20, "seed": 0, **changes}
    return split_by_head(kg, SCHEMA, **options)  # type: ignore[arg-type]


def test_numbers_of_heads_are_exact() -> None:
    parts = split(graph(300))
    heads = Counter({(one.head_id, part): 1 for one, part in parts.items()})
    assert Counter(part for _, part in heads) == {"train": 270, "valid": 10, "test": 20}


def test_rare_relations_are_held_out_and_kept() -> None:
    parts = split(graph(300))
    rare = Counter(part for one, part in parts.items() if one.relation == "rare")
    assert rare["test"] >= 3
    assert rare["valid"] >= 3
    assert rare["train"] >= 20
    plain = [split(graph(300), stratify_relations=False, seed=seed) for seed in range(5)]
    counts = [sum(one.relation == "rare" and p == "test" for one, p in s.items()) for s in plain]
    assert min(counts) < 3


def test_only_eligible_heads_are_held_out() -> None:
    eligible = {f"h{i}" for i in range(100)}
    parts = split(graph(300), eligible=eligible)
    assert {one.head_id for one, part in parts.items() if part != "train"} <= eligible


def test_the_draw_is_fixed() -> None:
    parts = split_by_head(graph(30), SCHEMA, n_valid_heads=1, n_test_heads=2, seed=7)
    held = {part: {o.head_id for o, p in parts.items() if p == part} for part in ("valid", "test")}
    assert held == {"valid": {"h20"}, "test": {"h0", "h29"}}
    other = split_by_head(graph(30), SCHEMA, n_valid_heads=1, n_test_heads=2, seed=8)
    assert other != parts


def test_too_many_heads_are_refused() -> None:
    with pytest.raises(DataError, match="held out"):
        split(graph(25))


def test_inverses_go_with_the_held_out_head() -> None:
    schema = Schema(
        ("t",), {"up": Relation("up", inverse="down"), "down": Relation("down", inverse="up")}
    )
    rows = []
    for i in range(8):
        rows += [Triple(f"a{i}", "up", f"b{i}"), Triple(f"b{i}", "down", f"a{i}")]
        rows += [Triple(f"b{i}", "down", "z")]
    kg = KG.build([], rows)
    for seed in range(10):
        parts = split_by_head(kg, schema, n_valid_heads=3, n_test_heads=3, seed=seed)
        for i in range(8):
            up, down = Triple(f"a{i}", "up", f"b{i}"), Triple(f"b{i}", "down", f"a{i}")
            assert parts[up] == parts[down]
