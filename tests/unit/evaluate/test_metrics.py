from __future__ import annotations

import json

import pytest

from graphmert.errors import DataError
from graphmert.evaluate import (
    IsotonicCalibrator,
    QueryRow,
    exceeds_untrained,
    summarise_calibration,
    summarise_split,
)


def rows_of(factor: float) -> list[QueryRow]:
    return [
        QueryRow(i // 2, i % 2, i, 1 + i % 6, i % 3 == 0, 1 + factor * (i % 5)) for i in range(40)
    ]


def section(a: float = 0, b: float = 1) -> dict[str, object]:
    return summarise_split(
        {"model": rows_of(a), "floor": rows_of(b)},
        ["is_a", "part_of"],
        n_entities=99,
        trained={"model"},
        compare=[("model", "floor")],
        seed=0,
        n_resamples=50,
    )


def test_section_has_the_documented_shape() -> None:
    made = json.loads(json.dumps(section()))
    assert (made["n_triples"], made["n_heads"], made["n_entities"]) == (40, 20, 99)
    entry = made["systems"]["model"]
    assert set(entry) == {
        "trained", "n", "mrr_micro", "mrr_macro", "hits@1", "hits@3", "hits@10",
        "hits@1_macro", "hits@3_macro", "hits@10_macro",
        "per_relation", "per_tail_length", "heads_seen_as_tails", "unseen_heads",
    }  # fmt: skip
    assert set(entry["mrr_macro"]) == {"value", "low", "high"}
    assert set(entry["per_relation"]) == {"is_a", "part_of"}
    assert list(entry["per_tail_length"]) == ["1", "2", "3", "4", "5+"]
    assert [d["statistic"] for d in made["differences"]] == ["mrr_micro", "mrr_macro"]
    assert not made["systems"]["floor"]["trained"]


def test_exceeds_untrained_needs_the_whole_interval() -> None:
    assert exceeds_untrained(section(0, 1), "model")
    assert not exceeds_untrained(section(1, 1), "model")
    assert not exceeds_untrained(section(1, 0), "model", statistic="mrr_micro")
    made = section()
    made["differences"] = []
    with pytest.raises(DataError, match="no comparison"):
        exceeds_untrained(made, "model")


def test_systems_must_rank_the_same_triples() -> None:
    with pytest.raises(DataError, match="same triples"):
        summarise_split(
            {"a": rows_of(1), "b": rows_of(1)[1:]}, ["x", "y"], n_entities=9, trained=(), seed=0
        )
    with pytest.raises(DataError, match="unknown system"):
        summarise_split({"a": rows_of(1)}, ["x", "y"], n_entities=9, trained={"c"}, seed=0)


def test_calibration_section() -> None:
    curve = IsotonicCalibrator.fit([0, 1, 2, 3], [0, 0, 1, 1])
    made = summarise_calibration(
        curve, [0, 3, 3], [0, 1, 0], threshold=0.5, n_true=2, fitted_on="valid", measured_on="test"
    )
    json.dumps(made)
    assert (made["precision"], made["recall"], made["threshold"]) == (0.5, 0.5, 0.5)
    assert made["calibrator"]["kind"] == "isotonic"
    assert sum(item["n"] for item in made["bins"]) == 3
