"""`graphmert code train`, `evaluate` and `search --model` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("tree_sitter_python", reason="the extra `code` is not installed")

import code_toy
from graphmert.cli import app

RUN = """
out = "{out}"
[data]
index = "{index}"
vocab_size = 400
[split]
valid_packages = ["beta"]
test_packages = ["gamma"]
[chains]
max_roots = 48
[model.changes]
hidden_size = 16
n_layers = 1
n_attn_heads = 2
ffn_size = 24
[feed]
n_negatives = 4
n_facts = 4
[train]
total_steps = 2
batch_size = 4
warmup_steps = 1
device = "cpu"
n_threads = 1
[tune]
steps = 1
batch_size = 4
max_roots = 48
[evaluate]
n_link_queries = 2
kge_epochs = 1
kge_widths = [4]
kge_learning_rates = [0.1]
n_resamples = 10
"""


def call(*arguments: str) -> tuple[int, dict]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    index = code_toy.make_index(folder)
    path = folder / "run.toml"
    path.write_text(RUN.format(out=folder / "out", index=index), encoding="utf-8")
    return path


def test_train_then_evaluate_then_search(run_file: Path) -> None:
    code, planned = call("code", "train", str(run_file), "--dry-run")
    assert code == 0
    assert planned["stages"] == {"prepare": "to do", "train": "to do", "tune": "to do"}
    code, trained = call("code", "train", str(run_file))
    assert code == 0
    assert trained["train"]["n_updates"] == 2
    code, measured = call("code", "evaluate", str(run_file))
    assert code == 1  # an untrained network misses targets, and that is said
    assert measured["stages"]["train"] == "already done"
    assert any(not row["passes"] for row in measured["compliance"])
    code, found = call("code", "search", "multiply a value", "--model", trained["run"])
    assert code == 0
    assert found["functions"]


def test_a_missing_index_is_bad_configuration(run_file: Path, tmp_path: Path) -> None:
    code, failed = call("code", "train", str(run_file), "--set", f"data.index={tmp_path}")
    assert code == 2
    assert "code index" in failed["error"]["fix"]
