"""Prepare a run: documents, sequences, schema, split, mentions, chains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from graphmert.domains.text import (
    HeadSpan,
    build_chains,
    documents_from_definitions,
    encode_roots,
    find_mentions,
    head_spans,
    make_sequences,
)
from graphmert.kg import Schema, infer_schema, read_obo, require_valid, split_by_head, write_schema
from graphmert.kg.obo import OboDocument
from graphmert.progress import Progress
from graphmert.run.manifest import StageOutput
from graphmert.run.settings import RunConfig
from graphmert.store import RunDir, chains_to_table, kg_to_tables, make_table, schema_of
from graphmert.tokens import Tokenizer

_STEPS = 6


def prepare_stage(
    config: RunConfig, run_dir: Path, kg: Path, body: str | None, progress: Progress
) -> StageOutput:
    """Write corpus/, seed/ and chains/.

    The split is drawn before anything is injected. The tokenizer of a model without a body is
    trained on training documents and entity names only.
    """
    run = RunDir(run_dir)
    progress.begin("prepare", total=_STEPS, unit="steps")
    obo = read_obo(kg)
    documents = documents_from_definitions(obo)
    schema, entities, triples = _seed(config, obo, kg)
    progress.update(1, note="split")
    tokenizer = _tokenizer(config, body, obo, triples)
    sequences, sequence_ledger = make_sequences(
        documents, tokenizer, max_tokens=config.text.max_tokens
    )
    progress.update(2, note="sequences")
    mentions, mention_ledger = find_mentions(sequences, documents, entities)
    progress.update(3, note="mentions")
    roots = encode_roots(sequences, documents, tokenizer)
    spans, span_ledger = head_spans(roots, mentions)
    progress.update(4, note="head spans")
    titles_only = config.text.inject == "title"
    built = build_chains(
        roots,
        mentions.filter(mentions["is_title"]) if titles_only else mentions,
        triples,
        entities,
        schema.relation_names,
        tokenizer,
        max_tail_tokens=config.text.max_tail_tokens,
        max_triples_per_chain=config.text.max_triples_per_chain,
    )
    progress.update(5, note="chains")
    tables = {
        "corpus/documents": documents,
        "corpus/sequences": sequences,
        "corpus/mentions": mentions,
        "seed/entities": entities,
        "seed/triples": triples,
        "chains/chains": chains_to_table(built.chains),
        "chains/injected": built.injected,
        "chains/heads": _head_table(spans, entities),
    }
    files = [run.write(name, table) for name, table in tables.items()]
    write_schema(run.seed_schema, schema)
    files += [run.seed_schema, tokenizer.save(run.path / "chains")]
    progress.update(_STEPS)
    progress.end()
    ledgers = (obo.ledger, sequence_ledger, mention_ledger, span_ledger, built.ledger)
    return StageOutput(files, _counts(tables), ledgers)


def _seed(config: RunConfig, obo: OboDocument, kg: Path) -> tuple[Schema, pa.Table, pa.Table]:
    """Validate and split the seed KG: its schema, entities and triples."""
    schema = infer_schema(obo.kg, typedefs=obo.typedefs)
    require_valid(obo.kg, schema, where=str(kg))
    split = split_by_head(
        obo.kg,
        schema,
        n_valid_heads=config.split.n_valid_heads,
        n_test_heads=config.split.n_test_heads,
        seed=config.split.seed,
        eligible=obo.definitions.keys(),
    )
    return schema, *kg_to_tables(obo.kg, split)


def _head_table(spans: Sequence[Sequence[HeadSpan]], entities: pa.Table) -> pa.Table:
    """Every head span with its chain and entity as rows."""
    row_of = {one: row for row, one in enumerate(entities["entity_id"].to_pylist())}
    columns: dict[str, list[object]] = {name: [] for name in schema_of("chains/heads").names}
    for chain, found in enumerate(spans):
        for span in found:
            columns["chain"].append(chain)
            columns["entity"].append(row_of[span.entity_id])
            for name in ("root_start", "root_end", "char_start", "char_end", "is_title"):
                columns[name].append(getattr(span, name))
    return make_table("chains/heads", columns)


def _counts(tables: dict[str, pa.Table]) -> dict[str, object]:
    parts = tables["seed/triples"]["split"].value_counts().to_pylist()
    return {
        "documents": tables["corpus/documents"].num_rows,
        "sequences": tables["corpus/sequences"].num_rows,
        "entities": tables["seed/entities"].num_rows,
        "triples": {one["values"]: one["counts"] for one in parts},
        "mentions": tables["corpus/mentions"].num_rows,
        "injected": tables["chains/injected"].num_rows,
    }


def _tokenizer(
    config: RunConfig, body: str | None, obo: OboDocument, triples: pa.Table
) -> Tokenizer:
    if body is not None:
        return Tokenizer.load(body)
    rows = zip(triples["head_id"].to_pylist(), triples["split"].to_pylist(), strict=True)
    held = {head for head, part in rows if part != "train"}
    texts = [text for one, text in sorted(obo.definitions.items()) if one not in held]
    texts += [entity.name for _, entity in sorted(obo.kg.entities.items())]
    return Tokenizer.train(texts, vocab_size=config.model.vocab_size)
