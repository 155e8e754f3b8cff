"""Build and update an index.

Facts of a file depend on its bytes alone and are kept by content hash. Linking depends on other
files too, so with each file's rows the files that were read for them are kept, the short names
that were looked for, and the file's signature: the values that others can see of it. When files
change, the files to link again are those changed, those that asked for a name that came or went,
and, as long as there are any, those that read a file whose signature is another now. When paths
come or go, or Java types do, all files of that language are linked again. What results is what a
full build gives.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from graphmert.config import Settings, config_hash
from graphmert.domains.code.assemble import LEFT_OUT, Assembled, assemble
from graphmert.domains.code.extract import FILES_PER_SHARD, Extracted, extract_shard, facts_key
from graphmert.domains.code.facts import FACTS_VERSION, FileFacts
from graphmert.domains.code.inference import SCRIPTS, Inference
from graphmert.domains.code.linker import Linker
from graphmert.domains.code.modules import Modules, Summary
from graphmert.domains.code.rows import Document, FileRows
from graphmert.domains.code.signature import affected
from graphmert.domains.code.walk import SourceFile, Walk, WalkSettings, find_files
from graphmert.progress import Progress, Silent
from graphmert.shards import (
    atomic_write_json,
    atomic_write_text,
    map_shards,
    read_table,
    sha256_file,
    write_table,
)
from graphmert.store import RunDir

INDEX_FORMAT = 1
"""Changes with the tables or the meaning of their rows; an index of another format is rebuilt."""

_LINK_VERSION = 2
"""Changes with what linking makes of equal facts; an update does not mix rows of two versions."""


class IndexSettings(Settings):
    """How an index is built."""

    walk: WalkSettings = Field(default_factory=WalkSettings)
    """Which files are read."""


@dataclass
class _FileState:
    """What is kept of a file between two runs."""

    sha256: str
    version: str
    licence: str
    segment: str
    summary: dict[str, Any]
    deps: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    signature: dict[str, str] = field(default_factory=dict)


@dataclass
class IndexResult:
    """What a build did.

    Attributes:
        n_read: files parsed anew.
        n_linked: files linked anew.
        seconds: by step.
        message: why nothing of an older index was used, where that is so.
        assembled: counts and tables.
    """

    n_read: int
    n_linked: int
    seconds: dict[str, float]
    message: str
    assembled: Assembled


def build_index(
    paths: Sequence[Path | str],
    out: Path | str,
    settings: IndexSettings | None = None,
    *,
    n_workers: int = 1,
    full: bool = False,
    progress: Progress | None = None,
) -> IndexResult:
    """Index repositories into a run directory, using what an earlier run left there.

    Args:
        paths: folders and files.
        out: the run directory.
        settings: which files are read.
        n_workers: processes that parse; the result is the same for any number.
        full: use nothing of an earlier run.
        progress: told how far it is.

    Raises:
        ConfigError: a path does not exist.
        CapabilityError: the parsers are not installed, or the disk is full.
    """
    settings = settings or IndexSettings()
    build = _Build(RunDir(out), settings, n_workers, progress or Silent())
    return build.run(paths, full=full)


class _Build:
    def __init__(
        self, run: RunDir, settings: IndexSettings, n_workers: int, progress: Progress
    ) -> None:
        self.run_dir = run
        self.settings = settings
        self.n_workers = n_workers
        self.progress = progress
        self.folder = run.path / "code" / "cache"
        self.seconds: dict[str, float] = {}
        self.message = ""
        self._old_around: dict[str, Any] = {}
        self._segments: dict[str, dict[str, str]] = {}
        self._facts: dict[int, FileFacts] = {}

    def run(self, paths: Sequence[Path | str], *, full: bool) -> IndexResult:
        begun = time.perf_counter()
        walk = self._timed("find", lambda: find_files(paths, self.settings.walk))
        old = {} if full else self._timed("load", self._load_state)
        states, read, texts = self._timed("parse", lambda: self._extract(walk, old))
        self.walk, self.states, self.texts = walk, states, texts
        self.doc_ids = [one.doc_id for one in walk.files]
        modules = Modules(
            [Summary(**states[one].summary) for one in self.doc_ids], _script_entries(walk)
        )
        relink = self._to_link(old, read)
        before = {key: one.signature for key, one in old.items()}
        rows = self._timed("link", lambda: self._link(modules, relink, before))
        is_same = set(old) == set(states) and self._old_around == _around(walk)
        if old and not relink and is_same:
            return self._unchanged(begun)
        # Until all is written, a broken run must not be taken for a whole one, nor asked.
        self.run_dir.manifest.unlink(missing_ok=True)
        (self.folder / "state.json").unlink(missing_ok=True)
        assembled = self._timed(
            "write",
            lambda: assemble(
                self.run_dir,
                walk,
                {one: self._text_of(one) for one in self.doc_ids if one in texts},
                rows,
                modules.duplicates,
            ),
        )
        self._write_manifest(walk, assembled)
        self.seconds["total"] = time.perf_counter() - begun
        self._write_timings(len(read), len(rows))
        self._save_state(walk, assembled)
        return IndexResult(len(read), len(rows), self.seconds, self.message, assembled)

    def _unchanged(self, begun: float) -> IndexResult:
        """Return what stands there already; nothing is written but how long that took."""
        manifest = json.loads(self.run_dir.manifest.read_text(encoding="utf-8"))
        found = Assembled(manifest["counts"], manifest["validation"], manifest["outputs"])
        self.seconds["total"] = time.perf_counter() - begun
        self._write_timings(0, 0)
        return IndexResult(0, 0, self.seconds, self.message, found)

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        self.progress.begin(name)
        result = work()
        self.seconds[name] = time.perf_counter() - begun
        self.progress.end()
        return result

    # --- facts ------------------------------------------------------------------------------

    def _load_state(self) -> dict[str, _FileState]:
        """Return what an earlier run left; nothing, with a word, when it is of another form."""
        path = self.folder / "state.json"
        if not path.is_file():
            if self.run_dir.manifest.is_file() or self.folder.is_dir():
                self.message = "the earlier index is of another version or unfinished: built anew"
            return {}
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            tree = None
        if not isinstance(tree, dict):
            self.message = "the earlier index is damaged: built anew"
            return {}
        wanted = [INDEX_FORMAT, FACTS_VERSION, _LINK_VERSION, config_hash(self.settings)]
        if [tree.get(name) for name in ("format", "facts", "link", "settings")] != wanted:
            self.message = "the earlier index is of another version or other settings: built anew"
            return {}
        changed = _first_changed(self.run_dir.path, tree["written"])
        if changed:
            self.message = f"{changed} of the earlier index is missing or changed: built anew"
            return {}
        self._old_order = tree["order"]
        self._old_entries = tree["entries"]
        self._old_around = tree["around"]
        return {key: _FileState(*row) for key, row in tree["files"].items()}

    def _extract(
        self, walk: Walk, old: dict[str, _FileState]
    ) -> tuple[dict[str, _FileState], set[str], dict[str, Extracted]]:
        """Read what is new or changed; keep the facts of the rest."""
        states: dict[str, _FileState] = {}
        todo: list[SourceFile] = []
        for source in walk.files:
            known = old.get(source.doc_id)
            if known is not None and _sha256(source) == known.sha256:
                same = (known.version, known.licence) == (source.version, source.licence)
                states[source.doc_id] = known
                if not same:
                    todo.append(source)
            else:
                todo.append(source)
        found: dict[str, Extracted] = {}
        shards = [
            (todo[start : start + FILES_PER_SHARD], self.settings.walk)
            for start in range(0, len(todo), FILES_PER_SHARD)
        ]
        results = map_shards(
            extract_shard,
            shards,
            n_workers=self.n_workers,
            on_progress=lambda done, total: self.progress.update(done, total=total),
        )
        for (files, _), extracted in zip(shards, results, strict=True):
            segment = self._write_segment(files, extracted)
            for source, one in zip(files, extracted, strict=True):
                found[source.doc_id] = one
                states[source.doc_id] = _FileState(
                    one.decoded.sha256,
                    source.version,
                    source.licence,
                    segment,
                    asdict(one.summary),
                )
        return states, set(found), found

    def _write_segment(self, files: Sequence[SourceFile], extracted: Sequence[Extracted]) -> str:
        keys = [
            facts_key(one.doc_id, two.decoded.sha256)
            for one, two in zip(files, extracted, strict=True)
        ]
        name = hashlib.sha256("\n".join(keys).encode("ascii")).hexdigest()[:24]
        facts = [one.facts for one in extracted]
        write_table(self.folder / f"{name}.parquet", pa.table({"key": keys, "facts": facts}))
        self._segments[name] = dict(zip(keys, facts, strict=True))
        return name

    def facts(self, file: int) -> FileFacts:
        """Return the facts of a file, read when they are first asked for."""
        found = self._facts.get(file)
        if found is None:
            doc_id = self.doc_ids[file]
            state = self.states[doc_id]
            if state.segment not in self._segments:
                table = read_table(self.folder / f"{state.segment}.parquet")
                rows = table.to_pydict()
                self._segments[state.segment] = dict(zip(rows["key"], rows["facts"], strict=True))
            text = self._segments[state.segment][facts_key(doc_id, state.sha256)]
            found = FileFacts.from_json(text) if text else FileFacts(self.walk.files[file].language)
            if not found.symbols:
                found.symbols.append(_whole_file())
            self._facts[file] = found
        return found

    # --- linking ----------------------------------------------------------------------------

    def _to_link(self, old: dict[str, _FileState], read: set[str]) -> list[int]:
        """Return the files whose rows may differ from those of the earlier run."""
        everything = list(range(len(self.doc_ids)))
        if not old:
            return everything
        groups: set[str] = set()
        for doc_id in set(old) ^ set(self.states):
            groups.add(_group((old.get(doc_id) or self.states[doc_id]).summary["language"]))
        if self._old_entries != _script_entries(self.walk):
            groups.add("scripts")
        names: set[str] = set()
        for doc_id in read & set(old):
            one, two = old[doc_id], self.states[doc_id]
            if set(one.summary["types"]) != set(two.summary["types"]) or (
                one.summary["package_name"] != two.summary["package_name"]
            ):
                groups.add("java")
            before = {name: len(found) for name, found in one.summary["methods"].items()}
            after = {name: len(found) for name, found in two.summary["methods"].items()}
            names |= {name for name in {*before, *after} if before.get(name) != after.get(name)}
        chosen = []
        for number in everything:
            doc_id = self.doc_ids[number]
            state = self.states[doc_id]
            is_due = (
                doc_id in read
                or doc_id not in old
                or _group(state.summary["language"]) in groups
                or not names.isdisjoint(state.names)
                or any(self._old_order[one] not in self.states for one in state.deps)
            )
            if is_due:
                chosen.append(number)
            else:
                number_of = self._numbers()
                state.deps = [number_of[self._old_order[one]] for one in state.deps]
        return chosen

    def _numbers(self) -> dict[str, int]:
        if not hasattr(self, "_number_of"):
            self._number_of = {doc_id: number for number, doc_id in enumerate(self.doc_ids)}
        return self._number_of

    def _link(
        self, modules: Modules, relink: list[int], before: dict[str, dict[str, str]]
    ) -> dict[int, FileRows]:
        """Link files, and those that read one whose signature has changed."""
        # Types of one file lead through others; the default limit is for hand-written recursion.
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, 50_000))
        inference = Inference(self.facts, modules)
        linker = Linker(inference, self._document)
        rows: dict[int, FileRows] = {}
        readers = self._readers(set(relink))
        todo, queued = list(relink), set(relink)
        for done, number in enumerate(todo):
            inference.solver.mask = 0
            linker.resolver.names_asked = set()
            rows[number] = linker.link(number)
            doc_id = self.doc_ids[number]
            state = self.states[doc_id]
            state.names = sorted(linker.resolver.names_asked)
            state.signature = linker.signature(number)
            state.deps = _bits(inference.solver.mask)
            fresh = self._affected(before.get(doc_id, {}), state.signature, readers.get(number, []))
            todo.extend(one for one in fresh if one not in queued)
            queued.update(fresh)
            self.progress.update(done + 1, total=len(todo))
        sys.setrecursionlimit(limit)
        return rows

    def _affected(
        self, before: dict[str, str], after: dict[str, str], readers: list[int]
    ) -> list[int]:
        """Return the readers of a file that its change concerns."""
        came = affected(before, after)
        if came is None or not after:
            return readers
        texts = ((one, self._text_of(self.doc_ids[one]).text) for one in readers if came)
        return [one for one, text in texts if any(name in text for name in came)]

    def _readers(self, linked: set[int]) -> dict[int, list[int]]:
        """Return by file the files that read it, of those not linked anyway."""
        found: dict[int, list[int]] = {}
        for number, doc_id in enumerate(self.doc_ids):
            for dep in self.states[doc_id].deps if number not in linked else ():
                found.setdefault(dep, []).append(number)
        return found

    def _document(self, file: int) -> Document:
        source = self.walk.files[file]
        return Document(
            source.doc_id,
            source.package,
            source.version,
            source.licence,
            source.path,
            source.location,
            source.language,
            self.states[source.doc_id].sha256,
            self._text_of(source.doc_id).text,
            source.is_test,
        )

    def _text_of(self, doc_id: str) -> Any:
        if doc_id in self.texts:
            return self.texts[doc_id].decoded
        return self._old_text(doc_id)

    def _old_text(self, doc_id: str) -> Any:
        from graphmert.domains.code.extract import Decoded

        if not hasattr(self, "_old_documents"):
            table = self.run_dir.read("corpus/documents")
            self._old_documents = table.column("text")
            ids = table.column("doc_id").to_pylist()
            self._old_rows = {one: row for row, one in enumerate(ids)}
        sha256 = self.states[doc_id].sha256
        row = self._old_rows.get(doc_id)
        if row is None:
            # Skipped files have no text.
            return Decoded("", sha256, 0, "skipped", "")
        return Decoded(self._old_documents[row].as_py(), sha256, 0, "", "")

    # --- what is kept -----------------------------------------------------------------------

    def _save_state(self, walk: Walk, assembled: Assembled) -> None:
        """Write what the next run needs, last of all: it says that the index is whole."""
        needed = {one.segment for one in self.states.values()}
        tree = {
            "format": INDEX_FORMAT,
            "facts": FACTS_VERSION,
            "link": _LINK_VERSION,
            "settings": config_hash(self.settings),
            "order": self.doc_ids,
            "entries": _script_entries(walk),
            "around": _around(walk),
            "written": self._written(needed, assembled),
            "files": {
                doc_id: [getattr(state, name) for name in _FileState.__dataclass_fields__]
                for doc_id, state in sorted(self.states.items())
            },
        }
        for path in self.folder.glob("*.parquet"):
            if path.stem not in needed:
                path.unlink()
        text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False)
        atomic_write_text(self.folder / "state.json", text)

    def _written(self, segments: set[str], assembled: Assembled) -> dict[str, tuple[int, str]]:
        """Return size and SHA-256 of the files of the index; segments of facts by size alone."""
        run = self.run_dir
        hashes = {run.table_path(name): one for name, one in assembled.hashes.items()}
        for path in (run.manifest, run.ledger, run.seed_schema, run.path / LEFT_OUT):
            hashes[path] = sha256_file(path)
        hashes |= {self.folder / f"{one}.parquet": "" for one in segments}
        return {
            path.relative_to(run.path).as_posix(): (path.stat().st_size, one)
            for path, one in sorted(hashes.items())
        }

    def _write_manifest(self, walk: Walk, assembled: Assembled) -> None:
        inputs = "\n".join(f"{one} {self.states[one].sha256}" for one in self.doc_ids)
        atomic_write_json(
            self.run_dir.manifest,
            {
                "kind": "code index",
                "format": INDEX_FORMAT,
                "version": version("graphmert"),
                "config": self.settings.model_dump(mode="json"),
                "config_hash": config_hash(self.settings),
                "inputs": {one: self.states[one].sha256 for one in self.doc_ids},
                "input_hash": hashlib.sha256(inputs.encode("utf-8")).hexdigest(),
                "packages": {
                    name: {"version": one.version, "licence": one.licence}
                    for name, one in sorted(walk.packages.items())
                },
                "counts": assembled.counts,
                "validation": assembled.validation,
                "outputs": assembled.hashes,
            },
        )

    def _write_timings(self, n_read: int, n_linked: int) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        atomic_write_json(
            self.run_dir.timings,
            {
                "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
                "peak_memory_mb": round(peak, 1),
                "n_workers": self.n_workers,
                "n_files_read": n_read,
                "n_files_linked": n_linked,
            },
        )


def _sha256(source: SourceFile) -> str:
    try:
        return hashlib.sha256(Path(source.location).read_bytes()).hexdigest()
    except OSError:
        return "not readable"


def _group(language: str) -> str:
    return "scripts" if language in SCRIPTS else language


def _script_entries(walk: Walk) -> dict[str, str]:
    return {name: one.main for name, one in walk.packages.items() if one.main}


def _around(walk: Walk) -> dict[str, Any]:
    """Return what the tables and the manifest say besides the contents of files."""
    packages = ([name, one.version, one.licence] for name, one in sorted(walk.packages.items()))
    return {
        "skipped": [list(one) for one in walk.skipped],
        "sources": [one.location for one in walk.files],
        "packages": list(packages),
    }


def _first_changed(root: Path, written: dict[str, list[Any]]) -> str:
    """Return the first file that is not as it was written, or an empty text."""
    for name, (size, sha256) in sorted(written.items()):
        path = root / name
        if not path.is_file() or path.stat().st_size != size:
            return name
        if sha256 and sha256_file(path) != sha256:
            return name
    return ""


def _bits(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def _whole_file() -> Any:
    from graphmert.domains.code.facts import Symbol

    return Symbol("module", "", "", -1, [0, 0, 0, 0, 0, 0, -1, -1, 1, 1])
