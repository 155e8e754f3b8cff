from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmert.curate import Edit, add_edits
from graphmert.errors import ConfigError
from graphmert.export import GraphTables
from graphmert.resolve import find_duplicates, grams, jaccard, merge_duplicates, normalise
from graphmert.store import empty_table
from toy_graph import make_run, table


def entities(*rows: tuple[str, str, str, tuple[str, ...]]) -> GraphTables:
    found = [
        {"entity_id": key, "name": name, "type": kind, "synonyms": list(synonyms),
         "merged_from": []}
        for key, name, kind, synonyms in rows
    ]  # fmt: skip
    return GraphTables(
        table("kg/entities", found), empty_table("kg/triples"), empty_table("kg/evidence")
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("α-Synuclein (human)", "α synuclein, human", True),
        ("Alzheimer’s  disease", "alzheimers disease", False),
        ("naïve T-cell", "NAIVE T cell", True),
        ("IL-2", "IL-3", False),
        ("iron(2+)", "iron(2-)", False),
        ("(+)-carvone", "(-)-carvone", False),
        ("5'-AMP", "5-AMP", False),
        ("H₂O", "H2O", True),
        ("type 1", "type 2", False),
    ],
)
def test_normalising_keeps_what_tells_things_apart(one: str, other: str, same: bool) -> None:
    assert (normalise(one) == normalise(other)) is same


@given(st.text(max_size=20))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_equal_names_then_synonyms_within_a_type() -> None:
    tables = entities(
        ("b", "Cell-growth", "x", ()),
        ("a", "cell growth", "x", ("growing",)),
        ("c", "cell growth", "y", ()),
        ("d", "Growing", "x", ()),
        ("e", "other", "x", ("another",)),
        ("f", "more", "x", ("Another",)),
    )
    found, ledger = find_duplicates(tables)
    assert [(one.entity_id, one.merged_id, one.how) for one in found] == [
        ("a", "b", "name"), ("a", "d", "synonym"), ("e", "f", "synonym"),
    ]  # fmt: skip
    assert ledger.check().n_kept == 3


def test_the_entity_with_more_triples_stays(tmp_path: Path) -> None:
    from graphmert.export import GraphTables as Tables

    found, _ = find_duplicates(Tables.read(make_run(tmp_path)))
    # Both are called plasmalemma; only the cell membrane has a triple.
    assert [(one.entity_id, one.merged_id, one.how) for one in found] == [("T:5", "T:7", "synonym")]


names = st.text(st.sampled_from("abc "), min_size=1, max_size=12).map(str.strip).filter(bool)


@given(st.lists(names, min_size=1, max_size=8, unique=True), st.sampled_from([0.4, 0.6, 0.7, 0.9]))
@settings(max_examples=150)
def test_no_pair_over_the_threshold_is_missed(called: list[str], threshold: float) -> None:
    from graphmert.kg import Entity
    from graphmert.resolve import _like_names

    own = {f"{i}": Entity(f"{i}", name, "x") for i, name in enumerate(called)}
    sets = {key: grams(normalise(one.name)) for key, one in own.items()}
    expected = {
        (a, b): jaccard(sets[a], sets[b])
        for a in own
        for b in own
        if a < b and jaccard(sets[a], sets[b]) >= threshold
    }
    assert _like_names(own, threshold) == pytest.approx(expected)


def test_like_names_are_listed_only_when_asked_for() -> None:
    tables = entities(("a", "hexokinase activity", "x", ()), ("b", "hexokinases activity", "x", ()))
    assert find_duplicates(tables)[0] == []
    (found,) = find_duplicates(tables, threshold=0.6)[0]
    assert (found.how, found.similarity < 1) == ("like", True)
    with pytest.raises(ConfigError, match="Jaccard"):
        find_duplicates(tables, threshold=0.0)


@given(st.lists(st.sampled_from(["a", "b", "a b", "ab"]), min_size=2, max_size=7), st.booleans())
def test_merges_make_no_chain(called: list[str], like: bool) -> None:
    rows = [(f"{i}", name, "x", ()) for i, name in enumerate(called)]
    found, ledger = find_duplicates(entities(*rows), threshold=0.3 if like else None)
    gone = [one.merged_id for one in found]
    assert len(set(gone)) == len(gone)
    assert not set(gone) & {one.entity_id for one in found}
    ledger.check()


def test_merging_is_an_edit_and_undone_by_one(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    tables = GraphTables.read(run)
    found, _ = find_duplicates(tables)
    curated = merge_duplicates(run, found, by="ann")
    kept = next(one for one in curated.tables.entities.to_pylist() if one["entity_id"] == "T:5")
    assert kept["merged_from"] == ["T:7"]
    assert find_duplicates(curated.tables)[0] == []
    undone = add_edits(run, [Edit(kind="undo", edit=1)])
    assert undone.tables.entities.equals(tables.entities)
