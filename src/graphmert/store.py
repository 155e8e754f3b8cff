"""The tables of a run directory: their columns, and reading and writing them checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from graphmert.chain import LeafTriple, LeafyChain
from graphmert.errors import ConfigError, FormatError
from graphmert.kg.types import KG, Entity, Triple
from graphmert.shards import read_table, write_table

SPLITS = ("train", "valid", "test")


def _columns(**columns: pa.DataType | tuple[pa.DataType, None]) -> pa.Schema:
    """Return a schema; a type given as (type, None) may hold nulls."""
    return pa.schema(
        [
            pa.field(name, kind[0], nullable=True)
            if isinstance(kind, tuple)
            else pa.field(name, kind, nullable=False)
            for name, kind in columns.items()
        ]
    )


_TEXT, _OFFSET, _SCORE = pa.string(), pa.int32(), pa.float32()
_TEXTS, _OFFSETS = pa.list_(pa.string()), pa.list_(pa.int32())

SCHEMAS: dict[str, pa.Schema] = {
    "corpus/documents": _columns(
        doc_id=_TEXT, sha256=_TEXT, title=_TEXT, text=_TEXT, source=_TEXT, meta=_TEXT
    ),
    "corpus/sequences": _columns(seq_id=_TEXT, doc_id=_TEXT, start=_OFFSET, end=_OFFSET),
    "corpus/mentions": _columns(
        seq_id=_TEXT,
        doc_id=_TEXT,
        entity_id=_TEXT,
        start=_OFFSET,
        end=_OFFSET,
        surface=_TEXT,
        is_title=pa.bool_(),
    ),
    "corpus/phrases": _columns(
        phrase=_TEXT,
        n_words=_OFFSET,
        n_occurrences=_OFFSET,
        n_documents=_OFFSET,
        c_value=_SCORE,
        npmi=_SCORE,
    ),
    "corpus/held_out": _columns(doc_id=_TEXT, split=_TEXT),
    "corpus/candidates": _columns(
        seq_id=_TEXT,
        doc_id=_TEXT,
        start=_OFFSET,
        end=_OFFSET,
        surface=_TEXT,
        method=_TEXT,
        score=_SCORE,
        entity_id=(_TEXT, None),
    ),
    "seed/entities": _columns(entity_id=_TEXT, name=_TEXT, type=_TEXT, synonyms=_TEXTS),
    "seed/triples": _columns(head_id=_TEXT, relation=_TEXT, tail_id=_TEXT, split=_TEXT),
    "seed/mirrors": _columns(head_id=_TEXT, relation=_TEXT, tail_id=_TEXT),
    "chains/chains": _columns(
        chain_id=_TEXT,
        roots=_OFFSETS,
        relation=_OFFSETS,
        head_start=_OFFSETS,
        head_end=_OFFSETS,
        tail_length=_OFFSETS,
        tail=_OFFSETS,
        tail_entity=_OFFSETS,
        head_entity=_OFFSETS,
    ),
    "chains/heads": _columns(
        chain=_OFFSET,
        entity=_OFFSET,
        root_start=_OFFSET,
        root_end=_OFFSET,
        char_start=_OFFSET,
        char_end=_OFFSET,
        is_title=pa.bool_(),
    ),
    "chains/injected": _columns(
        seq_id=_TEXT, head_start=_OFFSET, head_end=_OFFSET, triple=_TEXT, score=_SCORE
    ),
    "kg/entities": _columns(
        entity_id=_TEXT, name=_TEXT, type=_TEXT, synonyms=_TEXTS, merged_from=_TEXTS
    ),
    "kg/triples": _columns(
        triple_id=_TEXT,
        head_id=_TEXT,
        head=_TEXT,
        relation=_TEXT,
        tail_id=_TEXT,
        tail=_TEXT,
        score=_SCORE,
        novel=pa.bool_(),
        n_evidence=_OFFSET,
    ),
    "kg/evidence": _columns(
        triple_id=_TEXT,
        domain=_TEXT,
        doc_id=_TEXT,
        sha256=_TEXT,
        sent_start=_OFFSET,
        sent_end=_OFFSET,
        sentence=_TEXT,
        head_start=_OFFSET,
        head_end=_OFFSET,
        head_surface=_TEXT,
        tail_start=(_OFFSET, None),
        tail_end=(_OFFSET, None),
        tail_surface=(_TEXT, None),
        locator=(_TEXT, None),
        model_hash=_TEXT,
        method=_TEXT,
        score=_SCORE,
    ),
    "kg/helper": _columns(
        seq_id=_TEXT,
        doc_id=_TEXT,
        head_start=_OFFSET,
        head_end=_OFFSET,
        head_surface=_TEXT,
        head_id=(_TEXT, None),
        relation=_TEXT,
        tail=_TEXT,
        tail_id=(_TEXT, None),
        token_score=_SCORE,
        llm=_TEXT,
    ),
    "kg/completion": _columns(
        graph=_TEXT,
        split=_TEXT,
        side=_TEXT,
        head_id=_TEXT,
        relation=_TEXT,
        tail_id=_TEXT,
        rank=pa.float64(),
    ),
    "kg/novel_entities": _columns(
        entity_id=_TEXT, name=_TEXT, type=_TEXT, n_occurrences=_OFFSET, n_documents=_OFFSET
    ),
    "kg/rejected": _columns(
        candidate=_TEXT,
        reason=_TEXT,
        score=(_SCORE, None),
        doc_id=_TEXT,
        sent_start=_OFFSET,
        sent_end=_OFFSET,
    ),
    "code/files": _columns(
        doc_id=_TEXT,
        package=_TEXT,
        version=_TEXT,
        path=_TEXT,
        language=_TEXT,
        sha256=_TEXT,
        n_bytes=pa.int64(),
        n_lines=_OFFSET,
        state=_TEXT,
        reason=_TEXT,
        is_test=pa.bool_(),
        n_symbols=_OFFSET,
        n_references=_OFFSET,
        n_triples=_OFFSET,
        n_evidence=_OFFSET,
        n_entities=_OFFSET,
        depends_on=_TEXTS,
    ),
    "code/symbols": _columns(
        entity_id=_TEXT,
        kind=_TEXT,
        name=_TEXT,
        qualified_name=_TEXT,
        language=_TEXT,
        package=_TEXT,
        path=_TEXT,
        doc_id=_TEXT,
        start=_OFFSET,
        end=_OFFSET,
        name_start=_OFFSET,
        name_end=_OFFSET,
        body_start=_OFFSET,
        body_end=_OFFSET,
        docstring_start=(_OFFSET, None),
        docstring_end=(_OFFSET, None),
        start_line=_OFFSET,
        end_line=_OFFSET,
        parent_id=(_TEXT, None),
        is_test=pa.bool_(),
        is_local=pa.bool_(),
        n_params=_OFFSET,
    ),
    "code/references": _columns(
        doc_id=_TEXT,
        package=_TEXT,
        path=_TEXT,
        language=_TEXT,
        relation=_TEXT,
        text=_TEXT,
        start=_OFFSET,
        end=_OFFSET,
        site_start=_OFFSET,
        site_end=_OFFSET,
        line=_OFFSET,
        source_id=_TEXT,
        target_id=(_TEXT, None),
        candidates=_TEXTS,
        external=(_TEXT, None),
        state=_TEXT,
        resolver=_TEXT,
        confidence=_SCORE,
    ),
}


def empty_table(name: str) -> pa.Table:
    """Return a table of that name with no rows."""
    return schema_of(name).empty_table()


def make_table(name: str, columns: Mapping[str, Sequence[object] | np.ndarray]) -> pa.Table:
    """Build the table of that name from columns, in the columns' declared types and order.

    Raises:
        FormatError: columns are missing, too many, of the wrong type or hold a null.
    """
    schema = schema_of(name)
    if set(columns) != set(schema.names):
        raise FormatError(
            f"table {name} has the wrong columns", got=sorted(columns), expected=schema.names
        )
    try:
        arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
        table = pa.Table.from_arrays(arrays, schema=schema)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise FormatError(f"table {name} has a wrong value", got=error) from error
    check_table(name, table)
    return table


def check_table(name: str, table: pa.Table, *, where: str | None = None) -> None:
    """Check the columns, types and nulls of a table against its declaration.

    Raises:
        FormatError: names the table, the column and what was expected.
    """
    schema = schema_of(name)
    if table.schema.names != schema.names:
        raise FormatError(
            f"table {name} has the wrong columns",
            where=where,
            got=table.schema.names,
            expected=schema.names,
            fix="Run the stage that writes it again.",
        )
    for field in schema:
        column = table.column(field.name)
        if column.type != field.type:
            raise FormatError(
                f"table {name} has a column of the wrong type",
                where=_place(where, field.name),
                got=column.type,
                expected=field.type,
            )
        if column.null_count and not field.nullable:
            raise FormatError(
                f"table {name} has nulls where none may be",
                where=_place(where, field.name),
                got=f"{column.null_count} nulls",
                expected="a value in every row",
            )


def schema_of(name: str) -> pa.Schema:
    """Return the declared columns of a table.

    Raises:
        ConfigError: there is no table of that name.
    """
    if name not in SCHEMAS:
        raise ConfigError("no such table", got=name, expected=f"one of {', '.join(SCHEMAS)}")
    return SCHEMAS[name]


def _place(where: str | None, column: str) -> str:
    return f"{where}, column {column}" if where else f"column {column}"


class RunDir:
    """A run directory: where each file lies, and its tables read and written checked.

    Table names are paths without the ending, such as "corpus/documents" or "kg/triples".
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    def table_path(self, name: str) -> Path:
        """Return the path of a table.

        Raises:
            ConfigError: there is no table of that name.
        """
        schema_of(name)
        return self.path / f"{name}.parquet"

    def has(self, name: str) -> bool:
        """Return whether the table has been written."""
        return self.table_path(name).is_file()

    def names(self) -> list[str]:
        """List the tables that have been written, in the order of the stages."""
        return [name for name in SCHEMAS if self.has(name)]

    def read(self, name: str) -> pa.Table:
        """Read a table.

        Raises:
            FormatError: it is missing, corrupt, or has other columns, types or nulls.
        """
        path = self.table_path(name)
        table = read_table(path)
        check_table(name, table, where=str(path))
        # Metadata would make equal tables unequal.
        return table.cast(schema_of(name)).replace_schema_metadata(None)

    def write(self, name: str, table: pa.Table) -> Path:
        """Write a table, whole or not at all; equal tables give equal bytes.

        Raises:
            FormatError: it has other columns, types or nulls than declared.
            CapabilityError: the disk is full.
        """
        path = self.table_path(name)
        check_table(name, table, where=str(path))
        write_table(path, table.cast(schema_of(name)).replace_schema_metadata(None))
        return path

    @property
    def documents(self) -> Path:
        """Path of `corpus/documents.parquet`."""
        return self.table_path("corpus/documents")

    @property
    def sequences(self) -> Path:
        """Path of `corpus/sequences.parquet`."""
        return self.table_path("corpus/sequences")

    @property
    def mentions(self) -> Path:
        """Path of `corpus/mentions.parquet`."""
        return self.table_path("corpus/mentions")

    @property
    def seed_entities(self) -> Path:
        """Path of `seed/entities.parquet`."""
        return self.table_path("seed/entities")

    @property
    def seed_triples(self) -> Path:
        """Path of `seed/triples.parquet`."""
        return self.table_path("seed/triples")

    @property
    def seed_schema(self) -> Path:
        """Path of `seed/schema.toml`."""
        return self.path / "seed" / "schema.toml"

    @property
    def chains(self) -> Path:
        """Path of `chains/chains.parquet`."""
        return self.table_path("chains/chains")

    @property
    def heads(self) -> Path:
        """Path of `chains/heads.parquet`."""
        return self.table_path("chains/heads")

    @property
    def injected(self) -> Path:
        """Path of `chains/injected.parquet`."""
        return self.table_path("chains/injected")

    @property
    def model(self) -> Path:
        """Path of `model`."""
        return self.path / "model"

    @property
    def kg_rejected(self) -> Path:
        """Path of `kg/rejected.parquet`."""
        return self.table_path("kg/rejected")

    @property
    def manifest(self) -> Path:
        """Path of `manifest.json`."""
        return self.path / "manifest.json"

    @property
    def timings(self) -> Path:
        """Path of `timings.json`."""
        return self.path / "timings.json"

    @property
    def metrics(self) -> Path:
        """Path of `metrics.json`."""
        return self.path / "metrics.json"

    @property
    def ledger(self) -> Path:
        """Path of `ledger.json`."""
        return self.path / "ledger.json"


# --- graphs and chains as tables ------------------------------------------------------------


def kg_to_tables(kg: KG, split: Mapping[Triple, str]) -> tuple[pa.Table, pa.Table]:
    """Return the tables seed/entities and seed/triples of a graph.

    Args:
        kg: the graph.
        split: the part of every triple, as `split_by_head` returns it.

    Raises:
        FormatError: a triple without a part, or a part that is none of train, valid, test.
    """
    parts = [split.get(triple) for triple in kg.triples]
    for triple, part in zip(kg.triples, parts, strict=True):
        if part not in SPLITS:
            raise FormatError(
                "a triple has no part", where=" ".join(triple), got=part, expected=SPLITS
            )
    entities = list(kg.entities.values())
    return (
        make_table(
            "seed/entities",
            {
                "entity_id": [one.entity_id for one in entities],
                "name": [one.name for one in entities],
                "type": [one.type for one in entities],
                "synonyms": [list(one.synonyms) for one in entities],
            },
        ),
        make_table(
            "seed/triples",
            {
                "head_id": [one.head_id for one in kg.triples],
                "relation": [one.relation for one in kg.triples],
                "tail_id": [one.tail_id for one in kg.triples],
                "split": parts,
            },
        ),
    )


def kg_from_tables(entities: pa.Table, triples: pa.Table) -> tuple[KG, dict[Triple, str]]:
    """Return the graph and the split that `kg_to_tables` wrote.

    Nothing is checked against a schema here; see `graphmert.kg.validate`.

    Raises:
        FormatError: the tables have other columns than seed/entities and seed/triples.
        DataError: one entity id with two names.
    """
    check_table("seed/entities", entities)
    check_table("seed/triples", triples)
    rows = zip(*(entities.column(name).to_pylist() for name in entities.column_names), strict=True)
    graph_entities = [Entity(key, name, kind, tuple(names)) for key, name, kind, names in rows]
    columns = [triples.column(name).to_pylist() for name in triples.column_names]
    split = {Triple(h, r, t): part for h, r, t, part in zip(*columns, strict=True)}
    return KG.build(graph_entities, split), split


def chains_to_table(chains: Sequence[LeafyChain]) -> pa.Table:
    """Return chains as a table, one row a chain; tails lie end to end in the column `tail`."""
    lists: dict[str, list[list[int]]] = {
        name: [] for name in SCHEMAS["chains/chains"].names if name != "chain_id"
    }
    for chain in chains:
        triples = chain.triples
        lists["roots"].append(list(chain.roots))
        lists["relation"].append([one.relation for one in triples])
        lists["head_start"].append([one.head_start for one in triples])
        lists["head_end"].append([one.head_end for one in triples])
        lists["tail_length"].append([len(one.tail) for one in triples])
        lists["tail"].append([token for one in triples for token in one.tail])
        lists["tail_entity"].append([one.tail_entity for one in triples])
        lists["head_entity"].append([one.head_entity for one in triples])
    return make_table("chains/chains", {"chain_id": [one.chain_id for one in chains], **lists})


def chains_from_table(table: pa.Table) -> list[LeafyChain]:
    """Return the chains that `chains_to_table` wrote.

    Raises:
        FormatError: other columns, or columns of one row that do not fit together.
    """
    check_table("chains/chains", table)
    chains: list[LeafyChain] = []
    columns = [table.column(name).to_pylist() for name in table.column_names]
    for chain_id, roots, relations, starts, ends, lengths, tail, tails, heads in zip(
        *columns, strict=True
    ):
        same = all(len(one) == len(relations) for one in (starts, ends, lengths, tails, heads))
        if not same or sum(lengths) != len(tail) or any(length < 1 for length in lengths):
            raise FormatError(
                "a chain's columns do not fit together",
                where=f"chain {chain_id}",
                got=f"{len(relations)} relations, {len(tail)} tail tokens, lengths {lengths}",
                expected="one head and one tail of at least one token for each relation",
            )
        triples: list[LeafTriple] = []
        stop = 0
        rows = zip(relations, starts, ends, lengths, tails, heads, strict=True)
        for relation, start, end, length, tail_entity, head_entity in rows:
            tokens = tuple(tail[stop : stop + length])
            stop += length
            triples.append(LeafTriple(relation, start, end, tokens, tail_entity, head_entity))
        chains.append(LeafyChain(tuple(roots), tuple(triples), chain_id))
    return chains
