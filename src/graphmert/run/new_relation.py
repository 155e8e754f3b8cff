"""Give a trained model a relation it was not trained with: from its name, or fitted alone."""

from __future__ import annotations

import hashlib
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
from graphmert.config import Settings, load_toml
from graphmert.errors import ConfigError, DataError
from graphmert.feed import NameTable
from graphmert.kg import Relation, Schema, Triple, read_kg, read_schema, write_schema
from graphmert.model import GraphMERT
from graphmert.progress import Progress, Silent
from graphmert.recipe import TrainConfig
from graphmert.run.manifest import fingerprint
from graphmert.run.places import choose_places
from graphmert.run.prepared import Prepared
from graphmert.run.relation_rows import Initial, RelationFit, initial_rows, insert_relation
from graphmert.run.settings import RunConfig
from graphmert.run.stages import load_model, set_threads
from graphmert.run.training import chain_feed, drop_stale_training, save_model
from graphmert.shards import Ledger, atomic_write_json, sha256_file
from graphmert.store import RunDir, chains_to_table, make_table
from graphmert.tokens import Tokenizer
from graphmert.train import train

N_NEAREST = 3
TEMPERATURE = 0.1
COPIED = (
    "corpus/documents", "corpus/sequences", "corpus/mentions", "seed/entities", "chains/heads",
)  # fmt: skip
OPTIONAL = ("corpus/candidates", "corpus/phrases", "kg/measured")


class FitSettings(Settings):
    """How a relation is fitted alone."""

    min_triples: int = Field(default=50, ge=1, description="fewer usable triples are refused")
    steps: int = Field(default=200, ge=1, description="updates")
    batch_size: int = Field(default=32, ge=1, description="chains of an update")
    learning_rate: float = Field(default=5e-3, gt=0, description="peak of the cosine")
    places_per_head: int = Field(
        default=3, ge=0, description="sequences in which a head is shown; 0 is no limit"
    )
    seed: int = Field(default=0, ge=0, description="of masking, negatives and chains beside")


@dataclass(frozen=True)
class Added:
    """What adding a relation gave.

    Attributes:
        path: a run directory with the relation in seed and model.
        relation: its index.
        nearest: the known relations it began from, with their weights.
        n_triples: triples it was fitted on; 0 where it has its name alone.
        ledger: of the triples given.
    """

    path: Path
    relation: int
    nearest: tuple[tuple[str, float], ...]
    n_triples: int
    ledger: Ledger


def add_relation(
    run_dir: Path | str,
    out: Path | str,
    relation: Relation,
    *,
    description: str = "",
    triples: Path | str | Sequence[Triple] = (),
    initial: Initial = "nearest",
    fit: FitSettings | None = None,
    progress: Progress | None = None,
) -> Added:
    """Write a run directory whose model knows one more relation.

    Its rows in the network begin from the relations whose words are nearest to "label:
    description"; with triples they are fitted. Every other parameter keeps its bits.

    Args:
        run_dir: a run directory with a trained model.
        out: the folder to write; what a killed call left is gone on from.
        relation: name, label and what the schema says of it.
        description: what it means, in a sentence.
        triples: a KG's file or triples; those of the relation between known entities are used.
        initial: nearest or hidden, see `graphmert.run.relation_rows.initial_rows`.
        fit: how it is fitted.
        progress: is told how far it is.

    Raises:
        ConfigError: the relation is there already, or one of its types is not.
        DataError: fewer usable triples than `fit.min_triples`.
        FormatError: a file cannot be read.

    Source: none. Checked by: tests/unit/run/test_new_relation.py
    """
    run_dir, out = Path(run_dir), Path(out)
    fit, progress = fit or FitSettings(), progress or Silent()
    if out.resolve() == run_dir.resolve():
        raise ConfigError("the new folder is the run itself", where="out", fix="Name another.")
    schema = read_schema(RunDir(run_dir).seed_schema)
    wider, place = _wider(schema, relation)
    config = load_toml(run_dir / "run.toml", RunConfig)
    set_threads(config.train.n_threads)
    given, ledger = _given(run_dir, relation, triples)
    _write_run(run_dir, out, wider, place, given)
    prepared = Prepared.load(out, max_tail_tokens=config.text.max_tail_tokens)
    model = load_model(run_dir / "model")
    words = [schema.relations[name].label for name in schema.relation_names]
    text = f"{relation.label}: {description}" if description else relation.label
    weights = nearest_weights(model, prepared.tokenizer, words, text)
    model = insert_relation(model, place, initial_rows(model, weights, initial))
    n_used = 0
    if given:
        chains, n_used = fit_chains(prepared, place, fit)
        _require_enough(relation, n_used, len(given), fit)
        start = fingerprint(sha256_file(run_dir / "model" / "model.safetensors"), weights, initial)
        model = _fit(model, place, chains, config, prepared, fit, out, progress, start)
    save_model(model, prepared, out / "model")
    nearest = sorted(zip(schema.relation_names, weights, strict=True), key=lambda one: -one[1])
    added = Added(out, place, tuple(nearest[:N_NEAREST]), n_used, ledger)
    _write_summary(added, relation, description, initial, fit)
    return added


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
) -> None:
    """Write what a prepared run holds, with the relation in seed and chains."""
    old, new = RunDir(run_dir), RunDir(out)
    files = [f"{name}.parquet" for name in COPIED]
    files += [name for one in OPTIONAL for name in (f"{one}.parquet", f"{one}.json")]
    files += ["corpus/tagger.safetensors", "chains/tokenizer.json", "run.toml"]
    for name in files:
        if (run_dir / name).is_file():
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
    prepared: Prepared, place: int, settings: FitSettings
) -> tuple[list[LeafyChain], int]:
    """Return chains with the relation's training triples, and as many without.

    The triples hang where training documents name their heads. The others show the relation
    output what is no triple of the relation.

    Returns: the chains, and how many triples they show.
    """
    tails_of: dict[int, list[int]] = {}
    for head, relation, tail in prepared.triples["train"].tolist():
        fits = len(prepared.name_tokens[tail]) <= prepared.max_tail_tokens
        if relation == place and fits:
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
    others = [
        chain
        for row, chain in enumerate(prepared.chains)
        if chain.triples and row not in leaves and prepared.document_part(row) == "train"
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
    drop_stale_training(out / "fit", inputs)
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


def _write_summary(
    added: Added, relation: Relation, description: str, initial: Initial, fit: FitSettings
) -> None:
    summary: dict[str, Any] = {
        "relation": relation.name,
        "label": relation.label,
        "description": description,
        "index": added.relation,
        "initial": initial,
        "nearest": dict(added.nearest),
        "n_triples": added.n_triples,
        "triples": added.ledger.to_dict(),
        "fit": fit.model_dump(mode="json") if added.n_triples else None,
    }
    atomic_write_json(added.path / "relation.json", summary)


__all__ = ["Added", "FitSettings", "add_relation", "fit_chains", "nearest_weights"]
