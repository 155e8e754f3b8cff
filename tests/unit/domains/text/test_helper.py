from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.domains.text.helper import (
    HelperSettings,
    RelationCase,
    TailCase,
    choose_relations,
    combine_tails,
    discover_heads,
    most_calls,
    whole_words,
)
from graphmert.llm import LLM, LLMSettings
from strategies import hard_text
from stub_llm import Reply, Server, answering, serving

TEXT = "Naïve growth of the cell wall; wall growth, not overgrowth 🧬."
LABELS = {"is_a": "is a", "part_of": "part of", "regulates": "regulates"}


def replying(value: Any) -> Any:
    return serving(lambda *_: answering(value))


def client(server: Server) -> LLM:
    return LLM(server.settings(max_retries=0))


def surfaces(spans: list[tuple[int, int]]) -> list[str]:
    return [TEXT[a:b] for a, b in spans]


def test_heads_stand_in_the_text_word_for_word() -> None:
    proposed = ["growth", "cell wall", "Cell wall", "grow", "", " wall", "growth", "🧬", "the cell",
                "not"]  # fmt: skip
    with replying({"heads": proposed}) as server:
        spans, ledger = discover_heads([TEXT], client(server), max_heads=4)
    # Every occurrence, in order, but not within "overgrowth".
    assert surfaces(spans[0]) == ["growth", "the cell", "cell wall", "growth", "🧬"]
    assert ledger.check().to_dict()["left_out"] == {
        "cuts a word": 1,
        "empty or with outer blanks": 2,
        "named twice": 1,
        "not in the text word for word": 1,
        "over the limit": 1,
    }
    assert ledger.examples["not in the text word for word"] == ["Cell wall"]


def test_a_text_without_a_valid_answer_is_counted() -> None:
    def respond(request: dict[str, Any], number: int) -> Reply:
        is_bad = "bad" in request["messages"][1]["content"]
        return answering({"names": []} if is_bad else {"heads": ["good"]})

    with serving(respond) as server:
        spans, ledger = discover_heads(["bad", "good"], client(server), max_heads=2)
    assert spans == [[], [(0, 4)]]
    assert ledger.to_dict()["left_out"] == {"no valid answer": 1}
    assert (ledger.n_offered, ledger.n_kept) == (2, 1)


@given(hard_text, st.text(max_size=6))
def test_places_are_occurrences_that_cut_no_word(text: str, name: str) -> None:
    for start, end in whole_words(text, name):
        assert text[start:end] == name
        if name[0].isalnum() and start:
            assert not text[start - 1].isalnum()
        if name[-1].isalnum() and end < len(text):
            assert not text[end].isalnum()


def test_places_of_names_with_marks() -> None:
    assert whole_words("IL-2, IL-20 (IL-2)", "IL-2") == [(0, 4), (13, 17)]
    assert whole_words("e\u0301tat e", "e") == [(6, 7)]
    assert whole_words("(+)-x", "(+)") == [(0, 3)]
    assert whole_words("abc", "") == []


def test_relations_are_those_of_the_seed_graph_and_of_the_head() -> None:
    cases = [RelationCase(TEXT, "growth", ("is_a", "part_of")), RelationCase(TEXT, "wall", ())]
    proposed = ["part_of", "part of", "regulates", "is_a", "part_of"]
    with replying({"relations": proposed}) as server:
        found, ledger = choose_relations(cases, client(server), LABELS, max_relations=2)
        system = server.requests[0]["messages"][0]["content"]
    assert found == [("part_of", "is_a"), ()]
    assert ledger.check().to_dict()["left_out"] == {
        "named twice": 1,
        "not a relation of the seed graph": 2,
        # Of the second head, which may have none, all that the seed has.
        "the schema does not allow it for this head": 1 + 4,
    }
    listed = {request["messages"][0]["content"] for request in server.requests}
    assert any("part_of: part of" in one and "regulates: regulates" not in one for one in listed)
    assert "Relations:" in system


def test_the_limit_of_relations() -> None:
    case = RelationCase(TEXT, "growth", tuple(LABELS))
    with replying({"relations": list(LABELS)}) as server:
        found, ledger = choose_relations([case], client(server), LABELS, max_relations=2)
    assert found == [("is_a", "part_of")]
    assert ledger.to_dict()["left_out"] == {"over the limit": 1}


WORDS = {"cell": 1, "wall": 2, "growth": 3, "root": 4}


def encode(text: str) -> list[int]:
    return [WORDS.get(word, 99) for word in text.casefold().split()]


def test_tails_are_made_of_predicted_tokens_alone() -> None:
    case = TailCase(TEXT, "Growth", "is a", {1: "cell", 2: "wall", 3: "growth"})
    proposed = ["cell  wall", "root", "wall root", "", "growth", "cell wall", "wall", "cell"]
    with replying({"tails": proposed}) as server:
        found, ledger = combine_tails([case], client(server), encode, max_tails=2)
        user = server.requests[0]["messages"][1]["content"]
    assert found == [("cell wall", "wall")]
    assert ledger.check().to_dict()["left_out"] == {
        "a token that was not predicted": 2,
        "empty": 1,
        "named twice": 1,
        "over the limit": 1,
        "the head itself": 1,
    }
    assert "word pieces: cell wall growth" in user
    assert "head: Growth\nrelation: is a\n" in user


tails = st.lists(st.sampled_from([*WORDS, "moss", "cell wall", "wall moss"]), max_size=8)


@given(tails, st.sets(st.sampled_from(sorted(WORDS.values()))))
def test_no_kept_tail_breaks_the_rules(proposed: list[str], ids: set[int]) -> None:
    from graphmert.domains.text import helper

    ledger_case = TailCase(TEXT, "root", "is a", dict.fromkeys(ids, "x"))
    kept: list[str] = []
    for tail in proposed:
        if helper._objection_to_tail(tail, ledger_case, kept, encode, 3) is None:
            kept.append(tail)
    assert len(kept) <= 3
    assert len(set(kept)) == len(kept)
    assert all(set(encode(tail)) <= ids and tail != "root" for tail in kept)


def test_the_most_calls_are_bounded_by_the_settings() -> None:
    settings = HelperSettings(
        llm=LLMSettings(max_tokens=10), n_sequences=3, max_heads=2, max_relations=4
    )
    assert most_calls(settings, 100) == {
        "heads": 3, "relations": 6, "tails": 24, "calls": 33, "max_completion_tokens": 330,
    }  # fmt: skip
    assert most_calls(settings, 2)["heads"] == 2
    assert most_calls(HelperSettings(), 7)["heads"] == 7


@pytest.mark.parametrize("form", ["heads", "relations", "tails"])
def test_nothing_to_ask_asks_nothing(form: str) -> None:
    with replying({form: []}) as server:
        llm = client(server)
        assert discover_heads([], llm, max_heads=1)[0] == []
        assert choose_relations([], llm, LABELS, max_relations=1)[0] == []
        assert combine_tails([], llm, encode, max_tails=1)[0] == []
        assert server.requests == []
