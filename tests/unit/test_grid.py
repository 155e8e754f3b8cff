"""The grid and the new relation run whole at a toy size; the grid goes on where it stopped."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tiny_run
from graphmert.config import load_toml
from graphmert.errors import ConfigError

ROOT = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    """Import a file of the benchmarks folder, which is no package."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


for needed in ("dense", "bench_train"):
    load(needed)
grid = load("grid")
new_relation = load("new_relation")

VARIANTS = """
[[variant]]
name = "base"
group = "base"

[[variant]]
name = "sure"
group = "thresholds"
set = ["extract.target_precision=0.9"]

[[variant]]
name = "seed_minus_50"
group = "seed"
set = ["reduce.share=0.5"]
"""


@pytest.fixture
def toy(finished: Path, tmp_path: Path) -> Path:
    (tmp_path / "tiny.obo").write_bytes((finished / "tiny.obo").read_bytes())
    (tmp_path / "RUN.toml").write_bytes((finished / "RUN.toml").read_bytes())
    (tmp_path / "some.toml").write_text(VARIANTS, encoding="utf-8")
    return tmp_path


def run_grid(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    given = ["RUN.toml", "--variants", "some.toml", "--out", "runs", "--results", "results"]
    small = ["--set", "train.total_steps=4", "--set", "train.warmup_steps=1"]
    monkeypatch.setattr(sys, "argv", ["grid.py", *given, *small, *words])
    with tiny_run.working_in(folder):
        grid.main()


def test_a_grid_trains_once_what_trains_alike(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_grid(toy, monkeypatch)
    said = capsys.readouterr().out
    assert "sure (preparation and training of base)" in said
    assert "seed_minus_50\n" in said
    weights = [toy / "runs" / name / "model" / "model.safetensors" for name in ("base", "sure")]
    assert weights[0].samefile(weights[1])
    results = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in (toy / "results").glob("*.json")
    }
    assert set(results) == {"base", "sure", "seed_minus_50"}
    assert results["base"]["mrr_macro"] == results["sure"]["mrr_macro"]
    n_train = [results[name]["triples"]["train"] for name in ("base", "seed_minus_50")]
    assert 0.45 * n_train[0] < n_train[1] < 0.6 * n_train[0]
    assert results["base"]["triples"]["test"] == results["seed_minus_50"]["triples"]["test"]
    table = (toy / "results" / "table.md").read_text(encoding="utf-8")
    assert table.count("| base |") == 1
    assert "## thresholds" in table
    before = tiny_run.contents(toy / "runs")
    run_grid(toy, monkeypatch, "--only", "sure", "base")
    assert tiny_run.contents(toy / "runs") == before
    run_grid(toy, monkeypatch, "--table", "--set", "seed=1")
    assert "another configuration" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no such variant"):
        run_grid(toy, monkeypatch, "--only", "nothing")


def test_the_variants_of_pubmed_fit_their_run() -> None:
    variants = load_toml(ROOT / "runs" / "grid" / "pubmed.toml", grid.Variants)
    planned = grid.plan(ROOT / "runs" / "pubmed.toml", variants, (), Path("out"))
    names = [one.variant.name for one in planned]
    cells = [name for name in names if name.startswith("alpha")]
    assert len(cells) == 12
    assert {"seed_minus_25", "seed_minus_50", "seed_minus_75", "no_span"} < set(names)
    keys = {one.variant.name: one.key for one in planned}
    assert len({keys[name] for name in cells}) == 3
    # The base has the middle alpha, so it shares that training.
    assert keys["base"] == keys["alpha40_beta00"]
    assert len(set(keys.values())) == 3 + 5


def test_a_relation_is_added_and_ranked(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "tiny.obo").write_bytes((finished / "tiny.obo").read_bytes())
    relation = "positively_regulates"
    tree: dict[str, Any] = {"reduce": {"relations": [relation]}}
    tiny_run.write_inputs(folder, **tree)
    tiny_run.execute(folder, stage="train")
    out = tmp_path / "result.json"
    words = [finished / "run", folder / "run", "--relation", relation, "--triples", 3]
    words += ["--draws", 1, "--steps", 2, "--out", out, "--work", tmp_path / "work"]
    with tiny_run.working_in(folder):
        new_relation.main([str(word) for word in words])
    result = json.loads(out.read_text(encoding="utf-8"))
    ways = [(one["way"], one.get("initial"), one["n_triples"]) for one in result["results"]]
    assert ways[1:] == [
        ("from its name", "nearest", 0),
        ("fitted alone", "nearest", 3),
        ("from its name", "hidden", 0),
        ("fitted alone", "hidden", 3),
    ]
    for one in result["results"]:
        assert 0 < one["mrr"] <= 1
        assert one["n"] == result["results"][0]["n"] > 0
    assert "fitted alone" in capsys.readouterr().out
    assert list((tmp_path / "work").iterdir()) == []
    with pytest.raises(ConfigError, match="differ in more"), tiny_run.working_in(folder):
        new_relation.main([str(finished / "run"), str(finished / "run"), "--relation", relation])
