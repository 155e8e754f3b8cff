from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from graphmert.domains.text.embedding import LexicalEmbedder, ModelEmbedder, load_embedder
from graphmert.errors import CapabilityError, FormatError

TEXTS = ["cell growth", "the growth of a cell", "membrane", "", "cell growth"] + [
    f"a membrane of {'the cell ' * n}" for n in range(12)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, as a sentence-embedding folder."""
    folder = tmp_path_factory.mktemp("embedding")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cell", "growth", "the", "of", "a"]
    backend = tokenizers.Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=64,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_vectors_are_unit_and_do_not_depend_on_the_texts_beside(model: Path) -> None:
    embedder = load_embedder(str(model), max_tokens=32)
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    assert (vectors[0] == vectors[4]).all()
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    assert (alone == vectors).all()
    assert (embedder.embed(TEXTS[::-1])[::-1] == vectors).all()


def test_pooling_is_what_the_folder_says(model: Path, tmp_path: Path) -> None:
    import shutil

    mean = ModelEmbedder(str(model), cache=None, max_tokens=32, precision="fp32")
    ids = torch.tensor([[2, 5, 6, 3]])
    network = BertModel.from_pretrained(model).eval()
    with torch.no_grad():
        states = network(input_ids=ids).last_hidden_state[0]
    expected = states.mean(0) / states.mean(0).norm()
    assert np.allclose(mean.embed(["cell growth"])[0], expected.numpy(), atol=2e-3)
    copy = Path(shutil.copytree(model, tmp_path / "first"))
    (copy / "1_Pooling").mkdir()
    (copy / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    first = ModelEmbedder(str(copy), cache=None, max_tokens=32, precision="fp32")
    expected = states[0] / states[0].norm()
    assert np.allclose(first.embed(["cell growth"])[0], expected.numpy(), atol=2e-3)
    assert first.fingerprint != mean.fingerprint


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_the_fingerprint_is_of_all_files(model: Path, tmp_path: Path, name: str) -> None:
    import shutil

    before = ModelEmbedder(str(model), cache=None, max_tokens=32, precision="fp32").fingerprint
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    same = ModelEmbedder(str(copy), cache=None, max_tokens=32, precision="fp32")
    assert same.fingerprint == before
    other = ModelEmbedder(str(copy), cache=None, max_tokens=32, precision="fp32")
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    assert other.fingerprint != before


def test_known_texts_come_from_the_cache(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_embedder(str(model), cache=tmp_path, max_tokens=32)
    vectors = first.embed(TEXTS)
    again = load_embedder(str(model), cache=tmp_path, max_tokens=32)
    computed: list[str] = []
    forward = ModelEmbedder._forward

    def watched(self: ModelEmbedder, texts: list[str]) -> np.ndarray:
        computed.extend(texts)
        return forward(self, texts)

    monkeypatch.setattr(ModelEmbedder, "_forward", watched)
    assert (again.embed(["new", *TEXTS])[1:] == vectors).all()
    assert computed == ["new"]
    shorter = load_embedder(str(model), cache=tmp_path, max_tokens=8)
    shorter.embed(TEXTS[:1])
    assert computed == ["new", TEXTS[0]]
    assert len(list(tmp_path.glob("*.sqlite"))) == 2


def test_a_damaged_cache_is_named(model: Path, tmp_path: Path) -> None:
    embedder = load_embedder(str(model), cache=tmp_path, max_tokens=32)
    (tmp_path / f"{embedder.fingerprint}.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(FormatError, match="cache of vectors"):
        embedder.embed(["cell"])


def test_a_model_that_is_not_there_is_no_reason_to_take_another(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="lexical"):
        load_embedder(str(tmp_path / "nothing"))


def test_letters_only_when_asked_for_by_name() -> None:
    embedder = load_embedder("lexical")
    assert isinstance(embedder, LexicalEmbedder)
    one, two, other = embedder.embed(["Cell  growth", "cell growth", "membrane"])
    assert (one == two).all()
    assert one @ two > one @ other
    assert abs(np.linalg.norm(one) - 1) < 1e-6
