from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.errors import ConfigError, FormatError, ProvenanceError
from graphmert.kg import Triple
from graphmert.query import Graph, Link, NameTable, Store, fold_name, open_store
from toy_graph import ACCEPTED, TEST, identity, make_run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(make_run(tmp_path).path)


def test_a_folder_without_a_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds no extracted graph"):
        open_store(tmp_path)


@pytest.mark.parametrize(
    ("text", "entity_id", "how"),
    [
        ("T:1", "T:1", "id"),
        ("Cell  GROWTH", "T:1", "name"),
        ("growth of cells", "T:1", "synonym"),
        ("cells", "T:4", "synonym"),
        ("NAÏVE transport", "T:6", "name"),
        ("regulation growth", "T:3", "words"),
        ("membrane plasma", "T:7", "words"),
        ("cel growht", "T:1", "like"),
    ],
)
def test_entities_are_found_by_what_people_call_them(
    store: Store, text: str, entity_id: str, how: str
) -> None:
    found = store.find(text)[0]
    assert (found.entity_id, found.how) == (entity_id, how)


def test_finding_ranks_and_stops_at_the_limit(store: Store) -> None:
    assert [one.entity_id for one in store.find("growth")] == ["T:2", "T:1", "T:3"]
    assert [one.how for one in store.find("growth", limit=2)] == ["name", "words"]
    assert store.find("xylophone") == []
    # A name goes before another entity's synonym.
    assert store.entity("cell").entity_id == "T:4"


def test_an_entity_that_is_not_one_is_said(store: Store) -> None:
    with pytest.raises(ConfigError, match="T:5, T:7"):
        store.entity("plasmalemma")
    with pytest.raises(ConfigError, match=r"cell growth \(T:1\)"):
        store.entity("cel growht")


def test_triples_by_their_parts(store: Store) -> None:
    assert [row["score"] for row in store.triples()] == [0.9, 0.7, 0.4]
    assert [row["tail_id"] for row in store.triples(head="naïve transport")] == ["T:5", "T:4"]
    assert [row["head_id"] for row in store.triples(relation="regulates")] == ["T:3"]
    assert [row["score"] for row in store.triples(tail="cells", min_score=0.5)] == []
    assert len(store.triples(min_score=0.7, novel_only=True, limit=1)) == 1
    # The score is a float32: what was written as 0.7 is not below 0.7.
    assert len(store.triples(min_score=0.7)) == 2
    with pytest.raises(ConfigError, match="part_of"):
        store.triples(relation="part of")


def test_neighbours_go_both_ways(store: Store) -> None:
    steps = store.neighbours("naïve transport")
    assert [(one.end_id, one.forward) for one in steps] == [("T:5", True), ("T:4", True)]
    assert [one.end_id for one in store.neighbours("cell", direction="in")] == ["T:6"]
    assert store.neighbours("cell", direction="out") == []
    assert store.neighbours("T:6", relation="is_a") == []


def test_paths_between_two(store: Store) -> None:
    paths = store.paths("cell membrane", "cell")
    assert [[(one.link.relation, one.forward) for one in path] for path in paths] == [
        [("part_of", False), ("part_of", True)]
    ]
    assert store.paths("cell", "regulation of cell growth") == []
    assert store.paths("cell", "T:4") == []


def test_a_triple_is_explained_with_all_its_evidence(store: Store) -> None:
    found = store.explain(TEST[0].triple_id)
    assert (found.head.name, found.tail.name) == ("regulation of cell growth", "cell growth")
    assert [one.is_inferred for one in found.evidence] == [False, True]
    assert found.verified is True
    assert found.evidence[0].marked() == (
        "[head: Regulation of cell growth] changes [tail: cell growth] 🧬 in the cell."
    )
    assert found.evidence[1].marked() == (
        "[head: Regulation of cell growth] changes cell growth 🧬 in the cell."
    )
    assert found.to_dict()["evidence"][0]["score"] == 0.9
    with pytest.raises(ConfigError, match="no such triple"):
        store.explain("0" * 16)


def test_explaining_notices_a_document_that_changed(tmp_path: Path) -> None:
    from graphmert.store import make_table

    run = make_run(tmp_path)
    rows = run.read("corpus/documents").to_pylist()
    rows[0]["text"] = rows[0]["text"].replace("changes", "alters")
    run.write(
        "corpus/documents",
        make_table("corpus/documents", {k: [r[k] for r in rows] for k in rows[0]}),
    )
    store = open_store(run.path)
    assert store.explain(TEST[0].triple_id).verified is False
    assert store.explain(TEST[1].triple_id).verified is True
    run.documents.unlink()
    assert open_store(run.path).explain(TEST[1].triple_id).verified is None


def test_marks_nest_when_one_end_is_inside_the_other(store: Store) -> None:
    one = store.explain(TEST[0].triple_id).evidence[0]
    start = one.head_start + len("Regulation of ")
    nested = dataclasses.replace(
        one, tail_start=start, tail_end=one.head_end, tail_surface="cell growth"
    )
    assert nested.marked().startswith("[head: Regulation of [tail: cell growth]] changes")
    wrong = dataclasses.replace(one, head_surface="regulation of cell growth")
    with pytest.raises(ProvenanceError, match="head"):
        wrong.marked()


# --- graphs ---------------------------------------------------------------------------------

NODES = "abcdef"
links = st.lists(
    st.builds(Triple, st.sampled_from(NODES), st.sampled_from("rs"), st.sampled_from(NODES)),
    max_size=14,
    unique=True,
).map(lambda found: [Link(one.triple_id, *one) for one in found])


def all_paths(graph: Graph, start: str, goal: str, max_hops: int) -> set[tuple[str, ...]]:
    """Paths by trying everything."""
    found: set[tuple[str, ...]] = set()

    def walk(here: str, path: tuple[str, ...], seen: frozenset[str]) -> None:
        if here == goal:
            found.add(path)
            return
        if len(path) == max_hops:
            return
        for link in graph.links.values():
            for a, b in ((link.head_id, link.tail_id), (link.tail_id, link.head_id)):
                if a == here and b not in seen:
                    walk(b, (*path, link.triple_id), seen | {b})

    if start != goal:
        walk(start, (), frozenset(start))
    return found


@given(links, st.sampled_from(NODES), st.sampled_from(NODES), st.integers(1, 4))
def test_paths_are_all_simple_paths_shortest_first(
    found: list[Link], start: str, goal: str, max_hops: int
) -> None:
    graph = Graph(found)
    paths = graph.paths(start, goal, max_hops=max_hops, limit=10_000)
    ids = [tuple(step.link.triple_id for step in path) for path in paths]
    assert set(ids) == all_paths(graph, start, goal, max_hops)
    assert len(set(ids)) == len(ids)
    assert [len(one) for one in ids] == sorted(len(one) for one in ids)
    for path in paths:
        places = [path[0].start_id, *(step.end_id for step in path)]
        assert (places[0], places[-1], len(set(places))) == (start, goal, len(places))


@given(links, st.randoms(use_true_random=False))
def test_the_order_of_links_plays_no_part(found: list[Link], random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = Graph(found), Graph(shuffled)
    for node in NODES:
        assert one.steps(node) == other.steps(node)
        assert one.around([node], n_hops=2) == other.around([node], n_hops=2)
    for a in NODES:
        for b in NODES:
            assert one.paths(a, b, max_hops=3, limit=5) == other.paths(a, b, max_hops=3, limit=5)


@given(links)
def test_directed_paths_walk_from_head_to_tail(found: list[Link]) -> None:
    graph = Graph(found)
    for path in graph.paths("a", "b", direction="out", max_hops=4, limit=100):
        assert all(step.forward for step in path)
    for path in graph.paths("a", "b", direction="in", max_hops=4, limit=100):
        assert not any(step.forward for step in path)


def test_the_better_score_counts_of_a_triple_given_twice() -> None:
    graph = Graph([Link("1", "a", "r", "b", 0.2), Link("1", "a", "r", "b", 0.8)])
    assert [link.score for link in graph.out("a")] == [0.8]
    assert len(graph) == 1


@given(st.text(max_size=20))
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold_name(fold_name(text)) == fold_name(text)


def test_names_with_several_owners() -> None:
    table = NameTable([("a", "x", ["y"]), ("b", "X", []), ("c", "y", ["x"])])
    assert [(one.entity_id, one.how) for one in table.exact("x")] == [
        ("a", "name"), ("b", "name"), ("c", "synonym"),
    ]  # fmt: skip
    assert len(ACCEPTED) == 3
    assert identity("a", "r", "b") == Triple("a", "r", "b").triple_id
