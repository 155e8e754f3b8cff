from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from graphmert.domains.text import documents_from_definitions, make_documents
from graphmert.errors import DataError
from graphmert.kg import read_obo

TINY = Path(__file__).parents[3] / "fixtures" / "tiny.obo"


def test_one_document_for_each_definition() -> None:
    rows = documents_from_definitions(read_obo(TINY)).to_pylist()
    assert [one["doc_id"] for one in rows] == ["X:1", "X:2", "X:4"]
    row = rows[1]
    assert row["text"] == "cell growth: A growth that makes a cell larger."
    assert row["title"] == "cell growth"
    assert row["source"] == "tiny.obo"
    assert json.loads(row["meta"]) == {"entity_id": "X:2"}
    assert row["sha256"] == hashlib.sha256(row["text"].encode()).hexdigest()


def test_text_is_stored_as_given() -> None:
    text = "  e\u0301 \r\n🧬\x00\n"
    assert make_documents([("d", "", text, "s", {})])["text"].to_pylist() == [text]


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(DataError, match="corpus is empty"):
        make_documents([])


def test_two_documents_with_one_id_are_refused() -> None:
    with pytest.raises(DataError, match="one id"):
        make_documents([("d", "", "x", "s", {}), ("d", "", "y", "s", {})])
