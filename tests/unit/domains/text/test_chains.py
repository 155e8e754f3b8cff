from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from graphmert.domains.text import (
    ChainSet,
    build_chains,
    encode_roots,
    find_mentions,
    head_spans,
    make_sequences,
    spans_to_roots,
)
from graphmert.errors import DataError
from graphmert.kg import triple_id
from graphmert.store import chains_from_table, chains_to_table, check_table, make_table
from toy_text import toy_documents, toy_entities, toy_tokenizer

TEXTS = ("🧬 the plasma membrane, growth", "Growth.", "nothing")
ENTITIES = toy_entities(P="plasma membrane", G="growth", C="cell")
TRIPLES = make_table(
    "seed/triples",
    {
        "head_id": ["P", "G", "G"],
        "relation": ["part_of", "is_a", "part_of"],
        "tail_id": ["C", "C", "P"],
        "split": ["train", "train", "test"],
    },
)


def tables(max_tokens: int = 50) -> tuple[pa.Table, pa.Table, pa.Table]:
    documents = toy_documents(*TEXTS)
    sequences, _ = make_sequences(documents, toy_tokenizer(), max_tokens=max_tokens)
    mentions, _ = find_mentions(sequences, documents, ENTITIES)
    return documents, sequences, mentions


def build(max_tokens: int = 50) -> ChainSet:
    documents, sequences, mentions = tables(max_tokens)
    roots = encode_roots(sequences, documents, toy_tokenizer())
    return build_chains(roots, mentions, TRIPLES, ENTITIES, ("is_a", "part_of"), toy_tokenizer())


def test_roots_are_the_text_between_cls_and_sep() -> None:
    tokenizer = toy_tokenizer()
    built = build()
    assert [one.chain_id for one in built.chains] == ["d0#0", "d1#0", "d2#0"]
    for chain, text in zip(built.chains, TEXTS, strict=True):
        ids = tokenizer.encode(text).ids.tolist()
        assert chain.roots == (tokenizer.cls_id, *ids, tokenizer.sep_id)


def test_heads_are_the_mentions_tokens_and_tails_the_names() -> None:
    tokenizer = toy_tokenizer()
    chain = build().chains[0]
    read = [
        (
            tokenizer.decode(chain.roots[one.head_start : one.head_end]),
            one.relation,
            tokenizer.decode(one.tail),
            one.head_entity,
            one.tail_entity,
        )
        for one in chain.triples
    ]
    assert read == [("plasma membrane", 1, "cell", 0, 2), ("growth", 0, "cell", 1, 2)]


def test_only_training_triples_are_injected() -> None:
    built = build()
    held = triple_id("G", "part_of", "P")
    assert held not in built.injected["triple"].to_pylist()
    check_table("chains/injected", built.injected)
    assert built.injected.num_rows == 3 == built.ledger.n_kept
    assert chains_from_table(chains_to_table(built.chains)) == built.chains


def test_head_spans_match_the_mentions() -> None:
    documents, sequences, mentions = tables()
    roots = encode_roots(sequences, documents, toy_tokenizer())
    spans, ledger = head_spans(roots, mentions)
    assert [[one.entity_id for one in found] for found in spans] == [["P", "G"], ["G"], []]
    first = spans[0][0]
    assert TEXTS[0][first.char_start : first.char_end] == "plasma membrane"
    chain = roots.chain_roots(0)
    assert toy_tokenizer().decode(chain[first.root_start : first.root_end]) == "plasma membrane"
    assert ledger.n_kept == 3
    spans, ledger = head_spans(encode_roots(sequences[:1], documents, toy_tokenizer()), mentions)
    assert ledger.reasons == {"sequence is not encoded": 1}
    assert len(spans) == 1


def test_spans_take_every_token_they_touch() -> None:
    documents, sequences, _ = tables()
    roots = encode_roots(sequences, documents, toy_tokenizer())
    n_tokens = int(roots.first[1])
    for start, end in zip(roots.start[:n_tokens], roots.end[:n_tokens], strict=True):
        inside = np.array([[start, start + 1], [end - 1, end], [start, end]])
        root_start, root_end = spans_to_roots(roots, np.zeros(3, int), inside[:, 0], inside[:, 1])
        # WordPiece tokens do not overlap, so that each span touches one.
        expected = int(np.searchsorted(roots.start[:n_tokens], start)) + 1
        assert root_start.tolist() == [expected] * 3
        assert root_end.tolist() == [expected + 1] * 3
    blank = TEXTS[0].index(" ")
    found = spans_to_roots(roots, np.array([0]), np.array([blank]), np.array([blank + 1]))
    assert found[0] == found[1]


def test_a_mention_without_a_token_is_left_out() -> None:
    documents, sequences, mentions = tables()
    roots = encode_roots(sequences, documents, toy_tokenizer())
    blank = TEXTS[0].index(" ")
    places = {"start": blank, "end": blank + 1}
    moved = mentions[:1]
    for name, value in places.items():
        index = moved.schema.get_field_index(name)
        moved = moved.set_column(index, moved.schema.field(name), pa.array([value], pa.int32()))
    spans, ledger = head_spans(roots, moved)
    assert (spans, ledger.reasons) == ([[], [], []], {"mention has no token": 1})
    built = build_chains(roots, moved, TRIPLES, ENTITIES, ("is_a", "part_of"), toy_tokenizer())
    assert built.injected.num_rows == 0
    assert built.ledger.reasons == {"mention has no token": 1}


def test_unknown_relations_and_entities_are_named() -> None:
    documents, sequences, mentions = tables()
    roots = encode_roots(sequences, documents, toy_tokenizer())
    with pytest.raises(DataError, match="relation that is not there: got part_of"):
        build_chains(roots, mentions, TRIPLES, ENTITIES, ("is_a",), toy_tokenizer())
    with pytest.raises(DataError, match="tail that is not there: got C"):
        build_chains(roots, mentions, TRIPLES, ENTITIES[:2], ("is_a", "part_of"), toy_tokenizer())
