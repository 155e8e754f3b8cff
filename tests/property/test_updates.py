"""Whatever is done to a folder of documents, an update equals a fresh extraction, byte for byte."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_documents
import tiny_run
from graphmert import shards
from graphmert.run.asking import Asker
from graphmert.run.updating import extract_documents


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def make_texts(rng: np.random.Generator) -> str:
    """A text of one to three of the sample's texts; some with line ends between."""
    chosen = rng.choice(len(tiny_documents.TEXTS), size=rng.integers(1, 4), replace=False)
    joint = str(rng.choice([" ", "\n\n", "\r\n"]))
    return joint.join(tiny_documents.TEXTS[int(one)] for one in chosen)


def edit(texts: dict[str, str], rng: np.random.Generator) -> dict[str, str]:
    """Add, change, rename and delete some documents; a text may stand twice."""
    texts = dict(texts)
    for _ in range(int(rng.integers(1, 4))):
        names = sorted(texts)
        one = str(rng.choice(names))
        match int(rng.integers(5)):
            case 0:
                texts[f"n{rng.integers(100)}.txt"] = make_texts(rng)
            case 1:
                texts[one] = make_texts(rng)
            case 2:
                texts[f"r{rng.integers(100)}.txt"] = texts.pop(one)
            case 3:
                texts[f"a{rng.integers(100)}.txt"] = texts[one]
            case _ if len(names) > 2:
                del texts[one]
    return texts


def assert_same(one: Path, two: Path) -> None:
    first, second = tiny_run.contents(one), tiny_run.contents(two)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The (id, text) of every document that is answered for."""
    seen: list[tuple[str, str]] = []
    real = Asker.ask

    def spy(self: Asker, reading: Any, document: Any) -> Any:
        seen.append((document["doc_id"][0].as_py(), document["text"][0].as_py()))
        return real(self, reading, document)

    monkeypatch.setattr(Asker, "ask", spy)
    return seen


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_updates_equal_a_fresh_extraction(
    frozen_run: Path, tmp_path: Path, seen: list[tuple[str, str]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    texts = {f"t{place}.txt": make_texts(rng) for place in range(5)}
    known: set[tuple[str, str]] = set()
    n_reused = n_accepted = 0
    for step in range(4):
        docs = tiny_documents.write_texts(tmp_path / "docs", texts)
        seen.clear()
        result = extract_documents(frozen_run, [docs], tmp_path / "out", min_accepted=0)
        # Of equal texts the first by name is a document.
        distinct = {text: name for name, text in sorted(texts.items(), reverse=True)}
        documents = {(name, text) for text, name in distinct.items()}
        assert set(seen) == documents - known
        assert len(seen) == len(set(seen)) == result.summary["documents"]["computed"]
        n_reused += len(documents) - len(seen)
        known = documents
        extract_documents(frozen_run, [docs], tmp_path / f"fresh{step}", min_accepted=0)
        assert_same(tmp_path / "out", tmp_path / f"fresh{step}")
        n_accepted += result.summary["extract"]["n_accepted"]
        texts = edit(texts, rng)
    assert n_reused > 5
    assert n_accepted > 50


def test_another_model_does_everything_again(
    frozen_run: Path, tmp_path: Path, seen: list[tuple[str, str]]
) -> None:
    docs = tiny_documents.write_texts(
        tmp_path / "docs", dict(list(tiny_documents.all_texts().items())[:3])
    )
    other = tiny_run.copy(frozen_run, tmp_path / "other")
    rule = {**tiny_documents.RULE, "threshold": 0.6, "tried": {}}
    tiny_documents.change_json(other, "kg/measured.json", {"rule": rule})
    for model in (frozen_run, other, frozen_run):
        seen.clear()
        extract_documents(model, [docs], tmp_path / "out")
        assert len(seen) == 3
    extract_documents(frozen_run, [docs], tmp_path / "fresh")
    assert_same(tmp_path / "out", tmp_path / "fresh")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_killed_before_a_file_is_renamed(
    frozen_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """The first extraction and an update, each killed once and given again."""
    events: list[str] = []
    limit = 0
    flush = shards._flush_file

    def count(path: Path) -> None:
        events.append(path.name)
        if len(events) == limit:
            raise Killed
        flush(path)

    monkeypatch.setattr(shards, "_flush_file", count)
    texts = dict(list(tiny_documents.all_texts().items())[:4])
    out = tmp_path / "out"
    for change in ({}, {"t01.txt": "Salt and butter.", "new.txt": tiny_documents.TEXTS[9]}):
        texts |= change
        docs = tiny_documents.write_texts(tmp_path / "docs", texts)
        whole = tmp_path / f"whole{len(change)}"
        if out.exists():
            shutil.copytree(out, whole)
        limit = 0
        events.clear()
        extract_documents(frozen_run, [docs], whole, min_accepted=0)
        limit = 1 + int(share * (len(events) - 1))
        assert len(events) > 12
        events.clear()
        with pytest.raises(Killed):
            extract_documents(frozen_run, [docs], out, min_accepted=0)
        limit = 0
        extract_documents(frozen_run, [docs], out, min_accepted=0)
        assert_same(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [2, 4])
def test_workers_change_no_byte(frozen_run: Path, tmp_path: Path, n_workers: int) -> None:
    docs = tiny_documents.write_texts(tmp_path / "docs", tiny_documents.all_texts())
    extract_documents(frozen_run, [docs], tmp_path / "one")
    extract_documents(frozen_run, [docs], tmp_path / "more", n_workers=n_workers)
    assert_same(tmp_path / "one", tmp_path / "more")


@pytest.mark.slow
def test_a_killed_command_goes_on(frozen_run: Path, tmp_path: Path) -> None:
    docs = tiny_documents.write_texts(tmp_path / "docs", tiny_documents.all_texts())
    extract_documents(frozen_run, [docs], tmp_path / "whole")
    words = ["extract", "--model", frozen_run, docs, "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "graphmert.cli", *map(str, words)]
    n_kills, patience = 0, 1.0
    while True:
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        # The start of Python takes the longest: waiting begins when documents are answered for.
        until = re.compile(rb"documents: " if n_kills % 2 else rb"read documents: done")
        for line in started.stderr or ():
            if until.search(line):
                break
        try:
            assert started.wait(timeout=patience * (n_kills % 3) / 20) == 0
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGKILL)
            started.wait()
            n_kills += 1
            if n_kills < 4:
                continue
            subprocess.run(command, check=True, capture_output=True)
        break
    assert n_kills > 0
    one, two = tiny_run.contents(tmp_path / "out"), tiny_run.contents(tmp_path / "whole")
    extra = {name for name in one if shards.TEMPORARY_MARK in name}
    assert {name: data for name, data in one.items() if name not in extra} == two
