from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.domains.text import (
    build_chains,
    encode_roots,
    find_mentions,
    fold,
    head_spans,
    make_sequences,
    sentences,
)
from graphmert.store import make_table
from strategies import texts
from toy_text import byte_tokenizer, toy_documents, toy_entities, toy_tokenizer

ENTITIES = toy_entities(
    A=["growth", "ab"], B="cell", C=["plasma membrane", "e\u0301"], D=["membrane", "ß"], E="🧬"
)
TRIPLES = make_table(
    "seed/triples",
    {
        "head_id": ["A", "A", "B", "C", "E"],
        "relation": ["is_a", "part_of", "is_a", "is_a", "part_of"],
        "tail_id": ["B", "C", "D", "D", "A"],
        "split": ["train", "valid", "train", "train", "train"],
    },
)
budgets = st.integers(1, 12)


def is_tiled(text: str, spans: list[tuple[int, int]]) -> bool:
    """Say whether spans are in order, apart, and cover the text but for blanks."""
    places = [place for span in spans for place in span]
    gaps = zip([0, *places[1::2]], [*places[0::2], len(text)], strict=True)
    return places == sorted(places) and all(not text[a:b].strip() for a, b in gaps)


@given(texts)
def test_sentences_tile_the_text(text: str) -> None:
    spans = sentences(text)
    assert is_tiled(text, spans)
    assert all(text[a:b] and text[a:b].strip() == text[a:b] for a, b in spans)


@pytest.mark.parametrize("make_tokenizer", [toy_tokenizer, byte_tokenizer])
@given(st.lists(texts, min_size=1, max_size=3), st.integers(4, 12))
def test_sequences_tile_documents_within_the_budget(make_tokenizer, found, budget) -> None:
    tokenizer = make_tokenizer()
    table, ledger = make_sequences(toy_documents(*found), tokenizer, max_tokens=budget)
    ledger.check()
    rows = table.to_pylist()
    for i, text in enumerate(found):
        spans = [(row["start"], row["end"]) for row in rows if row["doc_id"] == f"d{i}"]
        assert is_tiled(text, spans)
        assert all(len(tokenizer.encode(text[a:b])) <= budget for a, b in spans)
    lost = ledger.reasons.get("word longer than the budget, kept in pieces", 0)
    if not lost:
        for row in rows:
            text = found[int(row["doc_id"][1:])]
            for place in (row["start"], row["end"]):
                assert not re.fullmatch(r"\S\S", text[max(place - 1, 0) : place + 1])


@given(texts)
def test_folding_maps_characters_one_to_one(text: str) -> None:
    assert len(fold(text)) == len(text)
    assert fold(text) == "".join(fold(character) for character in text)


@given(st.lists(texts, min_size=1, max_size=3), budgets)
def test_mentions_equal_the_text_and_chains_hold_them(found: list[str], budget: int) -> None:
    tokenizer = toy_tokenizer()
    documents = toy_documents(*found)
    sequences, _ = make_sequences(documents, tokenizer, max_tokens=budget)
    mentions, ledger = find_mentions(sequences, documents, ENTITIES)
    ledger.check()
    spans_of = {row["seq_id"]: row for row in sequences.to_pylist()}
    previous = ("", 0)
    for row in mentions.to_pylist():
        text, own = found[int(row["doc_id"][1:])], spans_of[row["seq_id"]]
        assert text[row["start"] : row["end"]] == row["surface"]
        assert own["start"] <= row["start"] < row["end"] <= own["end"]
        for place in (row["start"] - 1, row["end"]):
            assert not (0 <= place < len(text) and (text[place].isalnum() or text[place] == "_"))
        assert previous[0] != row["doc_id"] or previous[1] <= row["start"]
        previous = (row["doc_id"], row["end"])

    roots = encode_roots(sequences, documents, tokenizer)
    heads, head_ledger = head_spans(roots, mentions)
    assert head_ledger.n_offered == mentions.num_rows
    for row, one in enumerate(heads):
        for span in one:
            first = int(roots.first[row]) - 1
            assert roots.start[first + span.root_start] < span.char_end
            assert roots.end[first + span.root_end - 1] > span.char_start
    built = build_chains(roots, mentions, TRIPLES, ENTITIES, ("is_a", "part_of"), tokenizer)
    built.ledger.check()
    assert sum(len(chain.triples) for chain in built.chains) == built.injected.num_rows
    assert len(built.chains) == sequences.num_rows
    assert all(len(chain.roots) <= budget + 2 for chain in built.chains)


@given(texts)
def test_every_name_alone_is_found(text: str) -> None:
    """A text with a name set apart by blanks has a mention that covers the name."""
    full = f"{text} membrane {text}"
    documents = toy_documents(full)
    sequences, _ = make_sequences(documents, toy_tokenizer(), max_tokens=10_000)
    mentions, _ = find_mentions(sequences, documents, ENTITIES)
    place = len(text) + 1
    found = [
        row for row in mentions.to_pylist() if row["start"] <= place and row["end"] >= place + 8
    ]
    assert len(found) == 1
