"""The training loop on a small model: gradients, schedule, checkpoints, stops and refusals."""

from __future__ import annotations

import json
import math
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from graphmert import processes, recipe
from graphmert.checkpoint import find_checkpoints
from graphmert.errors import CapabilityError, CheckpointError, ConfigError, DataError
from graphmert.train import TrainConfig, train
from toy_training import ToyBatch, ToyModel, toy_config, toy_data

ROOT = Path(__file__).parents[2]


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_close(left: dict[str, Tensor], right: dict[str, Tensor], tolerance: float) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.allclose(tensor, right[name], rtol=0, atol=tolerance), name


# --- gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_batch_size", [1, 3, 5])
def test_accumulation_equals_one_big_batch(tmp_path: Path, micro_batch_size: int) -> None:
    models = []
    for name, size in (("big", None), ("cut", micro_batch_size)):
        model = ToyModel()
        # Weights of `rare` depend on the parity of the micro-batch, so leave it out.
        model.rare.requires_grad_(False).weight.data.zero_()
        model.rare.bias.data.zero_()
        config = toy_config(weights={"label": 0.4, "value": 0.6}, clip_norm=0.5)
        train(model, toy_data(micro_batch_size=size), config=config, out_dir=tmp_path / name)
        models.append(weights_of(model))
    assert_close(models[0], models[1], 1e-6)
    big, cut = lines_of(tmp_path / "big"), lines_of(tmp_path / "cut")
    assert len(big) == 6
    for left, right in zip(big, cut, strict=True):
        assert left["n_samples"] == right["n_samples"] == 8
        assert left["losses"] == pytest.approx(right["losses"], abs=1e-6)
        assert left["grad_norm"] == pytest.approx(right["grad_norm"], abs=1e-6)


def test_one_update_equals_plain_pytorch(tmp_path: Path) -> None:
    config = toy_config(
        total_steps=1, warmup_steps=1, weights={"label": 0.4, "value": 0.6}, clip_norm=0.1
    )
    trained = ToyModel()
    train(trained, toy_data(micro_batch_size=3), config=config, out_dir=tmp_path)

    model = ToyModel()
    by_hand = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": by_hand}, {"params": vectors, "weight_decay": 0.0}], lr=0.01, weight_decay=0.01
    )
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for batch in toy_data(micro_batch_size=3).batch(0):
        assert isinstance(batch, ToyBatch)
        for name, (part, count) in model.loss(batch).items():
            sums[name] = sums.get(name, torch.zeros(())) + part
            counts[name] = counts.get(name, 0) + int(count)
    (0.4 * sums["label"] / counts["label"] + 0.6 * sums["value"] / counts["value"]).backward()
    norm = math.sqrt(
        sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
    )
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad *= 0.1 / norm
    optimizer.step()
    assert lines_of(tmp_path)[0]["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert norm > 0.1, "the clip must act"
    assert_close(weights_of(trained), weights_of(model), 1e-6)


def test_batches_without_counts_run_alone_and_refuse_accumulation(tmp_path: Path) -> None:
    counted, plain = ToyModel(), ToyModel()
    train(counted, toy_data(), config=toy_config(), out_dir=tmp_path / "a")
    train(plain, toy_data(counted=False), config=toy_config(), out_dir=tmp_path / "b")
    assert_close(weights_of(counted), weights_of(plain), 0.0)
    with pytest.raises(CapabilityError, match=r"without counts\(\)"):
        data = toy_data(micro_batch_size=3, counted=False)
        train(ToyModel(), data, config=toy_config(), out_dir=tmp_path / "c")


def test_wrong_counts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyBatch, "counts", lambda self: {"label": 3, "value": 999})
    with pytest.raises(DataError, match="disagree on objective label"):
        train(ToyModel(), toy_data(), config=toy_config(), out_dir=tmp_path)


def test_weight_zero_leaves_the_parameters_of_an_objective(tmp_path: Path) -> None:
    model = ToyModel()
    before = model.label_head.weight.clone()
    config = toy_config(weights={"label": 0.0, "value": 1.0}, weight_decay=0.0)
    train(model, toy_data(), config=config, out_dir=tmp_path)
    assert torch.equal(model.label_head.weight, before)


def test_bf16_keeps_fp32_parameters(tmp_path: Path) -> None:
    exact, half = ToyModel(), ToyModel()
    train(exact, toy_data(), config=toy_config(), out_dir=tmp_path / "fp32")
    train(half, toy_data(), config=toy_config(precision="bf16"), out_dir=tmp_path / "bf16")
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    left, right = lines_of(tmp_path / "fp32")[0], lines_of(tmp_path / "bf16")[0]
    assert left["loss"] != right["loss"]
    assert left["loss"] == pytest.approx(right["loss"], rel=0.02)


# --- learning rates -------------------------------------------------------------------------


def test_pretrained_parameters_have_their_own_rate(tmp_path: Path) -> None:
    model = ToyModel()
    before = weights_of(model)
    config = toy_config(
        total_steps=1, warmup_steps=1, pretrained_learning_rate=1e-5, weight_decay=0.0
    )
    train(model, toy_data(), config=config, out_dir=tmp_path)
    # The first step of Adam moves every weight by its learning rate.
    moved = {n: float((t - before[n]).abs().max()) for n, t in model.state_dict().items()}
    assert moved["body.weight"] == pytest.approx(1e-5, rel=0.05)
    assert moved["label_head.weight"] == pytest.approx(0.01, rel=0.05)


def test_model_is_told_each_step(tmp_path: Path) -> None:
    model = ToyModel()
    train(model, toy_data(), config=toy_config(total_steps=3), out_dir=tmp_path)
    assert model.calls == [(0, 3), (1, 3), (2, 3)]


# --- settings -------------------------------------------------------------------------------


def test_epochs_become_steps(tmp_path: Path) -> None:
    config = toy_config(total_steps=None, epochs=1.5)
    result = train(ToyModel(), toy_data(batch_size=7), config=config, out_dir=tmp_path)
    assert result.n_steps == 6  # 24 samples in updates of 6, four an epoch


@pytest.mark.parametrize(
    ("weights", "words"),
    [({"label": 1.0}, "lacks objective 'value'"), ({"label": 1.0, "value": 1.0, "x": 1.0}, "'x'")],
)
def test_weights_must_name_the_objectives(tmp_path: Path, weights: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        train(ToyModel(), toy_data(), config=toy_config(weights=weights), out_dir=tmp_path)


def test_updates_larger_than_the_setting_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more samples than batch_size"):
        train(ToyModel(), toy_data(batch_size=12), config=toy_config(), out_dir=tmp_path)


# --- evaluation, early stopping, what is kept -----------------------------------------------


def test_best_and_last_are_kept_and_the_best_is_returned(tmp_path: Path) -> None:
    values = {2: 0.3, 4: 0.9, 6: 0.5, 8: 0.6, 10: 0.1}
    seen: dict[int, dict[str, Tensor]] = {}

    def evaluate(model: nn.Module, step: int) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        seen[step] = weights_of(model)
        return {"mrr": values[step], "odd": float("nan")}

    config = toy_config(
        total_steps=10, eval_every=2, best_metric="mrr", best_mode="max", checkpoint_every=5
    )
    model = ToyModel()
    result = train(model, toy_data(), config=config, out_dir=tmp_path, evaluate=evaluate)
    assert (result.best_step, result.best_value, result.stop_reason) == (4, 0.9, "steps")
    assert [step for step, _ in find_checkpoints(tmp_path / "checkpoints")] == [4, 5, 10]
    assert (result.best.name, result.last.name) == ("checkpoint-4", "checkpoint-10")
    assert_close(weights_of(model), seen[4], 0.0)
    assert torch.equal(
        load_file(result.last / "model.safetensors")["body.weight"], seen[10]["body.weight"]
    )
    metrics = [line for line in lines_of(tmp_path) if "metrics" in line]
    assert metrics[1] == {"step": 4, "metrics": {"mrr": 0.9, "odd": None}}


def test_last_weights_when_asked_for(tmp_path: Path) -> None:
    config = toy_config(eval_every=2, final_weights="last", best_mode="max", best_metric="m")
    model = ToyModel()
    result = train(
        model, toy_data(), config=config, out_dir=tmp_path, evaluate=lambda m, step: {"m": -step}
    )
    assert result.best_step == 2
    last = load_file(result.last / "model.safetensors")
    assert torch.equal(last["body.weight"], model.body.weight)


def test_early_stopping(tmp_path: Path) -> None:
    values = [3.0, 2.0, 2.0, 2.5, 1.0]
    config = toy_config(total_steps=50, eval_every=1, early_stopping_patience=2, best_metric="loss")
    result = train(
        ToyModel(),
        toy_data(),
        config=config,
        out_dir=tmp_path,
        evaluate=lambda model, step: {"loss": values[step - 1]},
    )
    assert (result.n_steps, result.best_step, result.stop_reason) == (4, 2, "early_stopping")
    again = train(
        ToyModel(), toy_data(), config=config, out_dir=tmp_path, evaluate=lambda model, step: {}
    )
    assert (again.n_steps, again.stop_reason) == (4, "early_stopping"), "a finished run stays so"


def test_validation_loss_is_the_mean_over_all_samples(tmp_path: Path) -> None:
    model = ToyModel()
    config = toy_config(total_steps=2, eval_every=2, weights={"label": 0.5, "value": 2.0})
    train(model, toy_data(), config=config, out_dir=tmp_path, eval_data=toy_data(batch_size=24))
    (batch,) = toy_data(batch_size=24).batch(0)
    assert isinstance(batch, ToyBatch)
    parts = {name: (s / c).item() for name, (s, c) in model.loss(batch).items()}
    metrics = lines_of(tmp_path)[-1]["metrics"]
    assert metrics["valid_loss/label"] == pytest.approx(parts["label"], rel=1e-5)
    expected = 0.5 * parts["label"] + 2.0 * parts["value"]
    assert metrics["valid_loss"] == pytest.approx(expected, rel=1e-5)


def test_unknown_best_metric_names_the_nearest(tmp_path: Path) -> None:
    config = toy_config(eval_every=2, best_metric="mr")
    with pytest.raises(ConfigError, match="Did you mean 'mrr'"):
        train(
            ToyModel(),
            toy_data(),
            config=config,
            out_dir=tmp_path,
            evaluate=lambda m, s: {"mrr": 1},
        )


def test_eval_every_needs_something_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        train(ToyModel(), toy_data(), config=toy_config(eval_every=2), out_dir=tmp_path)


def test_max_seconds_stops_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    config = toy_config(total_steps=10**6, max_seconds=1e-6)
    result = train(ToyModel(), toy_data(), config=config, out_dir=tmp_path)
    assert (result.n_steps, result.stop_reason) == (1, "time")
    assert result.last.is_dir()


# --- the log, the tracker, progress ---------------------------------------------------------


def test_log_lines_and_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = train(
        ToyModel(),
        toy_data(),
        config=toy_config(total_steps=5, log_every=2),
        out_dir=tmp_path,
        on_progress=lambda step, total, values: seen.append((step, total)),
    )
    lines = lines_of(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert set(lines[0]) == {"step", "loss", "losses", "lr", "grad_norm", "n_samples"}
    assert lines[0]["loss"] == pytest.approx(sum(lines[0]["losses"].values()))
    assert seen == [(step, 5) for step in range(1, 6)]
    names = {"train_s", "eval_s", "checkpoint_s", "train_cpu_s", "n_samples_per_s"}
    assert set(result.timings) == names


def test_tensorboard_writes_beside_the_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = toy_config(total_steps=2, tracker="tensorboard")
    train(ToyModel(), toy_data(), config=config, out_dir=tmp_path / "run")
    assert list((tmp_path / "run" / "tracker").rglob("events.out.*"))
    train(ToyModel(), toy_data(), config=toy_config(total_steps=2), out_dir=tmp_path / "plain")
    left, right = tmp_path / "run", tmp_path / "plain"
    assert (left / "training.jsonl").read_bytes() == (right / "training.jsonl").read_bytes()


def test_missing_tracker_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "get_available_trackers", list)
    with pytest.raises(CapabilityError, match=r"graphmert\[tensorboard\]"):
        config = toy_config(tracker="tensorboard")
        train(ToyModel(), toy_data(), config=config, out_dir=tmp_path)


def test_unknown_tracker_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        train(ToyModel(), toy_data(), config=toy_config(tracker="wanb"), out_dir=tmp_path)


# --- going on, refusals, divergence ---------------------------------------------------------


@pytest.mark.parametrize("prefetch", [False, True])
def test_interrupted_run_equals_an_uninterrupted_one(tmp_path: Path, prefetch: bool) -> None:
    config = toy_config(eval_every=3, prefetch=prefetch)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    eval_data = toy_data(batch_size=24)
    train(
        ToyModel(dropout=0.3), toy_data(), config=toy_config(eval_every=3), out_dir=whole,
        eval_data=eval_data,
    )  # fmt: skip

    def interrupt(step: int, total: int, values: object) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            ToyModel(dropout=0.3), toy_data(), config=config, out_dir=cut, eval_data=eval_data,
            on_progress=interrupt,
        )  # fmt: skip
    assert lines_of(cut)[-1]["step"] == 5
    train(ToyModel(dropout=0.3), toy_data(), config=config, out_dir=cut, eval_data=eval_data)
    names = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(cut) for p in cut.rglob("*") if p.is_file())
    for name in names:
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name


def test_other_settings_or_inputs_are_refused(tmp_path: Path) -> None:
    train(ToyModel(), toy_data(), config=toy_config(), out_dir=tmp_path, fingerprint="data-1")
    with pytest.raises(CheckpointError, match=r"train\.learning_rate: 0\.01 in the checkpoint"):
        config = toy_config(learning_rate=0.02)
        train(ToyModel(), toy_data(), config=config, out_dir=tmp_path, fingerprint="data-1")
    with pytest.raises(CheckpointError, match="inputs: 'data-1' in the checkpoint"):
        train(ToyModel(), toy_data(), config=toy_config(), out_dir=tmp_path, fingerprint="data-2")
    free = toy_config(micro_batch_size=2, prefetch=True)
    assert set(TrainConfig.model_fields) >= recipe.FREE_FIELDS
    train(ToyModel(), toy_data(), config=free, out_dir=tmp_path, fingerprint="data-1")


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    result = train(ToyModel(), toy_data(), config=toy_config(), out_dir=tmp_path)
    path = result.last / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated") as caught:
        train(ToyModel(), toy_data(), config=toy_config(), out_dir=tmp_path)
    assert caught.value.where == str(path)


class Diverging(ToyModel):
    """Its value objective becomes NaN in the fourth update."""

    def loss(self, batch: ToyBatch) -> dict[str, tuple[Tensor, Tensor]]:
        parts = super().loss(batch)
        if self.training and len(self.calls) == 4:
            parts["value"] = (parts["value"][0] * float("nan"), parts["value"][1])
        return parts


def test_divergence_names_update_and_objective(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="objective value is nan") as caught:
        train(Diverging(), toy_data(), config=toy_config(), out_dir=tmp_path)
    assert caught.value.where == "update 4"
    assert "checkpoint-2" in str(caught.value)
    assert [step for step, _ in find_checkpoints(tmp_path / "checkpoints")] == [2]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_says_what_to_reduce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def fail(self: ToyModel, batch: ToyBatch) -> None:
        raise error

    monkeypatch.setattr(ToyModel, "loss", fail)
    with pytest.raises(CapabilityError, match=r"Lower micro_batch_size \(now 4\)"):
        config = toy_config(micro_batch_size=4)
        train(ToyModel(), toy_data(), config=config, out_dir=tmp_path)


def test_other_runtime_errors_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ToyModel, batch: ToyBatch) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(ToyModel, "loss", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(ToyModel(), toy_data(), config=toy_config(), out_dir=tmp_path)


# --- processes ------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(values: dict, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "toy_training.py"), json.dumps(values)],
        env=os.environ
        | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
        | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch_size", [2, 3])
def test_two_processes_equal_one(tmp_path: Path, micro_batch_size: int) -> None:
    """With 3, an update has three micro-batches: one process repeats one without weight."""
    values = {
        "data": {"micro_batch_size": micro_batch_size},
        "config": {"eval_every": 3},
        "dropout": 0.2,
    }
    alone = start(values | {"out_dir": str(tmp_path / "one")})
    port = str(free_port())
    pair = [
        start(
            values | {"out_dir": str(tmp_path / "two")},
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in (alone, *pair):
        _, messages = process.communicate(timeout=240)
        assert process.returncode == 0, messages
    one, two = lines_of(tmp_path / "one"), lines_of(tmp_path / "two")
    assert len(one) == len(two) == 8
    for left, right in zip(one, two, strict=True):
        for key in ("loss", "grad_norm", "n_samples"):
            assert left.get(key) == pytest.approx(right.get(key), abs=1e-5)
        assert left.get("metrics") == pytest.approx(right.get("metrics"), abs=1e-5)
    tensors = [
        load_file(tmp_path / name / "checkpoints" / "checkpoint-6" / "model.safetensors")
        for name in ("one", "two")
    ]
    assert_close(tensors[0], tensors[1], 1e-5)


def test_process_group_that_cannot_start_says_what_to_set(tmp_path: Path) -> None:
    process = start(
        {"config": {}, "out_dir": str(tmp_path)}, RANK="0", LOCAL_RANK="0", WORLD_SIZE="2"
    )
    _, messages = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "CapabilityError" in messages
    assert "torchrun" in messages
    assert "MASTER_ADDR=not set" in messages


def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    """In a process of its own: the setting stays for the life of a process."""
    code = "from graphmert.processes import keep_freed_memory; print(keep_freed_memory())"
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(platform.libc_ver()[0] == "glibc")
