"""A small tokenizer and small tables for the tests of the text domain."""

from __future__ import annotations

from functools import cache

import pyarrow as pa
import tokenizers
from tokenizers import models, pre_tokenizers, processors, trainers

from graphmert.domains.text import make_documents
from graphmert.store import make_table
from graphmert.tokens import Tokenizer


@cache
def toy_tokenizer() -> Tokenizer:
    texts = [
        "growth: the process of getting larger. Cell growth is a growth of a cell.",
        "regulation of growth, the membrane and the plasma membrane in 3.5 steps",
        "abcdefghijklmnopqrstuvwxyz 0123456789 , . ! ? ( ) : ;",
    ] * 3
    return Tokenizer.train(texts, vocab_size=150)


@cache
def byte_tokenizer() -> Tokenizer:
    """Return byte-level BPE: a word at the start of a text has more tokens than after a blank."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<unk>", "<s>", "</s>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "the growth of the cell and the membrane, the plasma is the growth. The end! "
    backend.train_from_iterator([" " + text] * 50, trainer)
    return Tokenizer(backend, source="trained")


def toy_documents(*texts: str) -> pa.Table:
    """Documents without titles, d0, d1, …"""
    return make_documents((f"d{i}", "", text, "test", {}) for i, text in enumerate(texts))


def toy_entities(**names: str | list[str]) -> pa.Table:
    """Entities by id: a name, or a name and its synonyms."""
    lists = [[value] if isinstance(value, str) else value for value in names.values()]
    return make_table(
        "seed/entities",
        {
            "entity_id": list(names),
            "name": [one[0] for one in lists],
            "type": ["thing"] * len(names),
            "synonyms": [one[1:] for one in lists],
        },
    )
