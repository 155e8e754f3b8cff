"""Score the run against baselines on the same held-out triples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from graphmert.errors import DataError
from graphmert.evaluate import (
    Baseline,
    NearestName,
    QueryRow,
    exceeds_untrained,
    summarise_split,
    untrained_baselines,
)
from graphmert.evaluate.baselines import Query as TextQuery
from graphmert.evaluate.biencoder import (
    PLAIN,
    BiEncoder,
    BiEncoderBaseline,
    BiEncoderConfig,
    BiEncoderData,
    TrainTriples,
)
from graphmert.extract import Query
from graphmert.progress import Progress
from graphmert.recipe import TrainConfig
from graphmert.run.answers import Ranker, head_queries
from graphmert.run.manifest import fingerprint
from graphmert.run.prepared import Prepared
from graphmert.run.settings import DEFINITIONS, EvaluateSettings, RunConfig, body_path
from graphmert.run.training import build_plain, drop_stale_training
from graphmert.shards import read_table, sha256_file
from graphmert.train import train

RANK_SCHEMA = pa.schema(
    [
        ("system", pa.string()),
        ("head", pa.int32()),
        ("relation", pa.int32()),
        ("tail", pa.int32()),
        ("tail_length", pa.int32()),
        ("head_seen_as_tail", pa.bool_()),
        ("rank", pa.float64()),
    ]
)
_BLOCK = 128


def ranks_to_table(rows: Mapping[str, Sequence[QueryRow]]) -> pa.Table:
    """Ranks of every system as rows."""
    columns: dict[str, list[Any]] = {name: [] for name in RANK_SCHEMA.names}
    for system, ranked in rows.items():
        for row in ranked:
            columns["system"].append(system)
            for name in RANK_SCHEMA.names[1:]:
                columns[name].append(getattr(row, name))
    return pa.table(columns, schema=RANK_SCHEMA)


def table_to_ranks(table: pa.Table) -> dict[str, list[QueryRow]]:
    """The inverse of `ranks_to_table`."""
    found: dict[str, list[QueryRow]] = {}
    for row in table.to_pylist():
        system = row.pop("system")
        found.setdefault(system, []).append(QueryRow(**row))
    return found


def evaluate_run(
    config: RunConfig, prepared: Prepared, run_dir: Path, progress: Progress
) -> tuple[dict[str, list[QueryRow]], dict[str, Any]]:
    """Rank the test triples by every baseline; the model's own ranks come from extraction.

    Returns:
        Ranks of every system, and the training times of the baselines that are trained.
    """
    systems = table_to_ranks(read_table(run_dir / "kg" / "ranks.parquet"))
    queries = head_queries(prepared, "test", only_true=True)
    texts = _Texts.read(config, prepared)
    asked = [texts.query(query) for query in queries]
    found, timings = baselines(config, prepared, texts, asked, run_dir, progress)
    for baseline in found:
        ranker = Ranker(prepared, queries, "test")
        progress.begin(f"baseline {baseline.name}", total=len(asked), unit="queries")
        for start in range(0, len(asked), _BLOCK):
            block = asked[start : start + _BLOCK]
            ranker.add(baseline.name, np.arange(start, start + len(block)), baseline.score(block))
            progress.update(start + len(block))
        progress.end()
        systems[baseline.name] = ranker.rows[baseline.name]
    return systems, timings


@dataclass(frozen=True)
class _Texts:
    """What the baselines read: a term's definition, or the sequence that names a head.

    Attributes:
        documents: text of each document.
        sequences: text of each chain's sequence; empty where documents define terms.
    """

    prepared: Prepared
    documents: Mapping[str, str]
    sequences: Sequence[str]

    @classmethod
    def read(cls, config: RunConfig, prepared: Prepared) -> _Texts:
        documents = prepared.run.read("corpus/documents")
        ids, texts = documents.column("doc_id").to_pylist(), documents.column("text").to_pylist()
        found = dict(zip(ids, texts, strict=True))
        if config.data.corpus == DEFINITIONS:
            return cls(prepared, found, ())
        spans = prepared.run.read("corpus/sequences").select(["doc_id", "start", "end"])
        columns = (column.to_pylist() for column in spans.columns)
        sequences = [found[doc][start:end] for doc, start, end in zip(*columns, strict=True)]
        return cls(prepared, found, sequences)

    def query(self, query: Query) -> TextQuery:
        """The query with its text."""
        prepared = self.prepared
        document = prepared.chain_documents[query.chain]
        return TextQuery(
            head=query.head_entity,
            head_name=prepared.names[query.head_entity],
            relation=query.relation,
            text=self.sequences[query.chain] if self.sequences else self.documents[document],
        )

    def examples(self) -> tuple[list[tuple[int, int, int]], list[str]]:
        """Training triples with the text of each: once for every place the encoder learns from."""
        prepared = self.prepared
        if self.sequences:
            found = [
                ((leaf.head_entity, leaf.relation, leaf.tail_entity), self.sequences[place])
                for place, chain in enumerate(prepared.chains)
                if prepared.document_part(place) == "train"
                for leaf in chain.triples
            ]
        else:
            ids = prepared.entity_ids
            found = [
                ((head, relation, tail), self.documents[ids[head]])
                for head, relation, tail in prepared.triples["train"].tolist()
                if ids[head] in self.documents
            ]
        return [triple for triple, _ in found], [text for _, text in found]


def check_baselines(config: RunConfig, prepared: Prepared) -> None:
    """Refuse, before anything is trained, a baseline that has nothing to train on.

    Raises:
        DataError: no training triple has a text.
    """
    if config.evaluate.bi_encoder_steps and not _Texts.read(config, prepared).examples()[0]:
        raise DataError(
            "the bi-encoder has no training triple with a text",
            where="evaluate.bi_encoder_steps",
            got=f"{len(prepared.triples['train'])} training triples",
            expected="training documents with injected triples",
            fix="Lower inject.alpha or corpus.held_out_share, or set evaluate.bi_encoder_steps=0.",
        )


def baselines(
    config: RunConfig,
    prepared: Prepared,
    texts: _Texts,
    asked: Sequence[TextQuery],
    run_dir: Path,
    progress: Progress,
) -> tuple[list[Baseline], dict[str, Any]]:
    """Every baseline the configuration asks for, trained ones after training them."""
    timings: dict[str, Any] = {}
    train_triples = prepared.triples["train"]
    found = untrained_baselines(
        prepared.names,
        train_relations=train_triples[:, 1],
        train_tails=train_triples[:, 2],
        n_relations=len(prepared.relations),
    )
    settings = config.evaluate
    body = body_path(settings.body or config.data.body)
    if body is not None:
        progress.begin("encode names with the frozen body", total=1)
        frozen = BiEncoder.from_body(body, _bi_encoder_config(settings, config.seed))
        limit = frozen.config.max_query_tokens
        distinct = sorted({query.text for query in asked})
        found.append(
            NearestName(
                distinct,
                frozen.encode_texts(distinct, max_tokens=limit),
                frozen.encode_texts(prepared.names, max_tokens=frozen.config.max_name_tokens),
            )
        )
        progress.end()
    if settings.bi_encoder_steps:
        baseline, took = _trained_bi_encoder(config, prepared, texts, run_dir, progress)
        found.append(baseline)
        timings[baseline.name] = took
    return found, timings


def _bi_encoder_config(settings: EvaluateSettings, seed: int) -> BiEncoderConfig:
    return BiEncoderConfig(
        batch_size=settings.bi_encoder_batch,
        n_sampled_negatives=settings.bi_encoder_negatives,
        seed=seed,
    )


def _bi_encoder_training(config: RunConfig) -> TrainConfig:
    settings = config.evaluate
    return TrainConfig(
        total_steps=settings.bi_encoder_steps,
        batch_size=settings.bi_encoder_batch,
        learning_rate=settings.bi_encoder_learning_rate,
        min_learning_rate=min(config.train.min_learning_rate, settings.bi_encoder_learning_rate),
        warmup_steps=min(config.train.warmup_steps, settings.bi_encoder_steps),
        n_threads=config.train.n_threads,
        precision=config.train.precision,
        checkpoint_every=max(1, settings.bi_encoder_steps // 4),
        final_weights="last",
        seed=config.seed,
    )


def _trained_bi_encoder(
    config: RunConfig,
    prepared: Prepared,
    texts: _Texts,
    run_dir: Path,
    progress: Progress,
) -> tuple[Baseline, dict[str, Any]]:
    """Train the run's own body, from its own start, as a bi-encoder on the same triples."""
    settings = config.evaluate
    body = build_plain(config, prepared, PLAIN)
    encoder_config = _bi_encoder_config(settings, config.seed)
    # A network from random weights has no more positions than a sequence has tokens.
    limits = {
        name: min(getattr(encoder_config, name), body.config.n_positions)
        for name in ("max_query_tokens", "max_name_tokens")
    }
    encoder_config = encoder_config.model_copy(update=limits)
    model = BiEncoder(body, prepared.tokenizer, encoder_config)
    rows, triple_texts = texts.examples()
    data = BiEncoderData(
        TrainTriples.build(rows),
        triple_texts=triple_texts,
        names=prepared.names,
        relation_labels=prepared.relation_labels,
        tokenizer=model.tokenizer,
        config=encoder_config,
    )
    steps = settings.bi_encoder_steps
    train_config = _bi_encoder_training(config)
    files = [prepared.run.documents, prepared.run.seed_triples]
    if texts.sequences:
        files += [prepared.run.chains, prepared.run.table_path("corpus/held_out")]
    tables = [sha256_file(path) for path in files if path.is_file()]
    inputs = fingerprint(
        prepared.tokenizer.fingerprint,
        config.model.model_dump(mode="json"),
        config.data.body,
        tables,
        repr(encoder_config),
        repr(train_config),
    )
    out_dir = run_dir / "baselines" / "bi_encoder"
    drop_stale_training(out_dir, inputs, progress)
    progress.begin("train baseline bi_encoder", total=steps, unit="updates")
    result = train(
        model,
        data,
        config=train_config,
        out_dir=out_dir,
        fingerprint=inputs,
        on_progress=lambda step, of, line: progress.update(step, total=of),
    )
    progress.end()
    return BiEncoderBaseline(model, prepared.names, prepared.relation_labels), result.timings


def summarise(
    systems: Mapping[str, Sequence[QueryRow]],
    prepared: Prepared,
    settings: EvaluateSettings,
    seed: int,
) -> dict[str, Any]:
    """The `test` section of metrics.json, with paired differences from the main system."""
    others = [name for name in systems if name != "graphmert"]
    trained = [name for name in systems if name.startswith("graphmert") or name == "bi_encoder"]
    return summarise_split(
        systems,
        prepared.relations,
        n_entities=len(prepared.names),
        trained=trained,
        compare=[("graphmert", name) for name in others],
        seed=seed,
        n_resamples=settings.n_resamples,
    )


def beats_untrained(section: Mapping[str, Any]) -> bool:
    """Whether the run is above every untrained baseline by its bootstrap interval."""
    return exceeds_untrained(section, "graphmert")


__all__ = [
    "beats_untrained",
    "check_baselines",
    "evaluate_run",
    "ranks_to_table",
    "summarise",
    "table_to_ranks",
]
