from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.evaluate.graph_measures import graph_measures, questions_of
from graphmert.evaluate.graph_qa import (
    LocalSearch,
    Question,
    Vocabulary,
    graph_qa,
    is_right,
    make_questions,
    model_prompts,
    model_qa,
    read_question,
)
from graphmert.evaluate.ranks import QueryRow
from graphmert.export import GraphTables
from graphmert.kg import Entity, Relation, Schema, Triple
from graphmert.llm import LLM
from graphmert.query import Graph, Link
from stub_llm import Reply, answering, serving
from toy_graph import SCHEMA, make_run

IDS = "abcdef"
ENTITIES = {one: Entity(one, f"thing {one}", "x", (f"{one} itself",)) for one in IDS}
RULES = Schema(
    ("x",),
    {
        "is_a": Relation("is_a", transitive=True),
        "part_of": Relation("part_of", inverse="has_part"),
        "has_part": Relation("has_part", inverse="part_of"),
        "near": Relation("near", symmetric=True),
        "touches": Relation("touches", sub_relation_of=("near",)),
    },
)


@pytest.fixture(scope="module")
def words() -> Vocabulary:
    return Vocabulary.build(ENTITIES, RULES)


def graph(*triples: tuple[str, str, str] | tuple[str, str, str, float]) -> Graph:
    return Graph(Link(Triple(*one[:3]).triple_id, *one) for one in triples)  # type: ignore[arg-type]


def test_questions_are_words_and_are_read_back(words: Vocabulary) -> None:
    text = words.text_of("a", ["part_of"])
    assert text == "thing a part of what?"
    reading = read_question(text, words)
    assert reading is not None
    assert (reading.entity_ids, reading.relations) == (("a",), ("part_of",))
    two = read_question("thing a near something that is a what?", words)
    assert two is not None
    assert two.relations == ("near", "is_a")
    by_synonym = read_question("B itself touches what?", words)
    assert by_synonym is not None
    assert by_synonym.entity_ids == ("b",)
    for text in ("who?", "thing z is a what?", "thing a eats what?", "what?", ""):
        assert read_question(text, words) is None


def test_a_name_that_ends_like_a_relation_is_still_a_name() -> None:
    entities = {"1": Entity("1", "wall part of", "x"), "2": Entity("2", "wall", "x")}
    vocabulary = Vocabulary.build(entities, RULES)
    reading = read_question(vocabulary.text_of("1", ["part_of"]), vocabulary)
    assert reading is not None
    assert reading.entity_ids == ("1",)


@pytest.mark.parametrize(
    ("links", "text", "answer"),
    [
        ([("a", "part_of", "b")], "thing a part of what?", "b"),
        ([("b", "has_part", "a")], "thing a part of what?", "b"),
        ([("b", "near", "a")], "thing a near what?", "b"),
        ([("a", "touches", "b")], "thing a near what?", "b"),
        ([("a", "near", "b")], "thing a touches what?", None),
        ([("b", "is_a", "a")], "thing a is a what?", None),
        ([("a", "is_a", "b", 0.4), ("a", "is_a", "c", 0.6)], "thing a is a what?", "c"),
        ([("a", "is_a", "c"), ("a", "is_a", "b")], "thing a is a what?", "b"),
        ([("a", "near", "b"), ("b", "is_a", "c")], "thing a near something that is a what?", "c"),
        (
            [("a", "near", "b", 0.9), ("b", "is_a", "c", 0.5), ("a", "near", "d", 0.8),
             ("d", "is_a", "e", 0.8)],
            "thing a near something that is a what?", "e",
        ),
        ([("a", "near", "b"), ("b", "near", "a")], "thing a near something that near what?", None),
        ([], "thing a is a what?", None),
    ],
)  # fmt: skip
def test_local_search_follows_what_the_words_name(
    words: Vocabulary, links: list[Any], text: str, answer: str | None
) -> None:
    assert LocalSearch(graph(*links), words).answer(text) == answer


def test_questions_ask_only_for_what_training_does_not_give(words: Vocabulary) -> None:
    train = [Triple("b", "is_a", "c"), Triple("a", "near", "d"), Triple("d", "is_a", "e")]
    test = [Triple("a", "near", "b"), Triple("e", "part_of", "f"), *train[:1]]
    questions, ledger = make_questions(test, train, words, n_per_hop=None)
    assert {(q.head_id, q.relations): set(q.answer_ids) for q in questions} == {
        ("a", ("near",)): {"b"},
        ("e", ("part_of",)): {"f"},
        # From a over b, which is held out; over d training gives "e".
        ("a", ("near", "is_a")): {"c"},
        ("d", ("is_a", "part_of")): {"f"},
    }
    assert ledger.check().n_kept == 4


def test_questions_left_out_have_a_reason() -> None:
    entities = {**ENTITIES, "b2": Entity("b2", "Thing B", "x")}
    test = [
        Triple("b", "is_a", "c"),
        Triple("a", "eats", "c"),
        Triple("a", "is_a", "zzz"),
        Triple("f", "is_a", "e"),
        *(Triple("c", "near", f"n{i}") for i in range(11)),
    ]
    more = {f"n{i}": Entity(f"n{i}", f"n {i}", "x") for i in range(11)}
    vocabulary = Vocabulary.build({**entities, **more}, RULES)
    questions, ledger = make_questions(test, [], vocabulary)
    assert [one.head_id for one in questions] == ["f"]
    assert ledger.to_dict()["left_out"] == {
        # One hop, and two over c.
        "a relation is not in the schema": 2,
        "an end is no entity": 1,
        "more than 10 answers": 2,
        "the name of its entity is ambiguous": 1,
    }


def test_a_draw_is_even_and_repeatable(words: Vocabulary) -> None:
    test = [Triple(a, "near", b) for a in IDS for b in IDS if a < b]
    one, ledger = make_questions(test, [], words, n_per_hop=2, seed=3)
    again, _ = make_questions(test[::-1], [], words, n_per_hop=2, seed=3)
    assert one == again
    assert [q.n_hops for q in one] == [1, 1, 2, 2]
    assert ledger.check().n_kept == 4


def test_a_label_that_two_relations_share_asks_nothing() -> None:
    schema = Schema(
        ("x",),
        {"r": Relation("r", label="has"), "s": Relation("s", label="Has"), "t": Relation("t")},
    )
    vocabulary = Vocabulary.build(ENTITIES, schema)
    test = [Triple("a", "r", "b"), Triple("c", "t", "d")]
    questions, ledger = make_questions(test, [], vocabulary)
    assert [one.relations for one in questions] == [("t",)]
    assert ledger.to_dict()["left_out"] == {"the label of its relation is ambiguous": 1}
    assert read_question("thing a has what?", vocabulary) is None


def test_accuracy_by_graph(words: Vocabulary) -> None:
    train = [Triple("b", "is_a", "c"), Triple("e", "is_a", "c"), Triple("f", "is_a", "e")]
    test = [Triple("a", "near", "b"), Triple("d", "is_a", "c"), Triple("d", "part_of", "f")]
    questions, _ = make_questions(test, train, words, n_per_hop=None)
    extracted = [Link("1", "a", "near", "b", 0.9), Link("2", "d", "part_of", "e", 0.8)]
    found = graph_qa(questions, train, extracted, words, n_resamples=50)
    one = {name: row["1"] for name, row in found["systems"].items()}
    assert found["n_questions"] == {"1": 3, "2": 2}
    assert (one["seed"]["n_answered"], one["seed"]["n_right"]) == (0, 0)
    assert (one["extracted"]["n_answered"], one["extracted"]["n_right"]) == (2, 1)
    # The commonest tail of is_a happens to be right.
    assert (one["commonest_tail"]["n_answered"], one["commonest_tail"]["n_right"]) == (1, 1)
    two = {name: row["2"] for name, row in found["systems"].items()}
    # near b, in the extracted graph, is a c, in the seed: only both together know.
    assert [two[name]["n_right"] for name in ("seed", "extracted", "both")] == [0, 0, 1]
    assert found["gain"]["value"] == pytest.approx(2 / 5)
    assert one["both"]["accuracy"]["value"] == pytest.approx(1 / 3, abs=1e-6)


def test_right_is_exact_by_entity_or_name(words: Vocabulary) -> None:
    question = Question("?", "a", ("near",), frozenset({"b"}))
    assert is_right("b", question, words)
    assert not is_right("c", question, words)
    assert not is_right(None, question, words)
    twin = Vocabulary.build({**ENTITIES, "B": Entity("B", "THING b", "x")}, RULES)
    assert is_right("B", question, twin)


ends = st.sampled_from(IDS)
some = st.lists(
    st.builds(Triple, ends, st.sampled_from(["is_a", "near", "part_of"]), ends), max_size=10
)


@given(some, some)
def test_the_training_graph_alone_never_gives_a_two_hop_answer_by_the_same_links(
    test: list[Triple], train: list[Triple]
) -> None:
    plain = Schema(("x",), {name: Relation(name) for name in ("is_a", "near", "part_of")})
    vocabulary = Vocabulary.build(ENTITIES, plain)
    questions, ledger = make_questions(test, train, vocabulary, n_per_hop=None)
    ledger.check()
    links = [Link(one.triple_id, *one) for one in set(train)]
    everything = [Link(one.triple_id, *one) for one in {*train, *test}]
    seed, both = LocalSearch(Graph(links), vocabulary), Graph(everything)
    for question in questions:
        assert not is_right(seed.answer(question.text), question, vocabulary)
        # The whole graph reaches every answer.
        places = {question.head_id}
        for relation in question.relations:
            places = {one.tail_id for place in places for one in both.out(place, relation)}
        assert question.answer_ids <= places


def test_a_model_gets_the_facts_around_the_entity(words: Vocabulary) -> None:
    facts = graph(("a", "near", "b"), ("b", "is_a", "c"), ("e", "is_a", "f"))
    question = Question("thing a near something that is a what?", "a", ("near", "is_a"),
                        frozenset({"c"}))  # fmt: skip
    (prompt,) = model_prompts([question], facts, words)
    assert prompt.user == (
        "Facts:\nthing a near thing b\nthing b is a thing c\n\n"
        "Question: thing a near something that is a what?"
    )
    (bare,) = model_prompts([question], None, words)
    assert bare.user.startswith("Facts:\n(none)\n")

    def respond(request: dict[str, Any], number: int) -> Reply:
        has_facts = "thing c" in request["messages"][1]["content"]
        return answering({"answer": " C  itself" if has_facts else "unknown"})

    with serving(respond) as server:
        found = model_qa([question], {"none": None, "both": facts}, words, LLM(server.settings()))
    assert found["systems"]["none"]["2"]["n_answered"] == 0
    assert found["systems"]["both"]["2"]["n_right"] == 1
    assert found["usage"]["n_answered"] == 2


def test_the_measures_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    tables = GraphTables.read(run)
    rows = [QueryRow(2, 3, 0, 2, False, 1.0), QueryRow(5, 2, 4, 2, False, 20.0)]
    assert SCHEMA.relation_names[2:4] == ("part_of", "regulates")
    found = graph_measures(run, threshold=0.5, systems={"graphmert": rows}, n_resamples=20)
    json.dumps(found, allow_nan=False)
    assert set(found) == {"support", "queries", "top_one", "graph_qa", "frequency"}
    assert found["support"]["n"] == 3
    # Held out: regulates, part_of and is_a; accepted of these queries: two right, one wrong.
    queries = found["queries"]
    assert (queries["n_true"], queries["n_accepted"], queries["n_correct"]) == (3, 3, 2)
    assert found["graph_qa"]["systems"]["seed"]["1"]["n_right"] == 0
    assert found["graph_qa"]["systems"]["both"]["1"]["n_right"] == 2
    assert [one["recall"] for one in found["frequency"]["tail"]] == [1.0]
    questions, _, ledger = questions_of(run, tables, n_per_hop=5, seed=0)
    assert len(questions) == ledger.n_kept
    assert found["top_one"]["graphmert"]["n_correct"] == 1
    bare = graph_measures(run, threshold=0.5, n_resamples=20)
    assert (bare["frequency"], bare["top_one"]) == (None, {})
