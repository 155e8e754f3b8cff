"""What a run file leaves open is checked before anything is read or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny_run
from graphmert import run
from graphmert.config import build
from graphmert.errors import ConfigError
from graphmert.model import OBJECTIVES
from graphmert.recipe import TrainConfig
from graphmert.run import RunConfig
from graphmert.run.checking import check_network
from graphmert.run.code import CodeRunConfig, execute_code
from graphmert.run.losses import by_loss, ramps_by_loss, weights_by_loss

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "field": ({"model": {"changes": {"dropuot": 0.1}}}, "'dropuot'.*'dropout'"),
    "literal": ({"model": {"changes": {"decay": "linear"}}}, "'linear'.*model.changes.decay.*'log"),
    "number": ({"model": {"changes": {"hgat_rank": "many"}}}, "hgat_rank"),
    "objective": ({"model": {"changes": {"objectives": ["mlm", "leave"]}}}, "'leave'.*'leaf'"),
    "preset": ({"model": {"preset": "tinny"}}, "tinny.*tiny"),
    "weight": ({"train": {"weights": {"mlm": 1.0, "entty": 1.0}}}, "'entty'.*'entity'"),
    "ramp": ({"train": {"weight_ramps": {"relatoin": 9}}}, "'relatoin'.*'relation'"),
    "ramp of a sum": (
        {"model": {"changes": {"loss_form": "sum"}}, "train": {"weight_ramps": {"leaf_sun": 9}}},
        "'leaf_sun'.*'leaf_sum'",
    ),
    "sum of no sum": ({"train": {"weight_ramps": {"leaf_sum": 9}}}, "'leaf_sum'"),
    "pooled": (
        {"model": {"form": "reference"}, "train": {"weight_ramps": {"leaf": 9}}},
        "'leaf'.*nodes",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_name_that_is_none_stops_a_run_before_it_starts(tmp_path: Path, case: str) -> None:
    changes, words = WRONG[case]
    with tiny_run.working_in(tmp_path), pytest.raises(ConfigError, match=words):
        run.execute(build(tiny_run.settings(**changes), RunConfig))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", [one for one in WRONG if one != "pooled"])
def test_and_a_run_on_code(tmp_path: Path, case: str) -> None:
    changes, words = WRONG[case]
    model = {"preset": "graphmer-se"} | changes.get("model", {})
    train = {"total_steps": 1, "warmup_steps": 0} | changes.get("train", {})
    tree = {"out": str(tmp_path / "out"), "data": {"index": str(tmp_path)}}
    with pytest.raises(ConfigError, match="graphmer-se" if case == "preset" else words):
        execute_code(build(tree | {"model": model, "train": train}, CodeRunConfig))
    assert list(tmp_path.iterdir()) == []


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    wanted = pytest.raises(ConfigError, match=r"WORLD_SIZE.*got 2.*torchrun")
    with tiny_run.working_in(tmp_path), wanted:
        run.execute(build(tiny_run.settings(), RunConfig))
    assert list(tmp_path.iterdir()) == []


def test_what_the_network_takes_is_accepted() -> None:
    changes = {
        "dropout": 0, "root_band": 4, "hgat": "none", "objectives": ["mlm", "contrastive"],
        "input_size": 8, "relation_names": False,
    }  # fmt: skip
    assert check_network("tiny", "default", changes) == "mean"
    assert check_network("tiny", "paper", {}) == "sum"
    assert check_network("tiny", "paper", {"loss_form": "mean"}) == "mean"


@pytest.mark.parametrize(
    ("loss_form", "weights", "ramps"),
    [
        ("mean", {"mlm": 0.5, "leaf": 1.0}, {"mlm": 3, "leaf": 5}),
        ("sum", {"mlm_sum": 0.5, "leaf_sum": 1.0}, {"mlm_sum": 3, "leaf_sum": 5}),
        ("joint", {"nodes": 1.0}, None),
    ],
)
def test_weights_and_ramps_are_named_as_losses(
    loss_form: str, weights: dict[str, float], ramps: dict[str, int] | None
) -> None:
    given = {"mlm": 3, "leaf": 5}
    if ramps is None:
        with pytest.raises(ConfigError, match="nodes"):
            ramps_by_loss(given, OBJECTIVES, loss_form)
        given = ramps = {"nodes": 4}
    train = TrainConfig(total_steps=1, weights={"mlm": 0.5}, weight_ramps=given)
    found = by_loss(train, asked=("mlm", "leaf"), known=OBJECTIVES, loss_form=loss_form)
    assert (found.weights, found.weight_ramps) == (weights, ramps)
    assert found.weight_at(next(iter(weights)), 0) < next(iter(weights.values()))


def test_an_objective_has_one_ramp() -> None:
    assert ramps_by_loss({"leaf_sum": 2}, OBJECTIVES, "sum") == {"leaf_sum": 2}
    with pytest.raises(ConfigError, match="two ramps"):
        ramps_by_loss({"leaf_sum": 2, "leaf": 2}, OBJECTIVES, "sum")
    assert weights_by_loss({}, ("entity",), "joint") == {"entity": 1.0}


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[3] / "runs").glob("*.toml")), ids=lambda p: p.stem
)
def test_run_files_of_the_repository_pass(path: Path) -> None:
    if path.stem.startswith("code_"):
        from graphmert.run.code import load_code
        from graphmert.run.code.training import check_settings

        check_settings(load_code(path))
    else:
        run._check(run.load(path))
