"""Tokenizer with the special ids and the character offsets the rest of the package needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers

from graphmert.errors import CapabilityError, FormatError
from graphmert.shards import atomic_write_text

_SPECIAL = {
    "pad": ("[PAD]", "<pad>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "unk": ("[UNK]", "<unk>"),
}


@dataclass(frozen=True)
class Encoding:
    """Token ids and their half-open character spans in the text.

    Attributes:
        ids: int32, shape (n,).
        offsets: int32, shape (n, 2), character offsets into the encoded text.
    """

    ids: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """Wrap a `tokenizers.Tokenizer`: no truncation, no padding, no special tokens added."""

    def __init__(self, backend: tokenizers.Tokenizer, *, source: str = "memory") -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.source = source
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self._special: dict[str, int] = {}
        for role, names in _SPECIAL.items():
            found = next((vocabulary[name] for name in names if name in vocabulary), None)
            if found is None:
                raise FormatError(
                    "the tokenizer has no token for a role the model needs",
                    where=source,
                    got=f"no {role} token",
                    expected=f"one of {', '.join(names)}",
                    fix="add the token to the tokenizer's vocabulary",
                )
            self._special[role] = found

    @classmethod
    def load(cls, path_or_id: str | Path) -> Tokenizer:
        """Load from a folder, a `tokenizer.json` file, or a hub id that is cached locally.

        Raises:
            FormatError: the file is not a tokenizer.
            CapabilityError: a hub id that is not in the local cache.
        """
        path = Path(path_or_id)
        file = path / "tokenizer.json" if path.is_dir() else path
        if file.is_file():
            try:
                return cls(tokenizers.Tokenizer.from_file(str(file)), source=str(file))
            except Exception as error:  # tokenizers raises bare Exception for a bad file
                if isinstance(error, FormatError):
                    raise
                raise FormatError(
                    "not a tokenizer file",
                    where=str(file),
                    got=str(error),
                    expected="the tokenizer.json form of the tokenizers library",
                    fix="save the tokenizer again, or name another folder",
                ) from error
        from transformers import AutoTokenizer

        try:
            loaded = AutoTokenizer.from_pretrained(str(path_or_id), local_files_only=True)
        except (OSError, ValueError) as error:
            raise CapabilityError(
                "the tokenizer could not be loaded",
                where=str(path_or_id),
                got=str(error).splitlines()[0],
                expected="a folder with tokenizer.json, or a model id in the local hub cache",
                fix="give the path of a local folder",
            ) from error
        return cls(loaded.backend_tokenizer, source=str(path_or_id))

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int, lowercase: bool = True) -> Tokenizer:
        """Train a WordPiece tokenizer on texts; the same texts in any order give the same bytes."""
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        texts = list(texts)
        first, inner = _letters(backend, texts)
        # Ties between pairs are broken by id, and letters within words would get theirs in the
        # order of a hash table: they are named before training, so that their ids are fixed.
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=[*special, *(f"##{letter}" for letter in inner)],
            limit_alphabet=len(first) + len(inner),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        vocabulary = backend.get_vocab(with_added_tokens=True)
        trained = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        trained.normalizer, trained.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
        trained.decoder = backend.decoder
        trained.add_special_tokens(special)
        return cls(trained, source="trained")

    @classmethod
    def train_bytes(cls, texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
        """Train byte-level BPE on texts, special tokens as RoBERTa numbers them.

        Every text can be encoded and decoded again, whatever its letters; the same texts in any
        order give the same bytes.
        """
        from tokenizers import decoders, models, pre_tokenizers, processors, trainers

        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.post_processor = processors.ByteLevel(trim_offsets=True)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(sorted(texts), trainer)
        return cls(backend, source="trained")

    def save(self, directory: Path) -> Path:
        """Write `tokenizer.json` into the directory."""
        path = Path(directory) / "tokenizer.json"
        atomic_write_text(path, self._backend.to_str(pretty=False))
        return path

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of the serialised tokenizer."""
        return hashlib.sha256(self._backend.to_str(pretty=False).encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def pad_id(self) -> int:
        """Fills batches."""
        return self._special["pad"]

    @property
    def cls_id(self) -> int:
        """Opens a chain."""
        return self._special["cls"]

    @property
    def sep_id(self) -> int:
        """Closes a chain."""
        return self._special["sep"]

    @property
    def mask_id(self) -> int:
        """Stands for a hidden token."""
        return self._special["mask"]

    @property
    def unk_id(self) -> int:
        """Stands for text outside the vocabulary."""
        return self._special["unk"]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Every id that is no ordinary token (never masked, never drawn as a replacement)."""
        added = {
            token_id
            for token_id, token in self._backend.get_added_tokens_decoder().items()
            if token.special
        }
        return frozenset(added | set(self._special.values()))

    @cached_property
    def ordinary_ids(self) -> np.ndarray:
        """Ids a random replacement may draw from, int32, ascending."""
        keep = np.ones(self.vocab_size, dtype=bool)
        keep[sorted(self.special_ids)] = False
        return np.flatnonzero(keep).astype(np.int32)

    def encode(self, text: str) -> Encoding:
        """Encode one text without special tokens; offsets are character offsets into it."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Encode many texts without special tokens."""
        encoded = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            Encoding(
                np.asarray(e.ids, dtype=np.int32),
                np.asarray(e.offsets, dtype=np.int32).reshape(-1, 2),
            )
            for e in encoded
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Join token ids back into text."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def token(self, token_id: int) -> str:
        """Return a token as the vocabulary writes it, such as "##ase"."""
        token = self._backend.id_to_token(int(token_id))
        assert token is not None, f"no token has the id {token_id}"
        return token


def _letters(backend: tokenizers.Tokenizer, texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the characters that begin words and those within words, sorted."""
    words: set[str] = set()
    for text in texts:
        plain = backend.normalizer.normalize_str(text)
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(plain))
    return sorted({word[0] for word in words}), sorted({c for word in words for c in word[1:]})
