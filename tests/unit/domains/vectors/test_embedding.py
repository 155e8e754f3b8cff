from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, T5EncoderModel

from graphmert.documents import make_documents
from graphmert.domains.vectors.embedding import EmbedSettings, embed_documents, split_documents
from graphmert.domains.vectors.sentence_model import SentenceModel, find_model, model_sha256
from graphmert.errors import CapabilityError, DataError, FormatError
from tiny_vectors import sentence_model, some_sentences, write_json

FP32 = EmbedSettings(precision="fp32", shard_size=8, min_words=0)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_model(tmp_path_factory.mktemp("models") / "bert")


def documents(*texts: str) -> Any:
    return make_documents((f"d{i}", "", text, "test", {}) for i, text in enumerate(texts))


def one_by_one(folder: Path, texts: list[str], *, pooling: str = "mean") -> np.ndarray:
    """Each text alone, without padding, by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    loader: Any = T5EncoderModel if "t5" in folder.name else AutoModel
    body = loader.from_pretrained(str(folder)).eval()
    found = []
    for text in texts:
        with torch.no_grad():
            states = body(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        found.append((states.mean(0) if pooling == "mean" else states[0]).numpy())
    return np.array(found)


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "t5"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_the_texts_alone(tmp_path: Path, family: str, pooling: str) -> None:
    folder = sentence_model(tmp_path / family, family, pooling=pooling)
    texts = some_sentences(12)
    vectors, n_cut = SentenceModel(folder, precision="fp32").encode(texts, batch_tokens=60)
    expected = one_by_one(folder, texts, pooling=pooling)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert vectors.dtype == np.float32
    assert n_cut == 0
    assert np.allclose(vectors, expected, atol=2e-6)


def test_dense_and_no_normalisation(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = sentence_model(tmp_path / "bert", dense=5, normalise=False)
    texts = some_sentences(4)
    vectors, _ = SentenceModel(folder, precision="fp32").encode(texts)
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    pooled = torch.from_numpy(one_by_one(folder, texts))
    expected = torch.tanh(pooled @ weights["linear.weight"].T + weights["linear.bias"])
    assert np.allclose(vectors, expected.numpy(), atol=2e-6)


def test_bf16_is_near_fp32(bert: Path) -> None:
    texts = some_sentences(12)
    exact, _ = SentenceModel(bert, precision="fp32").encode(texts)
    rounded, _ = SentenceModel(bert, precision="bf16").encode(texts)
    assert rounded.dtype == np.float32
    assert not np.array_equal(exact, rounded)
    assert (exact * rounded).sum(1).min() > 0.999


def test_long_texts_are_cut_and_counted(bert: Path) -> None:
    texts = ["the cell grows " * 30, "the cell grows"]
    model = SentenceModel(bert, precision="fp32", max_tokens=8)
    vectors, n_cut = model.encode(texts)
    assert n_cut == 1
    assert np.allclose(vectors[0], model.encode(["the cell grows " * 2])[0][0], atol=2e-6)
    assert SentenceModel(bert, precision="fp32").max_tokens == 32  # sentence_bert_config.json


def test_sentences_of_documents(bert: Path, tmp_path: Path) -> None:
    table = documents(
        "The cell grows. It divides again. Yes.", "It divides again. Salt\nreaches   the wall."
    )
    settings = FP32.model_copy(update={"min_words": 2})
    vectors, ledger = embed_documents(table, bert, tmp_path / "v", settings)
    rows = vectors.rows().to_pylist()
    assert [(one["row"], one["doc_id"], one["position"], one["text"]) for one in rows] == [
        (0, "d0", 0, "The cell grows."),
        (1, "d0", 1, "It divides again."),
        (2, "d1", 1, "Salt reaches the wall."),
    ]
    assert ledger.to_dict()["left_out"] == {
        "sentence of fewer than 2 words": 1,
        "sentence repeated": 1,
    }
    expected = one_by_one(bert, [one["text"] for one in rows])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(vectors.vectors, expected, atol=2e-6)
    everything, _ = split_documents(table, settings.model_copy(update={"deduplicate": False}))
    assert everything.num_rows == 4


def test_one_worker_or_two_give_the_same_bytes(bert: Path, tmp_path: Path) -> None:
    table = documents(*(" ".join(some_sentences(7, seed=i)) for i in range(3)))
    one, _ = embed_documents(table, bert, tmp_path / "one", FP32)
    two, _ = embed_documents(table, bert, tmp_path / "two", FP32, n_workers=2)
    assert one.sha256 == two.sha256
    assert one.manifest == two.manifest
    for name in ("manifest.json", "rows.parquet", "vectors.npy"):
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes()


def count_texts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    encode = SentenceModel.encode

    def counted(self: SentenceModel, texts: Any, **options: Any) -> Any:
        counts.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(SentenceModel, "encode", counted)
    return counts


def test_what_is_there_is_not_computed_again(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_texts(monkeypatch)
    texts = [" ".join(some_sentences(8, seed=i)) for i in range(4)]
    cache = tmp_path / "cache"
    first, _ = embed_documents(documents(*texts[:3]), bert, tmp_path / "a", FP32, cache=cache)
    assert counts == [8, 8, 8]
    more, _ = embed_documents(documents(*texts), bert, tmp_path / "b", FP32, cache=cache)
    assert counts == [8, 8, 8, 8]
    assert np.array_equal(more.vectors[:24], first.vectors)
    limited, ledger = embed_documents(
        documents(*texts), bert, tmp_path / "c", FP32, cache=cache, limit=16
    )
    assert counts == [8, 8, 8, 8]
    assert limited.n_vectors == 16
    assert ledger.reasons["after the limit"] == 16
    bf16 = FP32.model_copy(update={"precision": "bf16"})
    embed_documents(documents(*texts), bert, tmp_path / "d", bf16, cache=cache)
    assert counts == [8] * 8


def test_another_model_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = count_texts(monkeypatch)
    table = documents(" ".join(some_sentences(8)))
    for pooling in ("mean", "cls"):
        folder = sentence_model(tmp_path / pooling, pooling=pooling)
        embed_documents(table, folder, tmp_path / f"v{pooling}", FP32, cache=tmp_path / "cache")
    assert counts == [8, 8]


def test_a_readme_does_not_change_the_model(bert: Path) -> None:
    before = model_sha256(bert)
    (bert / "README.md").write_text("about")
    assert model_sha256(bert) == before
    (bert / "1_Pooling" / "extra.json").write_text("{}")
    assert model_sha256(bert) != before
    (bert / "1_Pooling" / "extra.json").unlink()


def test_a_killed_run_goes_on(bert: Path, tmp_path: Path) -> None:
    """Kill −9 while shards are written; the same call ends with the same bytes."""
    texts = [" ".join(some_sentences(8, seed=i)) for i in range(40)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    script = f"""
import json
from pathlib import Path
from graphmert.documents import make_documents
from graphmert.domains.vectors.embedding import EmbedSettings, embed_documents
texts = json.loads(Path({str(tmp_path / "texts.json")!r}).read_text())
table = make_documents((f"d{{i}}", "", text, "test", {{}}) for i, text in enumerate(texts))
settings = EmbedSettings(precision="fp32", shard_size=8, min_words=0)
embed_documents(table, Path({str(bert)!r}), {str(tmp_path / "killed")!r}, settings)
"""
    process = subprocess.Popen([sys.executable, "-c", script], env=dict(os.environ))
    shards = tmp_path / "killed" / "shards"
    deadline = time.monotonic() + 60
    while len(list(shards.rglob("*.npy"))) < 3 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_done = len(list(shards.rglob("*.npy")))
    assert n_done >= 3
    resumed, _ = embed_documents(documents(*texts), bert, tmp_path / "killed", FP32)
    whole, _ = embed_documents(documents(*texts), bert, tmp_path / "whole", FP32)
    assert resumed.sha256 == whole.sha256
    assert resumed.manifest == whole.manifest


def test_a_damaged_shard_is_named(bert: Path, tmp_path: Path) -> None:
    table = documents(" ".join(some_sentences(8)))
    embed_documents(table, bert, tmp_path / "v", FP32)
    path = next((tmp_path / "v" / "shards").rglob("*.npy"))
    np.save(path, np.zeros((3, 32), np.float32))
    with pytest.raises(FormatError, match="damaged") as caught:
        embed_documents(table, bert, tmp_path / "v", FP32)
    assert caught.value.where == str(path)


def test_nothing_to_embed() -> None:
    with pytest.raises(DataError, match="no sentence is left"):
        split_documents(documents("Yes."), EmbedSettings())


def test_folders_that_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CapabilityError, match="could not be found"):
        find_model("no/such-model")
    with pytest.raises(CapabilityError, match="format of sentence-transformers"):
        find_model(tmp_path)
    monkeypatch.setenv("GRAPHMERT_DATA", str(tmp_path))
    with pytest.raises(CapabilityError, match="not on this machine"):
        find_model("dataset:mpnet-base-768")


def test_a_model_in_the_local_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "hub" / "models--some--model"
    folder = sentence_model(repository / "snapshots" / "a1b2")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a1b2")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert find_model("some/model") == folder
    assert model_sha256(find_model("some/model")) == model_sha256(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "not supported"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}, "not supported"),
        (
            "modules.json",
            [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.WordWeights"}],
            "not supported in this order",
        ),
        (
            "modules.json",
            [
                {"path": "", "type": "x.Transformer"},
                {"path": "1_Pooling", "type": "x.Pooling"},
                {"path": "3_X", "type": "x.LayerNorm"},
            ],
            "module of the model is not supported",
        ),
    ],
)
def test_modules_that_are_not_known(tmp_path: Path, file: str, content: Any, message: str) -> None:
    folder = sentence_model(tmp_path / "m")
    write_json(folder / file, content)
    with pytest.raises(CapabilityError, match=message):
        SentenceModel(folder)


def test_a_broken_body(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "m")
    (folder / "config.json").write_text('{"model_type": "unheard of"}')
    with pytest.raises(FormatError, match="cannot be read"):
        SentenceModel(folder)
