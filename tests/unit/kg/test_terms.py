from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graphmert.errors import DataError, FormatError
from graphmert.kg import Entity, Triple, read_kg, read_terms

TERMS: list[dict[str, Any]] = [
    {
        "id": "0001",
        "name": "disease",
        "namespace": "mondo",
        "synonyms": ["disorder", "disease"],
        "alt_ids": ["0009"],
        "xrefs": [{"id": "4", "namespace": "DOID"}],
    },
    {
        "id": "0002",
        "name": "flu ",
        "namespace": "mondo",
        "relations": {"is_a": ["0001", "0009", "0404"], "near": ["0001"]},
    },
    {"id": "CHEBI:3", "name": "acid"},
]


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_terms_links_and_alternative_ids(tmp_path: Path) -> None:
    document = read_kg(write(tmp_path / "x.json", TERMS))
    assert document.kg.entities == {
        "CHEBI:3": Entity("CHEBI:3", "acid", "entity"),
        "MONDO:0001": Entity("MONDO:0001", "disease", "mondo", ("disorder",)),
        "MONDO:0002": Entity("MONDO:0002", "flu", "mondo"),
    }
    assert document.kg.triples == (
        Triple("MONDO:0002", "is_a", "MONDO:0001"),
        Triple("MONDO:0002", "near", "MONDO:0001"),
    )
    assert document.ledger.reasons == {"triple repeated": 1, "tail is not in the file": 1}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "not a JSON file"),
        ({"id": "a"}, "a list of terms"),
        ([{"id": "a"}], "term 1"),
        ([{"id": "a", "name": " "}], "term 1"),
        (["a"], "term 1"),
        ([{"id": "a", "name": "A", "relations": ["b"]}], "relations"),
    ],
)
def test_bad_lists(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read_terms(write(tmp_path / "x.json", value))


def test_a_term_twice_or_no_term(tmp_path: Path) -> None:
    twice = [{"id": "a", "name": "A"}, {"id": "a", "name": "A"}]
    with pytest.raises(DataError, match="twice"):
        read_terms(write(tmp_path / "x.json", twice))
    with pytest.raises(DataError, match="no term"):
        read_terms(write(tmp_path / "y.json", []))
