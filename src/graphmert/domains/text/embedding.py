"""Texts as unit vectors: a sentence-embedding model by path or id, or letters by name only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from graphmert.errors import CapabilityError, FormatError
from graphmert.hub import POOLING, hash_pretrained, pretrained_files
from graphmert.progress import Progress, Silent

LEXICAL = "lexical"
Precision = Literal["fp32", "bf16"]

_WHAT = "embedding model"
_BATCH_TOKENS = 4_096
_LENGTHS = (8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_LEXICAL_WIDTH = 512


class Embedder(Protocol):
    """Turn texts into unit vectors; equal texts always give equal vectors."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the vectors depend on."""
        ...

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """Return float32 (n, width), one unit vector a text."""
        ...


def load_embedder(
    model: str,
    *,
    cache: Path | str | None = None,
    max_tokens: int = 128,
    precision: Precision = "bf16",
) -> Embedder:
    """Return the embedder of a name.

    Args:
        model: folder or id of a sentence-embedding model; or "lexical", which counts letters
            and words and knows no meaning.
        cache: folder that keeps vectors by hash of model and text; None keeps none.
        max_tokens: longer texts are cut.
        precision: of the model's matrix products.

    Raises:
        CapabilityError: the model is neither a folder nor in the local hub cache.
    """
    if model == LEXICAL:
        return LexicalEmbedder()
    return ModelEmbedder(model, cache=cache, max_tokens=max_tokens, precision=precision)


class LexicalEmbedder:
    """Count words and letter triples in 512 hashed columns, with signs: no model, no meaning."""

    @property
    def fingerprint(self) -> str:
        """Its form, by number."""
        return f"{LEXICAL}-1"

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """Return float32 (n, 512)."""
        known: dict[str, tuple[int, float]] = {}
        vectors = np.zeros((len(texts), _LEXICAL_WIDTH), np.float32)
        for row, text in enumerate(texts):
            words = text.lower().split()
            padded = " ".join(["", *words, ""])
            parts = [*words, *(padded[i : i + 3] for i in range(len(padded) - 2))]
            for part in parts:
                if part not in known:
                    value = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest())
                    known[part] = (value % _LEXICAL_WIDTH, 1.0 if value >> 63 else -1.0)
                column, sign = known[part]
                vectors[row, column] += sign
        return _unit(vectors)


class ModelEmbedder:
    """A BERT-like model with mean or first-token pooling, as its folder says.

    Every forward has a fixed number of rows and one of a few fixed lengths, so that a text's
    vector does not depend on the texts beside it; vectors are rounded to half precision.
    """

    def __init__(
        self, model: str, *, cache: Path | str | None, max_tokens: int, precision: Precision
    ) -> None:
        from transformers import AutoConfig, AutoTokenizer

        self.model = model
        self.max_tokens = max_tokens
        self.precision = precision
        try:
            self._config = AutoConfig.from_pretrained(model, local_files_only=True)
            self._tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        except (OSError, ValueError) as error:
            raise CapabilityError(
                "the embedding model could not be found",
                where=model,
                got=str(error).splitlines()[0],
                expected="a folder with config.json, or a model id in the local hub cache",
                fix=f'Fetch it first and give its folder, or set embedding.model = "{LEXICAL}".',
            ) from error
        self._pooling = _pooling_of(pretrained_files(model, what=_WHAT).get(POOLING))
        self._network: Any = None
        self._cache = None if cache is None else VectorCache(cache, self.fingerprint)

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer and configuration, the longest text, pooling, precision."""
        parts = [self._files_hash, str(self.max_tokens), self._pooling, self.precision]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]

    @cached_property
    def _files_hash(self) -> str:
        return hash_pretrained(self.model, what=_WHAT)

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """Return float32 (n, width); vectors of known texts come from the cache."""
        progress = progress or Silent()
        distinct = list(dict.fromkeys(texts))
        vectors = np.zeros((len(distinct), int(self._config.hidden_size)), np.float16)
        known = np.zeros(len(distinct), dtype=bool)
        if self._cache is not None:
            known = self._cache.read(distinct, vectors)
        missing = np.flatnonzero(~known)
        n_done = int(known.sum())
        progress.begin("embed texts", total=len(distinct), unit="texts")
        progress.update(n_done)
        for first in range(0, len(missing), 4_096):
            rows = missing[first : first + 4_096]
            part = [distinct[row] for row in rows]
            vectors[rows] = self._forward(part)
            if self._cache is not None:
                self._cache.write(part, vectors[rows])
            n_done += len(rows)
            progress.update(n_done)
        progress.end()
        row_of = {text: row for row, text in enumerate(distinct)}
        return vectors[[row_of[text] for text in texts]].astype(np.float32)

    def _forward(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        encoded = self._tokenizer(list(texts), truncation=True, max_length=self._longest())[
            "input_ids"
        ]
        order = np.argsort([len(one) for one in encoded], kind="stable")
        out = np.zeros((len(texts), int(self._config.hidden_size)), np.float16)
        network = self._loaded()
        half = torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")
        place = 0
        with torch.no_grad(), half:
            while place < len(order):
                width = _bucket(len(encoded[order[place]]), self._longest())
                n_rows = _BATCH_TOKENS // width
                rows = [row for row in order[place : place + n_rows] if len(encoded[row]) <= width]
                pooled = self._batch(network, [encoded[row] for row in rows], n_rows, width)
                out[rows] = _unit(pooled)[: len(rows)].astype(np.float16)
                place += len(rows)
        return out

    def _batch(
        self, network: Any, encoded: Sequence[Sequence[int]], n_rows: int, width: int
    ) -> np.ndarray:
        """Encode up to `n_rows` texts in a batch of always that many rows of that width."""
        import torch

        ids = np.full((n_rows, width), self._tokenizer.pad_token_id, np.int64)
        mask = np.zeros((n_rows, width), np.int64)
        mask[len(encoded) :, 0] = 1
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        mask_BN = torch.from_numpy(mask)
        states = network(input_ids=torch.from_numpy(ids), attention_mask=mask_BN)
        states_BND = states.last_hidden_state.float()
        if self._pooling == "first":
            return states_BND[:, 0].numpy()
        weight = mask_BN[..., None].float()
        return ((states_BND * weight).sum(1) / weight.sum(1)).numpy()

    def _longest(self) -> int:
        return min(self.max_tokens, int(self._config.max_position_embeddings) - 2)

    def _loaded(self) -> Any:
        if self._network is None:
            from transformers import AutoModel

            self._network = AutoModel.from_pretrained(self.model, local_files_only=True).eval()
        return self._network


class VectorCache:
    """Vectors on disk by hash of model and text: one SQLite file a model."""

    def __init__(self, folder: Path | str, fingerprint: str) -> None:
        self.path = Path(folder) / f"{fingerprint}.sqlite"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def read(self, texts: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        """Fill the rows of known texts and return which they are, bool (n,)."""
        known = np.zeros(len(texts), dtype=bool)
        with self._open() as base:
            for row, text in enumerate(texts):
                found = base.execute(
                    "SELECT vector FROM vectors WHERE key = ?", (_key(text),)
                ).fetchone()
                if found is not None and len(found[0]) == vectors[row].nbytes:
                    vectors[row] = np.frombuffer(found[0], np.float16)
                    known[row] = True
        return known

    def write(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Keep the vectors of texts, float16 (n, width)."""
        rows = [(_key(text), vector.tobytes()) for text, vector in zip(texts, vectors, strict=True)]
        with self._open() as base:
            base.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            base.commit()

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            base = sqlite3.connect(self.path, timeout=60.0)
            try:
                base.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) "
                    "WITHOUT ROWID"
                )
                yield base
            finally:
                base.close()
        except sqlite3.DatabaseError as error:
            raise FormatError(
                "the cache of vectors cannot be used",
                where=str(self.path),
                got=error,
                fix="Delete the file; vectors are computed again.",
            ) from error


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _bucket(length: int, longest: int) -> int:
    return min(next((one for one in _LENGTHS if one >= length), longest), longest)


def _pooling_of(file: Path | None) -> str:
    """Return "mean" or "first", as sentence-transformers' own file says; mean without it."""
    if file is None:
        return "mean"
    found = json.loads(file.read_text(encoding="utf-8"))
    return "first" if found.get("pooling_mode_cls_token") else "mean"


def _unit(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norm, 1e-9)).astype(np.float32)
