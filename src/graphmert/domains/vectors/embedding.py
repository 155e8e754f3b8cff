"""From documents to VECTORS: sentences, shards of vectors, one folder.

The sentences of all documents, in order, are cut into shards of a fixed number. A shard's vectors
depend on its texts, the model and the settings alone and are kept under the hash of all three, so
that work stopped at any moment goes on where it was, a corpus with more documents at its end
reuses what is there, and one worker or many give the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from graphmert import shards
from graphmert.config import Settings
from graphmert.domains.vectors.data import (
    VECTORS_FORMAT,
    VectorTable,
    open_matrix,
    write_vectors,
)
from graphmert.domains.vectors.links import EntityNames
from graphmert.errors import DataError, FormatError
from graphmert.progress import Progress, Silent
from graphmert.sentences import sentences
from graphmert.shards import Ledger
from graphmert.store import check_table


class EmbedSettings(Settings):
    """How documents become vectors."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """Numbers of the model's body; what is stored is float32."""
    max_tokens: int | None = Field(default=None, ge=4)
    """Sentences are cut after so many tokens; None is the model's own number."""
    min_words: int = Field(default=5, ge=0)
    """Sentences with fewer words are left out."""
    deduplicate: bool = True
    """Keep only the first of equal sentences, over all documents."""
    shard_size: int = Field(default=1024, ge=1)
    """Sentences of one shard."""
    batch_tokens: int = Field(default=4096, ge=16)
    """The most token places computed at once."""
    threads: int = Field(default=1, ge=1)
    """Threads of one worker; part of the settings because it may change the last digits."""
    device: str = "cpu"
    """Where the model computes: cpu, cuda, …"""


def split_documents(documents: pa.Table, settings: EmbedSettings) -> tuple[pa.Table, Ledger]:
    """Return the sentences of documents: doc_id, position (number in its document), text.

    Args:
        documents: the documents table.
        settings: which sentences are left out.

    Returns:
        The rows, and the ledger, which counts sentences.

    Raises:
        DataError: nothing is left.
    """
    check_table("corpus/documents", documents)
    ledger = Ledger("sentences")
    seen: set[bytes] = set()
    columns: dict[str, list[Any]] = {"doc_id": [], "position": [], "text": []}
    for doc_id, text in zip(
        documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True
    ):
        spans = sentences(text)
        ledger.offered(len(spans))
        for position, (start, end) in enumerate(spans):
            sentence = " ".join(text[start:end].split())
            digest = hashlib.blake2b(sentence.encode(), digest_size=16).digest()
            if len(sentence.split()) < settings.min_words:
                reason = f"sentence of fewer than {settings.min_words} words"
                ledger.leave_out(reason, example=sentence)
            elif settings.deduplicate and digest in seen:
                ledger.leave_out("sentence repeated", example=sentence[:80])
            else:
                seen.add(digest)
                ledger.keep()
                columns["doc_id"].append(doc_id)
                columns["position"].append(position)
                columns["text"].append(sentence)
    if not columns["text"]:
        raise DataError("no sentence is left to embed", fix="Lower min_words or add documents.")
    kinds = {"doc_id": pa.string(), "position": pa.int32(), "text": pa.string()}
    table = pa.table({name: pa.array(columns[name], kind) for name, kind in kinds.items()})
    return table, ledger.check()


# --- shards of vectors ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Shard:
    texts: tuple[str, ...]
    folder: str
    model: str
    model_hash: str
    settings: EmbedSettings

    @property
    def key(self) -> str:
        """The hash of everything that the vectors depend on."""
        chosen = {"precision", "max_tokens", "batch_tokens", "threads", "device"}
        settings = self.settings.model_dump(mode="json", include=chosen)
        parts = [VECTORS_FORMAT, self.model_hash, settings, self.texts]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def path(self) -> Path:
        """Where its vectors lie."""
        return Path(self.folder) / self.key[:2] / f"{self.key}.npy"


@functools.lru_cache(maxsize=1)
def _model(
    folder: str, model_hash: str, precision: str, device: str, max_tokens: int | None
) -> Any:
    """Load a model once for each process; the hash is there to tell changed files apart."""
    from graphmert.domains.vectors.sentence_model import SentenceModel

    return SentenceModel(folder, precision=precision, device=device, max_tokens=max_tokens)


def _embed_shard(shard: _Shard) -> int:
    """Write the vectors of a shard unless they are there; return how many texts were cut."""
    import torch

    counts = shard.path.with_suffix(".json")
    if not (shard.path.is_file() and counts.is_file()):
        before = torch.get_num_threads()
        torch.set_num_threads(shard.settings.threads)
        try:
            one = shard.settings
            model = _model(shard.model, shard.model_hash, one.precision, one.device, one.max_tokens)
            vectors, n_cut = model.encode(shard.texts, batch_tokens=one.batch_tokens)
        finally:
            torch.set_num_threads(before)
        with shards.atomic_path(shard.path) as temporary, temporary.open("wb") as stream:
            np.save(stream, vectors, allow_pickle=False)
        shards.atomic_write_json(counts, {"n_cut": n_cut})
    return int(json.loads(counts.read_text(encoding="utf-8"))["n_cut"])


def embed_texts(
    texts: Sequence[str],
    model: Path,
    settings: EmbedSettings,
    *,
    cache: Path,
    n_workers: int = 1,
    progress: Progress | None = None,
    stage: str = "embed",
) -> tuple[Iterator[NDArray[np.float32]], dict[str, Any]]:
    """Embed texts, shard by shard.

    Args:
        texts: what to embed.
        model: the model's folder, see `sentence_model.find_model`.
        settings: how.
        cache: folder of finished shards.
        n_workers: processes.
        progress: told how many texts are done.
        stage: what progress calls it.

    Returns:
        The vectors in blocks, in the order of the texts, and facts for the manifest.
    """
    from graphmert.domains.vectors.sentence_model import model_sha256

    progress = progress or Silent()
    model_hash = model_sha256(model)
    work = [
        _Shard(
            texts=tuple(texts[start : start + settings.shard_size]),
            folder=str(cache),
            model=str(model),
            model_hash=model_hash,
            settings=settings,
        )
        for start in range(0, len(texts), settings.shard_size)
    ]
    progress.begin(stage, total=len(texts), unit="texts")

    def on_progress(n_done: int, n_shards: int) -> None:
        progress.update(min(n_done * settings.shard_size, len(texts)))

    cut = shards.map_shards(_embed_shard, work, n_workers=n_workers, on_progress=on_progress)
    progress.end()
    facts = {"model": model.name, "model_sha256": model_hash, "n_texts_cut": sum(cut)}
    return (_read_shard(shard) for shard in work), facts


def _read_shard(shard: _Shard) -> NDArray[np.float32]:
    vectors = open_matrix(shard.path)
    if len(vectors) != len(shard.texts):
        raise FormatError(
            "shard of vectors is damaged",
            where=str(shard.path),
            got=len(vectors),
            expected=len(shard.texts),
            fix="Delete it and run the same command again.",
        )
    return vectors


# --- VECTORS --------------------------------------------------------------------------------


def embed_documents(
    documents: pa.Table,
    model: Path,
    out: Path | str,
    settings: EmbedSettings,
    *,
    cache: Path | None = None,
    n_workers: int = 1,
    limit: int | None = None,
    progress: Progress | None = None,
) -> tuple[VectorTable, Ledger]:
    """Write a VECTORS folder of the sentences of documents.

    Args:
        documents: the documents table.
        model: the model's folder.
        out: the folder to write.
        settings: how.
        cache: folder of finished shards; `out/shards` when None.
        n_workers: processes.
        limit: embed only so many sentences, from the first on.
        progress: told how many sentences are done.

    Returns:
        The vectors, and the ledger of sentences.
    """
    out = Path(out)
    rows, ledger = split_documents(documents, settings)
    if limit is not None and limit < rows.num_rows:
        ledger.n_kept -= rows.num_rows - limit
        ledger.leave_out("after the limit", rows.num_rows - limit)
        rows = rows.slice(0, limit)
    blocks, facts = embed_texts(
        rows["text"].to_pylist(),
        model,
        settings,
        cache=cache or out / "shards",
        n_workers=n_workers,
        progress=progress,
    )
    manifest = {
        **facts,
        "settings": settings.model_dump(mode="json"),
        "documents_sha256": _hash_of(documents["sha256"].to_pylist()),
        "ledger": ledger.check().to_dict(),
    }
    return write_vectors(out, blocks, rows, manifest), ledger


def embed_entities(
    names: EntityNames,
    model: Path,
    out: Path | str,
    settings: EmbedSettings,
    *,
    cache: Path | None = None,
    n_workers: int = 1,
    progress: Progress | None = None,
) -> VectorTable:
    """Write the entity table of LINKS: a VECTORS folder with one row for each entity."""
    out = Path(out)
    blocks, facts = embed_texts(
        names.names,
        model,
        settings,
        cache=cache or out / "shards",
        n_workers=n_workers,
        progress=progress,
        stage="embed entities",
    )
    rows = pa.table(
        {
            "doc_id": pa.array(names.ids, pa.string()),
            "position": pa.array(np.zeros(len(names.ids), np.int32)),
            "text": pa.array(names.names, pa.string()),
        }
    )
    manifest = {**facts, "settings": settings.model_dump(mode="json")}
    return write_vectors(out, blocks, rows, manifest)


def _hash_of(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
