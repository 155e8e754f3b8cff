"""Prepare the completion of a graph: a given split, described entities, chains, no leak."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from graphmert.chain import LeafTriple, LeafyChain
from graphmert.documents import make_documents
from graphmert.errors import ConfigError, DataError
from graphmert.kg import (
    KGDocument,
    Schema,
    Triple,
    describe_entities,
    infer_schema,
    join_documents,
    read_kg,
    read_schema,
    require_apart,
    require_valid,
    triple_id,
    write_schema,
)
from graphmert.known import KnownGraph, mirrored, turned
from graphmert.progress import Progress
from graphmert.run.manifest import StageOutput
from graphmert.run.settings import RunConfig, kg_source
from graphmert.shards import Ledger, sha256_file
from graphmert.store import RunDir, chains_to_table, kg_to_tables, make_table
from graphmert.tokens import Tokenizer

_STEPS = 4
TITLE_MARK = ": "
NAME_MARK = ", "


def prepare_completion(
    config: RunConfig, run_dir: Path, kg: Sequence[Path], body: str | None, progress: Progress
) -> StageOutput:
    """Write corpus/, seed/ and chains/.

    Every entity is a document, "name, synonym: definition", and a chain; the leaves of a chain
    are all training triples of its entity, read from both ends.

    Raises:
        DataError: parts of the split share a triple, or a chain would show a held-out one.
    """
    run = RunDir(run_dir)
    progress.begin("prepare", total=_STEPS, unit="steps")
    check_sums(config, kg)
    parts, document, schema = _read(config, kg)
    progress.update(1, note="split")
    mirrors, split_ledger = leave_out_mirrors(parts, schema, keep=config.complete.mirrors == "keep")
    kept = [triple for triple in document.kg.triples if triple not in mirrors]
    part_of = {triple: part for part, triples in parts.items() for triple in triples}
    entities, triples = kg_to_tables(document.kg, {one: part_of[one] for one in part_of})
    triples = triples.filter(pa.array([one not in mirrors for one in document.kg.triples]))
    indexed = Indexed.of(document, schema, {one: part_of[one] for one in kept})
    if config.complete.mirrors == "drop":
        require_hidden(indexed)
    progress.update(2, note="texts")
    texts = [entity_text(document, one) for one in document.kg.entities]
    tokenizer = Tokenizer.load(body) if body is not None else _trained(config, texts)
    documents = make_documents(
        (one, text[: len(name)], text, document.source, {"entity_id": one})
        for one, text, name in zip(indexed.entity_ids, texts, indexed.names, strict=True)
    )
    made = make_chains(
        indexed,
        texts,
        tokenizer,
        max_tokens=config.text.max_tokens,
        max_leaf_tokens=config.complete.max_leaf_tokens,
    )
    progress.update(3, note="chains")
    tables = {
        "corpus/documents": documents,
        "seed/entities": entities,
        "seed/triples": triples,
        "seed/mirrors": _mirror_table(mirrors),
        **made,
    }
    files = [run.write(name, table) for name, table in tables.items()]
    write_schema(run.seed_schema, schema)
    files += [run.seed_schema, tokenizer.save(run.path / "chains")]
    progress.update(_STEPS)
    progress.end()
    return StageOutput(files, _counts(tables, indexed), (document.ledger, split_ledger))


def _counts(tables: dict[str, pa.Table], indexed: Indexed) -> dict[str, object]:
    return {
        "entities": tables["seed/entities"].num_rows,
        "triples": {part: int((indexed.part == part).sum()) for part in ("train", "valid", "test")},
        "mirrors_left_out": tables["seed/mirrors"].num_rows,
        "injected": tables["chains/injected"].num_rows,
    }


def check_sums(config: RunConfig, kg: Sequence[Path]) -> None:
    """Compare the files of triples with `complete.checksums`.

    Raises:
        ConfigError: a file that is not among the inputs.
        DataError: another sum.
    """
    sources = [*kg, kg_source(config.complete.valid), kg_source(config.complete.test)]
    by_name = {path.name: path for path in sources if path.is_file()}
    for name, expected in config.complete.checksums.items():
        if name not in by_name:
            raise ConfigError(
                "a checksum of a file that is no input",
                where="complete.checksums",
                got=name,
                expected=", ".join(sorted(by_name)),
            )
        found = sha256_file(by_name[name])
        if found != expected:
            raise DataError(
                "a file of triples is not the one expected",
                where=str(by_name[name]),
                got=found,
                expected=expected,
                fix="Take the published file, or remove its sum from complete.checksums.",
            )


def _read(
    config: RunConfig, kg: Sequence[Path]
) -> tuple[dict[str, tuple[Triple, ...]], KGDocument, Schema]:
    """Read the parts of the split, their union with described entities, and the schema."""
    given = read_schema(config.kg.schema_file) if config.kg.schema_file else None
    places = {
        "train": list(kg),
        "valid": [kg_source(config.complete.valid)],
        "test": [kg_source(config.complete.test)],
    }
    read = {part: read_kg(paths, schema=given) for part, paths in places.items()}
    parts = {part: one.kg.triples for part, one in read.items()}
    require_apart(dict(parts))
    document = join_documents(list(read.values()))
    if config.complete.entities:
        described = read_kg(kg_source(config.complete.entities))
        document = describe_entities(document, described)
    schema = given or infer_schema(document.kg, typedefs=document.typedefs)
    require_valid(document.kg, schema, where=", ".join(map(str, kg)))
    return parts, document, schema


def leave_out_mirrors(
    parts: dict[str, tuple[Triple, ...]], schema: Schema, *, keep: bool
) -> tuple[frozenset[Triple], Ledger]:
    """Find training triples that say a held-out one from its other end.

    The mirror of (h, r, t) is (t, r', h), with r' the inverse of r, or r itself where the schema
    declares none.

    Returns: those left out of training (none where they are kept), and the ledger.
    """
    known = set(parts["train"])
    ledger = Ledger("mirrors")
    ledger.offered(len(known))
    found = set()
    for head, relation, tail in (*parts["valid"], *parts["test"]):
        mirror = Triple(tail, schema.relations[relation].inverse or relation, head)
        if mirror in known and not keep:
            found.add(mirror)
    ledger.keep(len(known) - len(found))
    for mirror in sorted(found):
        ledger.leave_out("mirror of a held-out triple", example=" ".join(mirror))
    return frozenset(found), ledger.check()


class Indexed:
    """Triples of all parts as rows of entities and relations."""

    def __init__(
        self,
        entity_ids: tuple[str, ...],
        names: tuple[str, ...],
        relations: tuple[str, ...],
        inverse: np.ndarray,
        rows: np.ndarray,
        part: np.ndarray,
    ) -> None:
        self.entity_ids = entity_ids
        self.names = names
        self.relations = relations
        self.inverse = inverse
        self.rows = rows
        self.part = part

    @classmethod
    def of(cls, document: KGDocument, schema: Schema, part_of: dict[Triple, str]) -> Indexed:
        """Index the triples of `part_of`."""
        entity_ids = tuple(document.kg.entities)
        row_of = {one: row for row, one in enumerate(entity_ids)}
        relations = schema.relation_names
        place_of = {name: place for place, name in enumerate(relations)}
        inverse = [place_of[schema.relations[name].inverse or name] for name in relations]
        rows = [(row_of[h], place_of[r], row_of[t]) for h, r, t in part_of]
        return cls(
            entity_ids,
            tuple(one.name for one in document.kg.entities.values()),
            relations,
            np.array(inverse, dtype=np.int64),
            np.array(rows, dtype=np.int64).reshape(-1, 3),
            np.array(list(part_of.values())),
        )

    def graph(self) -> KnownGraph:
        """The training triples, read from both ends."""
        rows = self.rows[self.part == "train"]
        return KnownGraph.build(
            rows, n_entities=len(self.entity_ids), n_relations=len(self.relations)
        )


def require_hidden(indexed: Indexed) -> None:
    """Refuse training chains that show a held-out triple or what says the same.

    Checked are, for every held-out triple, itself and its mirror, each read from both ends.

    Raises:
        DataError: a training chain shows one.
    """
    held = indexed.rows[indexed.part != "train"]
    same = np.concatenate([held, mirrored(held, indexed.inverse)])
    same = np.concatenate([same, turned(same, len(indexed.relations))])
    shown = same[indexed.graph().find(same) >= 0]
    if len(shown):
        head, relation, tail = shown[0].tolist()
        own = indexed.relations[relation % len(indexed.relations)]
        raise DataError(
            "a training chain shows a held-out triple or its inverse",
            where=f"{indexed.entity_ids[head]} {own} {indexed.entity_ids[tail]}",
            got=len(shown),
            expected=0,
        )


def entity_text(document: KGDocument, entity_id: str) -> str:
    """Return "name, synonym, synonym: definition", without what an entity lacks."""
    entity = document.kg.entities[entity_id]
    text = NAME_MARK.join((entity.name, *entity.synonyms))
    definition = document.definitions.get(entity_id)
    return text + TITLE_MARK + definition if definition else text


def make_chains(
    indexed: Indexed,
    texts: Sequence[str],
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    max_leaf_tokens: int,
) -> dict[str, pa.Table]:
    """Encode every text, cut to `max_tokens`, and hang the training triples on its name."""
    graph = indexed.graph()
    leaves = leaf_tokens(indexed.names, tokenizer, max_leaf_tokens)
    encoded = tokenizer.encode_batch(list(texts))
    chains: list[LeafyChain] = []
    sequences: dict[str, list[object]] = {"seq_id": [], "doc_id": [], "start": [], "end": []}
    heads: dict[str, list[object]] = {
        name: []
        for name in (
            "chain", "entity", "root_start", "root_end", "char_start", "char_end", "is_title",
        )
    }  # fmt: skip
    injected: dict[str, list[object]] = {
        name: [] for name in ("seq_id", "head_start", "head_end", "triple", "score")
    }
    n_relations = len(indexed.relations)
    for row, (entity_id, encoding) in enumerate(zip(indexed.entity_ids, encoded, strict=True)):
        ids = encoding.ids[:max_tokens].tolist() or [tokenizer.unk_id]
        end = int(encoding.offsets[: len(ids)][-1, 1]) if len(encoding) else 0
        n_name = max(1, int((encoding.offsets[: len(ids), 0] < len(indexed.names[row])).sum()))
        name_end = min(len(indexed.names[row]), end)
        seq_id = f"{entity_id}#0"
        sequences["seq_id"].append(seq_id)
        sequences["doc_id"].append(entity_id)
        sequences["start"].append(0)
        sequences["end"].append(end)
        for name, value in zip(heads, (row, row, 1, 1 + n_name, 0, name_end, True), strict=True):
            heads[name].append(value)
        triples = []
        for place in graph.of(row).tolist():
            relation, tail = int(graph.relation_T[place]), int(graph.tail_T[place])
            triples.append(LeafTriple(relation, 1, 1 + n_name, leaves[tail], tail, row))
            ends = (row, tail) if relation < n_relations else (tail, row)
            head_id, tail_id = (indexed.entity_ids[one] for one in ends)
            injected["seq_id"].append(seq_id)
            injected["head_start"].append(0)
            injected["head_end"].append(name_end)
            injected["triple"].append(
                triple_id(head_id, indexed.relations[relation % n_relations], tail_id)
            )
            injected["score"].append(1.0)
        roots = (tokenizer.cls_id, *ids, tokenizer.sep_id)
        chains.append(LeafyChain(roots, tuple(triples), seq_id))
    return {
        "corpus/sequences": make_table("corpus/sequences", sequences),
        "chains/chains": chains_to_table(chains),
        "chains/heads": make_table("chains/heads", heads),
        "chains/injected": make_table("chains/injected", injected),
    }


def leaf_tokens(
    names: Sequence[str], tokenizer: Tokenizer, max_leaf_tokens: int
) -> list[tuple[int, ...]]:
    """The first tokens of every name."""
    return [
        tuple(one.ids[:max_leaf_tokens].tolist()) or (tokenizer.unk_id,)
        for one in tokenizer.encode_batch(list(names))
    ]


def _mirror_table(mirrors: frozenset[Triple]) -> pa.Table:
    rows = sorted(mirrors)
    names = ("head_id", "relation", "tail_id")
    return make_table(
        "seed/mirrors", {name: [row[k] for row in rows] for k, name in enumerate(names)}
    )


def _trained(config: RunConfig, texts: Sequence[str]) -> Tokenizer:
    return Tokenizer.train(texts, vocab_size=config.model.vocab_size)
