"""Score the run against baselines on the same held-out triples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

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
from graphmert.run.settings import EvaluateSettings, RunConfig, body_path
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
    texts = _texts(prepared)
    asked = [_text_query(prepared, texts, query) for query in queries]
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


def _texts(prepared: Prepared) -> dict[str, str]:
    documents = prepared.run.read("corpus/documents")
    ids, texts = documents.column("doc_id").to_pylist(), documents.column("text").to_pylist()
    return dict(zip(ids, texts, strict=True))


def _text_query(prepared: Prepared, texts: Mapping[str, str], query: Query) -> TextQuery:
    return TextQuery(
        head=query.head_entity,
        head_name=prepared.names[query.head_entity],
        relation=query.relation,
        text=texts[prepared.chain_documents[query.chain]],
    )


def baselines(
    config: RunConfig,
    prepared: Prepared,
    texts: Mapping[str, str],
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
    texts: Mapping[str, str],
    run_dir: Path,
    progress: Progress,
) -> tuple[Baseline, dict[str, Any]]:
    """Train the run's own body, from its own start, as a bi-encoder on the same triples."""
    settings = config.evaluate
    encoder_config = _bi_encoder_config(settings, config.seed)
    model = BiEncoder(build_plain(config, prepared, PLAIN), prepared.tokenizer, encoder_config)
    rows = [tuple(row) for row in prepared.triples["train"].tolist()]
    own_text = {
        row: texts[entity_id] for row, entity_id in enumerate(prepared.entity_ids)
        if entity_id in texts
    }  # fmt: skip
    data = BiEncoderData(
        TrainTriples.build([row for row in rows if row[0] in own_text]),
        texts=own_text,
        names=prepared.names,
        relation_labels=prepared.relation_labels,
        tokenizer=model.tokenizer,
        config=encoder_config,
    )
    steps = settings.bi_encoder_steps
    train_config = _bi_encoder_training(config)
    tables = [sha256_file(path) for path in (prepared.run.documents, prepared.run.seed_triples)]
    inputs = fingerprint(
        prepared.tokenizer.fingerprint,
        config.model.model_dump(mode="json"),
        config.data.body,
        tables,
        repr(encoder_config),
        repr(train_config),
    )
    out_dir = run_dir / "baselines" / "bi_encoder"
    drop_stale_training(out_dir, inputs)
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
    "evaluate_run",
    "ranks_to_table",
    "summarise",
    "table_to_ranks",
]
