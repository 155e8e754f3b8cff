"""Small documents of vectors, and small sentence-transformers models made here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tokenizers
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

from graphmert.domains.vectors import VectorTable, write_vectors

WORDS = "the a cell grows and divides when water salt light reaches its wall again slowly".split()  # noqa: SIM905


def walk(n_rows: int, dim: int, *, seed: int = 0, noise: float = 0.6) -> NDArray[np.float32]:
    """Unit vectors, each near the one before it."""
    rng = np.random.default_rng(seed)
    rows, x = [], rng.normal(size=dim)
    for _ in range(n_rows):
        x = (1 - noise) * x / np.linalg.norm(x) + noise * rng.normal(size=dim) / np.sqrt(dim)
        rows.append(x / np.linalg.norm(x))
    return np.array(rows, np.float32)


def write_documents(
    folder: Path, lengths: Sequence[int], *, dim: int = 8, seed: int = 0, names: Any = None
) -> VectorTable:
    """A VECTORS folder of documents d0, d1, … with so many vectors each."""
    names = names or [f"d{i}" for i in range(len(lengths))]
    blocks = [walk(n, dim, seed=1000 * seed + i) for i, n in enumerate(lengths) if n]
    ids = [name for name, n in zip(names, lengths, strict=True) for _ in range(n)]
    rows = pa.table(
        {
            "doc_id": pa.array(ids, pa.string()),
            "position": pa.array([i for n in lengths for i in range(n)], pa.int32()),
            "text": [f"sentence {i} of {name}" for i, name in enumerate(ids)],
        }
    )
    facts = {"model": "tiny", "model_sha256": "0" * 64, "settings": {"precision": "fp32"}}
    return write_vectors(folder, blocks, rows, facts)


def sentence_model(
    folder: Path,
    family: str = "bert",
    *,
    pooling: str = "mean",
    dense: int | None = None,
    normalise: bool = True,
) -> Path:
    """Write a sentence-transformers folder with random weights of width 32."""
    torch.manual_seed(7)
    folder.mkdir(parents=True)
    n_words = _write_tokenizer(folder)
    _body(family, n_words).save_pretrained(str(folder))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    mode = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}[pooling]
    other = {"pooling_mode_mean_tokens", "pooling_mode_cls_token"} - {mode}
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 32, mode: True, **dict.fromkeys(other, False)},
    )
    if dense is not None:
        modules.append(("2_Dense", "Dense"))
        facts = {"in_features": 32, "out_features": dense, "bias": True}
        facts["activation_function"] = "torch.nn.modules.activation.Tanh"
        write_json(folder / "2_Dense" / "config.json", facts)
        weights = {"linear.weight": torch.randn(dense, 32), "linear.bias": torch.randn(dense)}
        save_file(weights, folder / "2_Dense" / "model.safetensors")
    if normalise:
        modules.append(("3_Normalize", "Normalize"))
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32})
    return folder


def _write_tokenizer(folder: Path) -> int:
    special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS, ".", ","])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(str(folder))
    return len(vocabulary)


def _body(family: str, n_words: int) -> Any:
    size: dict[str, Any] = {"vocab_size": n_words, "pad_token_id": 0}
    wide = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    wide |= {"intermediate_size": 48, "max_position_embeddings": 64}
    if family == "t5":
        config = T5Config(
            d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2,
            decoder_start_token_id=0, **size,
        )  # fmt: skip
        return T5EncoderModel(config)
    classes: dict[str, Any] = {
        "bert": (BertConfig, BertModel),
        "roberta": (RobertaConfig, RobertaModel),
        "mpnet": (MPNetConfig, MPNetModel),
    }
    config_class, model_class = classes[family]
    return model_class(config_class(**size, **wide))


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def some_sentences(n: int, *, seed: int = 0, n_words: tuple[int, int] = (5, 12)) -> list[str]:
    """Sentences of known words, of different lengths."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        words = rng.choice(WORDS, size=rng.integers(*n_words)).tolist()
        found.append(" ".join(words).capitalize() + ".")
    return found
