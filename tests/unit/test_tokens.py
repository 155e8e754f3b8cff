"""Byte-level BPE: the same bytes from the same texts, and every text survives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphmert.tokens import Tokenizer

TEXTS = [
    "def add(left, right):\n    return left + right\n",
    "class Adder:\n    def add(self, left, right):\n        return add(left, right)\n",
    "function größer(a, b) { return a > b; }  // naïve\n",
    "public int add(int left, int right) { return left + right; }\n",
] * 3


def test_special_tokens_are_numbered_as_roberta_does() -> None:
    tokenizer = Tokenizer.train_bytes(TEXTS, vocab_size=300)
    ids = (tokenizer.cls_id, tokenizer.pad_id, tokenizer.sep_id, tokenizer.unk_id)
    assert ids == (0, 1, 2, 3)
    assert tokenizer.mask_id == 4
    assert tokenizer.special_ids == frozenset(range(5))
    assert tokenizer.vocab_size == 300


@pytest.mark.parametrize("text", ["a  b\t\n", "naïve 漢字 \U0001f600", "\x00\x7f", ""])
def test_any_text_survives(text: str) -> None:
    tokenizer = Tokenizer.train_bytes(TEXTS, vocab_size=290)
    encoding = tokenizer.encode(text)
    assert tokenizer.unk_id not in encoding.ids
    assert tokenizer.decode(encoding.ids.tolist()) == text


def test_offsets_cover_the_names() -> None:
    tokenizer = Tokenizer.train_bytes(TEXTS, vocab_size=300)
    text = TEXTS[0]
    encoding = tokenizer.encode(text)
    pieces = [text[start:end] for start, end in encoding.offsets]
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


def test_the_order_of_texts_and_the_process_change_nothing(tmp_path: Path) -> None:
    here = Tokenizer.train_bytes(reversed(TEXTS), vocab_size=320).fingerprint
    code = (
        "import sys, json\nfrom graphmert.tokens import Tokenizer\n"
        "print(Tokenizer.train_bytes(json.load(open(sys.argv[1])), vocab_size=320).fingerprint)"
    )
    import json

    (tmp_path / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "texts.json")],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed},
        )
        assert done.stdout.strip() == here


def test_a_trained_tokenizer_is_saved_and_loaded(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train_bytes(TEXTS, vocab_size=290)
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(TEXTS[2]).ids.tolist() == tokenizer.encode(TEXTS[2]).ids.tolist()
