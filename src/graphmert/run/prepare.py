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
from graphmert.errors import ConfigError
from graphmert.kg import (
    KGDocument,
    Schema,
    infer_schema,
    read_kg,
    read_schema,
    reduce_seed,
    require_triples,
    require_valid,
    schema_beside,
    split_by_head,
    without_relations,
    write_schema,
)
from graphmert.progress import Progress
from graphmert.run.manifest import StageOutput
from graphmert.run.settings import RunConfig
from graphmert.shards import Ledger
from graphmert.store import RunDir, chains_to_table, kg_to_tables, make_table, schema_of
from graphmert.tokens import Tokenizer

_STEPS = 6


def prepare_stage(
    config: RunConfig,
    run_dir: Path,
    kg: Sequence[Path],
    body: str | None,
    progress: Progress,
    *,
    mark: str,
    corpus: Path | None = None,
) -> StageOutput:
    """Write corpus/, seed/ and chains/.

    Args:
        kg: the sources of the seed.
        body: folder or hub id of a pretrained body, whose tokenizer is taken.
        mark: hash of all that the tables depend on.
        corpus: documents; None takes the definitions of the KG's terms.
    """
    given = _given_schema(config, kg)
    document = without_relations(read_kg(kg, schema=given), config.kg.leave_out_relations)
    require_triples(document)
    schema = given or infer_schema(document.kg, typedefs=document.typedefs)
    require_valid(document.kg, schema, where=", ".join(map(str, kg)))
    if corpus is not None:
        from graphmert.run.corpus import prepare_corpus

        return prepare_corpus(
            config,
            run_dir,
            document,
            schema,
            corpus=corpus,
            body=body,
            progress=progress,
            mark=mark,
        )
    if config.inject.method != "all":
        raise ConfigError(
            "definitions are injected without scores",
            where="inject.method",
            got=config.inject.method,
            expected="all",
            fix="text.inject chooses which heads receive triples; scored needs a corpus.",
        )
    return _prepare_definitions(config, run_dir, document, schema, body, progress)


def _given_schema(config: RunConfig, kg: Sequence[Path]) -> Schema | None:
    """Return the user's schema, or the one that lies in the KG's folder."""
    if config.kg.schema_file:
        return read_schema(config.kg.schema_file)
    return schema_beside(kg[0]) if len(kg) == 1 else None


def _prepare_definitions(
    config: RunConfig,
    run_dir: Path,
    obo: KGDocument,
    schema: Schema,
    body: str | None,
    progress: Progress,
) -> StageOutput:
    """Prepare a run whose corpus are the definitions of the terms.

    The split is drawn before anything is injected. The tokenizer of a model without a body is
    trained on training documents and entity names only.
    """
    run = RunDir(run_dir)
    progress.begin("prepare", total=_STEPS, unit="steps")
    documents = documents_from_definitions(obo)
    entities, triples = _seed(config, obo, schema)
    progress.update(1, note="split")
    tokenizer = _tokenizer(config, body, obo, triples)
    reduced: list[Ledger] = []
    if config.reduce.is_set:
        triples, schema, ledger = reduce_seed(triples, schema, config.reduce)
        reduced.append(ledger)
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
    progress.end()
    ledgers = (obo.ledger, *reduced, sequence_ledger, mention_ledger, span_ledger, built.ledger)
    return StageOutput(files, _counts(tables), ledgers)


def _seed(config: RunConfig, obo: KGDocument, schema: Schema) -> tuple[pa.Table, pa.Table]:
    """Split the seed KG: its entities and triples."""
    split = split_by_head(
        obo.kg,
        schema,
        n_valid_heads=config.split.n_valid_heads,
        n_test_heads=config.split.n_test_heads,
        seed=config.split.seed,
        eligible=obo.definitions.keys(),
    )
    return kg_to_tables(obo.kg, split)


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
    config: RunConfig, body: str | None, obo: KGDocument, triples: pa.Table
) -> Tokenizer:
    if body is not None:
        return Tokenizer.load(body)
    rows = zip(triples["head_id"].to_pylist(), triples["split"].to_pylist(), strict=True)
    held = {head for head, part in rows if part != "train"}
    texts = [text for one, text in sorted(obo.definitions.items()) if one not in held]
    texts += [entity.name for _, entity in sorted(obo.kg.entities.items())]
    return Tokenizer.train(texts, vocab_size=config.model.vocab_size)
