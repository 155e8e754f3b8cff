"""Extract from new documents with a finished run; after a change only what it touches is redone.

Results are kept by document. What depends on several documents (duplicates, what the schema
allows beside other triples) is decided when all results are put together, each time anew, so that
an update ends in the bytes of a fresh extraction.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.torch import load_file, save

from graphmert import __version__
from graphmert.domains.text.corpus import import_documents
from graphmert.errors import ConfigError
from graphmert.progress import Progress, Silent
from graphmert.run import RunResult, hash_of
from graphmert.run.answers import Scorer
from graphmert.run.asking import Asker
from graphmert.run.frozen import FrozenRun, open_frozen, refuse_overlap
from graphmert.run.manifest import PACKAGES, Manifest, StageOutput, fingerprint
from graphmert.run.merging import count_names, groups_of, merge_proposals, proposal_rows
from graphmert.run.novel import Phrases, with_names
from graphmert.run.prepared import Prepared
from graphmert.run.reading import Reader, known_phrases
from graphmert.run.results import DocumentResult, ResultFile, file_of, key_of
from graphmert.run.stages import load_model, one_thread
from graphmert.shards import (
    Ledger,
    atomic_write_bytes,
    map_shards,
    n_groups,
    read_group,
    write_groups,
)
from graphmert.store import RunDir, schema_of

FORMAT = 1  # of results by document; another one does them all again
CACHE = "cache"
STAGE = "extract"
AN_ORDER = "scores_are_an_order"
"""In manifest and summary: relations whose scores are no probabilities."""
WAVE_CHARS = 64_000_000

_RESULT_FILE = re.compile(r"[0-9a-f]{3}\.parquet")
_MERGED = ("corpus/sequences", "corpus/mentions", "corpus/candidates")
_GROUP_ROWS = 65_536


def extract_documents(
    model: Path,
    documents: Sequence[Path],
    out: Path,
    *,
    n_workers: int = 1,
    min_accepted: int = 1,
    progress: Progress | None = None,
) -> RunResult:
    """Extract triples from documents with a finished run; nothing of the run is changed.

    Given again after documents were added, changed or deleted, it answers for these alone and
    ends in the same bytes as in an empty folder; so it does after it was killed.

    Args:
        model: a run directory, or a copy by `graphmert.run.frozen.copy_frozen`.
        documents: files and folders, as a run's corpus.
        out: the folder to write: corpus/, kg/, seed/, manifest.json, ledger.json, timings.json,
            and cache/, the results by document.
        n_workers: processes of one thread each; changes no result.
        min_accepted: fewer accepted triples end with exit code 1.

    Raises:
        ConfigError: a folder is missing, or the output lies in what is read.
        DataError: the run is not finished or not whole, or no document can be read.
    """
    progress = progress or Silent()
    if not documents:
        raise ConfigError("no document is named", where="DOCS", expected="files or folders")
    run = open_frozen(model)
    refuse_overlap(out, documents, run)
    if run.made_by != __version__:
        progress.message(f"the run was made by graphmert {run.made_by}, this is {__version__}")
    mark = run.fingerprint(FORMAT, {name: version(name) for name in PACKAGES})
    inputs = {"documents": hash_of(documents, named=True), "model": mark, "weights": run.model_hash}
    header = {
        "config": run.config.model_dump(mode="json", include={"text", "corpus", "extract"}),
        "inputs": inputs,
        "threshold": run.rule.corpus.threshold,
        "method": run.rule.weights.method,
    }
    if run.rule.corpus.uncalibrated:
        header[AN_ORDER] = run.rule.corpus.uncalibrated
    manifest = Manifest(out, header, (STAGE,))
    wanted = fingerprint(inputs)
    summary: dict[str, Any] = {"out": str(out)}
    if manifest.is_done(STAGE, wanted):
        progress.message("extract: already done")
        summary["documents"] = {"computed": 0}
    else:
        update = _Update(run, mark, documents, out, n_workers, progress)
        output = manifest.run(STAGE, wanted, update.work)
        summary["documents"] = dict(output.timings)
    if run.rule.corpus.uncalibrated:
        summary[AN_ORDER] = run.rule.corpus.uncalibrated
    summary |= {STAGE: manifest.stages[STAGE]["counts"]}
    enough = summary[STAGE]["n_accepted"] >= min_accepted
    return RunResult(0 if enough else 1, summary)


@dataclass(frozen=True)
class _Means:
    """What answers for a document: loaded once in a process."""

    reader: Reader
    asker: Asker

    def answer(self, key: str, document: pa.Table) -> DocumentResult:
        """Read a document and ask about it."""
        reading = self.reader.read(document)
        asked = self.asker.ask(reading, document)
        tables = {
            **reading.tables,
            "kg/rejected": asked.rejected,
            "proposals": proposal_rows(asked.proposals),
        }
        return DocumentResult(key, tables, (*reading.ledgers, *asked.ledgers))


@lru_cache(maxsize=1)
def _load(model: str, mark: str, vectors: str) -> _Means:
    """Load a run; `mark` is part of the key, because the folder may hold another run later."""
    del mark
    run = open_frozen(Path(model))
    reader = Reader(run)
    phrases = known_phrases(run, reader.prepared)
    scorer = _scorer(run, reader.prepared, phrases, load_file(vectors)["vectors"])
    return _Means(reader, Asker(scorer, phrases, run.rule, run.extract, run.embedder))


def _scorer(
    run: FrozenRun, prepared: Prepared, phrases: Phrases, known: torch.Tensor | None = None
) -> Scorer:
    """The run's model with the vectors of all entities and phrases: given, or encoded now."""
    n_entities = len(prepared.names)
    scorer = Scorer.build(
        load_model(run.path / "model"),
        prepared,
        query_slots=run.config.masking.query_slots,
        token_scores=run.extract.token_scores and run.rule.weights.token_weight > 0,
        precision=run.config.train.precision,
        added=run.rule.corpus.added_places(prepared.relations),
        entity_vectors=None if known is None else known[:n_entities],
    )
    more = None if known is None else known[n_entities:]
    return with_names(scorer, phrases.tokens, vectors=more)


def answer_part(
    shard: tuple[str, tuple[str, ...], pa.Table], *, model: str, mark: str, vectors: str
) -> int:
    """Answer for the documents of one result file and write it.

    Args:
        shard: the file, the keys of all documents it shall hold, and the documents to answer
            for: the documents table with a column key.
        model: the run directory.
        mark: fingerprint of the run.
        vectors: file of the entities' vectors.

    Returns: the number of documents answered for.
    """
    path, wanted, pending = shard
    columns = schema_of("corpus/documents").names
    with one_thread():
        means = _load(model, mark, vectors)
        results = [
            means.answer(key, pending.slice(row, 1).select(columns).combine_chunks())
            for row, key in enumerate(pending["key"].to_pylist())
        ]
    ResultFile(Path(path), mark).replace(set(wanted), results)
    return len(results)


class _Update:
    """The work of one update."""

    def __init__(
        self,
        run: FrozenRun,
        mark: str,
        places: Sequence[Path],
        out: Path,
        n_workers: int,
        progress: Progress,
    ) -> None:
        self.run = run
        self.mark = mark
        self.places = places
        self.out = RunDir(out)
        self.cache = out / CACHE
        self.n_workers = n_workers
        self.progress = progress
        self.documents = self.cache / "documents.parquet"

    def work(self) -> StageOutput:
        """Read all documents, answer for those without a result, put everything together."""
        self.progress.begin("read documents")
        # A part of a corpus is taken to try a run; new documents are all taken.
        settings = self.run.config.corpus.model_copy(update={"take_every": 1})
        n_documents, read = import_documents(self.places, settings, self.documents)
        self.progress.end(f"{n_documents} documents")
        wanted, sizes = self._wanted()
        pending = self._pending(wanted)
        n_pending = sum(len(keys) for keys in pending.values())
        if n_pending:
            self._answer(wanted, pending, sizes)
        self.progress.begin("put together", total=1)
        output = self._merge(sorted(wanted), read, n_documents)
        self.progress.end()
        counts = {"computed": n_pending, "reused": n_documents - n_pending}
        return StageOutput(output.files, output.counts, output.ledgers, timings=counts)

    def _seed(self) -> Prepared:
        longest = self.run.config.text.max_tail_tokens
        return Prepared.load_seed(self.run.path, max_tail_tokens=longest)

    def _file(self, name: str) -> ResultFile:
        return ResultFile(self.cache / name, self.mark)

    def _wanted(self) -> tuple[dict[str, set[str]], dict[str, int]]:
        """Return the keys of every result file, and the characters of every document."""
        wanted: dict[str, set[str]] = defaultdict(set)
        sizes: dict[str, int] = {}
        for table in self._groups():
            lengths = [len(text) for text in table["text"].to_pylist()]
            for key, size in zip(table["key"].to_pylist(), lengths, strict=True):
                wanted[file_of(key)].add(key)
                sizes[key] = size
        return dict(wanted), sizes

    def _groups(self) -> Iterator[pa.Table]:
        """Yield the documents with their keys; only id and text are left to depend on."""
        for group in range(n_groups(self.documents)):
            table = read_group(self.documents, group)
            ids, digests = table["doc_id"].to_pylist(), table["sha256"].to_pylist()
            keys = [key_of(*pair) for pair in zip(ids, digests, strict=True)]
            blank = pa.array([""] * len(keys))
            for name, value in (("title", blank), ("source", blank)):
                table = table.set_column(table.schema.get_field_index(name), name, value)
            table = table.set_column(
                table.schema.get_field_index("meta"), "meta", pa.array(["{}"] * len(keys))
            )
            schema = schema_of("corpus/documents")
            yield table.cast(schema).append_column("key", pa.array(keys))

    def _pending(self, wanted: Mapping[str, set[str]]) -> dict[str, set[str]]:
        """Return the documents without a result by file; drop the results of those that went."""
        for path in sorted(self.cache.iterdir()):
            if _RESULT_FILE.fullmatch(path.name) and path.name not in wanted:
                path.unlink()
        pending: dict[str, set[str]] = {}
        for name, keys in sorted(wanted.items()):
            found = self._file(name).keys()
            if missing := keys - found:
                pending[name] = missing
            elif found - keys:
                self._file(name).replace(keys, ())
        return pending

    def _answer(
        self,
        wanted: Mapping[str, set[str]],
        pending: Mapping[str, set[str]],
        sizes: Mapping[str, int],
    ) -> None:
        """Answer for the pending documents, so many at a time that their texts fit in memory."""
        answer = partial(
            answer_part, model=str(self.run.path), mark=self.mark, vectors=str(self._vectors())
        )
        n_done = 0
        self.progress.begin("documents", total=len(pending), unit="parts")
        for names in _waves(pending, sizes):
            texts = self._texts({name: pending[name] for name in names})
            shards = [
                (str(self.cache / name), tuple(sorted(wanted[name])), texts[name]) for name in names
            ]
            before = n_done
            map_shards(
                answer,
                shards,
                n_workers=self.n_workers,
                on_progress=lambda done, _, before=before: self.progress.update(before + done),
            )
            n_done += len(names)
        self.progress.end()

    def _texts(self, pending: Mapping[str, set[str]]) -> dict[str, pa.Table]:
        """Return the pending documents of some result files, in order of key."""
        keys = pa.array(sorted(key for own in pending.values() for key in own))
        parts = [
            table.filter(pc.is_in(table["key"], value_set=keys))  # type: ignore[attr-defined]
            for table in self._groups()
        ]
        table = pa.concat_tables(parts).sort_by("key")
        names = [file_of(key) for key in table["key"].to_pylist()]
        rows: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(names):
            rows[name].append(row)
        return {name: table.take(pa.array(own)).combine_chunks() for name, own in rows.items()}

    def _vectors(self) -> Path:
        """Encode the names of all entities once; every process reads them."""
        path = self.cache / f"entities-{self.mark[:16]}.safetensors"
        for other in sorted(self.cache.glob("entities-*.safetensors")):
            if other != path:
                other.unlink()
        if not path.is_file():
            self.progress.begin("encode entity names", total=1)
            seed = self._seed()
            with one_thread():
                scorer = _scorer(self.run, seed, known_phrases(self.run, seed))
            atomic_write_bytes(path, save({"vectors": scorer.entity_vectors.contiguous()}))
            self.progress.end()
        return path

    # --- putting together -------------------------------------------------------------------

    def _merge(self, names: Sequence[str], read: Ledger, n_documents: int) -> StageOutput:
        """Write all tables from the results of all documents."""
        files = [self._file(name) for name in names]
        target = self.out.documents
        target.parent.mkdir(parents=True, exist_ok=True)
        self.documents.replace(target)
        written = [target]
        counts: dict[str, Any] = {"documents": n_documents}
        for name in _MERGED:
            path = self.out.table_path(name)
            rows = write_groups(path, schema_of(name), _joined(files, name))
            counts[name.rpartition("/")[2]] = rows
            written.append(path)
        vectors = load_file(self._vectors())["vectors"]
        graph = merge_proposals(self._seed(), vectors, self.run, groups_of(files))
        counted = count_names(files, graph.novel)
        tables, ledger = graph.tables(counted), graph.ledger.check()
        names = ["kg/entities", "kg/triples", "kg/evidence"]
        if self.run.extract.corpus.tails != "entities":
            names.append("kg/novel_entities")
        else:
            self.out.table_path("kg/novel_entities").unlink(missing_ok=True)
        for name in names:
            written.append(self.out.write(name, tables[name]))
        path = self.out.kg_rejected
        rejected = _joined(files, "kg/rejected", first=tables["kg/rejected"])
        n_rejected = write_groups(path, schema_of("kg/rejected"), rejected)
        written.append(path)
        for name in ("seed/schema.toml", "seed/triples.parquet"):
            atomic_write_bytes(self.out.path / name, (self.run.path / name).read_bytes())
            written.append(self.out.path / name)
        counts |= {
            "n_accepted": tables["kg/triples"].num_rows,
            "n_novel": sum(tables["kg/triples"]["novel"].to_pylist()),
            "n_evidence": tables["kg/evidence"].num_rows,
            "n_tail_in_text": len(tables["kg/evidence"]["tail_start"].drop_null()),
            "n_rejected": n_rejected,
            "n_novel_entities": len(graph.novel),
        }
        return StageOutput(written, counts, [read, *_ledgers(files), ledger])


def _waves(pending: Mapping[str, set[str]], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield runs of result files whose pending texts are about `WAVE_CHARS` characters."""
    wave: list[str] = []
    n_chars = 0
    for name, keys in pending.items():
        wave.append(name)
        n_chars += sum(sizes[key] for key in keys)
        if n_chars >= WAVE_CHARS:
            yield wave
            wave, n_chars = [], 0
    if wave:
        yield wave


def _joined(
    files: Sequence[ResultFile], name: str, *, first: pa.Table | None = None
) -> Iterator[pa.Table]:
    """Yield one table of all documents in pieces of some size."""
    parts = [] if first is None else [first]
    n_rows = 0
    for file in files:
        parts.append(file.table(name))
        n_rows += parts[-1].num_rows
        if n_rows >= _GROUP_ROWS:
            yield pa.concat_tables(parts)
            parts, n_rows = [], 0
    if parts:
        yield pa.concat_tables(parts)


def _ledgers(files: Sequence[ResultFile]) -> list[Ledger]:
    """Add the ledgers of all documents, stage by stage."""
    totals: dict[str, Ledger] = {}
    for file in files:
        for own in file.ledgers():
            for one in own:
                totals.setdefault(one.stage, Ledger(one.stage)).merge(one)
    return list(totals.values())
