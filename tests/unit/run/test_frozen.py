"""A finished run opened for new documents: what it must keep, and what is said if it does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny_documents
import tiny_run
from graphmert.errors import CapabilityError, ConfigError, DataError, GraphMERTError
from graphmert.run import is_current
from graphmert.run.frozen import FrozenRun, copy_frozen, open_frozen, refuse_overlap
from graphmert.run.updating import extract_documents
from graphmert.shards import sha256_file


@pytest.fixture
def again(frozen_run: Path, tmp_path: Path) -> Path:
    """A copy of what is kept of the run, to change it."""
    return Path(shutil.copytree(frozen_run, tmp_path / "again"))


def edit_manifest(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = run / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def drop_stage(run: Path) -> None:
    edit_manifest(run, lambda manifest: manifest["stages"].pop("extract"))


def unknown_setting(run: Path) -> None:
    edit_manifest(run, lambda manifest: manifest["config"]["extract"].update(colour="red"))


def retrained(run: Path) -> None:
    """As if it had been trained again, and the extract stage not done again."""
    tiny_documents.change_json(run, "model/relations.json", {"more": {"index": 99}})


def other_rule(run: Path) -> None:
    tiny_documents.change_json(run, "kg/measured.json", {"rule": {"threshold": 0.5}})


def flip(run: Path) -> None:
    path = run / "model" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(bytes(data))


BAD: dict[str, tuple[Callable[[Path], Any], type[GraphMERTError], str]] = {
    "no folder": (shutil.rmtree, ConfigError, "no such model"),
    "no manifest": (lambda run: (run / "manifest.json").unlink(), DataError, "no run directory"),
    "half a manifest": (
        lambda run: (run / "manifest.json").write_text("{"), DataError, "manifest of the run is"),
    "another manifest": (
        lambda run: (run / "manifest.json").write_text('{"stages": {}}'),
        DataError,
        "expected config, inputs",
    ),
    "not finished": (drop_stage, DataError, "stages done: prepare, train.*graphmert extract"),
    "retrained": (retrained, DataError, "do not belong to the model"),
    "no phrases": (
        lambda run: (run / "corpus/phrases.parquet").unlink(), DataError, "phrases.*it is gone"),
    "changed weights": (flip, DataError, "model.safetensors.*SHA-256"),
    "a setting of another version": (unknown_setting, DataError, "another version.*made by"),
    "a rule of another version": (other_rule, DataError, "lacks a part.*calibrator"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_missing_is_said(again: Path, case: str) -> None:
    break_, error, words = BAD[case]
    break_(again)
    with pytest.raises(error, match=words) as told:
        open_frozen(again)
    assert told.value.fix or told.value.expected


def test_the_folder_of_the_weights_is_not_the_run(frozen_run: Path) -> None:
    with pytest.raises(DataError, match=r"Perhaps .*run is meant"):
        open_frozen(frozen_run / "model")


def test_a_trained_run_encodes_before_it_extracts(again: Path) -> None:
    drop_stage(again)
    opened = open_frozen(again, extracts=False)
    assert opened.model_hash == sha256_file(again / "model" / "model.safetensors")
    assert not opened.has("kg/measured.json")


def test_what_a_result_depends_on(frozen_run: Path) -> None:
    opened = open_frozen(frozen_run)
    mark = opened.fingerprint(1, {"torch": "1"})
    assert mark == open_frozen(frozen_run).fingerprint(1, {"torch": "1"})
    others = {opened.fingerprint(2, {"torch": "1"}), opened.fingerprint(1, {"torch": "2"})}
    for name in ("model/model.safetensors", "kg/measured.json", "corpus/phrases.parquet"):
        others.add(replace(opened, hashes={**opened.hashes, name: "0"}).fingerprint(1, {}))
    assert len(others) == 5
    assert mark not in others


def test_a_stage_belongs_to_its_configuration(frozen_run: Path) -> None:
    opened = open_frozen(frozen_run)
    for stage in ("train", "extract"):
        assert is_current(frozen_run, stage, opened.config, opened.inputs)
    extract = opened.config.extract.model_copy(update={"top_k": 4})
    changed = opened.config.model_copy(update={"extract": extract})
    assert not is_current(frozen_run, "extract", changed, opened.inputs)
    assert not is_current(frozen_run, "report", opened.config, opened.inputs)


# --- the embedding model --------------------------------------------------------------------


def with_embedding(run: FrozenRun, model: Path, digest: str) -> FrozenRun:
    settings = run.config.embedding.model_copy(update={"model": str(model)})
    config = run.config.model_copy(update={"embedding": settings})
    return replace(run, config=config, inputs={**run.inputs, "embedding": digest})


def test_the_embedding_model_must_be_the_runs(again: Path, tmp_path: Path) -> None:
    folder = tmp_path / "embedder"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    digest = sha256_file(folder / "model.safetensors")
    opened = open_frozen(again)
    assert opened.embedding == "lexical"
    assert with_embedding(opened, folder, digest).embedding == str(folder)
    with pytest.raises(DataError, match="another than the run's"):
        _ = with_embedding(opened, folder, "0" * 64).embedding
    with pytest.raises(CapabilityError, match="graphmert freeze"):
        _ = with_embedding(opened, tmp_path / "gone", digest).embedding
    # A copy in the folder goes before the place that the run knew.
    shutil.copytree(folder, again / "embedding")
    found = with_embedding(opened, tmp_path / "gone", digest).embedding
    assert found == str(again / "embedding")
    assert with_embedding(opened, folder, digest).fingerprint() != opened.fingerprint()


# --- copies and places ----------------------------------------------------------------------


def test_a_copy_is_enough(frozen_run: Path, tmp_path: Path) -> None:
    told = copy_frozen(frozen_run, tmp_path / "copy")
    names = set(tiny_run.contents(tmp_path / "copy"))
    assert told["n_files"] == len(names)
    assert told["embedding"] == "lexical"
    assert {"manifest.json", "model/model.safetensors", "corpus/tagger.safetensors"} <= names
    assert not {name for name in names if name.startswith(("chains/chains", "corpus/doc", "llm"))}
    docs = tiny_documents.write_texts(tmp_path / "docs", {"a.txt": tiny_documents.TEXTS[0]})
    for name, model in (("one", frozen_run), ("two", tmp_path / "copy")):
        extract_documents(model, [docs], tmp_path / name, min_accepted=0)
    assert tiny_run.contents(tmp_path / "one") == tiny_run.contents(tmp_path / "two")
    with pytest.raises(ConfigError, match="not empty"):
        copy_frozen(frozen_run, tmp_path / "copy")


def test_the_output_lies_apart(frozen_run: Path, tmp_path: Path) -> None:
    opened = open_frozen(frozen_run)
    docs = tiny_documents.write_texts(tmp_path / "docs", {"a.txt": "Salt."})
    for out in (frozen_run, frozen_run / "new", docs, docs / "new"):
        with pytest.raises(ConfigError, match="lies in what is read"):
            refuse_overlap(out, [docs], opened)
    (tmp_path / "other" / "model").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds a run"):
        refuse_overlap(tmp_path / "other", [docs], opened)
    refuse_overlap(tmp_path / "new", [docs], opened)
