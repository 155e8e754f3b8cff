"""The commands on a small real run: what they print, what they refuse, what they do again."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import tiny_run
from graphmert import cli, shards


def invoke(folder: Path, *words: object) -> Any:
    with tiny_run.working_in(folder):
        result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_json(folder: Path, *words: object, exit_code: int = 0) -> dict[str, Any]:
    """Run RUN.toml; stdout is one JSON document."""
    result = invoke(folder, "run", "RUN.toml", "--json", *words)
    assert result.exit_code == exit_code, result.stderr
    told = json.loads(result.stdout)
    assert told["exit_code"] == exit_code
    return told


def assert_same(folder: Path, finished: Path) -> None:
    one, two = tiny_run.contents(folder / "run"), tiny_run.contents(finished / "run")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


@pytest.fixture
def again(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return tiny_run.copy(finished, tmp_path / "again")


# --- init, --dry-run, --stage, --json, --set ------------------------------------------------


def test_init_writes_a_file_that_runs(tmp_path: Path) -> None:
    tiny_run.write_inputs(tmp_path)
    made = invoke(
        tmp_path, "init", "--corpus", "definitions", "--kg", "tiny.obo", "--out", "N.toml"
    )
    assert made.exit_code == 0
    assert "graphmert data fetch minilm-l6-384" in made.stderr
    text = (tmp_path / "N.toml").read_text(encoding="utf-8")
    assert text.count("# ") > 30
    small = ("--set", "data.body=", "--set", "split.n_valid_heads=8", "--set")
    words = ("run", "N.toml", "--stage", "prepare", "--json", *small, "split.n_test_heads=12")
    result = invoke(tmp_path, *words)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "run-output" / "chains" / "chains.parquet").is_file()


def test_init_of_an_unknown_corpus(tmp_path: Path) -> None:
    result = invoke(tmp_path, "init", "--corpus", "texts/", "--kg", "tiny.obo")
    assert result.exit_code == 2
    assert "--corpus" in result.stderr
    assert not (tmp_path / "RUN.toml").exists()


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    tiny_run.write_inputs(tmp_path)
    before = tiny_run.contents(tmp_path)
    told = run_json(tmp_path, "--dry-run")
    assert told["stages"] == dict.fromkeys(tiny_run.STAGES, "to do")
    assert told["input"]["terms"] == 74
    assert told["training"]["updates"] == 40
    assert told["training"]["estimated_seconds"] >= 0
    assert tiny_run.contents(tmp_path) == before


def test_dry_run_tells_what_a_change_undoes(again: Path) -> None:
    assert set(run_json(again, "--dry-run")["stages"].values()) == {"done"}
    told = run_json(again, "--dry-run", "--set", "extract.top_k=2")["stages"]
    assert told == dict(zip(tiny_run.STAGES, ["done"] * 2 + ["to do"] * 3, strict=True))
    told = run_json(again, "--dry-run", "--set", "split.seed=1", "--stage", "train")["stages"]
    assert told == {"prepare": "to do", "train": "to do"}


def test_stages_one_after_the_other(finished: Path, tmp_path: Path) -> None:
    tiny_run.write_inputs(tmp_path)
    for index, stage in enumerate(tiny_run.STAGES):
        result = invoke(tmp_path, stage, "RUN.toml", "--json")
        assert result.exit_code == 0, result.stderr
        done = json.loads(result.stdout)["stages"]
        assert done == dict.fromkeys(tiny_run.STAGES[:index], "already done") | {stage: "done"}
    assert_same(tmp_path, finished)


def test_a_finished_run_is_left_alone(again: Path) -> None:
    def times() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in again.rglob("*")}

    before = times()
    told = run_json(again)
    assert set(told["stages"].values()) == {"already done"}
    assert told["extract"]["n_accepted"] > 0
    assert told["report"] == "run/report.html"
    assert times() == before


def test_plain_output(again: Path) -> None:
    tiny_run.rewind(again, "evaluate")
    result = invoke(again, "run", "RUN.toml")
    assert result.exit_code == 0
    assert "report: run/report.html" in result.stdout
    assert "train: already done" in result.stderr
    assert re.search(r"baseline bm25_names: done in [\d.]+ s", result.stderr)


def test_a_change_there_and_back_gives_the_same_bytes(again: Path, finished: Path) -> None:
    told = run_json(again, "--set", "extract.top_k=2")
    assert told["stages"]["train"] == "already done"
    assert told["stages"]["extract"] == "done"
    ledger = json.loads((again / "run" / "ledger.json").read_text(encoding="utf-8"))
    assert [one["stage"] for one in ledger["stages"]][-1] == "extract: candidates"
    run_json(again)
    assert_same(again, finished)


def test_another_training_starts_afresh(again: Path, finished: Path) -> None:
    told = run_json(again, "--set", "train.total_steps=8", "--stage", "train")
    assert told["stages"] == {"prepare": "already done", "train": "done"}
    assert told["train"]["n_updates"] == 8
    names = sorted(path.name for path in (again / "run/model/checkpoints").iterdir())
    assert names == ["checkpoint-8"]
    run_json(again)
    assert_same(again, finished)


def test_fewer_triples_than_asked_is_1(again: Path) -> None:
    tiny_run.rewind(again, "report")
    result = invoke(again, "run", "RUN.toml", "--set", "extract.min_accepted=100000")
    assert result.exit_code == 1
    assert "fewer than extract.min_accepted = 100000" in result.stderr
    assert (again / "run" / "report.html").is_file()


# --- bad settings ---------------------------------------------------------------------------

BAD_SETTINGS = {
    "unknown key": (["train.learning_rte=0.1"], 2, "'train.learning_rate'|'learning_rate'"),
    "unknown section": (["trian.seed=1"], 2, "'train'|'seed'"),
    "wrong type": (["split.n_test_heads='many'"], 2, "split.n_test_heads"),
    "wrong value": (["split.n_test_heads=0"], 2, "split.n_test_heads"),
    "no such KG": (["data.kg=nothing.obo"], 2, "nothing.obo"),
    "no such sample": (["data.kg=sample:nothing"], 2, "sample:nothing"),
    "no such data set": (["data.kg=dataset:nothing"], 2, "go-2021-12"),
    "not fetched": (["data.kg=dataset:go-2021-12"], 4, "graphmert data fetch go-2021-12"),
    "body not fetched": (["data.body=dataset:minilm-l6-384"], 4, "data fetch minilm-l6-384"),
    "no such body": (["data.body=no/such/folder"], 4, "no/such/folder"),
    "too many heads": (["split.n_test_heads=500"], 3, "expected 500"),
    "no such preset": (["model.preset=tinny"], 2, "did you mean tiny"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_bad_settings(again: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    settings, exit_code, words = BAD_SETTINGS[case]
    monkeypatch.setenv("GRAPHMERT_DATA", str(again / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    changes = [word for one in settings for word in ("--set", one)]
    result = invoke(again, "run", "RUN.toml", "--json", *changes)
    assert result.exit_code == exit_code, result.stderr
    assert re.search(words, result.stderr), result.stderr
    told = json.loads(result.stdout)
    assert told["exit_code"] == exit_code
    assert told["error"]["what"]


def test_an_unknown_key_is_found_by_line(again: Path) -> None:
    text = (again / "RUN.toml").read_text(encoding="utf-8")
    line = text[: text.index("warmup_steps")].count("\n") + 1
    (again / "RUN.toml").write_text(text.replace("warmup_steps", "warmup_step"), encoding="utf-8")
    result = invoke(again, "run", "RUN.toml")
    assert result.exit_code == 2
    assert f"RUN.toml, line {line}" in result.stderr
    assert "'warmup_steps'" in result.stderr


# --- bad input ------------------------------------------------------------------------------


def without_definitions(text: str) -> bytes:
    return re.sub(r"^def: .*\n", "", text, flags=re.MULTILINE).encode()


def latin_1(text: str) -> bytes:
    return text.encode().replace("naïvely".encode(), "naïvely".encode("latin-1"))


def cyclic(text: str) -> bytes:
    return text.replace("\nname: growth\n", "\nname: growth\nis_a: T:0013\n").encode()


def symmetric(text: str) -> bytes:
    return text.replace("name: regulates\n", "name: regulates\nis_symmetric: true\n").encode()


BAD_FILES: dict[str, tuple[Callable[[str], bytes], str]] = {
    "no definitions": (without_definitions, "the corpus is empty"),
    "no terms": (lambda text: text.partition("[Term]")[0].encode(), "no live term"),
    "not UTF-8": (latin_1, r"tiny\.obo, line \d+.*0xef"),
    "a cycle": (cyclic, r"is_a is acyclic but has the cycle T:0012 -> T:0013 -> T:0012"),
    "no syntax": (lambda text: text.encode() + b"[Term\n", r"tiny\.obo, line \d+"),
    "a term twice": (lambda text: text.encode() + b"[Term]\nid: T:0001\nname: x\n", "T:0001"),
    "half a gzip file": (lambda text: gzip.compress(text.encode())[:200], "gzip"),
    "empty": (lambda text: b"", "no live term"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(tmp_path: Path, case: str) -> None:
    break_, words = BAD_FILES[case]
    tiny_run.write_inputs(tmp_path)
    (tmp_path / "tiny.obo").write_bytes(break_(tiny_run.ontology()))
    result = invoke(tmp_path, "run", "RUN.toml", "--json")
    assert result.exit_code == 3, result.stderr
    assert re.search(words, result.stderr), result.stderr
    assert json.loads(result.stdout)["exit_code"] == 3
    assert list((tmp_path / "run").rglob("*.parquet")) == []


def test_dangling_ids_and_undeclared_relations_are_told(tmp_path: Path) -> None:
    tiny_run.write_inputs(tmp_path)
    text = tiny_run.ontology().replace(
        "\nname: wall\n", "\nname: wall\nrelationship: near T:0005\n"
    )
    (tmp_path / "tiny.obo").write_text(text, encoding="utf-8")
    run_json(tmp_path, "--stage", "prepare")
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text(encoding="utf-8"))["stages"][0]
    assert ledger["examples"]["tail is not in the file"] == ["T:0074 regulates T:9999"]
    assert '[relations."near"]' in (tmp_path / "run/seed/schema.toml").read_text(encoding="utf-8")


# --- damage in the run directory ------------------------------------------------------------


Damage = Callable[[Path], None]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("name", "stage", "damage"),
    [
        ("seed/triples.parquet", "prepare", truncate),
        ("model/model.safetensors", "train", flip),
        ("kg/evidence.parquet", "extract", Path.unlink),
        ("metrics.json", "evaluate", Path.unlink),
        ("report.html", "report", flip),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_damaged_output_is_made_again(
    again: Path, finished: Path, name: str, stage: str, damage: Damage
) -> None:
    damage(again / "run" / name)
    told = run_json(again)["stages"]
    assert {one for one, state in told.items() if state == "done"} == {stage}
    assert_same(again, finished)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", truncate),
        ("optimizer.safetensors", flip),
        ("optimizer.safetensors", Path.unlink),
        ("checkpoint.json", flip),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_damaged_checkpoint_is_refused(again: Path, name: str, damage: Damage) -> None:
    flip(again / "run" / "model" / "model.safetensors")
    damage(again / "run" / "model" / "checkpoints" / "checkpoint-40" / name)
    result = invoke(again, "run", "RUN.toml")
    assert result.exit_code == 3
    assert f"checkpoint-40/{name}" in result.stderr
    assert "Delete this folder" in result.stderr


def test_a_damaged_manifest_is_refused_and_can_be_removed(again: Path, finished: Path) -> None:
    manifest = again / "run" / "manifest.json"
    truncate(manifest)
    result = invoke(again, "run", "RUN.toml")
    assert result.exit_code == 3
    assert "manifest.json" in result.stderr
    manifest.unlink()
    assert set(run_json(again)["stages"].values()) == {"done"}
    assert_same(again, finished)


@pytest.mark.parametrize("name", ["kg/triples", "kg/evidence", "corpus/documents"])
def test_a_corrupt_table_is_named(again: Path, name: str) -> None:
    from graphmert.errors import FormatError
    from graphmert.report import render_report

    path = again / "run" / f"{name}.parquet"
    truncate(path)
    with pytest.raises(FormatError, match=re.escape(str(path))):
        render_report(again / "run")


# --- a full disk ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("prepare", "chains.parquet"),
        ("train", "optimizer.safetensors"),
        ("train", "relations.json"),
        ("extract", "triples.parquet"),
        ("evaluate", "metrics.json"),
        ("report", "report.html"),
        ("report", "ledger.json"),
        ("report", "manifest.json"),
    ],
)
def test_a_full_disk(
    again: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, stage: str, name: str
) -> None:
    tiny_run.rewind(again, stage)
    flush = shards._flush_file

    def fail(path: Path) -> None:
        if path.name.startswith(f".{name}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        flush(path)

    monkeypatch.setattr(shards, "_flush_file", fail)
    result = invoke(again, "run", "RUN.toml")
    assert result.exit_code == 4
    assert "disk is full" in result.stderr
    assert name in result.stderr
    assert list(again.rglob("*.writing-*")) == []
    assert "run the same command again" in result.stderr
    monkeypatch.undo()
    run_json(again)
    assert_same(again, finished)


def test_a_full_disk_while_the_model_is_written(
    again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from graphmert.model import GraphMERT

    def fail(*args: object, **options: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    tiny_run.rewind(again, "train")
    monkeypatch.setattr(GraphMERT, "save_pretrained", fail)
    result = invoke(again, "run", "RUN.toml", "--set", "train.total_steps=1")
    assert result.exit_code == 4
    assert "model.safetensors" in result.stderr


# --- a pretrained body ----------------------------------------------------------------------


def make_body(folder: Path, finished: Path, *, seed: int) -> None:
    """A BERT with random weights and the tokenizer of the finished run."""
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = finished / "run" / "chains" / "tokenizer.json"
    config = transformers.BertConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())


def test_what_depends_on_the_body_is_done_again(finished: Path, tmp_path: Path) -> None:
    tiny_run.write_inputs(
        tmp_path,
        data={"body": "body"},
        model={"changes": {}},
        train={"total_steps": 2, "warmup_steps": 0},
        evaluate={"bi_encoder_steps": 2, "bi_encoder_batch": 4, "bi_encoder_negatives": 4},
    )
    make_body(tmp_path / "body", finished, seed=0)
    run_json(tmp_path, "--stage", "evaluate")
    told = run_json(tmp_path, "--stage", "evaluate", "--set", "evaluate.bi_encoder_steps=3")
    assert [one for one, state in told["stages"].items() if state == "done"] == ["evaluate"]
    systems = json.loads((tmp_path / "run/metrics.json").read_text("utf-8"))["test"]["systems"]
    assert systems["bi_encoder"]["trained"]
    first = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    make_body(tmp_path / "body", finished, seed=1)
    told = run_json(tmp_path, "--stage", "evaluate")
    assert set(told["stages"].values()) == {"done"}
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() != first


# --- the demo -------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_offline_demo(tmp_path: Path) -> None:
    result = invoke(tmp_path, "demo", "--offline", "--out", "demo", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["above_every_untrained_baseline"]
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    assert pq.read_table(tmp_path / "demo" / "kg" / "triples.parquet").num_rows > 10
