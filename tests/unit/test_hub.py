"""What of a pretrained model counts: every file that changes a result, wherever it lies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_run
from graphmert import run
from graphmert.config import build
from graphmert.errors import CapabilityError, FormatError
from graphmert.hub import hash_pretrained, pretrained_files
from graphmert.run import RunConfig

FILES = {
    "config.json": "{}",
    "model.safetensors": "weights",
    "tokenizer.json": "words",
    "1_Pooling/config.json": "{}",
    "README.md": "no part of it",
}


def write(folder: Path, **changes: str | None) -> Path:
    files: dict[str, str | None] = {**FILES, **changes}
    for name, text in files.items():
        if text is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def cached(model: Path, cache: Path, hub_id: str) -> None:
    """Lay a folder out as the hub cache does."""
    repo = cache / f"models--{hub_id.replace('/', '--')}"
    shutil.copytree(model, repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc", encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"]
)
def test_every_file_that_counts_changes_the_hash(tmp_path: Path, name: str) -> None:
    one, same = write(tmp_path / "one"), write(tmp_path / "same", **{"README.md": "other"})
    other = write(tmp_path / "other", **{name: '{"a": 1}'})
    assert hash_pretrained(one) == hash_pretrained(same) != hash_pretrained(other)


def test_weights_of_the_older_form_and_in_parts(tmp_path: Path) -> None:
    old = {"model.safetensors": None, "pytorch_model.bin": "weights"}
    one = write(tmp_path / "one", **old)
    assert hash_pretrained(one) != hash_pretrained(
        write(tmp_path / "two", **old | {"pytorch_model.bin": "others"})
    )
    index = json.dumps({"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}})
    parts = {"model.safetensors": None, "model.safetensors.index.json": index,
             "part-1.safetensors": "1"}  # fmt: skip
    folder = write(tmp_path / "parts", **parts)
    with pytest.raises(CapabilityError, match="no weights"):
        hash_pretrained(folder)
    (folder / "part-2.safetensors").write_text("2", encoding="utf-8")
    before = hash_pretrained(folder)
    (folder / "part-2.safetensors").write_text("3", encoding="utf-8")
    assert hash_pretrained(folder) != before
    (folder / "model.safetensors.index.json").write_text("[]", encoding="utf-8")
    with pytest.raises(FormatError, match="weight_map"):
        hash_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_cannot_be_hashed_is_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "one", **{name: None})
    with pytest.raises(CapabilityError, match="the pretrained body could not be found"):
        hash_pretrained(folder, what="pretrained body")


def test_a_hub_id_is_found_in_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = write(tmp_path / "model")
    with pytest.raises(CapabilityError, match="no configuration, no weights, no tokenizer"):
        hash_pretrained("some/model")
    with pytest.raises(CapabilityError):
        hash_pretrained("no id at all")
    cached(folder, tmp_path / "cache", "some/model")
    assert set(pretrained_files("some/model")) == set(FILES) - {"README.md"}
    assert hash_pretrained("some/model") == hash_pretrained(folder)


def plan(**changes: Any) -> run._Plan:
    return run._Plan(build(tiny_run.settings(**changes), RunConfig), Path("run"))


def test_a_run_depends_on_all_of_its_body(tmp_path: Path) -> None:
    (tmp_path / "tiny.obo").write_text(tiny_run.ontology(), encoding="utf-8")
    with tiny_run.working_in(tmp_path):
        with pytest.raises(CapabilityError, match="pretrained body"):
            plan(data={"body": "never/fetched"})
        old = {"model.safetensors": None, "pytorch_model.bin": "weights"}
        write(tmp_path / "body", **old)
        marks = [plan(data={"body": "body"}).fingerprint("prepare")]
        for name in ("pytorch_model.bin", "tokenizer.json", "config.json"):
            (tmp_path / "body" / name).write_text('{"changed": 1}', encoding="utf-8")
            marks.append(plan(data={"body": "body"}).fingerprint("prepare"))
        assert len(set(marks)) == 4
