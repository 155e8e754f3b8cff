"""The WordNet database, plain lists of triples, and entities described by another source."""

from __future__ import annotations

from pathlib import Path

import pytest

import toy_wordnet
from graphmert.errors import DataError, FormatError
from graphmert.kg import (
    KG,
    Entity,
    KGDocument,
    Triple,
    describe_entities,
    read_kg,
    read_listed,
    read_wordnet,
    require_apart,
)
from graphmert.shards import Ledger


@pytest.fixture
def database(tmp_path: Path) -> tuple[Path, dict[str, toy_wordnet.Synset]]:
    return tmp_path / "wordnet", toy_wordnet.write_database(tmp_path / "wordnet")


def id_of(one: toy_wordnet.Synset) -> str:
    return f"{one.offset:08d}-{'a' if one.part == 's' else one.part}"


def test_synsets_become_entities_and_pointers_triples(
    database: tuple[Path, dict[str, toy_wordnet.Synset]],
) -> None:
    folder, synsets = database
    document = read_wordnet(folder)
    assert len(document.kg.entities) == len(synsets)
    bird = document.kg.entities[id_of(synsets["red bird"])]
    assert (bird.name, bird.type, bird.synonyms) == ("red bird", "noun", ("birdlet",))
    assert document.kg.entities[id_of(synsets["good"])].name == "good"
    assert document.kg.entities[id_of(synsets["useful"])].type == "adj"
    expected = {
        Triple(
            id_of(one),
            {"@": "hypernym", "+": "derivationally_related_form", "&": "similar_to"}[symbol],
            id_of(target),
        )
        for one in synsets.values()
        for symbol, target, _ in one.pointers
    }
    assert set(document.kg.triples) == expected
    n_pointers = sum(len(one.pointers) for one in synsets.values())
    repeated = document.ledger.reasons["triple repeated, by other words"]
    assert repeated == n_pointers - len(expected) == len(toy_wordnet.KINDS)
    assert document.ledger.n_offered == len(synsets) + n_pointers


def test_glosses_lose_their_examples_unless_they_are_all(
    database: tuple[Path, dict[str, toy_wordnet.Synset]],
) -> None:
    folder, synsets = database
    definitions = read_wordnet(folder).definitions
    assert definitions[id_of(synsets["bird"])] == "any bird that one can see"
    assert definitions[id_of(synsets["be"])] == "be there; have being"
    assert definitions[id_of(synsets["useful"])] == '"a useful thing"'


def test_a_bare_offset_stands_for_every_part_of_speech(
    database: tuple[Path, dict[str, toy_wordnet.Synset]],
) -> None:
    other_ids = read_wordnet(database[0]).other_ids
    assert other_ids["00001000"] == ("00001000-n", "00001000-v", "00001000-a", "00001000-r")


def test_an_archive_reads_as_its_folder(
    database: tuple[Path, dict[str, toy_wordnet.Synset]], tmp_path: Path
) -> None:
    toy_wordnet.write_archive(tmp_path / "db.tar.gz", database[0])
    folder, archive = read_kg(database[0]), read_kg(tmp_path / "db.tar.gz")
    assert folder.kg == archive.kg
    assert folder.definitions == archive.definitions


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ("00001000 03 n 01 thing 0", "IndexError"),
        ("00001000 03 x 01 thing 0 000 | gloss", "part of speech 'x'"),
        ("00001000 03 n 01 thing 0 001 ?? 00000001 n 0000 | gloss", "KeyError"),
        ("offset 03 n 01 thing 0 000 | gloss", "no offset"),
        ("00001000 03 n zz thing 0 000 | gloss", "ValueError"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, got: str) -> None:
    toy_wordnet.write_database(tmp_path)
    (tmp_path / "data.verb").write_text(f"{toy_wordnet.LICENCE}{line}\n", encoding="utf-8")
    with pytest.raises(FormatError, match="no synset") as caught:
        read_wordnet(tmp_path)
    assert "data.verb, line 2" in str(caught.value)
    assert got in str(caught.value)


def test_missing_files_and_broken_archives_are_named(tmp_path: Path) -> None:
    toy_wordnet.write_database(tmp_path / "wordnet")
    (tmp_path / "wordnet" / "data.adv").unlink()
    with pytest.raises(FormatError, match=r"data\.adv"):
        read_wordnet(tmp_path / "wordnet")
    (tmp_path / "no.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(FormatError, match="archive is broken"):
        read_wordnet(tmp_path / "no.tar.gz")
    with pytest.raises(FormatError, match="not found"):
        read_wordnet(tmp_path / "nowhere.tar.gz")


def test_a_list_of_triples(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("a\tis\tb\nb\tis\tc\na\tis\tb\n\n", encoding="utf-8")
    document = read_kg(path)
    assert document.kg.triples == (Triple("a", "is", "b"), Triple("b", "is", "c"))
    assert {one.name for one in document.kg.entities.values()} == {"a", "b", "c"}
    assert document.ledger.reasons == {"triple repeated": 1}
    path.write_text("a\tis\tb\na is b\n", encoding="utf-8")
    with pytest.raises(FormatError, match="line 2"):
        read_listed(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no triple"):
        read_listed(path)


def test_entities_are_described_without_a_triple_of_the_source(
    database: tuple[Path, dict[str, toy_wordnet.Synset]], tmp_path: Path
) -> None:
    folder, synsets = database
    bird, thing = (f"{synsets[name].offset:08d}" for name in ("bird", "thing"))
    path = tmp_path / "train.txt"
    path.write_text(f"{bird}\tis\t{thing}\n{bird}\tis\tunknown\n", encoding="utf-8")
    plain = read_listed(path)
    document = describe_entities(plain, read_wordnet(folder))
    assert document.kg.triples == plain.kg.triples
    assert set(document.kg.entities) == {bird, thing, "unknown"}
    assert document.kg.entities[bird].name == "bird"
    assert document.kg.entities["unknown"] == Entity("unknown", "unknown", "entity")
    assert document.ledger.reasons == {"not described": 1}
    # One offset in four files: the first gives name and type, the rest are kept as well.
    assert document.kg.entities[thing].name == "thing"
    assert document.kg.entities[thing].type == "noun"
    assert {"be", "exist", "good", "well"} == set(document.kg.entities[thing].synonyms)
    assert document.definitions[thing].startswith("something that is there; be there")


def test_an_entity_of_the_same_id_comes_before_other_ids() -> None:
    source = KGDocument(
        KG.build([Entity("a", "own", "x"), Entity("b", "other", "x")], []),
        {"b": "text"},
        Ledger("source"),
        other_ids={"a": ("b",)},
    )
    plain = KGDocument(KG.build([Entity("a", "a", "entity")], []), {}, Ledger("plain"))
    described = describe_entities(plain, source)
    assert described.kg.entities["a"].name == "own"
    assert described.definitions == {}


def test_parts_of_a_split_share_nothing() -> None:
    one, two = Triple("a", "is", "b"), Triple("b", "is", "a")
    require_apart({"train": [one, one], "test": [two]})
    with pytest.raises(DataError, match="train and test") as caught:
        require_apart({"train": [one, two], "valid": [], "test": [two]})
    assert "b is a" in str(caught.value)
