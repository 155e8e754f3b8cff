from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.errors import ConfigError, DataError, FormatError
from graphmert.evaluate.samples import (
    agreement,
    draw_sample,
    read_labels,
    score_sample,
    write_sample,
)
from graphmert.store import empty_table
from toy_graph import ACCEPTED, make_tables

TABLES = make_tables()
IDS = [triple.triple_id for triple, _, _ in ACCEPTED]


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def fill_in(path: Path, labels: dict[str, str]) -> Path:
    rows = [{**row, "label": labels.get(row["triple_id"], "")} for row in read(path)]
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_blind_sample_hides_what_would_sway_the_rater(tmp_path: Path, ending: str) -> None:
    items = draw_sample(TABLES, n=3, seed=1)
    write_sample(tmp_path / f"s.{ending}", items, blind=True)
    rows = read(tmp_path / f"s.{ending}")
    assert set(rows[0]) == {
        "item", "triple_id", "head", "relation", "tail", "sentence", "doc_id", "label", "comment",
    }  # fmt: skip
    assert {row["sentence"] for row in rows} == {item.sentence for item in items}
    assert all(row["label"] == "" for row in rows)
    write_sample(tmp_path / f"o.{ending}", items, blind=False)
    assert {"score", "novel", "method"} <= set(read(tmp_path / f"o.{ending}")[0])


def test_the_draw_depends_on_the_seed_alone() -> None:
    shuffled = dataclasses.replace(TABLES, triples=TABLES.triples.take([2, 0, 1]))
    one = draw_sample(TABLES, n=2, seed=5)
    assert one == draw_sample(shuffled, n=2, seed=5)
    assert [item.item for item in one] == [1, 2]
    orders = {tuple(i.triple_id for i in draw_sample(TABLES, n=3, seed=s)) for s in range(20)}
    assert len(orders) > 3
    assert len(draw_sample(TABLES, n=200, seed=0)) == 3
    firsts = [draw_sample(TABLES, n=1, seed=s)[0].triple_id for s in range(300)]
    assert all(60 < firsts.count(one) < 140 for one in IDS)


def test_the_best_evidence_is_shown() -> None:
    item = next(one for one in draw_sample(TABLES, n=3, seed=0) if one.triple_id == IDS[0])
    assert (item.method, item.relation, item.score) == ("mnm-entity, in text", "regulates", 0.9)


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        draw_sample(TABLES, n=0, seed=0)
    empty = dataclasses.replace(TABLES, triples=empty_table("kg/triples"))
    with pytest.raises(DataError, match="no triple"):
        draw_sample(empty, n=1, seed=0)
    with pytest.raises(ConfigError, match=r"\.csv or \.jsonl"):
        write_sample(Path("s.xlsx"), [])


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_labels_come_back_however_they_are_written(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"s.{ending}"
    write_sample(path, draw_sample(TABLES, n=3, seed=0))
    fill_in(path, {IDS[0]: " YES ", IDS[1]: "0"})
    assert read_labels(path) == {IDS[0]: "yes", IDS[1]: "no", IDS[2]: None}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "triple_id,label\nx,maybe\n", "line 2.*maybe"),
        ("a.csv", "triple_id,label\nx,yes\nx,no\n", "line 3.*twice|twice.*line 3"),
        ("a.csv", "id,label\nx,yes\n", "triple_id and label"),
        ("a.jsonl", "{\n", "line 1"),
        ("a.jsonl", "[1]\n", "triple_id and label"),
        ("a.jsonl", '\n{"triple_id": "x", "label": "nope"}\n', "line 2"),
        ("b.csv", None, "not found"),
    ],
)
def test_a_bad_label_file_is_refused_by_line(
    tmp_path: Path, name: str, text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=words):
        read_labels(tmp_path / name)


def test_json_labels_may_be_values(tmp_path: Path) -> None:
    rows = [("a", True), ("b", False), ("c", 0), ("d", None), ("e", "?")]
    text = "".join(json.dumps({"triple_id": key, "label": value}) + "\n" for key, value in rows)
    (tmp_path / "l.jsonl").write_text(text)
    assert list(read_labels(tmp_path / "l.jsonl").values()) == ["yes", "no", "no", None, "unsure"]


def test_precision_of_one_rater() -> None:
    found = score_sample(TABLES, {IDS[0]: "yes", IDS[1]: "unsure", IDS[2]: None})
    assert (found["n_sampled"], found["n_labelled"]) == (3, 2)
    assert found["precision"]["value"] == 0.5
    assert found["precision_decided"]["value"] == 1.0
    assert found["by_relation"]["part_of"]["n_unsure"] == 1
    assert found["by_place"]["in text"]["n_labelled"] == 2
    assert found["by_novelty"] == {"novel": found["by_novelty"]["novel"]}
    assert "agreement" not in found


def test_two_raters() -> None:
    first = {IDS[0]: "yes", IDS[1]: "yes", IDS[2]: "no"}
    second = {IDS[0]: "yes", IDS[1]: "no", IDS[2]: None}
    found = score_sample(TABLES, first, second)  # type: ignore[arg-type]
    assert (found["n_yes"], found["n_unsure"], found["n_no"]) == (1, 1, 1)
    told = found["agreement"]
    assert (told["n_both"], told["n_equal"]) == (2, 1)
    assert told["disagreements"] == [{"triple_id": IDS[1], "first": "yes", "second": "no"}]
    # Chance: first says yes always, second half the time.
    assert told["kappa"] == 0.0


def test_labels_of_another_graph_are_refused() -> None:
    with pytest.raises(DataError, match="drawn from"):
        score_sample(TABLES, {"0" * 16: "yes"})
    with pytest.raises(DataError, match="nothing is labelled"):
        score_sample(TABLES, {IDS[0]: None})


labels = st.lists(st.sampled_from(["yes", "no", "unsure"]), min_size=1, max_size=30)


@given(labels)
def test_full_agreement_is_one(given_labels: list[Any]) -> None:
    one = {f"{i}": label for i, label in enumerate(given_labels)}
    told = agreement(one, one)
    assert told["share"]["value"] == 1.0
    assert told["kappa"] == (1.0 if len(set(given_labels)) > 1 else None)


def test_kappa_of_a_known_case() -> None:
    """Cohen 1960 for a 2 x 2 table: 20 both yes, 5 and 10 apart, 15 both no: kappa 0.4."""
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    first: Any = {f"{i}": one for i, (one, _) in enumerate(pairs)}
    second: Any = {f"{i}": other for i, (_, other) in enumerate(pairs)}
    assert agreement(first, second)["kappa"] == pytest.approx(0.4)
