"""A model's folder is whole or not taken for one, whenever its writer stops."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from graphmert.errors import CapabilityError, CheckpointError
from graphmert.model import GraphMERT
from graphmert.presets import preset_config
from graphmert.run.stages import MODEL_FILES, load_model
from graphmert.run.training import write_model
from graphmert.tokens import Tokenizer

RELATIONS = {"part_of": {"index": 0}}


class Killed(BaseException):
    """What a test stops a writer with."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["a leaf of a tree"], vocab_size=40)


def a_model(tokenizer: Tokenizer, width: int) -> GraphMERT:
    return GraphMERT(
        preset_config(
            "tiny", hidden_size=width, n_layers=1, n_attn_heads=2, ffn_size=8, n_positions=8,
            vocab_size=tokenizer.vocab_size,
        )
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_that_does_not_fit_the_disk_leaves_the_one_before(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(a_model(tokenizer, 8), tokenizer, RELATIONS, tmp_path)
    before = contents(tmp_path)
    assert set(before) == set(MODEL_FILES)

    def full(*_: Any) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(CapabilityError, match="disk is full"):
        patch.setattr(Tokenizer, "save", full)
        write_model(a_model(tokenizer, 16), tokenizer, RELATIONS, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("last_moved", ["model.safetensors", "relations.json", "tokenizer.json"])
def test_a_writer_killed_between_files_leaves_no_model(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_moved: str
) -> None:
    write_model(a_model(tokenizer, 8), tokenizer, RELATIONS, tmp_path)
    replace = Path.replace

    def stop(self: Path, target: Path) -> Path:
        moved = replace(self, target)
        if Path(target) == tmp_path / last_moved:
            raise Killed
        return moved

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", stop)
        write_model(a_model(tokenizer, 16), tokenizer, RELATIONS, tmp_path)
    with pytest.raises(CheckpointError):
        load_model(tmp_path)
    (tmp_path / ".model.tmp").mkdir()  # as a kill leaves it
    (tmp_path / ".model.tmp" / "old.json").touch()
    write_model(a_model(tokenizer, 16), tokenizer, RELATIONS, tmp_path)
    assert load_model(tmp_path).config.hidden_size == 16
    assert set(contents(tmp_path)) == set(MODEL_FILES)
