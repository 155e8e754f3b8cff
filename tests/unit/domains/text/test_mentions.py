from __future__ import annotations

import pyarrow as pa
import pytest

from graphmert.domains.text import find_mentions, fold, make_documents, make_sequences
from graphmert.errors import DataError
from toy_text import toy_documents, toy_entities, toy_tokenizer


def find(text: str, entities: pa.Table) -> list[tuple[str, str]]:
    documents = toy_documents(text)
    sequences, _ = make_sequences(documents, toy_tokenizer(), max_tokens=1000)
    rows = find_mentions(sequences, documents, entities)[0].to_pylist()
    assert all(text[row["start"] : row["end"]] == row["surface"] for row in rows)
    return [(row["entity_id"], row["surface"]) for row in rows]


NAMES = toy_entities(
    M="membrane", P="plasma membrane", C="cell", D="DNA", Q=["cell division", "cytokinesis"]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Membrane.", [("M", "Membrane")]),
        ("the plasma membrane", [("P", "plasma membrane")]),
        ("a cell divisional line", [("C", "cell")]),
        ("Cell division, CYTOKINESIS", [("Q", "Cell division"), ("Q", "CYTOKINESIS")]),
        ("cells, subcell, cell_1, 2cell", []),
        ("DNA but not dna or mDNA", [("D", "DNA")]),
        ("(cell)-🧬cell🧬/cell", [("C", "cell")] * 3),
        ("İİ cell\r\nmembrane ßß cell", [("C", "cell"), ("M", "membrane"), ("C", "cell")]),
        ("cell\u0301 is another word", []),
        ("❤\ufe0fcell", [("C", "cell")]),
        ("cell\x00cell", [("C", "cell")] * 2),
    ],
)
def test_whole_words_leftmost_longest(text: str, expected: list[tuple[str, str]]) -> None:
    assert find(text, NAMES) == expected


@pytest.mark.parametrize("text", ["STRAßE", "straße", "İstanbul ẞ", "ǅ ﬁ K", "Σς"])
def test_folding_keeps_the_length(text: str) -> None:
    assert len(fold(text)) == len(text)
    assert fold(fold(text)) == fold(text)


def test_folding_joins_cases() -> None:
    assert fold("STRAßE ΣΟΦΟΣ Ǆ") == fold("strAẞe σοφος ǆ")
    assert fold("İ") == "İ"


def test_short_names_keep_their_case() -> None:
    names = toy_entities(A="Ras", B="RhoA")
    assert find("ras RAS Ras rhoa", names) == [("A", "Ras"), ("B", "rhoa")]


def test_preferred_names_come_before_synonyms_and_small_ids() -> None:
    names = toy_entities(A=["one", "shared"], B="shared", C="shared")
    documents = toy_documents("this is shared")
    sequences, _ = make_sequences(documents, toy_tokenizer(), max_tokens=20)
    table, ledger = find_mentions(sequences, documents, names)
    assert table["entity_id"].to_pylist() == ["B"]
    assert ledger.reasons == {"same name as another entity": 2}


def titled(
    text_after: str, *, max_tokens: int = 50
) -> tuple[list[tuple[object, ...]], dict[str, int]]:
    name = "regulation of cell"
    text = name + text_after
    documents = make_documents([("T", name, text, "s", {"entity_id": "T"})])
    sequences, _ = make_sequences(documents, toy_tokenizer(), max_tokens=max_tokens)
    names = toy_entities(T=name, C="cell", L="cell growth")
    table, ledger = find_mentions(sequences, documents, names)
    keys = ("entity_id", "start", "end", "is_title")
    return [tuple(row[key] for key in keys) for row in table.to_pylist()], ledger.reasons


def test_the_title_is_always_a_mention_and_nothing_overlaps_it() -> None:
    rows, reasons = titled(": growth of a cell.")
    assert rows == [("T", 0, 18, True), ("C", 32, 36, False)]
    assert reasons == {"within the title": 2}
    # Not even what would be the longer name.
    assert titled(" growth is")[0] == [("T", 0, 18, True)]
    # Nor does a letter behind it hide the title.
    assert titled("s are")[0] == [("T", 0, 18, True)]


def test_a_mention_across_sequences_is_in_the_ledger() -> None:
    rows, reasons = titled(" a b c d", max_tokens=4)
    assert ("T", 0, 18, True) not in rows
    assert reasons["not within one sequence"] == 1


def test_sequences_of_unknown_documents_are_refused() -> None:
    sequences, _ = make_sequences(toy_documents("a", "b"), toy_tokenizer(), max_tokens=4)
    with pytest.raises(DataError, match="d1"):
        find_mentions(sequences, toy_documents("a"), NAMES)


def test_only_documents_with_sequences_are_searched() -> None:
    documents = toy_documents("cell", "membrane")
    sequences, _ = make_sequences(documents, toy_tokenizer(), max_tokens=4)
    table, _ = find_mentions(sequences.slice(1, 1), documents, NAMES)
    assert table["doc_id"].to_pylist() == ["d1"]
