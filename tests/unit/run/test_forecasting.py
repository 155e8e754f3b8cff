from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import toy_leaves
import toy_vectors
from graphmert.domains.vectors import VectorData, write_vectors
from graphmert.domains.vectors.links import Leaves
from graphmert.domains.vectors.prepare import PrepareSettings, prepare
from graphmert.domains.vectors.runs import load_model
from graphmert.domains.vectors.training import train_vectors
from graphmert.errors import CheckpointError, ConfigError, DataError, FormatError, ProvenanceError
from graphmert.run.comparison import compare_runs
from graphmert.run.forecasting import (
    evaluate_folder,
    n_train_vectors,
    open_predictor,
    predict_texts,
    run_baselines,
    score_leaves,
)
from graphmert.shards import atomic_write_json
from tiny_vectors import write_documents

DIM = toy_vectors.DIM
LEAFY = {
    "n_relations": 2, "width": 16, "n_layers": 1, "n_attn_heads": 2, "ffn_width": 16,
    "hgat_rank": 4, "n_negatives": 4, "dropout": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a trained run at two sizes and baselines."""
    folder = tmp_path_factory.mktemp("forecasting")
    vectors = write_documents(folder / "v", [12] * 12, dim=DIM)
    settings = PrepareSettings(sizes=(40,), valid_share=0.15, test_share=0.25)
    data = prepare(vectors, folder / "d", settings)
    config = toy_vectors.small_training("amn", epochs=1.0)
    for name, size in (("small", 40), ("whole", None)):
        train_vectors(data, config, out=folder / name, size=size, name="amn")
    run_baselines(data, folder / "b", size=40, latency=False)
    return folder


def loaded(place: Path) -> VectorData:
    return VectorData.load(place / "d")


def test_a_run_is_scored_with_its_own_weights(place: Path) -> None:
    data = loaded(place)
    found = evaluate_folder(place / "whole", data)
    assert found["system"] == "amn"
    assert found["trained"] is True
    assert found["seed"] == 0
    assert found["size"] == n_train_vectors(data)  # trained on everything
    assert evaluate_folder(place / "small", data, latency=False)["size"] == 40
    windows = data.windows("test")
    with torch.inference_mode():
        raw: Any = load_model(place / "whole" / "model")(
            torch.from_numpy(windows.contexts(slice(None)))
        )
    targets = windows.targets(slice(None))
    cosine = torch.nn.functional.cosine_similarity(raw, torch.from_numpy(targets)).numpy()
    samples = pq.read_table(place / "whole" / "samples-test.parquet")
    assert np.allclose(samples["cosine"].to_numpy(), cosine, atol=1e-5)
    latency = json.loads((place / "whole" / "latency.json").read_text())
    assert [one["batch_size"] for one in latency["batches"]] == [1, 8, 32, 128]


def test_runs_and_baselines_are_compared(place: Path, tmp_path: Path) -> None:
    data = loaded(place)
    for name in ("small", "whole"):
        evaluate_folder(place / name, data, latency=False)
    found = compare_runs(
        [place / "small", place / "whole", place / "b"], tmp_path / "c", min_seeds=1
    )
    systems = {row["system"]: row for row in found["sizes"][0]["systems"]}
    assert len(systems) == 7
    assert systems["amn"]["best_epoch"] == [1]
    assert systems["amn"]["n_parameters"] > systems["copy last"]["n_parameters"] == 0
    assert [one["system"] for one in found["growth"]["steps"][0]["systems"]] == ["amn"]
    # The same size, and seeds that differ, but another learning rate: not one system.
    config = toy_vectors.small_training("amn", epochs=1.0, learning_rate=0.02, seed=1)
    train_vectors(data, config, out=tmp_path / "other", size=40, name="amn")
    evaluate_folder(tmp_path / "other", data, latency=False)
    with pytest.raises(DataError, match="no seeds of it"):
        compare_runs([place / "small", tmp_path / "other"], tmp_path / "c")


def test_a_run_is_not_scored_on_other_documents(place: Path, tmp_path: Path) -> None:
    vectors = write_documents(tmp_path / "v", [12] * 12, dim=DIM, seed=3)
    other = prepare(vectors, tmp_path / "d", PrepareSettings())
    with pytest.raises(DataError, match="not that of the run"):
        evaluate_folder(place / "small", other)


def test_a_run_on_an_extended_data_set(place: Path, tmp_path: Path) -> None:
    more = write_documents(tmp_path / "v", [12] * 15, dim=DIM)
    extended = prepare(more, tmp_path / "d", PrepareSettings(sizes=(40,)), extend=loaded(place))
    found = evaluate_folder(place / "small", extended, latency=False)
    assert found["parts"]["test"]["fingerprint"] == loaded(place).fingerprint("test")
    # How much the other run saw cannot be known from here.
    with pytest.raises(DataError, match="how many vectors"):
        evaluate_folder(place / "whole", extended)


def test_folders_that_are_no_model(place: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model folder"):
        load_model(tmp_path / "none")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="not JSON"):
        load_model(tmp_path)
    with pytest.raises(FormatError, match="neither a run"):
        open_predictor(place / "v")


def test_a_model_with_leaves_is_scored_with_them(place: Path, tmp_path: Path) -> None:
    data = loaded(place)
    links = toy_leaves.write_links(tmp_path / "links", data, toy_leaves.toy_leaves(data))
    leaves = Leaves.load(links, data.table())
    config = toy_vectors.small_training("lvm-leaves", network=LEAFY, epochs=1.0)
    train_vectors(data, config, out=tmp_path / "run", leaves=leaves, name="lvm-leaves", size=40)
    with pytest.raises(ConfigError, match="needs the links"):
        evaluate_folder(tmp_path / "run", data)
    found = evaluate_folder(tmp_path / "run", data, links=links)
    opened = open_predictor(tmp_path / "run", data=data, links=links)
    windows = data.windows("test")
    contexts, rows = windows.contexts(slice(0, 4)), windows.context_rows(slice(0, 4))
    with_leaves = opened(contexts, rows)
    without: Any = load_model(tmp_path / "run" / "model")(torch.from_numpy(contexts))
    difference = np.abs(with_leaves - without.detach().numpy()).max()
    assert difference > 1e-6
    with pytest.raises(ConfigError, match="rows"):
        opened(contexts)
    # In the order of rows that it was given, not in that of the batch.
    assert np.allclose(
        opened(contexts[::-1].copy(), rows[::-1]), with_leaves[::-1], atol=difference / 100
    )
    assert found["parts"]["test"]["cosine"]["value"] != 0
    other = toy_leaves.write_links(
        tmp_path / "other", data, replace(leaves, tail=np.roll(leaves.tail, 1))
    )
    with pytest.raises(ProvenanceError, match="not those of the run"):
        evaluate_folder(tmp_path / "run", data, links=other)


def test_leaves_are_scored_on_the_documents_and_links_of_the_runs(
    place: Path, tmp_path: Path
) -> None:
    data = loaded(place)
    links = toy_leaves.write_links(tmp_path / "links", data)
    leaves = Leaves.load(links, data.table())
    runs = {"run": (True, 40), "bare": (False, 40), "more": (False, None), "leafy": (True, 40)}
    for name, (use, size) in runs.items():
        network = LEAFY | {"use_leaves": use}
        config = toy_vectors.small_training("lvm-leaves", network=network, epochs=1.0)
        train_vectors(data, config, out=tmp_path / name, leaves=leaves, name="lvm-leaves",
                      size=size)  # fmt: skip
    run = tmp_path / "run"
    with pytest.raises(DataError, match=r"train part .* not that of the run.*more"):
        score_leaves(run, data, links, without=tmp_path / "more")
    with pytest.raises(ConfigError, match="compare with was trained with leaves"):
        score_leaves(run, data, links, without=tmp_path / "leafy")
    with pytest.raises(ConfigError, match="run was trained without leaves"):
        score_leaves(tmp_path / "bare", data, links)
    changed = replace(leaves, tail=np.roll(leaves.tail, 1))
    other = toy_leaves.write_links(tmp_path / "other", data, changed)
    with pytest.raises(ProvenanceError, match="links are not those of the run"):
        score_leaves(run, data, other)
    # The same vectors, and so the same links, but another split.
    split = prepare(data.table(), tmp_path / "d", PrepareSettings(sizes=(40,), seed=9))
    with pytest.raises(DataError, match="part of the data set is not that of the run"):
        score_leaves(run, split, links)
    assert not (run / "leaves.json").exists()
    with pytest.raises(ConfigError, match="cannot predict from texts"):
        predict_texts(run, place / "v", row=2)
    assert len(predict_texts(tmp_path / "bare", place / "v", row=2)["steps"]) == 1
    assert open_predictor(run, data=data, links=links).facts["system"] == "lvm-leaves"
    bare = open_predictor(tmp_path / "bare").facts
    assert bare["system"] == "lvm-leaves without leaves"
    assert bare["train_fingerprint"] == data.fingerprint("train", 40)
    found = score_leaves(run, data, links, without=tmp_path / "bare")
    assert found == json.loads((run / "leaves.json").read_text())
    assert found["next_vector"]["gain_over_trained_without"]


@pytest.mark.parametrize("model", ["b/ridge", "b/copy-last", "small"])
def test_predictions_need_vectors_of_the_model(place: Path, tmp_path: Path, model: str) -> None:
    for length in (4, 7):
        with pytest.raises(ConfigError, match=f"another length.*got {length}, expected 5"):
            predict_texts(place / model, place / "v", row=2, length=length)
    assert len(predict_texts(place / model, place / "v", row=2)["context"]) == 5
    wide = write_documents(tmp_path / "wide", [12] * 3, dim=DIM + 1)
    with pytest.raises(DataError, match="another dimension"):
        predict_texts(place / model, wide.path, row=2)
    manifest = json.loads((place / "v" / "manifest.json").read_text())
    other = write_vectors(
        tmp_path / "other", loaded(place).vectors, loaded(place).table().rows(),
        {**manifest, "model_sha256": "1" * 64},
    )  # fmt: skip
    with pytest.raises(ProvenanceError, match="another model than those of the run"):
        predict_texts(place / model, other.path, row=2)


def test_the_length_of_a_context_is_that_of_the_run(place: Path, tmp_path: Path) -> None:
    vectors = loaded(place).table()
    settings = PrepareSettings(length=8, valid_share=0.15, test_share=0.25)
    data = prepare(vectors, tmp_path / "d", settings)
    config = toy_vectors.small_training("amn", epochs=1.0)
    train_vectors(data, config, out=tmp_path / "run", name="amn")
    assert len(predict_texts(tmp_path / "run", place / "v", row=2)["context"]) == 8
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    del manifest["data"]["length"]  # as older runs were written
    atomic_write_json(tmp_path / "run" / "manifest.json", manifest)
    with pytest.raises(ConfigError, match="not known how long"):
        predict_texts(tmp_path / "run", place / "v", row=2)
    assert len(predict_texts(tmp_path / "run", place / "v", row=2, length=8)["context"]) == 8


def test_predicted_texts(place: Path) -> None:
    found = predict_texts(place / "b" / "copy-last", place / "v", row=2, n_steps=2, n_nearest=2)
    assert found["context"] == [f"sentence {i} of d0" for i in range(2, 7)]
    table = loaded(place).table()
    last = np.array(table.vectors[6]).astype(float)
    cosines = table.vectors.astype(float) @ last
    cosines[2:7] = -2
    for step in found["steps"]:  # the copy of a copy is the same vector
        rows = [one["row"] for one in step["nearest"]]
        assert rows == np.argsort(-cosines)[:2].tolist()
