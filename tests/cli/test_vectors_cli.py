"""The vector domain from documents to a comparison, by commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from graphmert import cli
from graphmert.shards import atomic_write_json
from tiny_vectors import sentence_model, some_sentences, write_documents

OBO = """format-version: 1.2

[Term]
id: T:1
name: cell wall
is_a: T:2

[Term]
id: T:2
name: wall

[Term]
id: T:3
name: salt water
relationship: part_of T:2
"""


def invoke(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(cli.app, ["vectors", *(str(word) for word in words), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents, a model, VECTORS, DATASET and baselines."""
    folder = tmp_path_factory.mktemp("vectors")
    sentence_model(folder / "model")
    (folder / "docs").mkdir()
    for number in range(8):
        text = " ".join(some_sentences(18, seed=number))
        (folder / "docs" / f"d{number}.txt").write_text(text)
    invoke("embed", folder / "docs", "--model", folder / "model", "--out", folder / "v",
           "--set", "precision=fp32", "--set", "shard_size=32")  # fmt: skip
    invoke("prepare", folder / "v", "--out", folder / "d", "--size", 40, "--size", 80)
    invoke("baselines", "--data", folder / "d", "--out", folder / "b")
    return folder


def test_embed(place: Path, tmp_path: Path) -> None:
    found = invoke("embed", place / "docs", "--model", place / "model", "--out", tmp_path / "v",
                   "--set", "precision=fp32", "--set", "shard_size=32", "--workers", 1,
                   "--exclude", "*d7*")  # fmt: skip
    assert found["n_documents"] == 7
    assert found["dim"] == 32
    assert found["ledgers"][0]["left_out"] == {"excluded by a pattern": 1}
    manifest = json.loads((tmp_path / "v" / "manifest.json").read_text())
    assert manifest["model"] == "model"
    assert manifest["n_vectors"] == found["n_vectors"] == found["ledgers"][1]["kept"]


def test_prepare_says_what_it_found(place: Path) -> None:
    info = json.loads((place / "d" / "dataset.json").read_text())
    assert info["sizes"] == [40, 80]
    assert set(info["fingerprints"]["train"]) == {"40", "80", "all"}
    assert info["gate"]["n_documents"] == 8


def test_export_and_import(place: Path, tmp_path: Path) -> None:
    found = invoke("export-npz", place / "d", "--out", tmp_path / "x.npz", "--size", 80)
    with np.load(tmp_path / "x.npz") as arrays:
        assert len(arrays["context_sequences"]) == found["n_windows"]
    back = invoke("prepare", tmp_path / "x.npz", "--out", tmp_path / "d")
    assert sum(one["n_windows"] for one in back["parts"]) == found["n_windows"]


def test_baselines_evaluate_compare(place: Path, tmp_path: Path) -> None:
    found = invoke("evaluate", place / "b" / "ridge", place / "b" / "copy-last", "--data",
                   place / "d", "--no-latency")  # fmt: skip
    assert [one["system"] for one in found["runs"]] == ["ridge", "copy last"]
    small = invoke("baselines", "--data", place / "d", "--out", tmp_path / "b40", "--size", 40,
                   "--only", "ridge", "--only", "global mean")  # fmt: skip
    assert [one["size"] for one in small["baselines"]] == [40, 40]
    compared = invoke("compare", place / "b", tmp_path / "b40", "--out", tmp_path / "c")
    assert compared["sizes"][0]["size"] == 40
    assert len(compared["sizes"][1]["systems"]) == 6
    assert compared["recommendation"]["system"] in {row["system"] for row in
                                                    compared["sizes"][1]["systems"]}  # fmt: skip
    for name in ("comparison.md", "comparison.html", "comparison.json"):
        assert (tmp_path / "c" / name).is_file()
    result = CliRunner().invoke(
        cli.app, ["vectors", "compare", str(place / "b"), "--out", str(tmp_path / "c")]
    )
    assert "recommendation: " in result.stdout


def test_predict(place: Path, tmp_path: Path) -> None:
    found = invoke("predict", place / "b" / "ridge", "--vectors", place / "v", "--row", 3,
                   "--steps", 2, "--nearest", 3, "--out", tmp_path / "p.npy")  # fmt: skip
    assert len(found["context"]) == 5
    assert [len(step["nearest"]) for step in found["steps"]] == [3, 3]
    assert not {one["row"] for step in found["steps"] for one in step["nearest"]} & set(range(3, 8))
    assert np.load(tmp_path / "p.npy").shape == (2, 32)
    words = [word for text in some_sentences(6, seed=50) for word in ("--text", text)]
    by_text = invoke("predict", place / "b" / "ridge", "--vectors", place / "v", *words,
                     "--embedder", place / "model")  # fmt: skip
    assert len(by_text["context"]) == 5


def test_predicting_the_same_from_texts_and_from_rows(place: Path) -> None:
    from graphmert.domains.vectors import open_vectors

    texts = open_vectors(place / "v").rows()["text"][3:8].to_pylist()
    words = [word for text in texts for word in ("--text", text)]
    common = (place / "b" / "ridge", "--vectors", place / "v", "--nearest", 9)
    rows = invoke("predict", *common, "--row", 3)["steps"][0]["nearest"]
    texts = invoke("predict", *common, *words, "--embedder", place / "model")["steps"][0]["nearest"]
    outside = [one["row"] for one in texts if not 3 <= one["row"] < 8]
    assert outside == [one["row"] for one in rows][: len(outside)]


def test_link(place: Path, tmp_path: Path) -> None:
    (tmp_path / "kg.obo").write_text(OBO)
    common = ("link", place / "v", "--kg", tmp_path / "kg.obo", "--model", place / "model")
    found = invoke(*common, "--out", tmp_path / "l", "--alpha", 0.2)
    assert found["n_leaves"] > 0
    assert found["relations"] == ["is_a", "part_of"]
    nothing = invoke(*common, "--out", tmp_path / "m", "--alpha", 0.9999, code=1)
    assert nothing["n_leaves"] == 0


def fails(code: int, text: str, *words: object) -> None:
    found = invoke(*words, code=code)
    assert text in json.dumps(found["error"]), found


def test_bad_data_have_code_3(place: Path, tmp_path: Path) -> None:
    vectors = write_documents(tmp_path / "v", [9, 8, 7, 12])
    bad = np.array(vectors.vectors)
    bad[3, 3] = np.nan
    np.save(tmp_path / "v" / "vectors.npy", bad)
    fails(3, "changed after", "prepare", tmp_path / "v", "--out", tmp_path / "d")
    record = json.loads((tmp_path / "v" / "manifest.json").read_text())
    from graphmert.shards import sha256_file

    record["sha256"] = sha256_file(tmp_path / "v" / "vectors.npy")
    atomic_write_json(tmp_path / "v" / "manifest.json", record)
    fails(3, "not finite", "prepare", tmp_path / "v", "--out", tmp_path / "d")
    fails(3, "another dimension", "prepare", place / "v", "--out", tmp_path / "d", "--set",
          "gate.dim=768")  # fmt: skip
    fails(3, "long enough", "prepare", place / "v", "--out", tmp_path / "d", "--set", "length=30")
    np.savez(tmp_path / "x.npz", contexts=np.array([{}], object), targets=np.zeros((1, 3)))
    fails(3, "pickled", "prepare", tmp_path / "x.npz", "--out", tmp_path / "d")
    assert not (tmp_path / "d" / "dataset.json").exists()


def test_runs_on_different_tests_have_code_3(place: Path, tmp_path: Path) -> None:
    invoke("prepare", place / "v", "--out", tmp_path / "d", "--seed", 5)
    invoke("baselines", "--data", tmp_path / "d", "--out", tmp_path / "b", "--only", "ridge")
    both = (place / "b" / "ridge", tmp_path / "b" / "ridge")
    fails(3, "cannot be ranked", "compare", *both, "--out", tmp_path / "c")
    found = invoke("compare", *both, "--out", tmp_path / "c", code=3)
    assert all(str(one) in found["error"]["where"] for one in both)
    # A model must not be scored on documents that it may have been trained on.
    fails(3, "not that of the run", "evaluate", both[0], "--data", tmp_path / "d")


def test_bad_usage_has_code_2(place: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "d")
    fails(2, "does not have so many", "prepare", place / "v", *out, "--size", 10_000)
    fails(2, "min_word", "embed", place / "docs", "--model", place / "model", *out, "--set",
          "min_word=1")  # fmt: skip
    ridge = (place / "b" / "ridge", "--vectors", place / "v")
    fails(2, "one of them", "predict", *ridge)
    fails(2, "crosses the end", "predict", *ridge, "--row", 14)
    fails(2, "too few sentences", "predict", *ridge, "--text", "a")
    fails(3, "neither a run", "predict", place / "v", "--vectors", place / "v", "--row", 0)


def test_what_is_missing_has_code_4(place: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "v")
    fails(4, "could not be found", "embed", place / "docs", "--model", "no/model", *out)
    fails(4, "sentence-transformers", "embed", place / "docs", "--model", place / "docs", *out)


def test_another_embedder_is_refused(place: Path, tmp_path: Path) -> None:
    other = sentence_model(tmp_path / "model", pooling="cls")
    words = [word for text in some_sentences(5) for word in ("--text", text)]
    fails(3, "another model", "predict", place / "b" / "ridge", "--vectors", place / "v", *words,
          "--embedder", other)  # fmt: skip
    (tmp_path / "kg.obo").write_text(OBO)
    fails(3, "different models", "link", place / "v", "--kg", tmp_path / "kg.obo", "--model",
          other, "--out", tmp_path / "l")  # fmt: skip
