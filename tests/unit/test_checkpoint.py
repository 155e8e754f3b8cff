"""Checkpoints are whole or absent, verified, and give back what was put in."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import safetensors
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from graphmert import checkpoint as module
from graphmert.checkpoint import (
    append_log,
    collect_model,
    collect_optimizer,
    find_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    restore_model,
    restore_optimizer,
    save_checkpoint,
    truncate_log,
)
from graphmert.errors import CapabilityError, CheckpointError

SETTINGS = {"train": {"learning_rate": 0.1, "weights": {"mlm": 1.0}}, "inputs": "abc"}


class Tied(nn.Module):
    def __init__(self, *, width: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, width)
        self.out = nn.Linear(width, 4)
        self.out.weight = self.embedding.weight
        self.unused = nn.Linear(2, 2)
        self.register_buffer("scale", torch.ones(2))


def stepped(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model.out(model.embedding(torch.tensor([1, 2]))).square().sum().backward()  # type: ignore[operator]
    optimizer.step()
    return optimizer


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = Tied()
    optimizer = stepped(model)
    return save_checkpoint(
        tmp_path,
        step=7,
        model=collect_model(model),
        optimizer=collect_optimizer(model, optimizer),
        state={"step": 7, "best_value": 0.5},
        settings=SETTINGS,
    )


def test_round_trip(tmp_path: Path) -> None:
    model = Tied()
    optimizer = stepped(model)
    path = save_checkpoint(
        tmp_path,
        step=7,
        model=collect_model(model),
        optimizer=collect_optimizer(model, optimizer),
        state={"n": 1},
        settings=SETTINGS,
    )
    found = load_checkpoint(path, settings=SETTINGS)
    assert (found.step, found.state, found.settings) == (7, {"n": 1}, SETTINGS)
    assert "out.weight" not in found.model, "a tied tensor is stored once"
    assert {key.split("/")[0] for key in found.optimizer} == {"embedding.weight", "out.bias"}

    other = Tied()
    restore_model(other, found)
    assert other.out.weight is other.embedding.weight
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name

    other_optimizer = torch.optim.AdamW(other.parameters(), lr=0.1)
    restore_optimizer(other, other_optimizer, found)
    assert collect_optimizer(other, other_optimizer).keys() == found.optimizer.keys()
    for key, tensor in collect_optimizer(other, other_optimizer).items():
        assert torch.equal(tensor, found.optimizer[key]), key
    assert other.unused.weight not in other_optimizer.state


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tied()
    contents = []
    for name in ("a", "b"):
        path = save_checkpoint(
            tmp_path / name,
            step=1,
            model=collect_model(model),
            optimizer={},
            state={},
            settings=SETTINGS,
        )
        contents.append({file.name: file.read_bytes() for file in path.iterdir()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"model.safetensors", "optimizer.safetensors", "checkpoint.json"}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "checkpoint.json"])
def test_truncated_file_is_named(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="truncated") as caught:
        load_checkpoint(saved)
    assert caught.value.where == str(saved / name)
    assert "Delete this folder" in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_tampered_tensor_is_named(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[-1] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="changed after it was written") as caught:
        load_checkpoint(saved)
    assert caught.value.where == str(saved / name)


def test_tampered_record_is_named(saved: Path) -> None:
    path = saved / "checkpoint.json"
    path.write_text(path.read_text().replace('"best_value": 0.5', '"best_value": 0.4'))
    with pytest.raises(CheckpointError, match="changed after it was written") as caught:
        load_checkpoint(saved)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.json"])
def test_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match="missing") as caught:
        load_checkpoint(saved)
    assert caught.value.where == str(saved / name)


def test_other_settings_are_listed(saved: Path) -> None:
    other = {"train": {"learning_rate": 0.2, "weights": {"mlm": 1.0}}, "inputs": "abc"}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved, settings=other)
    assert caught.value.got == "train.learning_rate: 0.1 in the checkpoint, 0.2 now"


def test_other_model_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit the model"):
        restore_model(Tied(width=5), load_checkpoint(saved))


def test_other_optimizer_is_refused(saved: Path) -> None:
    model = Tied()
    optimizer = torch.optim.AdamW(model.unused.parameters(), lr=0.1)
    with pytest.raises(CheckpointError, match="does not fit the optimiser"):
        restore_optimizer(model, optimizer, load_checkpoint(saved))


def test_prune_keeps_the_last_the_named_and_nothing_half_written(tmp_path: Path) -> None:
    for step in (2, 10, 9, 30):
        save_checkpoint(tmp_path, step=step, model={}, optimizer={}, state={}, settings={})
    (tmp_path / ".checkpoint-40.tmp").mkdir()
    (tmp_path / ".checkpoint-1.old").mkdir()
    (tmp_path / "checkpoint-x").mkdir()
    prune_checkpoints(tmp_path, keep_last=2, keep_steps=(2,))
    assert [step for step, _ in find_checkpoints(tmp_path)] == [2, 10, 30]
    assert not list(tmp_path.glob(".checkpoint*"))
    assert find_checkpoints(tmp_path / "absent") == []


def test_failed_write_leaves_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, step=1, model={}, optimizer={}, state={}, settings={})

    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"part")
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(CapabilityError, match="disk is full"):
        save_checkpoint(tmp_path, step=2, model={}, optimizer={}, state={}, settings={})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    load_checkpoint(tmp_path / "checkpoint-1")


def test_log_is_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "run" / "training.jsonl"
    truncate_log(path, n_bytes=0)
    size = append_log(path, {"step": 1, "losses": {"a": 0.1}})
    append_log(path, {"step": 2, "losses": {"a": float("nan")}})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[1] == {"step": 2, "losses": {"a": None}}
    truncate_log(path, n_bytes=size)
    assert path.read_text() == '{"step": 1, "losses": {"a": 0.1}}\n'
    with pytest.raises(CheckpointError, match="shorter"):
        truncate_log(path, n_bytes=size + 1)


def test_full_disk_while_logging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CapabilityError, match="disk is full"):
        append_log(tmp_path / "training.jsonl", {"step": 1})


def test_sharded_model_round_trips(tmp_path: Path) -> None:
    """A checkpoint of shards holds whole tensors and goes back into shards."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        model = Tied()
        plain = {name: tensor.clone() for name, tensor in collect_model(model).items()}
        fully_shard(model, mesh=mesh)
        assert isinstance(model.out.bias, DTensor)
        assert all(torch.equal(t, plain[n]) for n, t in collect_model(model).items())

        weights = [model.embedding.weight, model.out.bias]
        optimizer = torch.optim.AdamW(weights, lr=0.1)
        for parameter in weights:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        path = save_checkpoint(
            tmp_path,
            step=1,
            model=collect_model(model),
            optimizer=collect_optimizer(model, optimizer),
            state={},
            settings={},
        )
        found = load_checkpoint(path)
        assert found.optimizer["out.bias/exp_avg"].shape == (4,)

        other = Tied()
        restore_model(other, found)
        fully_shard(other, mesh=mesh)
        other_optimizer = torch.optim.AdamW([other.embedding.weight, other.out.bias], lr=0.1)
        restore_optimizer(other, other_optimizer, found)
        assert isinstance(other_optimizer.state[other.out.bias]["exp_avg"], DTensor)
        for name, tensor in collect_optimizer(other, other_optimizer).items():
            assert torch.equal(tensor, found.optimizer[name]), name
    finally:
        torch.distributed.destroy_process_group()
