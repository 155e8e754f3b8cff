from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from graphmert.domains.vectors import VectorTable, write_vectors
from graphmert.domains.vectors.gate import GateSettings
from graphmert.domains.vectors.prepare import PrepareSettings, prepare
from graphmert.errors import ConfigError, DataError
from tiny_vectors import walk, write_documents

LENGTHS = [9, 14, 7, 20, 11, 13, 8, 12]


def changed(folder: Path, table: VectorTable, vectors: np.ndarray) -> VectorTable:
    return write_vectors(folder, vectors.astype(np.float32), table.rows(), {})


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "vectors", LENGTHS)
    for name in ("a", "b"):
        prepare(table, tmp_path / name, PrepareSettings(sizes=(20,)))
    for file in ("dataset.json", "split.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_another_seed_draws_other_documents(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "vectors", LENGTHS)
    tests = {
        prepare(table, tmp_path / str(seed), PrepareSettings(seed=seed)).fingerprint("test")
        for seed in range(4)
    }
    assert len(tests) > 1


def test_extending_keeps_validation_and_test(tmp_path: Path) -> None:
    old = write_documents(tmp_path / "old", LENGTHS)
    new = write_documents(tmp_path / "new", [*LENGTHS, 30, 25, 40])
    before = prepare(old, tmp_path / "a", PrepareSettings(sizes=(20, 40)))
    after = prepare(new, tmp_path / "b", PrepareSettings(sizes=(20, 40, 120)), extend=before)
    for part in ("valid", "test"):
        assert after.fingerprint(part) == before.fingerprint(part)
    for size in (20, 40):
        assert after.fingerprint("train", size) == before.fingerprint("train", size)
    assert after.fingerprint("train") != before.fingerprint("train")
    # Without `extend` new documents may be drawn for the test.
    parts = dict(
        zip(after.split["doc_id"].to_pylist(), after.split["part"].to_pylist(), strict=True)
    )
    assert {parts[name] for name in ("d8", "d9", "d10")} == {"train"}


def test_extending_needs_the_same_documents(tmp_path: Path) -> None:
    before = prepare(write_documents(tmp_path / "old", LENGTHS), tmp_path / "a", PrepareSettings())
    fewer = write_documents(tmp_path / "fewer", LENGTHS[:-1])
    with pytest.raises(DataError, match="missing"):
        prepare(fewer, tmp_path / "b", PrepareSettings(), extend=before)
    other = write_documents(tmp_path / "other", LENGTHS, seed=5)
    with pytest.raises(DataError, match="not that of the earlier data set"):
        prepare(other, tmp_path / "c", PrepareSettings(), extend=before)
    assert not (tmp_path / "c" / "dataset.json").exists()


def test_gate_refuses_nan(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "vectors", LENGTHS)
    bad = np.array(table.vectors)
    bad[31, 2] = np.nan
    with pytest.raises(DataError, match="not finite") as caught:
        prepare(changed(tmp_path / "bad", table, bad), tmp_path / "out", PrepareSettings())
    assert "row 31" in str(caught.value.where)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_gate_refuses_vectors_of_no_length(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "vectors", LENGTHS)
    bad = np.array(table.vectors)
    bad[7] = 0
    with pytest.raises(DataError, match="no length"):
        prepare(changed(tmp_path / "bad", table, bad), tmp_path / "out", PrepareSettings())


def test_gate_refuses_another_dimension(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "vectors", LENGTHS)
    settings = PrepareSettings(gate=GateSettings(dim=768))
    with pytest.raises(DataError, match="another dimension") as caught:
        prepare(table, tmp_path / "out", settings)
    assert caught.value.got == 8
    assert caught.value.expected == 768


def test_gate_refuses_repeated_vectors(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "vectors", LENGTHS)
    bad = np.array(table.vectors)
    bad[:40] = bad[0]
    with pytest.raises(DataError, match="repeated"):
        prepare(changed(tmp_path / "bad", table, bad), tmp_path / "out", PrepareSettings())
    settings = PrepareSettings(gate=GateSettings(max_duplicate_share=1.0))
    data = prepare(changed(tmp_path / "bad", table, bad), tmp_path / "out", settings)
    assert data.info["gate"]["n_duplicates"] == 39


def test_window_longer_than_every_document(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "vectors", [5, 4, 5, 3])
    with pytest.raises(DataError, match="no document is long enough") as caught:
        prepare(table, tmp_path / "out", PrepareSettings())
    assert "5 vectors in the longest" in str(caught.value.got)
    prepare(write_documents(tmp_path / "long", [6] * 6), tmp_path / "out", PrepareSettings())


def test_too_few_documents(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "vectors", [30, 30])
    with pytest.raises(DataError, match="too few documents"):
        prepare(table, tmp_path / "out", PrepareSettings())


def test_size_larger_than_the_training_part(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "vectors", LENGTHS)
    with pytest.raises(ConfigError, match="does not have so many"):
        prepare(table, tmp_path / "out", PrepareSettings(sizes=(94,)))


def naive_similarity(vectors: np.ndarray, lengths: list[int], lag: int) -> float:
    values, start = [], 0
    for n in lengths:
        for i in range(start, start + n - lag):
            values.append(float(vectors[i].astype(float) @ vectors[i + lag].astype(float)))
        start += n
    return sum(values) / len(values)


def test_gate_measures_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphmert.domains.vectors import gate

    table = write_documents(tmp_path / "vectors", LENGTHS)
    expected = {lag: naive_similarity(table.vectors, LENGTHS, lag) for lag in (1, 2, 7)}
    n = table.n_vectors
    wide = table.vectors.astype(float)
    pairs = [wide[i] @ wide[j] for i in range(n) for j in range(n) if i != j]
    for block in (5, 16, 8192):  # borders of blocks leave no trace
        monkeypatch.setattr(gate, "_BLOCK", block)
        found = prepare(table, tmp_path / f"out{block}", PrepareSettings()).info["gate"]
        for lag, value in expected.items():
            assert found["lag_similarity"][str(lag)] == pytest.approx(value, abs=2e-6)
        assert found["random_similarity"] == pytest.approx(np.mean(pairs), abs=2e-6)
        assert found["n_boundaries"] == len(LENGTHS) - 1
        assert found["norm"]["mean"] == pytest.approx(1, abs=1e-5)
        assert found["warnings"] == []


def test_lost_order_is_noted(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "vectors", LENGTHS)
    # Neighbours point in opposite directions.
    x = walk(1, 8)[0]
    flipped = np.array([x * (-1) ** i + 0.01 * walk(1, 8, seed=i)[0] for i in range(94)])
    data = prepare(changed(tmp_path / "bad", table, flipped), tmp_path / "out", PrepareSettings())
    assert "order" in data.info["gate"]["warnings"][0]


def test_ledger_counts_every_row(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "vectors", [*LENGTHS, 3])
    data = prepare(table, tmp_path / "out", PrepareSettings(sizes=(20,)))
    ledgers = data.info["ledger"]
    offered = sum(ledgers[name]["offered"] for name in ("train/all", "valid", "test"))
    assert offered == table.n_vectors
    kept = sum(data.info["parts"][name]["n_windows"] for name in ("train/all", "valid", "test"))
    left = [sum(one["left_out"].values()) for one in ledgers.values()]
    assert all(
        one["kept"] + n == one["offered"] for one, n in zip(ledgers.values(), left, strict=True)
    )
    assert kept == sum(max(n - 5, 0) for n in [*LENGTHS, 3])


def test_the_vectors_are_found_from_the_data_set(tmp_path: Path) -> None:
    from graphmert.domains.vectors import VectorData

    table = write_documents(tmp_path / "here" / "vectors", LENGTHS)
    prepare(table, tmp_path / "here" / "sets" / "data", PrepareSettings())
    (tmp_path / "here").rename(tmp_path / "there")
    moved = VectorData.load(tmp_path / "there" / "sets" / "data")
    assert moved.table().rows()["text"][0].as_py() == "sentence 0 of d0"
    assert isinstance(moved.split, pa.Table)
