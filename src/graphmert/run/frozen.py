"""What a finished run keeps for new documents: which files, whether they fit, and a small copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from graphmert import __version__
from graphmert.config import build
from graphmert.domains.text.embedding import LEXICAL, Embedder
from graphmert.errors import CapabilityError, ConfigError, DataError
from graphmert.run import RunConfig, is_current
from graphmert.run.manifest import fingerprint
from graphmert.run.rules import FrozenRule
from graphmert.run.settings import (
    CorpusExtractSettings,
    ExtractSettings,
    body_path,
    open_embedder,
)
from graphmert.run.stages import MODEL_FILES
from graphmert.shards import atomic_write_bytes, sha256_file

MANIFEST = "manifest.json"
EMBEDDING = "embedding"
RULE = "kg/measured.json"

# Files by the stage that wrote them; those in brackets only where the run has them.
_ENCODER = (
    ("prepare", "chains/tokenizer.json"),
    *(("train", f"model/{name}") for name in MODEL_FILES),
)
_EXTRACTION = (
    *_ENCODER,
    ("prepare", "seed/entities.parquet"),
    ("prepare", "seed/triples.parquet"),
    ("prepare", "seed/schema.toml"),
    ("extract", RULE),
)
_CANDIDATES = ("corpus/phrases.parquet", "corpus/tagger.safetensors")
_NOVEL = ("corpus/sequences.parquet", "corpus/candidates.parquet")
_ADD_AGAIN = "Add the relation again: graphmert relation add"
_SECTIONS = ("text", "corpus", "candidates", "link", "extract", "masking")


@dataclass(frozen=True)
class FrozenRun:
    """A trained run as it is used on new documents; nothing in it is changed.

    Attributes:
        path: the run directory, or a copy made by `copy_frozen`.
        config: of the run.
        hashes: SHA-256 of each file that is used, by its name under the folder.
        inputs: hashes of what the run was made from.
        made_by: version of this package that made it.
        added: what the manifest says of the relation that `relation add` gave it, if one did.
    """

    path: Path
    config: RunConfig
    hashes: Mapping[str, str]
    inputs: Mapping[str, str]
    made_by: str
    added: Mapping[str, Any] | None = None

    @property
    def model_hash(self) -> str:
        """SHA-256 of the weights."""
        return self.hashes["model/model.safetensors"]

    def has(self, name: str) -> bool:
        """Whether the run keeps a file that not every run has."""
        return name in self.hashes

    @cached_property
    def extract(self) -> ExtractSettings:
        """Limits; of a run that asked held-out heads only, without tails beyond the seed."""
        settings = self.config.extract
        if settings.corpus.enabled:
            return settings
        return settings.model_copy(update={"corpus": CorpusExtractSettings()})

    @cached_property
    def rule(self) -> FrozenRule:
        """What was chosen on validation heads.

        Raises:
            DataError: another version of this package wrote it in another form.
        """
        text = (self.path / RULE).read_text(encoding="utf-8")
        return FrozenRule.from_dict(json.loads(text)["rule"])

    @property
    def links(self) -> bool:
        """Whether candidates are linked to entities."""
        return self.config.link.enabled and any(self.has(name) for name in _CANDIDATES)

    @property
    def embeds(self) -> bool:
        """Whether the embedding model is needed: to link, or to compare triples with sequences."""
        return self.links or (self.config.extract.corpus.enabled and self.rule.beta is not None)

    def embedder(self) -> Embedder:
        """Load the embedding model."""
        return open_embedder(self.config.embedding.model_copy(update={"model": self.embedding}))

    @cached_property
    def embedding(self) -> str:
        """The embedding model: its copy in the folder, or where the run found it.

        Raises:
            CapabilityError: it is not on this machine.
            DataError: it is not the model that the run used.
        """
        model = self.config.embedding.model
        if model == LEXICAL:
            return model
        copy = self.path / EMBEDDING
        place = str(copy) if copy.is_dir() else str(body_path(model))
        wanted = self.inputs.get("embedding")
        weights = Path(place) / "model.safetensors"
        if wanted is None:
            return place
        if not weights.is_file():
            raise CapabilityError(
                "the embedding model of the run is not on this machine",
                where=place,
                expected="model.safetensors, as the run used it",
                fix="Fetch it, or copy the run with `graphmert freeze` where it is.",
            )
        if sha256_file(weights) != wanted:
            raise DataError(
                "the embedding model is another than the run's",
                where=str(weights),
                expected=f"SHA-256 {wanted}",
                fix="Give the run the model that it was made with, or run it again.",
            )
        return place

    def fingerprint(self, *versions: object) -> str:
        """Hash of everything that a document's result depends on beside the document."""
        config = self.config.model_dump(mode="json")
        own = {name: config[name] for name in _SECTIONS}
        own["precision"] = config["train"]["precision"]
        if self.embeds:
            embedding = config["embedding"]
            own["embedding"] = [
                self.inputs.get("embedding", embedding["model"]),
                embedding["max_tokens"],
                embedding["precision"],
            ]
        return fingerprint(own, dict(self.hashes), *versions)


def open_frozen(path: Path, *, extracts: bool = True) -> FrozenRun:
    """Open a finished run, and check that it keeps all that new documents need.

    Args:
        path: a run directory, or a copy of one.
        extracts: it must have chosen its thresholds; else it need only be trained.

    Raises:
        ConfigError: no such folder.
        DataError: no run, not finished, changed since, or of a version that cannot be read.
    """
    if not path.is_dir():
        raise ConfigError(
            "no such model",
            where="--model",
            got=str(path),
            expected="the directory of a finished run, or a copy by `graphmert freeze`",
        )
    manifest = _read_manifest(path)
    made_by = str(manifest.get("versions", {}).get("graphmert", "an unknown version"))
    config = _config_of(path, manifest, made_by)
    stages, added = manifest["stages"], manifest.get("relation")
    needed = _EXTRACTION if extracts else _ENCODER
    for stage in dict.fromkeys(stage for stage, _ in needed):
        if stage not in stages:
            raise DataError(
                "the run is not finished",
                where=str(path),
                got=f"stages done: {', '.join(stages) or 'none'}",
                expected=f"the stage {stage}",
                fix=f"Finish it with: graphmert {needed[-1][0]} RUN.toml"
                if added is None
                else "Finish the run that the relation was added to, then add it again.",
            )
    if extracts and not is_current(path, "extract", config, manifest["inputs"]):
        raise DataError(
            "thresholds and calibration do not belong to the model beside them",
            where=str(path),
            got=f"a run of graphmert {made_by}; this is {__version__}",
            expected="an extract stage done after the last training",
            fix="Do it again with this version: graphmert extract RUN.toml"
            if added is None
            else _ADD_AGAIN,
        )
    names = [(stage, name) for stage, name in needed]
    if extracts:
        outputs = stages["prepare"]["outputs"]
        names += [("prepare", name) for name in _CANDIDATES if name in outputs]
        if config.extract.corpus.enabled and config.extract.corpus.tails != "entities":
            names += [("prepare", name) for name in _NOVEL]
    hashes = {
        name: _hash_of(path, stages[stage], name, made_by, is_added=added is not None)
        for stage, name in names
    }
    run = FrozenRun(path, config, hashes, dict(manifest["inputs"]), made_by, added)
    if extracts:
        _ = run.rule
    return run


def copy_frozen(source: Path, target: Path) -> dict[str, Any]:
    """Copy what new documents need from a run, and nothing else.

    The embedding model is copied along where it is a folder; one that is named by its id in the
    hub stays a name.

    Returns: the files copied and their size.

    Raises:
        ConfigError: the target is not empty.
        DataError: as `open_frozen`.
    """
    run = open_frozen(source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError("the folder is not empty", where="--out", got=str(target))
    files = {name: run.path / name for name in (*run.hashes, MANIFEST)}
    if run.embeds and run.embedding != LEXICAL and (folder := Path(run.embedding)).is_dir():
        found = sorted(one for one in folder.rglob("*") if one.is_file())
        files |= {f"{EMBEDDING}/{one.relative_to(folder).as_posix()}": one for one in found}
    # The manifest comes last: a folder that has one is whole.
    order = sorted(files, key=lambda name: (name == MANIFEST, name))
    for name in order:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[name], target / name)
    atomic_write_bytes(target / MANIFEST, files[MANIFEST].read_bytes())
    return {
        "path": str(target),
        "n_files": len(order),
        "n_bytes": sum((target / name).stat().st_size for name in order),
        "embedding": EMBEDDING if (target / EMBEDDING).is_dir() else run.config.embedding.model,
    }


def has_rule(path: Path) -> bool:
    """Whether a run has chosen its thresholds; False of a folder that is no run."""
    if not (path / MANIFEST).is_file():
        return False
    return RULE in _read_manifest(path)["stages"].get("extract", {}).get("outputs", {})


def has_added(path: Path) -> bool:
    """Whether `relation add` wrote a folder that has a manifest."""
    return "relation" in _read_manifest(path)


def check_recorded(path: Path, names: Sequence[str]) -> list[str]:
    """Compare files of a run with the hashes that it recorded.

    Returns: those of the names that the run wrote.

    Raises:
        DataError: a file has changed since the run wrote it, or is gone.
    """
    manifest = _read_manifest(path)
    made_by = str(manifest.get("versions", {}).get("graphmert", "an unknown version"))
    is_added = "relation" in manifest
    found = []
    for record in manifest["stages"].values():
        own = [name for name in names if name in record["outputs"]]
        for name in own:
            _hash_of(path, record, name, made_by, is_added=is_added)
        found += own
    return found


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        inner = path.parent / MANIFEST
        hint = f" Perhaps {path.parent} is meant." if inner.is_file() else ""
        raise DataError(
            "no run directory",
            where=str(path),
            got=", ".join(sorted(one.name for one in path.iterdir())[:8]) or "an empty folder",
            expected=MANIFEST,
            fix=f"Give the directory of a finished run.{hint}",
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            "the manifest of the run is damaged", where=str(file), got=error, expected="JSON"
        ) from error
    missing = [
        key
        for key in ("config", "inputs", "stages")
        if not isinstance(manifest, dict) or key not in manifest
    ]
    if missing:
        raise DataError(
            "no manifest of a run on text",
            where=str(file),
            got=", ".join(manifest) if isinstance(manifest, dict) else type(manifest).__name__,
            expected=", ".join(missing),
            fix="Give the directory of a run made by graphmert run.",
        )
    return manifest


def _config_of(path: Path, manifest: Mapping[str, Any], made_by: str) -> RunConfig:
    tree = {**manifest["config"], "out": str(path)}
    try:
        return build(tree, RunConfig, source=str(path / MANIFEST))
    except ConfigError as error:
        raise DataError(
            "the run was made by another version of graphmert, or is none on text",
            where=error.where,
            got=f"{error.what}; made by {made_by}, this is {__version__}",
            fix="Install the version that made it, or run its RUN.toml again with this one.",
        ) from error


def _hash_of(
    path: Path, record: Mapping[str, Any], name: str, made_by: str, *, is_added: bool
) -> str:
    wanted = record["outputs"].get(name)
    if wanted is None or not (path / name).is_file():
        recorded = "the run never wrote it" if wanted is None else "it is gone"
        raise DataError(
            "the run lacks a file that new documents need",
            where=str(path / name),
            got=f"{recorded}; made by graphmert {made_by}, this is {__version__}",
            fix=_ADD_AGAIN
            if is_added
            else "Run its RUN.toml again with this version, or copy the whole folder.",
        )
    if sha256_file(path / name) != wanted:
        raise DataError(
            "a file of the run has changed since the run wrote it",
            where=str(path / name),
            expected=f"SHA-256 {wanted}",
            fix=_ADD_AGAIN
            if is_added
            else "Run its RUN.toml again; the stage that wrote it is then done again.",
        )
    return wanted


def refuse_overlap(out: Path, places: Sequence[Path], run: FrozenRun) -> None:
    """Refuse an output folder that is the run's, another run's, or among the documents.

    Raises:
        ConfigError: names both.
    """
    own = out.resolve()
    for place in (run.path, *places):
        other = place.resolve()
        if own == other or other in own.parents:
            raise ConfigError(
                "the output folder lies in what is read",
                where="--out",
                got=str(out),
                expected=f"a folder outside {place}",
            )
    if (out / "chains").exists() or (out / "model").exists():
        raise ConfigError("the output folder holds a run", where="--out", got=str(out))


__all__ = [
    "FrozenRun",
    "check_recorded",
    "copy_frozen",
    "has_added",
    "has_rule",
    "open_frozen",
    "refuse_overlap",
]
