"""Vectors of documents: what they are, that they stand alone, and the files they are in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import tiny_documents
from graphmert.chain import LeafyChain
from graphmert.domains.text import corpus as corpus_module
from graphmert.errors import ConfigError, DataError
from graphmert.extract import encode_entities
from graphmert.feed import NameTable
from graphmert.run.encoding import STATE, encode_documents
from graphmert.run.stages import load_model
from graphmert.tokens import Tokenizer


def encode(run: Path, texts: dict[str, str], folder: Path, **options: Any) -> list[dict[str, Any]]:
    docs = tiny_documents.write_texts(folder / "docs", texts)
    encode_documents(run, [docs], folder / "v.parquet", **options)
    return pq.read_table(folder / "v.parquet").to_pylist()


@pytest.fixture
def texts() -> dict[str, str]:
    """One document of several sequences among short ones."""
    found = tiny_documents.all_texts()
    return found | {"t05.txt": " ".join(tiny_documents.TEXTS[:6])}


def test_vectors_are_mean_root_states(
    frozen_run: Path, tmp_path: Path, texts: dict[str, str]
) -> None:
    rows = encode(frozen_run, texts, tmp_path)
    tokenizer = Tokenizer.load(frozen_run / "chains")
    model = load_model(frozen_run / "model").eval()
    assert len(rows) > len(texts) + 1
    for row in rows:
        text = texts[row["doc_id"]][row["start"] : row["end"]]
        tokens = tokenizer.encode(text).ids.tolist()
        assert row["n_tokens"] == len(tokens) <= 40
        chain = LeafyChain((tokenizer.cls_id, *tokens, tokenizer.sep_id))
        batch = NameTable((chain.roots,)).batch([0], pad_id=tokenizer.pad_id)
        with torch.no_grad():
            mean_D = model(batch)[0].mean(0).numpy()
        expected = mean_D / np.linalg.norm(mean_D)
        np.testing.assert_allclose(row["vector"], expected, atol=1e-5)
    schema = pq.read_schema(tmp_path / "v.parquet")
    assert schema.metadata[b"graphmert.state"].decode() == STATE
    assert str(schema.field("vector").type) == "fixed_size_list<element: float>[16]"


def test_names_and_texts_share_a_space(frozen_run: Path, tmp_path: Path) -> None:
    (row,) = encode(frozen_run, {"a.txt": "wheat flour"}, tmp_path)
    tokenizer = Tokenizer.load(frozen_run / "chains")
    tokens = tokenizer.encode("wheat flour").ids.tolist()
    names = NameTable(((tokenizer.cls_id, *tokens, tokenizer.sep_id),))
    vector = encode_entities(load_model(frozen_run / "model"), names, pad_id=tokenizer.pad_id)
    np.testing.assert_allclose(row["vector"], vector[0].numpy(), atol=1e-6)


def test_a_document_is_the_mean_of_its_sequences(
    frozen_run: Path, tmp_path: Path, texts: dict[str, str]
) -> None:
    parts = encode(frozen_run, texts, tmp_path)
    whole = encode(frozen_run, texts, tmp_path, unit="document")
    assert [row["doc_id"] for row in whole] == sorted(texts)
    for row in whole:
        own = [part for part in parts if part["doc_id"] == row["doc_id"]]
        weight = np.array([part["n_tokens"] for part in own], dtype=np.float64)
        mean = weight @ np.array([part["vector"] for part in own])
        np.testing.assert_allclose(row["vector"], mean / np.linalg.norm(mean), atol=1e-6)
        assert (row["start"], row["end"]) == (own[0]["start"], own[-1]["end"])
        assert row["seq_id"] is None
        assert row["n_tokens"] == weight.sum()


def test_a_vector_stands_alone(
    frozen_run: Path, tmp_path: Path, texts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = encode(frozen_run, texts, tmp_path / "one")
    monkeypatch.setattr(corpus_module, "GROUP_DOCUMENTS", 5)
    assert encode(frozen_run, texts, tmp_path / "groups") == together
    for name in ("t05.txt", "t03.txt"):
        alone = encode(frozen_run, {name: texts[name]}, tmp_path / name)
        assert alone == [row for row in together if row["doc_id"] == name]


def test_npz_holds_the_same(frozen_run: Path, tmp_path: Path, texts: dict[str, str]) -> None:
    rows = encode(frozen_run, texts, tmp_path)
    for name in ("a.npz", "b.npz"):
        told = encode_documents(frozen_run, [tmp_path / "docs"], tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert (told["vectors"], told["dimension"], told["dtype"]) == (len(rows), 16, "float32")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["vectors"].dtype == np.float32
        np.testing.assert_array_equal(arrays["vectors"], [row["vector"] for row in rows])
        np.testing.assert_allclose(np.linalg.norm(arrays["vectors"], axis=1), 1, atol=1e-5)
        for name in ("doc_id", "sha256", "seq_id", "start", "end", "n_tokens"):
            assert arrays[name].tolist() == [row[name] for row in rows]
        assert len(str(arrays["model_hash"])) == 64
    for one in told["ledgers"]:
        assert one["kept"] + sum(one["left_out"].values()) == one["offered"]


@pytest.mark.slow
def test_workers_change_no_vector(
    frozen_run: Path, tmp_path: Path, texts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "GROUP_DOCUMENTS", 5)
    encode(frozen_run, texts, tmp_path / "one")
    encode(frozen_run, texts, tmp_path / "two", n_workers=2)
    files = [tmp_path / name / "v.parquet" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_bad_places(frozen_run: Path, tmp_path: Path) -> None:
    docs = tiny_documents.write_texts(tmp_path / "docs", {"a.txt": " "})
    with pytest.raises(ConfigError, match=r"\.npz or \.parquet"):
        encode_documents(frozen_run, [docs], tmp_path / "v.csv")
    with pytest.raises(ConfigError, match="does not exist"):
        encode_documents(frozen_run, [tmp_path / "gone"], tmp_path / "v.npz")
    with pytest.raises(ConfigError, match="no document is named"):
        encode_documents(frozen_run, [], tmp_path / "v.npz")
    with pytest.raises(DataError, match="corpus is empty"):
        encode_documents(frozen_run, [docs], tmp_path / "v.npz")
    assert not (tmp_path / "v.npz").exists()
