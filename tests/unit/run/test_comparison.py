from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graphmert.errors import DataError, ProvenanceError
from graphmert.evaluate.forecasts import (
    EVALUATION_FORMAT,
    SAMPLES_SCHEMA,
    Scores,
    summarise_scores,
)
from graphmert.run.comparison import compare_runs
from graphmert.shards import atomic_write_json, write_table

N_DOCS, N_WINDOWS = 12, 20
DATA = {"vectors_sha256": "v", "dim": 8, "model": "tiny", "length": 5}
CHANCE = {scope: {"r@1": 0.01, "r@5": 0.05, "r@10": 0.1, "mrr": 0.03} for scope in
          ("global", "document")}  # fmt: skip


def write_run(
    folder: Path,
    system: str,
    cosine: float,
    *,
    size: int = 100,
    seed: int | None = 0,
    trained: bool = True,
    n_parameters: int = 1000,
    noise: float = 0.01,
    valid: float | None = None,
    fingerprint: str = "f" * 64,
    config_hash: str = "c" * 64,
    train_fingerprint: str | None = None,
    reverse: bool = False,
) -> Path:
    """An evaluated run whose windows have about this cosine; documents differ alike in all runs."""
    rng = np.random.default_rng([ord(one) for one in f"{system}{size}{seed}"])
    by_document = np.random.default_rng(5).normal(scale=0.05, size=N_DOCS)
    parts = {}
    for part, value in (("test", cosine), ("valid", cosine if valid is None else valid)):
        docs = np.repeat(np.arange(N_DOCS), N_WINDOWS)
        values = value + by_document[docs] + rng.normal(scale=noise, size=len(docs))
        columns: dict[str, Any] = dict.fromkeys(SAMPLES_SCHEMA.names[2:], values)
        columns |= {"rank_global": np.full(len(docs), 4.0), "rank_document": docs + 1.0}
        columns["doc_id"] = [f"d{one}" for one in docs]
        columns["offset"] = np.tile(np.arange(N_WINDOWS), N_DOCS)
        table = pa.table(
            {field.name: pa.array(columns[field.name], field.type) for field in SAMPLES_SCHEMA}
        )
        if reverse:
            table = table.take(pa.array(np.arange(table.num_rows)[::-1]))
        write_table(folder / f"samples-{part}.parquet", table)
        scores = Scores(table, {"global": 99.0, "document": 19.0}, CHANCE)
        parts[part] = summarise_scores(scores, fingerprint=fingerprint)
    facts = {"system": system, "trained": trained, "n_parameters": n_parameters, "size": size}
    facts["config_hash"] = config_hash if trained else None
    facts["train_fingerprint"] = train_fingerprint or f"{size:064d}"
    atomic_write_json(
        folder / "evaluation.json",
        {**facts, "seed": seed, "format": EVALUATION_FORMAT, "data": DATA, "parts": parts},
    )
    if trained:
        history = [
            {"epoch": epoch, "val_cosine": cosine - 0.1 / epoch - 0.02 * (epoch > 3)}
            for epoch in range(1, 6)
        ]
        atomic_write_json(folder / "metrics.json", {"history": history})
        atomic_write_json(folder / "timings.json", {"train_s": 12.0})
    latency = [{"batch_size": 1, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "n_calls": 20}]
    atomic_write_json(folder / "latency.json", {"batches": latency})
    return folder


def write_runs(root: Path) -> list[Path]:
    runs = []
    for size in (100, 200):
        gain = 0.02 if size == 200 else 0.0
        for seed in range(3):
            more = {"size": size, "seed": seed}
            runs.append(write_run(root / f"gru{size}-{seed}", "gru", 0.5 + gain, **more))
            runs.append(
                write_run(
                    root / f"lstm{size}-{seed}", "lstm", 0.55 - gain, n_parameters=5000, **more
                )
            )
        runs.append(write_run(root / f"lvm{size}", "lvm", 0.7, size=size, n_parameters=10**6))
        for name, cosine in (("copy-last", 0.3), ("ridge", 0.45)):
            folder = root / f"baselines{size}" / name
            write_run(folder, name, cosine, size=size, seed=None, trained=False, n_parameters=9)
        runs.append(root / f"baselines{size}")
    return runs


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("compared")
    return compare_runs(write_runs(folder), folder / "out")


def rows_at(comparison: dict[str, Any], size: int) -> dict[str, dict[str, Any]]:
    found = next(one for one in comparison["sizes"] if one["size"] == size)
    return {row["system"]: row for row in found["systems"]}


def test_ranking(compared: dict[str, Any]) -> None:
    assert [one["size"] for one in compared["sizes"]] == [100, 200]
    rows = rows_at(compared, 100)
    assert list(rows) == ["lvm", "lstm", "gru", "ridge", "copy-last"]
    assert {name: row["rank"] for name, row in rows.items()} == {
        "lvm": None, "lstm": 1, "gru": 2, "ridge": 3, "copy-last": 4,
    }  # fmt: skip
    assert rows["lvm"]["unranked"] == "one seed, 3 wanted"
    assert rows["gru"]["cosine"]["value"] == pytest.approx(0.5, abs=0.05)
    assert rows["gru"]["n_seeds"] == 3
    assert rows["gru"]["seed_spread"] > 0
    assert rows["gru"]["best_epoch"] == [3, 3, 3]
    assert rows["gru"]["train_s"] == 12.0
    assert rows["ridge"]["n_seeds"] is None


def test_gain_is_paired_with_the_best_baseline(compared: dict[str, Any]) -> None:
    found = compared["sizes"][0]
    assert found["best_baseline"] == "ridge"
    gain = rows_at(compared, 100)["gru"]["gain"]
    assert gain["value"] == pytest.approx(0.05, abs=0.005)
    # Documents differ by 0.05, alike in both: the paired interval is much narrower.
    cosine = rows_at(compared, 100)["gru"]["cosine"]
    assert gain["high"] - gain["low"] < 0.2 * (cosine["high"] - cosine["low"])
    assert rows_at(compared, 100)["ridge"]["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_growth(compared: dict[str, Any]) -> None:
    (step,) = compared["growth"]["steps"]
    assert (step["from"], step["to"]) == (100, 200)
    changes = {one["system"]: one["change"]["value"] for one in step["systems"]}
    assert changes["gru"] == pytest.approx(0.02, abs=0.005)
    assert changes["lstm"] == pytest.approx(-0.02, abs=0.005)
    ranked = [changes[name] for name in ("gru", "lstm")]  # lvm has one seed
    assert step["average"]["n_systems"] == 2
    assert step["average"]["change"] == pytest.approx(np.mean(ranked), abs=1e-6)
    assert changes["lvm"] != pytest.approx(np.mean(ranked), abs=1e-4)
    assert {one["system"]: one["ranked"] for one in step["systems"]}["lvm"] is False


def test_recommendation_is_the_best_ranked(compared: dict[str, Any]) -> None:
    found = compared["recommendation"]
    # At 200 vectors gru has 0.52 and lstm 0.53.
    assert found["system"] == "lstm"
    assert found["size"] == 200
    assert "highest validation cosine" in found["reason"]
    assert "exceeds the best baseline, ridge" in found["reason"]


def test_a_smaller_model_as_good_is_recommended(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{name}{seed}", name, 0.5, seed=seed, n_parameters=n, noise=0.2)
        for name, n in (("large", 10_000), ("small", 10))
        for seed in range(3)
    ]
    runs.append(write_run(tmp_path / "ridge", "ridge", 0.2, seed=None, trained=False))
    found = compare_runs(runs, tmp_path / "out")["recommendation"]
    assert found["system"] == "small"


def test_a_baseline_that_wins_is_recommended(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"gru{seed}", "gru", 0.4, seed=seed) for seed in range(3)]
    runs.append(
        write_run(tmp_path / "ridge", "ridge", 0.5, seed=None, trained=False, n_parameters=5000)
    )
    comparison = compare_runs(runs, tmp_path / "out")
    assert comparison["recommendation"]["system"] == "ridge"
    assert "baseline: no trained model is worth its cost" in comparison["recommendation"]["reason"]
    assert rows_at(comparison, 100)["gru"]["gain"]["high"] < 0


def test_choices_are_made_on_validation(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{name}{seed}", name, test, valid=valid, seed=seed)
        for name, test, valid in (("a", 0.5, 0.6), ("b", 0.6, 0.5))
        for seed in range(3)
    ]
    for name, test, valid in (("x", 0.1, 0.4), ("y", 0.2, 0.3)):
        runs.append(write_run(tmp_path / name, name, test, valid=valid, seed=None, trained=False))
    comparison = compare_runs(runs, tmp_path / "out")
    assert comparison["recommendation"]["system"] == "a"
    assert comparison["sizes"][0]["best_baseline"] == "x"
    assert rows_at(comparison, 100)["b"]["rank"] == 1  # the ranking shows the test


def test_without_baseline_or_ranked_system(tmp_path: Path) -> None:
    run = write_run(tmp_path / "gru", "gru", 0.5)
    comparison = compare_runs([run], tmp_path / "out")
    assert comparison["recommendation"]["system"] is None
    assert rows_at(comparison, 100)["gru"]["gain"] is None
    comparison = compare_runs([run], tmp_path / "out", min_seeds=1)
    assert comparison["recommendation"]["system"] == "gru"
    assert "No baseline was given" in comparison["recommendation"]["reason"]
    comparison = compare_runs([run], tmp_path / "out", min_seeds=1, unranked=["gru"])
    assert rows_at(comparison, 100)["gru"]["unranked"] == "left out of the ranking by request"


def test_different_test_windows_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", "gru", 0.5)
    two = write_run(tmp_path / "b", "lstm", 0.5, fingerprint="e" * 64)
    with pytest.raises(DataError, match="cannot be ranked") as caught:
        compare_runs([one, two], tmp_path / "out")
    assert str(one) in str(caught.value.where)
    assert str(two) in str(caught.value.where)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_runs_of_other_settings_are_no_seeds(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"a{seed}", "gru", 0.5, seed=seed) for seed in range(3)]
    runs.append(write_run(tmp_path / "b", "gru", 0.5, seed=3, config_hash="d" * 64))
    with pytest.raises(DataError, match="no seeds of it") as caught:
        compare_runs(runs, tmp_path / "out")
    assert str(runs[0]) in str(caught.value.where)
    assert str(runs[3]) in str(caught.value.where)
    assert not (tmp_path / "out").exists()
    # another size has its own recipe
    write_run(tmp_path / "b", "gru", 0.5, seed=3, config_hash="d" * 64, size=200)
    compare_runs(runs, tmp_path / "out")


def test_runs_of_other_training_documents_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", "gru", 0.5)
    for name, seed in (("gru", 1), ("lstm", 0)):
        two = write_run(tmp_path / "b", name, 0.5, seed=seed, train_fingerprint="e" * 64)
        with pytest.raises(DataError, match="trained on different documents"):
            compare_runs([one, two], tmp_path / "out")


def test_an_older_evaluation_takes_the_settings_of_its_manifest(tmp_path: Path) -> None:
    runs = []
    for seed, rate in ((0, 5e-4), (1, 5e-4), (2, 1e-2)):
        run = write_run(tmp_path / str(seed), "lvm-leaves", 0.5, seed=seed)
        evaluation = json.loads((run / "evaluation.json").read_text())
        del evaluation["config_hash"], evaluation["train_fingerprint"]
        atomic_write_json(run / "evaluation.json", evaluation)
        runs.append(run)
        if seed == 2:
            with pytest.raises(DataError, match="not known what the run was trained with"):
                compare_runs(runs, tmp_path / "out")
        network = {"kind": "lvm-leaves", "use_leaves": False}
        config = {"learning_rate": rate, "seed": seed, "n_threads": seed, "network": network}
        data = {"size": 100, "fingerprints": {"train": "t"}}
        manifest = {"model": "lvm-leaves", "config": config, "seed": seed, "data": data}
        manifest |= {"world_size": 1, "n_parameters": 5}
        atomic_write_json(run / "manifest.json", manifest)
    found = compare_runs(runs[:2], tmp_path / "out")
    assert list(rows_at(found, 100)) == ["lvm-leaves without leaves"]
    with pytest.raises(DataError, match="no seeds of it"):
        compare_runs(runs, tmp_path / "out")


def test_the_order_of_samples_plays_no_part(tmp_path: Path) -> None:
    one = [write_run(tmp_path / "a", "gru", 0.5), write_run(tmp_path / "b", "lstm", 0.5)]
    first = compare_runs(one, tmp_path / "x", min_seeds=1)
    write_run(tmp_path / "b", "lstm", 0.5, reverse=True)
    assert compare_runs(one, tmp_path / "x", min_seeds=1) == first


def test_samples_of_other_windows_are_refused(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, name, 0.5) for name in ("a", "b")]
    path = runs[1] / "samples-test.parquet"
    write_table(path, pq.read_table(path).slice(1))
    with pytest.raises(ProvenanceError, match="different windows"):
        compare_runs(runs, tmp_path / "out")


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", "gru", 0.5)
    with pytest.raises(DataError, match="given twice"):
        compare_runs([run, run], tmp_path / "out")
    same = write_run(tmp_path / "b", "gru", 0.6)
    with pytest.raises(DataError, match="same system, size and seed"):
        compare_runs([run, same], tmp_path / "out")
    with pytest.raises(DataError, match="not evaluated") as caught:
        compare_runs([tmp_path / "none"], tmp_path / "out")
    assert "vectors evaluate" in str(caught.value.fix)
    record = json.loads((run / "evaluation.json").read_text())
    del record["parts"]["valid"]
    atomic_write_json(run / "evaluation.json", record)
    with pytest.raises(DataError, match="no valid"):
        compare_runs([run], tmp_path / "out")


def test_the_report_shows_what_was_compared(tmp_path: Path) -> None:
    comparison = compare_runs(write_runs(tmp_path), tmp_path / "out")
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    page = (tmp_path / "out" / "comparison.html").read_text()
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert stored == json.loads(json.dumps(comparison))
    for row in comparison["sizes"][0]["systems"]:
        value = f"{row['cosine']['value']:.4f}"
        assert value in markdown
        assert value in page
    assert comparison["recommendation"]["reason"] in page
    for text in ("unranked", "lvm is not ranked: one seed, 3 wanted", "chance", "1,000,000"):
        assert text in markdown
    assert page.count("<svg") >= 2 + 2 + 7  # rankings, growth, training
    assert "<script" not in page
    assert "1.00 / 2.00 / 3.00" in markdown
    before = page
    compare_runs(write_runs(tmp_path), tmp_path / "out")
    assert (tmp_path / "out" / "comparison.html").read_text() == before
