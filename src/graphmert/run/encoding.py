"""Vectors of texts by the encoder of a trained run."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graphmert.domains.text.chains import encode_roots
from graphmert.domains.text.corpus import import_documents
from graphmert.domains.text.sequences import make_sequences
from graphmert.domains.vectors.npz import write_array
from graphmert.errors import ConfigError
from graphmert.extract import encode_entities
from graphmert.feed import NameTable
from graphmert.model import GraphMERT
from graphmert.progress import Progress, Silent
from graphmert.run.answers import autocast
from graphmert.run.frozen import FrozenRun, open_frozen
from graphmert.run.stages import load_model, one_thread
from graphmert.shards import Ledger, atomic_path, map_shards, n_groups, read_group, write_groups
from graphmert.tokens import Tokenizer

Unit = Literal["sequence", "document"]

STATE = "mean of the last layer's root states, CLS and SEP included, at unit length"
SUFFIXES = (".npz", ".parquet")
_WAVE_GROUPS = 16


def encode_documents(
    model: Path,
    documents: Sequence[Path],
    out: Path,
    *,
    unit: Unit = "sequence",
    n_workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write one vector for each sequence or document.

    A sequence's vector is the mean of the last layer's states of its roots, with CLS and SEP and
    without leaves, at unit length: entity names are encoded in the same way, so that their
    cosine is defined. A document's is the mean of its sequences' by number of tokens, at unit
    length. Vectors are float32 and depend on the document's text alone.

    Args:
        model: a trained run.
        documents: files and folders, as a run's corpus.
        out: .npz with arrays vectors (n, D), doc_id, sha256, seq_id, start, end, n_tokens and
            model_hash; or .parquet with the same columns, the vector as a list of fixed size.
        unit: what has a vector.
        n_workers: processes of one thread each; changes no result.

    Returns: counts and ledgers.

    Raises:
        ConfigError: another kind of file, or no such folder.
        DataError: the run is not trained or not whole, or no document can be read.
    """
    progress = progress or Silent()
    _check_places(documents, out)
    run = open_frozen(model, extracts=False)
    settings = run.config.corpus.model_copy(update={"take_every": 1})
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "documents.parquet")
        progress.begin("read documents")
        n_documents, read = import_documents(documents, settings, source)
        progress.end(f"{n_documents} documents")
        model_of = {"model": str(run.path), "model_hash": run.model_hash}
        encode = partial(encode_part, source=str(source), unit=unit, **model_of)
        ledger = Ledger("vectors")
        parts = _encoded(encode, n_groups(source), n_workers, ledger, progress)
        columns = schema_of_vectors(load_width(run), run.model_hash)
        is_npz = out.suffix == ".npz"
        table = Path(folder, "vectors.parquet") if is_npz else out
        n_vectors = write_groups(table, columns, parts)
        if is_npz:
            _write_npz(table, out, run.model_hash)
    return {
        "out": str(out),
        "documents": n_documents,
        "vectors": n_vectors,
        "dimension": load_width(run),
        "dtype": "float32",
        "unit": unit,
        "state": STATE,
        "ledgers": [one.check().to_dict() for one in (read, ledger)],
    }


def _check_places(documents: Sequence[Path], out: Path) -> None:
    if out.suffix not in SUFFIXES:
        raise ConfigError(
            "vectors are written as npz or Parquet",
            where="--out",
            got=str(out),
            expected=f"a name that ends in {' or '.join(SUFFIXES)}",
        )
    if not documents:
        raise ConfigError("no document is named", where="DOCS", expected="files or folders")
    for place in documents:
        if not place.exists():
            raise ConfigError("an input does not exist", where=str(place), fix="Check the path.")


def load_width(run: FrozenRun) -> int:
    """Return the number of components of a vector."""
    return int(_load(str(run.path), run.model_hash).model.config.hidden_size)


def schema_of_vectors(width: int, model_hash: str) -> pa.Schema:
    """Return the columns of a table of vectors."""
    return pa.schema(
        [
            pa.field("doc_id", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("seq_id", pa.string()),
            pa.field("start", pa.int32(), nullable=False),
            pa.field("end", pa.int32(), nullable=False),
            pa.field("n_tokens", pa.int32(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), width), nullable=False),
        ],
        metadata={"graphmert.model_hash": model_hash, "graphmert.state": STATE},
    )


@dataclass(frozen=True)
class _Encoder:
    model: GraphMERT
    tokenizer: Tokenizer
    max_tokens: int
    precision: str


@lru_cache(maxsize=1)
def _load(path: str, model_hash: str) -> _Encoder:
    """Load a model; the hash is part of the key, because the folder may hold another later."""
    del model_hash
    run = open_frozen(Path(path), extracts=False)
    return _Encoder(
        load_model(run.path / "model"),
        Tokenizer.load(run.path / "chains"),
        run.config.text.max_tokens,
        run.config.train.precision,
    )


def encode_part(
    group: int, *, source: str, model: str, model_hash: str, unit: Unit
) -> tuple[pa.Table, Ledger]:
    """Encode one row group of documents, document by document.

    Args:
        source: the documents table.
        model: the run directory.
        model_hash: of its weights.
        unit: what has a vector.
    """
    encoder = _load(model, model_hash)
    documents = read_group(source, group)
    ledger = Ledger("vectors")
    rows: dict[str, list[Any]] = {
        name: [] for name in ("doc_id", "sha256", "seq_id", "start", "end", "n_tokens")
    }
    vectors: list[np.ndarray] = []
    with one_thread():
        for row in range(documents.num_rows):
            document = documents.slice(row, 1)
            doc_id, digest = document["doc_id"][0].as_py(), document["sha256"][0].as_py()
            found, spans, vector_SD = _encode(encoder, document, unit)
            ledger.offered()
            if not found:
                ledger.leave_out("document without a sequence", example=doc_id)
                continue
            ledger.keep()
            for name, (start, end, n_tokens) in zip(found, spans, strict=True):
                values = (doc_id, digest, name, start, end, n_tokens)
                for column, value in zip(rows.values(), values, strict=True):
                    column.append(value)
            vectors.append(vector_SD)
    width = int(encoder.model.config.hidden_size)
    flat = np.concatenate([np.zeros((0, width), np.float32), *vectors]).reshape(-1)
    schema = schema_of_vectors(width, model_hash)
    arrays = [pa.array(values, schema.field(name).type) for name, values in rows.items()]
    arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), width))
    return pa.Table.from_arrays(arrays, schema=schema), ledger


def _encode(
    encoder: _Encoder, document: pa.Table, unit: Unit
) -> tuple[list[str | None], list[tuple[int, int, int]], np.ndarray]:
    """Return sequence ids (None for a whole document), spans with their tokens, and vectors."""
    tokenizer = encoder.tokenizer
    sequences, _ = make_sequences(document, tokenizer, max_tokens=encoder.max_tokens)
    if not sequences.num_rows:
        return [], [], np.zeros((0, int(encoder.model.config.hidden_size)), np.float32)
    roots = encode_roots(sequences, document, tokenizer)
    names = NameTable(tuple(roots.chain_roots(row) for row in range(sequences.num_rows)))
    with autocast(encoder.precision):
        vector_SD = encode_entities(encoder.model, names, pad_id=tokenizer.pad_id).numpy()
    sizes = np.diff(roots.first)
    starts, ends = sequences["start"].to_pylist(), sequences["end"].to_pylist()
    if unit == "sequence":
        spans = list(zip(starts, ends, sizes.tolist(), strict=True))
        return sequences["seq_id"].to_pylist(), spans, vector_SD
    weight = np.maximum(sizes, 1).astype(np.float64)
    mean_D = weight @ vector_SD.astype(np.float64)
    unit_D = (mean_D / max(float(np.linalg.norm(mean_D)), 1e-12)).astype(np.float32)
    return [None], [(starts[0], ends[-1], int(sizes.sum()))], unit_D[None]


def _encoded(
    encode: Callable[[Any], tuple[pa.Table, Ledger]],
    n_parts: int,
    n_workers: int,
    total: Ledger,
    progress: Progress,
) -> Iterator[pa.Table]:
    """Yield the vectors of all row groups in order; add their ledgers to `total`."""
    progress.begin("encode", total=n_parts, unit="parts")
    for first in range(0, n_parts, _WAVE_GROUPS):
        shards = list(range(first, min(first + _WAVE_GROUPS, n_parts)))
        for table, ledger in map_shards(encode, shards, n_workers=n_workers):
            total.merge(ledger)
            yield table
        progress.update(shards[-1] + 1)
    progress.end()


def _write_npz(source: Path, out: Path, model_hash: str) -> None:
    """Write a table of vectors as npz, a row group at a time."""
    with pq.ParquetFile(source) as file:
        n_rows, schema = file.metadata.num_rows, file.schema_arrow
        width = schema.field("vector").type.list_size

        def pieces(name: str) -> Iterator[Any]:
            for group in range(file.num_row_groups):
                column = file.read_row_group(group, columns=[name])[name].combine_chunks()
                if name == "vector":
                    yield column.flatten().to_numpy().reshape(-1, width)
                else:
                    yield np.array([one if one is not None else "" for one in column.to_pylist()])

        with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            write_array(archive, "vectors", (n_rows, width), pieces("vector"))
            for name in ("doc_id", "sha256", "seq_id"):
                longest = max((piece.dtype.itemsize // 4 for piece in pieces(name)), default=1)
                write_array(archive, name, (n_rows,), pieces(name), f"<U{max(1, longest)}")
            for name in ("start", "end", "n_tokens"):
                write_array(archive, name, (n_rows,), pieces(name), "<i4")
            value = np.array(model_hash)
            write_array(archive, "model_hash", (), iter([value]), f"<U{len(model_hash)}")
