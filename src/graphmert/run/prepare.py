"""Prepare a run: documents, sequences, schema, split, mentions, chains."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from graphmert.domains.text import (
    build_chains,
    documents_from_definitions,
    encode_roots,
    find_mentions,
    head_spans,
    make_sequences,
)
from graphmert.kg import infer_schema, read_obo, require_valid, split_by_head, write_schema
from graphmert.kg.obo import OboDocument
from graphmert.progress import Progress
from graphmert.run.manifest import StageOutput
from graphmert.run.settings import RunConfig
from graphmert.store import RunDir, chains_to_table, kg_to_tables, make_table
from graphmert.tokens import Tokenizer

TABLES = (
    "corpus/documents",
    "corpus/sequences",
    "corpus/mentions",
    "seed/entities",
    "seed/triples",
    "chains/chains",
    "chains/injected",
    "chains/heads",
)
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
    entities, triples = kg_to_tables(obo.kg, split)
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
    receivers = mentions
    if config.text.inject == "title":
        receivers = mentions.filter(mentions["is_title"])
    built = build_chains(
        roots,
        receivers,
        triples,
        entities,
        schema.relation_names,
        tokenizer,
        max_tail_tokens=config.text.max_tail_tokens,
        max_triples_per_chain=config.text.max_triples_per_chain,
    )
    progress.update(5, note="chains")
    row_of = {one: row for row, one in enumerate(entities["entity_id"].to_pylist())}
    heads = [
        (chain, row_of[s.entity_id], s.root_start, s.root_end, s.char_start, s.char_end, s.is_title)
        for chain, found in enumerate(spans)
        for s in found
    ]
    names = ("chain", "entity", "root_start", "root_end", "char_start", "char_end", "is_title")
    columns = list(zip(*heads, strict=True)) if heads else [()] * len(names)
    tables = {
        "corpus/documents": documents,
        "corpus/sequences": sequences,
        "corpus/mentions": mentions,
        "seed/entities": entities,
        "seed/triples": triples,
        "chains/chains": chains_to_table(built.chains),
        "chains/injected": built.injected,
        "chains/heads": make_table("chains/heads", dict(zip(names, columns, strict=True))),
    }
    files = [run.write(name, tables[name]) for name in TABLES]
    write_schema(run.seed_schema, schema)
    files += [run.seed_schema, tokenizer.save(run.path / "chains")]
    progress.update(_STEPS)
    progress.end()
    ledgers = (obo.ledger, sequence_ledger, mention_ledger, span_ledger, built.ledger)
    return StageOutput(files, _counts(tables), ledgers)


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
    held = set(triples.filter(pc.not_equal(triples["split"], "train"))["head_id"].to_pylist())
    texts = [text for one, text in sorted(obo.definitions.items()) if one not in held]
    texts += [entity.name for _, entity in sorted(obo.kg.entities.items())]
    return Tokenizer.train(texts, vocab_size=config.model.vocab_size)
