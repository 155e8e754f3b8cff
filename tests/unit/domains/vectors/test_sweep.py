"""Sweeps: what is drawn, what is left out, and that a sweep that was cut off goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toy_vectors
from graphmert.domains.vectors import sweep as module
from graphmert.domains.vectors.data import VectorData
from graphmert.domains.vectors.sweep import SweepSpace, run_sweep
from graphmert.domains.vectors.watch import CollapseError
from graphmert.errors import ConfigError, DataError

pytest.importorskip("optuna")
SPACE = SweepSpace(
    learning_rate=(1e-3, 1e-1), batch_size=(8, 16), n_layers=(1, 2, 3), width=(4, 8, 40),
    n_parameters=(100, 20_000),
)  # fmt: skip
BASE = toy_vectors.small_training("lvm-768d", epochs=1.0).model_dump(mode="json")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VectorData:
    return VectorData.load(toy_vectors.write_dataset(tmp_path_factory.mktemp("toy")))


def sweep(data: VectorData, out: Path, n_trials: int, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"space": SPACE, "base": BASE, "seed": 1} | changes
    return run_sweep(data, "lvm-768d", out=out, n_trials=n_trials, **options)


def test_a_sweep_that_was_cut_off_equals_one_that_was_not(
    tmp_path: Path, data: VectorData, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweep(data, tmp_path / "whole", 6)
    assert whole["n_trials"] == 6
    states = [trial["state"] for trial in whole["trials"]]
    assert {"complete", "pruned"} == set(states)
    for trial in whole["trials"]:
        is_small = 100 <= trial["n_parameters"] <= 20_000
        assert is_small == (trial["state"] == "complete")
        if not is_small:
            assert "parameters, not 100 to 20000" in trial["reason"]
    scores = [t["val_cosine"] for t in whole["trials"] if t["val_cosine"] is not None]
    assert whole["best"]["val_cosine"] == max(scores)
    run = tmp_path / "whole" / whole["best"]["run"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["best"]["val_cosine"] == whole["best"]["val_cosine"]
    assert whole == json.loads((tmp_path / "whole" / "sweep.json").read_text())

    # a kill in the middle of the second training: the trial stays "running" in the journal
    train, n_calls = module.train_vectors, 0

    def cut(*values: Any, **options: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 2:
            raise KeyboardInterrupt
        return train(*values, **options)

    monkeypatch.setattr(module, "train_vectors", cut)
    with pytest.raises(KeyboardInterrupt):
        sweep(data, tmp_path / "cut", 6)
    monkeypatch.setattr(module, "train_vectors", train)
    again = sweep(data, tmp_path / "cut", 6)
    first = [trial["params"] for trial in whole["trials"]]
    found = [trial["params"] for trial in again["trials"]]
    n_before = states.index("complete", states.index("complete") + 1)
    assert found[: n_before + 1] == first[: n_before + 1]
    assert again["n_trials"] == 6
    assert sweep(data, tmp_path / "cut", 6) == again


def test_another_sweep_is_refused(tmp_path: Path, data: VectorData) -> None:
    sweep(data, tmp_path, 1)
    other = SPACE.model_copy(update={"n_layers": (1,)})
    with pytest.raises(ConfigError, match=r"another sweep.*space"):
        sweep(data, tmp_path, 2, space=other)
    with pytest.raises(ConfigError, match=r"another sweep.*seed"):
        sweep(data, tmp_path, 2, seed=2)


def test_a_sweep_of_another_size_leaves_no_trace(tmp_path: Path, data: VectorData) -> None:
    """None is a size too: the mistaken command must not be written into the sweep."""
    first = sweep(data, tmp_path, 1)
    with pytest.raises(ConfigError, match=r"another sweep.*size"):
        sweep(data, tmp_path, 2, size=40)
    assert sweep(data, tmp_path, 1) == first


def test_what_cannot_be_swept(tmp_path: Path, data: VectorData) -> None:
    with pytest.raises(ConfigError, match="with leaves cannot be swept"):
        run_sweep(data, "lvm-leaves", out=tmp_path / "a", space=SPACE, n_trials=1)
    with pytest.raises(DataError, match="there is no window"):
        sweep(data, tmp_path / "b", 1, size=3)
    assert list(tmp_path.iterdir()) == []


def test_only_divergence_and_collapse_are_answers(
    tmp_path: Path, data: VectorData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad_data(*values: Any, **options: Any) -> Any:
        raise DataError("a vector is not finite")

    def collapsed(*values: Any, **options: Any) -> Any:
        raise CollapseError("the outputs collapsed to one vector")

    easy = SPACE.model_copy(update={"width": (4,), "n_layers": (1,)})
    with monkeypatch.context() as patch:
        patch.setattr(module, "train_vectors", bad_data)
        with pytest.raises(DataError, match="not finite"):
            sweep(data, tmp_path / "a", 1, space=easy)
    assert sweep(data, tmp_path / "a", 1, space=easy)["trials"][0]["state"] == "complete"
    monkeypatch.setattr(module, "train_vectors", collapsed)
    (trial,) = sweep(data, tmp_path / "b", 1, space=easy)["trials"]
    assert (trial["state"], trial["reason"]) == ("pruned", "the outputs collapsed to one vector")
    monkeypatch.undo()
    wild = easy.model_copy(update={"learning_rate": (1e30, 1e31)})
    (trial,) = sweep(data, tmp_path / "c", 1, space=wild)["trials"]
    assert trial["state"] == "pruned"
    assert "diverged" in trial["reason"]


def test_the_default_space_holds_networks_of_ten_to_thirty_million() -> None:
    from graphmert.domains.vectors.training import VectorTraining, default_training
    from graphmert.forecast import count_parameters

    space = SweepSpace()
    base = default_training("lvm-768d", n_vectors=80_000)
    sizes = []
    for n_layers in space.n_layers:
        for width in space.width:
            network = base["network"] | {
                "n_layers": n_layers, "width": width, "ffn_width": space.ffn_factor * width
            }  # fmt: skip
            config = VectorTraining.model_validate(base | {"network": network})
            sizes.append(count_parameters(config.network))  # type: ignore[arg-type]
    inside = [n for n in sizes if space.n_parameters[0] <= n <= space.n_parameters[1]]
    assert len(inside) >= 9
    assert min(sizes) < 10_000_000
    assert max(sizes) > 30_000_000
