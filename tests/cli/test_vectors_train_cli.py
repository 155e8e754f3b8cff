"""`info`, `vectors train|bench|sweep|score-leaves` and `convert lvm`: output and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import toy_leaves
import toy_vectors
from graphmert.cli import app
from graphmert.domains.vectors.data import VectorData
from graphmert.forecast import Forecaster, LeafForecaster

TINY = {
    "network.dim": 16, "network.n_layers": 1, "network.n_attn_heads": 2, "network.ffn_width": 12,
    "device": "cpu", "n_threads": 1,
}  # fmt: skip


def give(*words: object) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, [*(str(word) for word in words), "--json"])
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def settings(**changes: object) -> list[str]:
    values = TINY | changes
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_vectors.write_dataset(tmp_path_factory.mktemp("toy"))


def test_info_counts_next_vector_models() -> None:
    code, found = give("info", "transformer")
    assert (code, found["n_parameters"], found["n_with_buffers"]) == (0, 17_867_520, 17_918_720)
    assert any("51200" not in p["arithmetic"] and p["n"] == 51_200 for p in found["buffers"])
    code, found = give("info", "lvm-768")
    assert code == 2
    assert "lvm-768d" in found["error"]["fix"]
    assert {"amn", "paper"} <= set(found["error"]["expected"].split(", "))


def test_train_prints_the_best_epoch(tmp_path: Path, dataset: Path) -> None:
    words = ["vectors", "train", "lvm-768d", "--data", dataset, "--out", tmp_path / "run"]
    options = ["--epochs", "2", "--batch-size", "16", "--lr", "0.01", "--seed", "3"]
    code, found = give(*words, *options, *settings())
    assert code == 0, found
    assert (found["n_steps"], found["stop_reason"]) == (2 * 4, "steps")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    config = manifest["config"]
    assert (manifest["model"], config["seed"], config["batch_size"]) == ("lvm-768d", 3, 16)
    assert Forecaster.load(tmp_path / "run" / "model").dim == 16
    code, found = give(*words, *options, *settings(), "--set", "weight_decay=0.5")
    assert code == 2
    assert "other settings" in found["error"]["what"]


def test_train_refuses_what_does_not_fit(tmp_path: Path, dataset: Path) -> None:
    words = ["vectors", "train", "gru", "--data", dataset, "--out", tmp_path / "run"]
    code, found = give(*words)
    assert code == 2
    assert "network.dim=16" in found["error"]["fix"]
    code, found = give(*words, "--set", "network.widht=4")
    assert code == 2
    assert "width" in found["error"]["fix"]
    code, found = give("vectors", "train", "grru", "--data", dataset, "--out", tmp_path / "run")
    assert (code, found["error"]["fix"]) == (2, "did you mean gru?")
    code, found = give(*words, "--size", 10**6, "--set", "network.dim=16")
    assert code == 2
    assert not (tmp_path / "run").exists()


def test_a_settings_file_of_another_model_is_refused(tmp_path: Path, dataset: Path) -> None:
    (tmp_path / "a.toml").write_text('epochs = 1.0\n[network]\nkind = "gru"\ndim = 16\nwidth = 4\n')
    words = ["--data", dataset, "--config", tmp_path / "a.toml"]
    code, found = give("vectors", "train", "amn", *words, "--out", tmp_path / "run")
    assert code == 2
    assert (found["error"]["got"], found["error"]["expected"]) == ("gru", "amn")
    code, found = give("vectors", "train", "gru", *words, "--out", tmp_path / "run")
    assert (code, found["n_steps"]) == (0, 2)


def test_bench_foretells_the_large_training(tmp_path: Path, dataset: Path) -> None:
    words = ["vectors", "bench", "--data", dataset, "--out", tmp_path / "b", "--size", 96]
    result = CliRunner().invoke(app, [str(w) for w in [*words, *settings(batch_size=16)]])
    assert result.exit_code == 0, result.stderr
    assert "80629 windows x 25 epochs would take" in result.stderr
    found = json.loads((tmp_path / "b" / "benchmark_results.json").read_text())
    assert (found["epochs"], found["precision"]) == (3, "bf16")
    code, again = give(*words, *settings(batch_size=16))
    assert code == 2
    assert "not empty" in again["error"]["what"]


def test_leaves_are_trained_and_scored(tmp_path: Path, dataset: Path) -> None:
    data = VectorData.load(dataset)
    links = toy_leaves.write_links(tmp_path / "links", data)
    words = ["--data", dataset, "--links", links]
    tiny = settings(**{"network.width": 8, "epochs": 1.0, "batch_size": 16})
    for name in ("run", "bare"):
        use = f"network.use_leaves={str(name == 'run').lower()}"
        code, found = give(
            "vectors", "train", "lvm-leaves", *words, "--out", tmp_path / name, *tiny, "--set", use
        )
        assert code == 0, found
    assert LeafForecaster.load(tmp_path / "run" / "model").settings.n_relations == 2
    code, found = give(
        "vectors", "score-leaves", tmp_path / "run", *words, "--without", tmp_path / "bare"
    )
    assert code == 0, found
    assert found == json.loads((tmp_path / "run" / "leaves.json").read_text())
    assert {"with_leaves", "trained_without", "gain_over_trained_without"} <= set(
        found["next_vector"]
    )
    code, found = give("vectors", "train", "lvm-leaves", "--data", dataset, "--out", tmp_path / "x")
    assert code == 2


def test_sweep_goes_to_the_asked_number(tmp_path: Path, dataset: Path) -> None:
    pytest.importorskip("optuna")
    (tmp_path / "space.toml").write_text(
        "n_layers = [1]\nwidth = [4, 8]\nbatch_size = [16]\nn_parameters = [1, 100000]\n"
    )
    code, found = give(
        "vectors", "sweep", "lvm-768d", "--data", dataset, "--out", tmp_path / "s", "--trials", 2,
        "--epochs", 1, "--space", tmp_path / "space.toml", *settings(),
    )  # fmt: skip
    assert code == 0, found
    assert found["n_trials"] == 2
    assert found["best"]["val_cosine"] is not None


def test_a_sweep_without_a_score_has_code_1(tmp_path: Path, dataset: Path) -> None:
    """The default space asks for 10 to 30 million parameters; no small network has them."""
    pytest.importorskip("optuna")
    words = ["--data", dataset, "--trials", 2, "--out", tmp_path / "s"]
    code, found = give("vectors", "sweep", "amn", *words, "--set", "network.dim=16")
    assert (code, found["best"], found["n_trials"]) == (1, None, 2)
    code, found = give("vectors", "sweep", "lvm-leaves", *words, "--set", "network.dim=16")
    assert code == 2
    assert "cannot be swept" in found["error"]["what"]


def test_convert_lvm(tmp_path: Path) -> None:
    lstm, out = torch.nn.LSTM(8, 6, 2), torch.nn.Linear(6, 8)
    state = {f"lstm.{name}": tensor for name, tensor in lstm.state_dict().items()}
    state |= {f"output_proj.{name}": tensor for name, tensor in out.state_dict().items()}
    torch.save({"model_state_dict": state, "epoch": 4}, tmp_path / "best_model.pt")
    code, found = give("convert", "lvm", tmp_path / "best_model.pt", tmp_path / "out")
    assert code == 0, found
    assert (found["model"], found["ignored"]) == ("lstm", ["epoch"])
    assert Forecaster.load(tmp_path / "out").dim == 8
    code, found = give("convert", "lvm", tmp_path / "none.pt", tmp_path / "out2")
    assert code == 3
