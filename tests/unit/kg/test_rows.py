from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.errors import DataError, FormatError
from graphmert.kg import (
    KG,
    Entity,
    KGDocument,
    Relation,
    Schema,
    Triple,
    infer_schema,
    read_kg,
    read_rows,
    schema_beside,
    validate,
    write_rows,
)
from graphmert.shards import Ledger
from strategies import kgs

SAMPLE = Path(__file__).parents[3] / "docs" / "sample" / "ontology"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_of_rows() -> None:
    document = read_rows(SAMPLE)
    assert len(document.kg.entities) == 39
    yeast = document.kg.entities["I:6"]
    assert yeast == Entity(
        "I:6", "yeast", "ingredient", ("Saccharomyces cerevisiae", "baker's yeast")
    )
    assert document.definitions == {"B:1": "A food baked from a dough."}
    assert Triple("B:3", "made from", "I:3") in document.kg.triples
    assert document.ledger.n_kept == len(document.kg.entities) + len(document.kg.triples)


def test_aliases_of_the_schema_become_its_names() -> None:
    schema = schema_beside(SAMPLE)
    assert schema is not None
    document = read_kg(SAMPLE, schema=schema)
    assert "made_from" in document.kg.relations
    assert "made from" not in document.kg.relations
    assert validate(document.kg, schema) == []


def test_triples_that_two_names_make_equal_count_once(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "head,relation,tail\na,eats,b\na,feeds on,b\n")
    schema = Schema(("entity",), {"eats": Relation("eats", aliases=("feeds on",))})
    document = read_kg(path, schema=schema)
    assert document.kg.triples == (Triple("a", "eats", "b"),)
    assert document.ledger.reasons == {"triple repeated under an alias": 1}


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_triples_alone_make_their_entities(tmp_path: Path, suffix: str, delimiter: str) -> None:
    lines = [
        "head,relation,tail,head_name,tail_type",
        'a,is_a,b,"A, ""the"" first\nand long",thing',
        "c,is_a,a,,",
        "a,is_a,b,,thing",
    ]
    text = "\n".join(lines) if delimiter == "," else "\n".join(lines).replace(",", "\t")
    document = read_rows(write(tmp_path / f"t{suffix}", text))
    first = 'A, "the" first\nand long' if delimiter == "," else 'A\t "the" first\nand long'
    assert document.kg.entities["a"].name == first
    assert document.kg.entities["b"] == Entity("b", "b", "thing")
    assert document.ledger.reasons == {"triple repeated": 1}


def test_jsonl_holds_both_kinds_plain_or_gzipped(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "name": "A", "synonyms": ["eins", " "]},
        {"id": "b"},
        {"head": "a", "relation": "is_a", "tail": "b"},
        {"id": "b", "name": "b"},
    ]
    text = "\ufeff" + "\n".join(json.dumps(row) for row in rows) + "\n\n"
    plain = read_rows(write(tmp_path / "x.jsonl", text))
    packed = tmp_path / "x.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert plain.kg == read_kg(packed).kg
    assert plain.kg.entities["a"].synonyms == ("eins",)
    assert plain.ledger.reasons == {"entity repeated": 1}


def test_ends_without_entity_are_reported_by_validate(tmp_path: Path) -> None:
    write(tmp_path / "entities.csv", "id\na\n")
    write(tmp_path / "triples.csv", "head,relation,tail\na,is_a,gone\n")
    document = read_rows(tmp_path)
    found = validate(document.kg, infer_schema(document.kg))
    assert [one.kind for one in found] == ["dangling_id"]


BAD = {
    "no columns": ("x.csv", "subject,verb\na,b\n", "line 1", "neither"),
    "unknown column": ("x.csv", "head,relation,tail,weight\na,b,c,1\n", "line 1", "weight"),
    "repeated column": ("x.csv", "id,id\na,b\n", "line 1", "repeated"),
    "short row": ("x.csv", "head,relation,tail\na,b\n", "line 2", "got 2, expected 3"),
    "open quote": ("x.csv", 'head,relation,tail\n"a,b,c\n', "line 2", "cannot be read"),
    "empty id": ("x.csv", "head,relation,tail\n ,b,c\n", "line 2, head", "empty"),
    "no json": ("x.jsonl", '{"id": "a"}\n{"id"\n', "line 2", "not JSON"),
    "no object": ("x.jsonl", '["a"]\n', "line 1", "no JSON object"),
    "wrong type": ("x.jsonl", '{"id": "a", "name": ["x"]}\n', "line 1, name", "a text"),
    "wrong synonyms": ("x.jsonl", '{"id": "a", "synonyms": [1]}\n', "synonyms", "a list of texts"),
    "no format": ("x.docx", "a\n", "x.docx", "expected .obo, .ttl"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_name_file_and_line(tmp_path: Path, case: str) -> None:
    name, text, where, words = BAD[case]
    with pytest.raises(FormatError) as caught:
        read_kg(write(tmp_path / name, text))
    assert where in str(caught.value.where)
    assert words in str(caught.value)


def test_bytes_that_are_no_utf8_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"head,relation,tail\na,b,\xff\n")
    with pytest.raises(FormatError, match="line 2"):
        read_rows(path)


def test_one_id_with_two_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "id,name\na,one\na,two\n")
    with pytest.raises(DataError, match=r"first at .*line 2"):
        read_rows(path)
    rows = "head,relation,tail,head_name\na,is_a,b,one\na,is_a,c,two\n"
    with pytest.raises(DataError, match="two names"):
        read_rows(write(tmp_path / "y.csv", rows))


@pytest.mark.parametrize("text", ["", "head,relation,tail\n"])
def test_an_empty_graph_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "x.csv", text)
    with pytest.raises((DataError, FormatError)):
        read_rows(path)
    folder = tmp_path / "nothing"
    folder.mkdir()
    with pytest.raises(DataError, match="empty"):
        read_rows(folder)


@given(kgs(), st.booleans())
def test_written_rows_read_back_equal(tmp_path_factory, kg: KG, has_definition: bool) -> None:
    if not kg.entities:
        return
    folder = tmp_path_factory.mktemp("rows")
    first = next(iter(kg.entities))
    ledger = Ledger("read_rows")
    document = KGDocument(kg, {first: "What it is."} if has_definition else {}, ledger)
    schema = infer_schema(kg)
    write_rows(folder, document, schema)
    again = read_rows(folder)
    assert again.kg == kg
    assert again.definitions == document.definitions
    assert schema_beside(folder) == schema
