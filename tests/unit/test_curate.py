from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmert.curate import Curated, Edit, add_edits, in_force, read_curated, read_edits, replay
from graphmert.curate.log import edits_path
from graphmert.errors import ConfigError, FormatError, SchemaError
from graphmert.export import GraphTables
from graphmert.kg import Schema, write_schema
from graphmert.query import open_store
from graphmert.shards import sha256_file
from graphmert.store import RunDir
from toy_graph import ENTITIES, SCHEMA, TEST, identity, make_run, make_tables

FIRST, SECOND = TEST[0].triple_id, TEST[1].triple_id
SPED = identity("T:6", "speeds_up", "T:2")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path)


def ids(curated: Curated) -> set[str]:
    return set(curated.tables.triples["triple_id"].to_pylist())


def all_evidence(curated: Curated) -> list[tuple[str, int, int | None]]:
    """Every place, of present and withdrawn triples, without the triples' ids."""
    rows = curated.tables.evidence.to_pylist()
    rows += [row for one in curated.withdrawn.values() for row in one["evidence"]]
    return sorted(
        (row["doc_id"], row["head_start"], -1 if row["tail_start"] is None else row["tail_start"])
        for row in rows
    )


def test_without_edits_the_tables_are_as_extracted(run: RunDir) -> None:
    curated = read_curated(run)
    assert curated.tables.triples.equals(make_tables().triples)
    assert curated.edits == ()


def test_reject_takes_out_and_keeps_the_evidence(run: RunDir) -> None:
    before = {path: sha256_file(path) for path in run.path.rglob("*.parquet")}
    curated = add_edits(run, [Edit(kind="reject", triple_id=FIRST, by="ann", note="wrong")])
    assert FIRST not in ids(curated)
    assert len(curated.tables.evidence) == 2
    assert len(curated.withdrawn[FIRST]["evidence"]) == 2
    found = open_store(run.path).explain(FIRST)
    assert (found.withdrawn_by, len(found.evidence), found.edits[0].note) == (1, 2, "wrong")
    assert {path: sha256_file(path) for path in run.path.rglob("*.parquet")} == before


def test_undo_and_undo_of_undo(run: RunDir) -> None:
    add_edits(run, [Edit(kind="reject", triple_id=FIRST)])
    undone = add_edits(run, [Edit(kind="undo", edit=1)])
    assert undone.tables.triples.equals(make_tables().triples)
    again = add_edits(run, [Edit(kind="undo", edit=2)])
    assert FIRST not in ids(again)
    assert [one.number for one in in_force(again.edits)] == [1]
    with pytest.raises(ConfigError, match="no such edit"):
        add_edits(run, [Edit(kind="undo", edit=2)])
    with pytest.raises(ConfigError, match="no such edit"):
        add_edits(run, [Edit(kind="undo", edit=9)])


def test_accept_takes_a_rejected_candidate_with_its_sentence(run: RunDir) -> None:
    curated = add_edits(
        run, [Edit(kind="accept", head_id="T:6", relation="speeds_up", tail_id="T:2")]
    )
    row = next(one for one in curated.tables.triples.to_pylist() if one["triple_id"] == SPED)
    assert row["score"] == pytest.approx(0.2)
    assert (row["head"], row["tail"], row["novel"]) == ("naïve transport", "growth", True)
    (place,) = curated.tables.evidence_of(SPED)
    assert (place["head_surface"], place["tail_surface"]) == ("Naïve transport", None)
    assert place["method"] == "by hand, inferred"
    assert open_store(run.path).explain(SPED).verified is True


def test_accept_of_what_nobody_proposed_has_no_evidence_but_the_edit(run: RunDir) -> None:
    curated = add_edits(run, [Edit(kind="accept", head_id="T:1", relation="is_a", tail_id="T:2")])
    key = identity("T:1", "is_a", "T:2")
    row = next(one for one in curated.tables.triples.to_pylist() if one["triple_id"] == key)
    # It is a training triple of the seed.
    assert (row["score"], row["novel"], row["n_evidence"]) == (1.0, False, 0)
    assert [one.number for one in open_store(run.path).explain(key).edits] == [1]


def test_accept_restores_what_was_rejected(run: RunDir) -> None:
    add_edits(run, [Edit(kind="reject", triple_id=FIRST)])
    curated = add_edits(
        run, [Edit(kind="accept", head_id="T:3", relation="regulates", tail_id="T:1")]
    )
    assert curated.withdrawn == {}
    assert len(curated.tables.evidence_of(FIRST)) == 2


def test_relabel_moves_the_evidence_to_the_new_triple(run: RunDir) -> None:
    curated = add_edits(run, [Edit(kind="relabel", triple_id=FIRST, relation="speeds_up")])
    new = identity("T:3", "speeds_up", "T:1")
    assert FIRST not in ids(curated)
    assert [one["triple_id"] for one in curated.tables.evidence_of(new)] == [new, new]
    # A later edit may still use the id that the triple had.
    back = add_edits(run, [Edit(kind="relabel", triple_id=FIRST, relation="regulates")])
    assert ids(back) == set(make_tables().triples["triple_id"].to_pylist())
    assert curated.touched == {new: (1,)}
    assert back.touched == {FIRST: (1, 2)}


def test_merge_joins_names_triples_and_evidence(run: RunDir) -> None:
    curated = add_edits(run, [Edit(kind="merge", entity_id="T:4", merged_id="T:5")])
    kept = next(one for one in curated.tables.entities.to_pylist() if one["entity_id"] == "T:4")
    assert kept["merged_from"] == ["T:5"]
    assert kept["synonyms"] == ["Cell-Membrane", "cell membrane", "cells", "plasmalemma"]
    assert "T:5" not in curated.tables.entities["entity_id"].to_pylist()
    # "part of the cell membrane" and "part of the cell" have become one triple.
    both = identity("T:6", "part_of", "T:4")
    row = next(one for one in curated.tables.triples.to_pylist() if one["triple_id"] == both)
    assert (row["score"], row["n_evidence"]) == (pytest.approx(0.7), 2)
    assert len(curated.tables.evidence) == 4
    with pytest.raises(ConfigError, match="one already"):
        add_edits(run, [Edit(kind="merge", entity_id="T:4", merged_id="T:5")])
    undone = add_edits(run, [Edit(kind="undo", edit=1)])
    assert undone.tables.entities.equals(make_tables().entities)


def test_a_triple_between_merged_entities_is_withdrawn(run: RunDir) -> None:
    curated = add_edits(run, [Edit(kind="merge", entity_id="T:1", merged_id="T:3")])
    loop = curated.withdrawn[FIRST]
    assert (loop["edit"], len(loop["evidence"])) == (1, 2)


@pytest.mark.parametrize(
    ("edit", "error", "words"),
    [
        (Edit(kind="reject", triple_id="0" * 16), ConfigError, "no such triple"),
        (Edit(kind="relabel", triple_id=FIRST, relation="regulates"), ConfigError, "already"),
        (Edit(kind="relabel", triple_id=FIRST, relation="cures"), SchemaError, "speeds_up"),
        (Edit(kind="relabel", triple_id=FIRST, relation="part_of"), SchemaError, "tail T:1"),
        (Edit(kind="accept", head_id="T:4", relation="regulates", tail_id="T:1"),
         SchemaError, "head T:4"),
        (Edit(kind="accept", head_id="T:6", relation="part_of", tail_id="T:99"),
         ConfigError, "no such entity"),
        (Edit(kind="accept", head_id="T:3", relation="regulates", tail_id="T:1"),
         ConfigError, "accepted already"),
        (Edit(kind="merge", entity_id="T:1", merged_id="T:1"), ConfigError, "one already"),
        (Edit(kind="merge", entity_id="T:1", merged_id="T:99"), ConfigError, "no such entity"),
    ],
    ids=lambda value: value.kind if isinstance(value, Edit) else "",
)  # fmt: skip
def test_an_edit_that_cannot_be_is_refused_and_not_logged(
    run: RunDir, edit: Edit, error: type[Exception], words: str
) -> None:
    good = Edit(kind="reject", triple_id=SECOND)
    with pytest.raises(error, match=words):
        add_edits(run, [good, edit])
    assert read_edits(run) == ()


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "reject"},
        {"kind": "reject", "triple_id": "x", "relation": "r"},
        {"kind": "accept", "head_id": "a", "relation": "r"},
        {"kind": "undo", "triple_id": "x"},
        {"kind": "delete", "triple_id": "x"},
    ],
)
def test_an_edit_has_exactly_its_parts(values: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Edit(**values)


def test_later_edits_of_an_undone_one_are_counted_not_lost(run: RunDir) -> None:
    add_edits(run, [Edit(kind="accept", head_id="T:6", relation="speeds_up", tail_id="T:2")])
    add_edits(run, [Edit(kind="reject", triple_id=SPED)])
    curated = add_edits(run, [Edit(kind="undo", edit=1)])
    assert curated.ledger.to_dict()["left_out"] == {"no such triple": 1}
    assert curated.ledger.check().n_offered == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{\n", "line 1"),
        ('{"number": 2, "kind": "reject", "triple_id": "x"}\n', "number 2"),
        ('{"number": 1, "kind": "undo", "edit": 1}\n', "not before"),
        ('{"number": 1, "kind": "reject", "triple_id": "x", "more": 1}\n', "Extra"),
    ],
)
def test_a_damaged_log_is_refused_by_line(run: RunDir, text: str, words: str) -> None:
    edits_path(run).write_text(text)
    with pytest.raises(FormatError, match=words):
        open_store(run.path)


def _add(path: str, triple_id: str) -> None:
    add_edits(RunDir(path), [Edit(kind="reject", triple_id=triple_id)])


def test_two_editors_at_once_both_get_into_the_log(run: RunDir) -> None:
    context = multiprocessing.get_context("fork")
    third = identity("T:6", "part_of", "T:4")
    workers = [
        context.Process(target=_add, args=(str(run.path), one)) for one in (FIRST, SECOND, third)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    edits = read_edits(run)
    assert [one.number for one in edits] == [1, 2, 3]
    assert {one.triple_id for one in edits} == {FIRST, SECOND, third}


# --- any log --------------------------------------------------------------------------------

entity_ids = st.sampled_from([one.entity_id for one in ENTITIES])
relations = st.sampled_from(["is_a", "part_of", "regulates", "speeds_up"])
triple_ids = st.builds(identity, entity_ids, relations, entity_ids) | st.sampled_from(
    [FIRST, SECOND]
)
any_edit = st.one_of(
    st.builds(lambda t: Edit(kind="reject", triple_id=t), triple_ids),
    st.builds(lambda t, r: Edit(kind="relabel", triple_id=t, relation=r), triple_ids, relations),
    st.builds(lambda h, r, t: Edit(kind="accept", head_id=h, relation=r, tail_id=t),
              entity_ids, relations, entity_ids),
    st.builds(lambda a, b: Edit(kind="merge", entity_id=a, merged_id=b), entity_ids, entity_ids),
    st.builds(lambda n: Edit(kind="undo", edit=n), st.integers(1, 8)),
)  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_run(tmp_path_factory.mktemp("kept"))


@given(st.lists(any_edit, max_size=9))
@settings(max_examples=100)
def test_any_log_replays_the_same_and_loses_no_evidence(kept: RunDir, edits: list[Edit]) -> None:
    log: list[Edit] = []
    for edit in edits:
        if edit.kind != "undo" or (edit.edit or 0) <= len(log):
            log.append(edit.model_copy(update={"number": len(log) + 1}))
    tables = GraphTables.read(kept)
    curated, again = replay(kept, tables, log), replay(kept, tables, log)
    for name in ("entities", "triples", "evidence"):
        assert getattr(curated.tables, name).equals(getattr(again.tables, name))
    curated.ledger.check()
    before = all_evidence(Curated(tables))
    now = all_evidence(curated)
    for place in before:
        assert now.count(place) >= before.count(place)
    rows = curated.tables.triples.to_pylist()
    for row in rows:
        assert row["triple_id"] == identity(row["head_id"], row["relation"], row["tail_id"])
        assert row["n_evidence"] == len(curated.tables.evidence_of(row["triple_id"]))
    assert len(curated.tables.evidence) == sum(row["n_evidence"] for row in rows)
    # Undoing everything in force, last first, gives the tables as extracted.
    undoing = list(log)
    while counting := in_force(undoing):
        undo = Edit(kind="undo", edit=counting[-1].number, number=len(undoing) + 1)
        undoing.append(undo)
    assert replay(kept, tables, undoing).tables.triples.equals(tables.triples)


def test_the_log_is_plain_lines(run: RunDir) -> None:
    add_edits(run, [Edit(kind="reject", triple_id=FIRST, by="ann", at="2026-01-01T00:00:00Z")])
    assert json.loads(edits_path(run).read_text()) == {
        "number": 1, "kind": "reject", "triple_id": FIRST, "by": "ann",
        "at": "2026-01-01T00:00:00Z",
    }  # fmt: skip


# --- the schema as a whole ------------------------------------------------------------------


@pytest.fixture
def strict(run: RunDir) -> RunDir:
    """The same graph under a schema with rules about more than one triple."""
    kept = SCHEMA.relations
    rules = {
        "part_of": changed(kept["part_of"], acyclic=True),
        "regulates": changed(kept["regulates"], antisymmetric=True, cardinality=1),
    }
    write_schema(run.seed_schema, Schema(SCHEMA.types, {**kept, **rules}))
    return run


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        # The seed says that T:1 is a T:2, and that T:5 is part of T:4.
        (Edit(kind="accept", head_id="T:2", relation="is_a", tail_id="T:1"), "antisymmetric"),
        (Edit(kind="accept", head_id="T:4", relation="part_of", tail_id="T:5"), "cycle"),
        # The graph says that T:3 regulates T:1; what speeds up regulates.
        (Edit(kind="accept", head_id="T:1", relation="speeds_up", tail_id="T:3"), "antisymmetric"),
        (Edit(kind="accept", head_id="T:3", relation="speeds_up", tail_id="T:6"), "cardinality"),
        # T:6 is part of T:5: as T:4 it would be part of its own part.
        (Edit(kind="merge", entity_id="T:4", merged_id="T:6"), "cycle"),
        (Edit(kind="merge", entity_id="T:6", merged_id="T:4"), "cycle|type"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_rules_about_more_than_one_triple_are_kept(strict: RunDir, edit: Edit, rule: str) -> None:
    with pytest.raises(SchemaError, match=rule):
        add_edits(strict, [edit])
    assert read_edits(strict) == ()


def test_a_merge_that_closes_a_cycle_is_refused(strict: RunDir) -> None:
    middle = Edit(kind="accept", head_id="T:4", relation="part_of", tail_id="T:7")
    add_edits(strict, [middle])
    # T:5 part_of T:4 part_of T:7: with T:7 as T:5 the seed's triple goes round.
    with pytest.raises(SchemaError, match="cycle"):
        add_edits(strict, [Edit(kind="merge", entity_id="T:5", merged_id="T:7")])
    add_edits(strict, [Edit(kind="undo", edit=1)])
    add_edits(strict, [Edit(kind="merge", entity_id="T:5", merged_id="T:7")])


def test_an_undo_that_breaks_the_schema_is_refused(strict: RunDir) -> None:
    key = identity("T:6", "regulates", "T:2")
    there, back = (
        Edit(kind="accept", head_id=head, relation="regulates", tail_id=tail)
        for head, tail in (("T:6", "T:2"), ("T:2", "T:6"))
    )
    add_edits(strict, [there, Edit(kind="reject", triple_id=key), back])
    with pytest.raises(SchemaError, match="antisymmetric"):
        add_edits(strict, [Edit(kind="undo", edit=2)])
    assert len(read_edits(strict)) == 3
