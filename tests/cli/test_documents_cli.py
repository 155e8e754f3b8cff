"""extract --model, encode and freeze: what they print, write and refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import tiny_documents
import tiny_run
from graphmert import cli


def invoke(*words: object) -> Any:
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    texts = dict(list(tiny_documents.all_texts().items())[:2])
    return tiny_documents.write_texts(tmp_path / "docs", texts)


def test_extract_and_update(frozen_run: Path, docs: Path, tmp_path: Path) -> None:
    words = ("extract", "--model", frozen_run, docs, "--out", tmp_path / "out")
    result = invoke(*words, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["documents"] == {"computed": 2, "reused": 0}
    assert told["extract"]["n_accepted"] > 0
    assert told["exit_code"] == 0
    assert "read documents: done" in result.stderr
    (docs / "more.jsonl").write_text('{"id": "m", "text": "Yeast lifts the dough."}\n')
    assert "reused: 2" in invoke(*words).stdout
    assert json.loads(invoke(*words, "--json").stdout)["documents"] == {"computed": 0}
    result = invoke(*words, "--min-accepted", 10**6, "--json")
    assert result.exit_code == json.loads(result.stdout)["exit_code"] == 1
    shown = invoke("query", tmp_path / "out", "rye bread", "--json")
    assert shown.exit_code == 0


def test_freeze_and_encode(frozen_run: Path, docs: Path, tmp_path: Path) -> None:
    result = invoke("freeze", frozen_run, "--out", tmp_path / "copy", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["n_files"] == len(tiny_run.contents(tmp_path / "copy"))
    words = ("encode", "--model", tmp_path / "copy", docs, "--out", tmp_path / "v.npz")
    result = invoke(*words, "--unit", "document", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["documents"], told["vectors"], told["dimension"]) == (2, 2, 16)
    with np.load(tmp_path / "v.npz") as arrays:
        assert arrays["doc_id"].tolist() == ["t00.txt", "t01.txt"]


def unfinished(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    del manifest["stages"]["train"]
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize("command", ["extract", "encode"])
def test_bad_models_and_documents(
    frozen_run: Path, docs: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "v.npz" if command == "encode" else tmp_path / "out"

    def told(model: Path, *words: object) -> tuple[int, str]:
        result = invoke(command, "--model", model, *words, "--out", out, "--json")
        error = json.loads(result.stdout)
        assert error["exit_code"] == result.exit_code
        assert error["error"]["what"] in result.stderr
        return result.exit_code, result.stderr

    code, text = told(tmp_path / "gone", docs)
    assert (code, "no such model" in text) == (2, True)
    code, text = told(frozen_run, tmp_path / "gone")
    assert (code, "does not exist" in text) == (2, True)
    broken = Path(shutil.copytree(frozen_run, tmp_path / "broken"))
    unfinished(broken)
    code, text = told(broken, docs)
    assert (code, "the run is not finished" in text) == (3, True)
    (docs / "bad.txt").write_bytes(b"caf\xe9")
    code, text = told(frozen_run, docs)
    assert (code, "bad.txt, line 1" in text) == (3, True)
    tiny_documents.write_texts(docs, {"a.txt": ""})
    code, text = told(frozen_run, docs)
    assert (code, "the corpus is empty" in text) == (3, True)
    assert not (tmp_path / "v.npz").exists()
    assert not (tmp_path / "out" / "kg").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("RUN.toml", "more.txt"),
        ("RUN.toml", "--out", "x"),
        ("RUN.toml", "--workers", "2"),
        ("--model", "run", "docs"),
        ("--model", "run", "docs", "--out", "x", "--set", "extract.top_k=2"),
    ],
    ids=" ".join,
)
def test_the_two_forms_of_extract_do_not_mix(words: tuple[str, ...]) -> None:
    result = invoke("extract", *words, "--json")
    assert result.exit_code == 2, result.stderr
    assert "--model DIR DOCS... --out DIR" in result.stderr
