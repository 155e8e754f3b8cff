from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from graphmert.chain import LeafTriple, LeafyChain
from graphmert.errors import ConfigError, FormatError
from graphmert.kg import KG, Triple
from graphmert.shards import sha256_file
from graphmert.store import (
    SCHEMAS,
    RunDir,
    chains_from_table,
    chains_to_table,
    empty_table,
    kg_to_tables,
    make_table,
)

SEQUENCES = {"seq_id": ["a#0"], "doc_id": ["a"], "start": [0], "end": [3]}
# The columns other programs read; a change here breaks them.
CONTRACT = {
    "corpus/documents": "doc_id sha256 title text source meta",
    "corpus/sequences": "seq_id doc_id start end",
    "seed/entities": "entity_id name type synonyms",
    "seed/triples": "head_id relation tail_id split",
    "seed/mirrors": "head_id relation tail_id",
    "kg/completion": "graph split side head_id relation tail_id rank",
    "chains/injected": "seq_id head_start head_end triple score",
    "kg/entities": "entity_id name type synonyms merged_from",
    "kg/triples": "triple_id head_id head relation tail_id tail score novel n_evidence",
    "kg/evidence": "triple_id domain doc_id sha256 sent_start sent_end sentence head_start "
    "head_end head_surface tail_start tail_end tail_surface locator model_hash method score",
    "kg/rejected": "candidate reason score doc_id sent_start sent_end",
}


@pytest.mark.parametrize("name", CONTRACT)
def test_columns_are_the_contract(name: str) -> None:
    assert SCHEMAS[name].names == CONTRACT[name].split()


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_table_is_written_and_read_back(tmp_path: Path, name: str) -> None:
    run = RunDir(tmp_path)
    run.write(name, empty_table(name))
    assert run.read(name).equals(empty_table(name))
    assert run.names() == [name]


def test_rows_survive_and_equal_tables_are_equal_bytes(tmp_path: Path) -> None:
    table = make_table("corpus/sequences", SEQUENCES)
    one, two = RunDir(tmp_path / "one"), RunDir(tmp_path / "two")
    nullable = pa.schema([field.with_nullable(True) for field in table.schema])
    one.write("corpus/sequences", table)
    two.write("corpus/sequences", pa.concat_tables([table.slice(0, 0), table]).cast(nullable))
    assert one.read("corpus/sequences").equals(table)
    assert sha256_file(one.sequences) == sha256_file(two.sequences)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"end": ["x"]}, "wrong value"),
        ({"end": [None]}, "column end"),
        ({"extra": [1]}, "wrong columns"),
        ({"end": [2**40]}, "wrong value"),
    ],
    ids=["type", "null", "extra", "overflow"],
)
def test_wrong_tables_are_refused(change: dict[str, list[object]], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        make_table("corpus/sequences", {**SEQUENCES, **change})


def test_a_foreign_file_is_refused_by_column_and_path(tmp_path: Path) -> None:
    from graphmert.shards import write_table

    run = RunDir(tmp_path)
    write_table(run.sequences, pa.table(SEQUENCES))  # int64 offsets
    with pytest.raises(FormatError, match=r"sequences\.parquet, column start"):
        run.read("corpus/sequences")
    run.sequences.write_bytes(b"PAR1 broken")
    with pytest.raises(FormatError, match=r"sequences\.parquet"):
        run.read("corpus/sequences")
    with pytest.raises(ConfigError, match="corpus/sequence"):
        run.read("corpus/sequence")


def test_only_a_missing_tail_may_be_null() -> None:
    assert {field.name for field in SCHEMAS["kg/evidence"] if field.nullable} == {
        "tail_start", "tail_end", "tail_surface", "locator",
    }  # fmt: skip


def test_a_triple_without_a_part_is_refused() -> None:
    kg = KG.build([], [Triple("a", "r", "b")])
    with pytest.raises(FormatError, match="a r b"):
        kg_to_tables(kg, {})


def test_chains_round_trip() -> None:
    chains = [
        LeafyChain((1, 2, 3), (), "empty"),
        LeafyChain(
            (1, 2, 3, 4),
            (
                LeafTriple(0, 1, 3, (7, 8), 5, 6),
                LeafTriple(2, 1, 2, (9,)),
                LeafTriple(1, 3, 4, (7,)),
            ),
            "full",
        ),
    ]
    assert chains_from_table(chains_to_table(chains)) == chains


def test_chain_columns_that_do_not_fit_are_refused() -> None:
    table = chains_to_table([LeafyChain((1, 2), (LeafTriple(0, 0, 1, (7, 8)),), "c1")])
    short = table.set_column(
        table.schema.get_field_index("tail"),
        table.schema.field("tail"),
        pa.array([[7]], pa.list_(pa.int32())),
    )
    with pytest.raises(FormatError, match="chain c1"):
        chains_from_table(short)
