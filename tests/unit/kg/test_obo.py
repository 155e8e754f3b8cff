from __future__ import annotations

import gzip
from importlib.resources import as_file, files
from pathlib import Path

import pytest

from graphmert.errors import DataError, FormatError
from graphmert.kg import Entity, KGDocument, Triple, infer_schema, read_obo, require_valid

TINY = Path(__file__).parents[2] / "fixtures" / "tiny.obo"


@pytest.fixture(scope="module")
def tiny() -> KGDocument:
    return read_obo(TINY)


def test_terms_synonyms_and_types(tiny: KGDocument) -> None:
    assert list(tiny.kg.entities.values()) == [
        Entity("X:1", "growth", "process", ("growing",)),
        Entity("X:2", "cell growth", "biology"),
        Entity("X:3", "life ! itself", "process"),
        Entity("X:4", "shrinking", "process"),
    ]
    assert (tiny.source, tiny.version) == ("tiny.obo", "tiny/1")


def test_definitions_lose_escapes_and_references(tiny: KGDocument) -> None:
    assert tiny.definitions["X:1"] == 'Getting "larger", in steps; see {this}\nand that.'
    assert sorted(tiny.definitions) == ["X:1", "X:2", "X:4"]


def test_links_by_id_and_by_alternative_id(tiny: KGDocument) -> None:
    assert tiny.kg.triples == (
        Triple("X:2", "is_a", "X:1"),
        Triple("X:2", "part_of", "X:3"),
        Triple("X:3", "is_a", "X:1"),
        Triple("X:4", "part_of", "X:2"),
    )


def test_ledger_names_what_was_left_out(tiny: KGDocument) -> None:
    assert tiny.ledger.to_dict()["left_out"] == {
        "obsolete term": 1,
        "synonym not EXACT": 1,
        "synonym repeated": 1,
        "tail is a term left out": 1,
        "tail is not in the file": 1,
        "triple repeated": 1,
    }
    assert tiny.ledger.to_dict()["examples"]["tail is not in the file"] == ["X:4 regulates X:404"]
    # 5 terms, 3 synonyms, 7 links of live terms
    assert (tiny.ledger.n_offered, tiny.ledger.n_kept) == (15, 9)


def test_typedefs_feed_the_schema(tiny: KGDocument) -> None:
    schema = infer_schema(tiny.kg, typedefs=tiny.typedefs)
    assert schema.relation_names == ("is_a", "part_of")
    part_of = schema.relations["part_of"]
    assert part_of.label == "part of"
    assert part_of.transitive
    assert part_of.inverse is None  # has_part does not occur
    assert part_of.domain == {"biology", "process"}
    is_a = schema.relations["is_a"]
    assert (is_a.label, is_a.acyclic, is_a.transitive, is_a.antisymmetric) == (
        "is a", True, True, True,
    )  # fmt: skip
    require_valid(tiny.kg, schema)


def test_what_a_relation_means_is_kept(tmp_path: Path) -> None:
    terms = "[Term]\nid: A\nname: a\nrelationship: eats B\n\n[Term]\nid: B\nname: b\n\n"
    typedef = '[Typedef]\nid: eats\nname: eats\ndef: "Takes \\"food\\" in." [X:1]\n'
    obo = read_obo(write(tmp_path, terms + typedef))
    assert obo.typedefs["eats"].description == 'Takes "food" in.'
    schema = infer_schema(obo.kg, typedefs=obo.typedefs)
    assert schema.relations["eats"].words == 'eats: Takes "food" in.'


def test_gzip_crlf_and_byte_order_mark_read_the_same(tmp_path: Path, tiny: KGDocument) -> None:
    data = b"\xef\xbb\xbf" + TINY.read_bytes().replace(b"\n", b"\r\n")
    path = tmp_path / "tiny.obo.gz"
    path.write_bytes(gzip.compress(data))
    again = read_obo(path)
    assert again.kg == tiny.kg
    assert again.definitions == tiny.definitions


def test_continued_lines_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path, '[Term]\nid: A\nname: long \\\nname\ndef: "one\\\n two" []\n')
    obo = read_obo(path)
    assert obo.kg.entities["A"].name == "long name"
    assert obo.definitions["A"] == "one two"
    assert obo.kg.entities["A"].type == "entity"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[Term]\nid: A\nname: a\ndef: no quotes\n", 4, "double quotes"),
        ("[Term]\nid: A\nname: a\nthis is no tag\n", 4, "tag: value"),
        ("[Term\nid: A\n", 1, "stanza header"),
        ("[Term]\nname: a\n", 1, "without an id"),
        ("[Term]\nid: A\nname: a\nrelationship: part_of ! nothing\n", 4, r"2 id\(s\)"),
        ("[Term]\nid: A\nname: a\n\n[Term]\nid: A\nname: b\n", 5, "defined twice"),
    ],
    ids=["quotes", "tag", "header", "id", "relationship", "twice"],
)
def test_broken_syntax_names_file_and_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(FormatError, match=words) as caught:
        read_obo(path)
    assert str(path) in str(caught.value)
    assert f"line {line}" in str(caught.value)


def test_not_utf8_names_file_line_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "latin.obo"
    path.write_bytes(b"[Term]\nid: A\nname: caf\xe9\n")
    with pytest.raises(FormatError) as caught:
        read_obo(path)
    assert "latin.obo, line 3" in str(caught.value)
    assert "0xe9 at offset 22" in str(caught.value)


def test_truncated_gzip_and_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.obo.gz"
    path.write_bytes(gzip.compress(TINY.read_bytes())[:-20])
    with pytest.raises(FormatError, match=r"cut\.obo\.gz"):
        read_obo(path)
    with pytest.raises(FormatError, match="not found"):
        read_obo(tmp_path / "absent.obo")


@pytest.mark.parametrize("text", ["", "[Term]\nid: A\nname: a\nis_obsolete: true\n"])
def test_an_ontology_without_live_terms_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="no live term"):
        read_obo(write(tmp_path, text))


def test_terms_without_a_name_go_to_the_ledger(tmp_path: Path) -> None:
    obo = read_obo(write(tmp_path, "[Term]\nid: A\n\n[Term]\nid: B\nname: b\nis_a: A\n"))
    assert obo.ledger.to_dict()["left_out"] == {
        "tail is a term left out": 1,
        "term without a name": 1,
    }


def test_the_sample_in_the_package_is_valid() -> None:
    with as_file(files("graphmert") / "data" / "go-sample.obo.gz") as path:
        assert path.stat().st_size <= 2_000_000
        obo = read_obo(path)
    assert (len(obo.kg.entities), len(obo.kg.triples), len(obo.definitions)) == (
        18205,
        36654,
        18205,
    )
    assert obo.ledger.n_left_out == 0
    require_valid(obo.kg, infer_schema(obo.kg, typedefs=obo.typedefs))


def write(folder: Path, text: str) -> Path:
    path = folder / "test.obo"
    path.write_text(text, encoding="utf-8")
    return path
