"""Give a trained model a relation it was not trained with: from its name, or fitted alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from graphmert.chain import LeafTriple, LeafyChain
from graphmert.config import Settings
from graphmert.errors import ConfigError, DataError
from graphmert.feed import NameTable
from graphmert.kg import Relation, Schema, Triple, read_kg, read_schema, write_schema
from graphmert.model import GraphMERT
from graphmert.progress import Progress, Silent
from graphmert.recipe import TrainConfig
from graphmert.run import STAGES, fingerprint_of, header_of
from graphmert.run.frozen import (
    MANIFEST,
    RULE,
    FrozenRun,
    check_recorded,
    has_added,
    has_rule,
    open_frozen,
)
from graphmert.run.manifest import Manifest, StageOutput, fingerprint
from graphmert.run.new_calibration import Calibrated, calibrate, hold_apart, kept
from graphmert.run.places import choose_places
from graphmert.run.prepared import Prepared
from graphmert.run.relation_rows import Initial, RelationFit, initial_rows, insert_relation
from graphmert.run.settings import RunConfig
from graphmert.run.stages import MODEL_FILES, load_model, set_threads
from graphmert.run.training import chain_feed, drop_stale_training, save_model
from graphmert.shards import Ledger, atomic_write_json, sha256_file
from graphmert.store import RunDir, chains_to_table, make_table
from graphmert.tokens import Tokenizer
from graphmert.train import train

N_NEAREST = 3
TEMPERATURE = 0.1
COPIED = (
    "chains/tokenizer.json", "chains/heads.parquet", "seed/entities.parquet",
    "corpus/documents.parquet", "corpus/sequences.parquet", "corpus/mentions.parquet",
    "corpus/candidates.parquet", "corpus/phrases.parquet", "corpus/tagger.safetensors",
    "corpus/held_out.parquet",
)  # fmt: skip
CHANGED = ("chains/chains.parquet", "seed/triples.parquet", "seed/schema.toml")
UNCHOSEN = "none: the run chose no thresholds, so nothing can be extracted with it"


class FitSettings(Settings):
    """How a relation is fitted alone, and calibrated."""

    min_triples: int = Field(default=50, ge=1, description="fewer usable triples are refused")
    steps: int = Field(default=200, ge=1, description="updates")
    batch_size: int = Field(default=32, ge=1, description="chains of an update")
    learning_rate: float = Field(default=5e-3, gt=0, description="peak of the cosine")
    places_per_head: int = Field(
        default=3, ge=0, description="sequences in which a head is shown; 0 is no limit"
    )
    held_apart: float = Field(
        default=0.25,
        ge=0,
        lt=1,
        description="share of the heads whose triples are not fitted on but calibrate; 0 fits on "
        "all and keeps the run's calibration",
    )
    min_calibration: int = Field(
        default=30,
        ge=1,
        description="triples held apart, and correct proposals at their heads, needed to "
        "calibrate; with fewer the run's calibration is kept",
    )
    seed: int = Field(
        default=0, ge=0, description="of masking, negatives, chains beside, heads held apart"
    )


@dataclass(frozen=True)
class Added:
    """What adding a relation gave.

    Attributes:
        path: a frozen run with the relation in seed and model.
        relation: its index.
        nearest: the known relations it began from, with their weights.
        n_triples: triples it was fitted on; 0 where it has its name alone.
        n_held_apart: triples that were not fitted on, to calibrate on.
        calibration: in words, whether a score of the relation is a probability.
        ledger: of the triples given.
    """

    path: Path
    relation: int
    nearest: tuple[tuple[str, float], ...]
    n_triples: int
    n_held_apart: int
    calibration: str
    ledger: Ledger


def add_relation(
    run_dir: Path | str,
    out: Path | str,
    relation: Relation,
    *,
    triples: Path | str | Sequence[Triple] = (),
    initial: Initial = "nearest",
    fit: FitSettings | None = None,
    progress: Progress | None = None,
) -> Added:
    """Write a frozen run whose model knows one more relation.

    Its rows in the network begin from the relations whose words ("label: description") are nearest
    to its own; with triples they are fitted. Every other parameter keeps its bits, and the
    scores of other relations do not change. Where the run has chosen thresholds, the new one
    extracts from new documents.

    Args:
        run_dir: a trained run.
        out: the folder to write; what a killed call left is gone on from.
        relation: name, label, description and what the schema says of it.
        triples: a KG's file or triples; those of the relation between known entities are used.
        initial: nearest or hidden, see `graphmert.run.relation_rows.initial_rows`.
        fit: how it is fitted and calibrated.
        progress: is told how far it is.

    Raises:
        ConfigError: the relation is there already, or one of its types is not; or the folder to
            write holds another run.
        DataError: fewer usable triples than `fit.min_triples`, or the run is not whole.
        FormatError: a file cannot be read.

    Source: none. Checked by: tests/unit/run/test_new_relation.py
    """
    run_dir, out = Path(run_dir), Path(out)
    _check_out(run_dir, out)
    source = open_frozen(run_dir, extracts=has_rule(run_dir))
    schema, place = _wider(read_schema(RunDir(run_dir).seed_schema), relation)
    set_threads(source.config.train.n_threads)
    given, ledger = _given(run_dir, relation, triples)
    fit = fit or FitSettings()
    work = _Work(
        source, out, relation, schema, place, given, ledger, initial, fit, progress or Silent()
    )  # fmt: skip
    (out / MANIFEST).unlink(missing_ok=True)
    header = header_of(source.config, source.inputs) | {"relation": work.origin}
    manifest = Manifest(out, header, STAGES)
    wanted = fingerprint("relation add", work.origin, given, initial, fit.model_dump(mode="json"))
    manifest.run("prepare", wanted, work.prepare)
    manifest.run("train", wanted, work.train)
    if source.has(RULE):
        wanted = fingerprint_of(out, "extract", source.config, source.inputs)
        manifest.run("extract", wanted, work.choose)
    return work.added()


def _check_out(run_dir: Path, out: Path) -> None:
    if out.resolve() == run_dir.resolve():
        raise ConfigError("the new folder is the run itself", where="out", fix="Name another.")
    if (out / MANIFEST).is_file() and not has_added(out):
        raise ConfigError(
            "the folder holds another run", where="out", got=str(out), fix="Name another."
        )


class _Work:
    """The stages of one call, which the manifest records as those of a run.

    Attributes:
        origin: what the manifest says of the relation.
    """

    def __init__(
        self,
        source: FrozenRun,
        out: Path,
        relation: Relation,
        schema: Schema,
        place: int,
        given: Sequence[Triple],
        ledger: Ledger,
        initial: Initial,
        fit: FitSettings,
        progress: Progress,
    ) -> None:
        self.source, self.out, self.relation = source, out, relation
        self.schema, self.place, self.given, self.ledger = schema, place, given, ledger
        self.initial: Initial = initial
        self.fit, self.progress = fit, progress
        self.held: frozenset[int] = frozenset()
        self.n_held = self.n_used = 0
        self.nearest: list[tuple[str, float]] = []
        before = {"run": str(source.path), "weights": source.model_hash, "made_by": source.made_by}
        self.origin: dict[str, Any] = {
            "name": relation.name,
            "label": relation.label,
            "description": relation.description,
            "from": before | ({} if source.added is None else {"relation": source.added}),
            "calibration": UNCHOSEN,
        }

    def prepare(self) -> StageOutput:
        """Write what a prepared run holds, with the relation in seed and chains."""
        if not self.given and (self.out / "fit").is_dir():
            shutil.rmtree(self.out / "fit")
        files = _write_run(self.source.path, self.out, self.schema, self.place, self.given)
        return StageOutput(files, {"n_triples": len(self.given)}, [self.ledger])

    def train(self) -> StageOutput:
        """Insert the relation's rows, and fit them on its triples."""
        prepared, fit = self._prepared(), self.fit
        before = read_schema(RunDir(self.source.path).seed_schema)
        model = load_model(self.source.path / "model")
        words = [before.relations[name].words for name in before.relation_names]
        weights = nearest_weights(model, prepared.tokenizer, words, self.relation.words)
        model = insert_relation(model, self.place, initial_rows(model, weights, self.initial))
        files = [self.out / "model" / name for name in MODEL_FILES] + [self.out / "relation.json"]
        if self.given:
            self._hold_apart(prepared)
            chains, self.n_used = fit_chains(prepared, self.place, fit, self.held)
            _require_enough(self.relation, self.n_used, len(self.given), fit)
            start = fingerprint(self.source.model_hash, weights, self.initial)
            config = self.source.config
            model = _fit(
                model, self.place, chains, config, prepared, fit, self.out, self.progress, start
            )
            files.append(self.out / "fit" / "training.jsonl")
        save_model(model, prepared, self.out / "model")
        ordered = sorted(zip(before.relation_names, weights, strict=True), key=lambda one: -one[1])
        self.nearest = ordered[:N_NEAREST]
        self._write_summary()
        return StageOutput(files, {"n_triples": self.n_used, "n_held_apart": self.n_held})

    def _hold_apart(self, prepared: Prepared) -> None:
        fit = self.fit
        if self.source.has(RULE):
            self.held = hold_apart(
                prepared,
                self.place,
                share=fit.held_apart,
                least=fit.min_calibration,
                least_fitted=fit.min_triples,
                seed=fit.seed,
            )
        rows = prepared.triples["train"].tolist()
        self.n_held = sum(
            head in self.held and relation == self.place for head, relation, _ in rows
        )

    def choose(self) -> StageOutput:
        """Calibrate the relation, and write it into the run's rule."""
        name, path = self.relation.name, self.out / RULE
        found = self._calibrated()
        self.origin["calibration"] = found.text
        values = json.loads((self.source.path / RULE).read_text(encoding="utf-8"))
        for section, value in (
            (values["rule"], found.rule.to_dict()),
            (values, {"calibration": found.text, **found.measured}),
        ):
            section["added"] = section.get("added", {}) | {name: value}
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_json(path, values)
        counts = {"calibrated": found.rule.calibrator is not None, "n_held_apart": self.n_held}
        return StageOutput([path], counts)

    def _calibrated(self) -> Calibrated:
        least = self.fit.min_calibration
        if not self.given:
            return kept("no triple was given")
        if not self.held:
            return kept(f"fewer than {least} triples could be held apart")
        prepared, model = self._prepared(), load_model(self.out / "model")
        return calibrate(
            self.source,
            model,
            prepared,
            self.place,
            self.held,
            least=least,
            progress=self.progress,
        )

    def _prepared(self) -> Prepared:
        longest = self.source.config.text.max_tail_tokens
        return Prepared.load(self.out, max_tail_tokens=longest)

    def added(self) -> Added:
        """The result."""
        return Added(
            self.out,
            self.place,
            tuple(self.nearest),
            self.n_used,
            self.n_held,
            self.origin["calibration"],
            self.ledger,
        )

    def _write_summary(self) -> None:
        summary: dict[str, Any] = {
            "relation": self.relation.name,
            "label": self.relation.label,
            "description": self.relation.description,
            "index": self.place,
            "initial": self.initial,
            "nearest": dict(self.nearest),
            "n_triples": self.n_used,
            "n_held_apart": self.n_held,
            "triples": self.ledger.to_dict(),
            "fit": self.fit.model_dump(mode="json") if self.n_used else None,
        }
        atomic_write_json(self.out / "relation.json", summary)


def _wider(schema: Schema, relation: Relation) -> tuple[Schema, int]:
    """The schema with one more relation, and the relation's index."""
    if relation.name in schema.relations:
        raise ConfigError(
            "the model has this relation already",
            where="name",
            got=relation.name,
            expected=f"none of {', '.join(schema.relation_names)}",
        )
    unknown = sorted((relation.domain | relation.range) - set(schema.types))
    if unknown:
        raise ConfigError(
            "the relation names a type that the schema does not have",
            where=relation.name,
            got=", ".join(unknown),
            expected=f"some of {', '.join(schema.types)}",
        )
    wider = Schema(schema.types, schema.relations | {relation.name: relation})
    return wider, wider.relation_names.index(relation.name)


def _require_enough(relation: Relation, n_used: int, n_given: int, fit: FitSettings) -> None:
    if n_used < fit.min_triples:
        raise DataError(
            "too few triples to fit a relation on",
            where=relation.name,
            got=f"{n_used} of {n_given} whose head stands in a training document",
            expected=f"at least {fit.min_triples}",
            fix="Give more, or none: the relation then has its name alone.",
        )


def _given(
    run_dir: Path, relation: Relation, triples: Path | str | Sequence[Triple]
) -> tuple[list[Triple], Ledger]:
    """The triples of the relation between entities of the run."""
    ledger = Ledger("relation: triples")
    if isinstance(triples, Path | str):
        triples = read_kg(triples).kg.triples
    entities = RunDir(run_dir).read("seed/entities")
    columns = (entities[name].to_pylist() for name in ("entity_id", "type"))
    known = dict(zip(*columns, strict=True))
    names = {relation.name, *relation.aliases}
    kept: set[Triple] = set()
    ledger.offered(len(triples))
    for head, name, tail in triples:
        triple = Triple(head, relation.name, tail)
        if name not in names:
            ledger.leave_out("another relation", example=name)
        elif head not in known or tail not in known:
            ledger.leave_out("an end is no entity of the run", example=f"{head} {tail}")
        elif relation.domain and known[head] not in relation.domain:
            ledger.leave_out("schema, domain", example=f"{head} {tail}")
        elif relation.range and known[tail] not in relation.range:
            ledger.leave_out("schema, range", example=f"{head} {tail}")
        elif triple in kept:
            ledger.leave_out("given twice")
        else:
            kept.add(triple)
            ledger.keep()
    return sorted(kept), ledger.check()


def _write_run(
    run_dir: Path, out: Path, schema: Schema, place: int, given: Sequence[Triple]
) -> list[Path]:
    """Write what a prepared run holds, with the relation in seed and chains.

    Returns: the files.
    """
    old, new = RunDir(run_dir), RunDir(out)
    recorded = check_recorded(run_dir, [*COPIED, *CHANGED])
    copied = [name for name in COPIED if name in recorded]
    for name in [*copied, *([] if not (run_dir / "run.toml").is_file() else ["run.toml"])]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run_dir / name, out / name)
    table = old.read("seed/triples")
    more = make_table(
        "seed/triples",
        {
            "head_id": [one.head_id for one in given],
            "relation": [one.relation for one in given],
            "tail_id": [one.tail_id for one in given],
            "split": ["train"] * len(given),
        },
    )
    new.write("seed/triples", pa.concat_tables([table, more]).combine_chunks())
    write_schema(new.seed_schema, schema)
    loaded = Prepared.load(run_dir, max_tail_tokens=1)
    moved = [
        replace(
            chain,
            triples=tuple(
                replace(one, relation=one.relation + (one.relation >= place))
                for one in chain.triples
            ),
        )
        for chain in loaded.chains
    ]
    new.write("chains/chains", chains_to_table(moved))
    return [out / name for name in (*copied, *CHANGED)]


def nearest_weights(
    model: GraphMERT, tokenizer: Tokenizer, labels: Sequence[str], text: str
) -> list[float]:
    """Weigh the known relations by how near their words are to a text.

    w_r = softmax(cos(v_r, v) / 0.1) over the 3 nearest, 0 elsewhere; v is the encoder's own vector
    of a text, as of an entity's name.
    """
    limit = model.config.n_positions - 2
    encoded = tokenizer.encode_batch([*labels, text])
    table = NameTable(
        tuple((tokenizer.cls_id, *one.ids.tolist()[:limit], tokenizer.sep_id) for one in encoded)
    )
    batch = table.batch(range(len(table)), pad_id=tokenizer.pad_id).to(model.device)
    with torch.no_grad():
        vectors = model.encode_names(batch).float().cpu().numpy()
    cosine_E = vectors[:-1] @ vectors[-1]
    chosen = np.argsort(-cosine_E, kind="stable")[:N_NEAREST]
    share = np.exp((cosine_E[chosen] - cosine_E[chosen].max()) / TEMPERATURE)
    weights = np.zeros(len(labels))
    weights[chosen] = share / share.sum()
    return [float(value) for value in weights]


def fit_chains(
    prepared: Prepared, place: int, settings: FitSettings, held: frozenset[int] = frozenset()
) -> tuple[list[LeafyChain], int]:
    """Return chains with the relation's training triples, and as many without.

    The triples hang where training documents name their heads, heads held apart left out. The
    others show the relation output what is no triple of the relation.

    Returns: the chains, and how many triples they show.
    """
    tails_of: dict[int, list[int]] = {}
    for head, relation, tail in prepared.triples["train"].tolist():
        fits = len(prepared.name_tokens[tail]) <= prepared.max_tail_tokens
        if relation == place and fits and head not in held:
            tails_of.setdefault(head, []).append(tail)
    places, _ = choose_places(prepared, per_head=0)
    n_shown: dict[int, int] = {}
    leaves: dict[int, list[LeafTriple]] = {}
    for span in places:
        limit = settings.places_per_head or len(places)
        is_usable = span.entity in tails_of and prepared.document_part(span.chain) == "train"
        if not is_usable or n_shown.get(span.entity, 0) >= limit:
            continue
        n_shown[span.entity] = n_shown.get(span.entity, 0) + 1
        leaves.setdefault(span.chain, []).extend(
            LeafTriple(
                place, span.root_start, span.root_end, prepared.name_tokens[tail], tail, span.entity
            )
            for tail in tails_of[span.entity]
        )
    shown = [
        replace(prepared.chains[chain], triples=(*prepared.chains[chain].triples, *own))
        for chain, own in sorted(leaves.items())
    ]
    # Where a head held apart stands, the relation is true and not shown.
    apart = {span.chain for span in places if span.entity in held}
    others = [
        chain
        for row, chain in enumerate(prepared.chains)
        if chain.triples
        and row not in leaves
        and row not in apart
        and prepared.document_part(row) == "train"
    ]
    others.sort(
        key=lambda chain: hashlib.sha256(f"{settings.seed}:{chain.chain_id}".encode()).digest()
    )
    n_used = sum(len(tails_of[head]) for head in n_shown)
    return [*shown, *others[: len(shown)]], n_used


def _fit(
    model: GraphMERT,
    place: int,
    chains: Sequence[LeafyChain],
    config: RunConfig,
    prepared: Prepared,
    settings: FitSettings,
    out: Path,
    progress: Progress,
    start: str,
) -> GraphMERT:
    """Train the relation's rows alone."""
    recipe = TrainConfig(
        total_steps=settings.steps,
        batch_size=settings.batch_size,
        micro_batch_size=config.train.micro_batch_size,
        max_tokens_per_micro_batch=config.train.max_tokens_per_micro_batch,
        learning_rate=settings.learning_rate,
        min_learning_rate=min(1e-5, settings.learning_rate),
        warmup_steps=min(10, settings.steps),
        weight_decay=0.0,
        precision=config.train.precision,
        n_threads=config.train.n_threads,
        device=config.train.device,
        checkpoint_every=max(1, settings.steps // 4),
        final_weights="last",
        seed=settings.seed,
    )
    masking = config.masking.model_copy(update={"mlm_rate": 0.0})
    own = config.model_copy(update={"train": recipe, "masking": masking})
    feed = chain_feed(
        own, prepared, model.config, chains, n_steps=settings.steps, seed=settings.seed
    )
    tables = [RunDir(out).seed_triples, RunDir(out).chains, RunDir(out).seed_schema]
    inputs = fingerprint(
        [sha256_file(path) for path in tables], start, place, settings.model_dump(mode="json")
    )
    drop_stale_training(out / "fit", inputs, progress)
    fitted = RelationFit(model, place)
    progress.begin("fit the relation", total=settings.steps, unit="updates")
    train(
        fitted,
        feed,
        config=recipe,
        out_dir=out / "fit",
        fingerprint=inputs,
        on_progress=lambda step, of, line: progress.update(step, total=of),
    )
    progress.end()
    return fitted.write()


__all__ = ["Added", "FitSettings", "add_relation", "fit_chains", "nearest_weights"]
