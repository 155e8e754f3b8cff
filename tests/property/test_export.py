"""What is written can be read back: by the readers of the formats, not by our own writer."""

from __future__ import annotations

import csv
import json
import string
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pyarrow as pa
import pyoxigraph
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmert.errors import ConfigError
from graphmert.export import FORMATS, GraphTables, export_graph
from graphmert.export.rdf import PREFIXES
from graphmert.kg import KG, Entity, Triple, read_obo
from graphmert.store import make_table, schema_of
from toy_graph import ACCEPTED, graph_tables, make_tables

RDF, RDFS, SKOS, PROV, OIO = (PREFIXES[name] for name in ("rdf", "rdfs", "skos", "prov", "oio"))
G = "urn:graphmert:vocab:"
# Every file is flushed to disk, which takes longer than making it.
few = settings(max_examples=20)


@pytest.fixture(autouse=True)
def _without_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)


def table_of(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return make_table(name, {key: [row[key] for row in rows] for key in schema_of(name).names})


def kg_of(tables: GraphTables) -> KG:
    entities = [
        Entity(row["entity_id"], row["name"], row["type"], tuple(row["synonyms"]))
        for row in tables.entities.to_pylist()
    ]
    rows = tables.triples.to_pylist()
    return KG.build(entities, (Triple(r["head_id"], r["relation"], r["tail_id"]) for r in rows))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@given(graph_tables())
@few
def test_jsonl_gives_every_table_back(tmp_path: Path, tables: GraphTables) -> None:
    export_graph(tables, tmp_path, format="jsonl")
    entities = [{**row, "entity_id": row["id"]} for row in lines_of(tmp_path / "entities.jsonl")]
    triples, evidence = [], []
    for row in lines_of(tmp_path / "triples.jsonl"):
        ends = {"head_id": row["head"], "tail_id": row["tail"]}
        triples.append({**row, **ends, "head": row["head_name"], "tail": row["tail_name"]})
        evidence += [{**one, "triple_id": row["triple_id"]} for one in row["evidence"]]
    assert table_of("kg/entities", entities).equals(tables.entities)
    assert table_of("kg/triples", triples).equals(tables.triples)
    assert table_of("kg/evidence", evidence).equals(tables.evidence)


@given(graph_tables())
@few
def test_csv_gives_every_table_back_but_names_with_a_mark(
    tmp_path: Path, tables: GraphTables
) -> None:
    exported = export_graph(tables, tmp_path, format="csv")
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in ("entities", "triples", "evidence"):
        with (tmp_path / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            rows[name] = list(csv.DictReader(stream))
    for row, former in zip(rows["entities"], tables.entities.to_pylist(), strict=True):
        assert (row["id"], row["name"], row["type"]) == (
            former["entity_id"], former["name"], former["type"],
        )  # fmt: skip
        for column in ("synonyms", "merged_from"):
            fitting = [one for one in former[column] if "|" not in one]
            # A list of one empty name looks like an empty list.
            assert row[column].split("|") == (fitting or [""])
    for row, former in zip(rows["triples"], tables.triples.to_pylist(), strict=True):
        assert np.float32(row["score"]) == np.float32(former["score"])
        assert row["novel"] == str(former["novel"]).lower()
        assert (row["head"], row["relation"], row["tail"], row["head_name"]) == (
            former["head_id"], former["relation"], former["tail_id"], former["head"],
        )  # fmt: skip
    for row, former in zip(rows["evidence"], tables.evidence.to_pylist(), strict=True):
        for key, value in former.items():
            read = float(row[key]) if key == "score" else row[key]
            same = np.float32(value) if key == "score" else "" if value is None else str(value)
            assert read == pytest.approx(same, abs=1e-6) if key == "score" else read == same
    ledger = exported.ledgers[0]
    n_names = sum(len(r["synonyms"]) + len(r["merged_from"]) for r in tables.entities.to_pylist())
    assert ledger.check().n_offered == n_names


@given(graph_tables())
@few
def test_neo4j_files_have_the_columns_its_import_reads(tmp_path: Path, tables: GraphTables) -> None:
    export_graph(tables, tmp_path, format="neo4j")
    with (tmp_path / "nodes.csv").open(encoding="utf-8", newline="") as stream:
        nodes = list(csv.reader(stream))
    with (tmp_path / "relationships.csv").open(encoding="utf-8", newline="") as stream:
        links = list(csv.reader(stream))
    assert nodes[0] == [
        "entity_id:ID",
        "name",
        "synonyms:string[]",
        "merged_from:string[]",
        ":LABEL",
    ]
    assert links[0][:3] == [":START_ID", ":END_ID", ":TYPE"]
    assert {row[0] for row in nodes[1:]} == set(tables.entities["entity_id"].to_pylist())
    for row, former in zip(links[1:], tables.triples.to_pylist(), strict=True):
        assert row[:3] == [former["head_id"], former["tail_id"], former["relation"]]
        evidence = json.loads(row[7])
        assert [one["sentence"] for one in evidence] == [
            one["sentence"] for one in tables.evidence_of(former["triple_id"])
        ]
        assert int(row[6]) == len(evidence)


# --- RDF ------------------------------------------------------------------------------------


def quads_of(path: Path, form: str) -> set[Any]:
    kind = pyoxigraph.RdfFormat.TURTLE if form == "turtle" else pyoxigraph.RdfFormat.N_TRIPLES
    return set(pyoxigraph.parse(path=str(path), format=kind))


def facts_of(quads: set[Any], predicate: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for quad in quads:
        if quad.predicate.value == predicate:
            found.setdefault(quad.subject.value, []).append(quad.object.value)
    return {key: sorted(values) for key, values in found.items()}


@pytest.mark.parametrize("annotation", ["reified", "rdf12", "none"])
@given(tables=graph_tables())
@few
def test_rdf_says_the_graph_in_both_syntaxes(
    tmp_path: Path, annotation: Any, tables: GraphTables
) -> None:
    said = []
    for form in ("turtle", "ntriples"):
        path = export_graph(tables, tmp_path / form, format=form, annotation=annotation).paths[0]  # type: ignore[arg-type]
        said.append(quads_of(path, form))
    assert said[0] == said[1]
    quads = said[0]
    id_of = {iri: ids[0] for iri, ids in facts_of(quads, f"{OIO}id").items()}
    rows = {row["entity_id"]: row for row in tables.entities.to_pylist()}
    assert sorted(id_of.values()) == sorted(rows)
    labels, types = facts_of(quads, f"{RDFS}label"), facts_of(quads, f"{OIO}hasOBONamespace")
    synonyms = facts_of(quads, f"{SKOS}altLabel")
    for iri, entity_id in id_of.items():
        row = rows[entity_id]
        assert labels[iri] == [row["name"]]
        assert types[iri] == [row["type"]]
        assert synonyms.get(iri, []) == sorted(set(row["synonyms"]))
    relation_of = {iri: one[0] for iri, one in facts_of(quads, f"{OIO}shorthand").items()}
    plain = {
        Triple(id_of[q.subject.value], relation_of[q.predicate.value], id_of[q.object.value])
        for q in quads
        if q.predicate.value in relation_of
    }
    assert plain == set(kg_of(tables).triples)


@pytest.mark.parametrize("annotation", ["reified", "rdf12"])
@given(tables=graph_tables())
@few
def test_rdf_keeps_every_score_and_all_evidence(
    tmp_path: Path, annotation: Any, tables: GraphTables
) -> None:
    path = export_graph(tables, tmp_path / "g.nt", format="ntriples", annotation=annotation).paths[
        0
    ]
    quads = quads_of(path, "ntriples")
    derived = facts_of(quads, f"{PROV}wasDerivedFrom")
    scores = facts_of(quads, f"{G}score")
    literal = {
        name: facts_of(quads, f"{G}{name}")
        for name in ("sentStart", "headSurface", "tailSurface", "tailEnd", "modelHash", "locator")
    }
    sentences = facts_of(quads, f"{PROV}value")
    for row in tables.triples.to_pylist():
        node = f"urn:graphmert:triple:{row['triple_id']}"
        assert np.float32(scores[node][0]) == np.float32(row["score"])
        places = tables.evidence_of(row["triple_id"])
        assert len(derived.get(node, [])) == len(places)
        for number, place in enumerate(places):
            one = f"urn:graphmert:evidence:{row['triple_id']}:{number}"
            assert sentences[one] == [place["sentence"]]
            assert literal["sentStart"][one] == [str(place["sent_start"])]
            assert literal["headSurface"][one] == [place["head_surface"]]
            assert literal["modelHash"][one] == ["m"]
            for name, key in (("tailSurface", "tail_surface"), ("locator", "locator")):
                assert literal[name].get(one) == (None if place[key] is None else [place[key]])
    reifiers = [q for q in quads if q.predicate.value == f"{RDF}reifies"]
    statements = [q for q in quads if q.object == pyoxigraph.NamedNode(f"{RDF}Statement")]
    expected = len(tables.triples)
    assert (len(reifiers), len(statements)) == (
        (expected, 0) if annotation == "rdf12" else (0, expected)
    )


def test_obo_ids_get_their_own_iris_unless_told_not_to(tmp_path: Path) -> None:
    row = {"entity_id": "GO:0008150", "name": "x", "type": "t", "synonyms": [], "merged_from": []}
    tables = GraphTables(
        table_of("kg/entities", [row]), table_of("kg/triples", []), table_of("kg/evidence", [])
    )
    path = export_graph(tables, tmp_path / "a.ttl", format="turtle").paths[0]
    assert "<http://purl.obolibrary.org/obo/GO_0008150>" in path.read_text()
    base = "https://example.org/kg/"
    path = export_graph(tables, tmp_path / "b.ttl", format="turtle", purls=False, base=base).paths[
        0
    ]
    assert "<https://example.org/kg/entity/GO:0008150>" in path.read_text()
    for wrong in ("", "no iri", "urn:<x>", "relative/"):
        with pytest.raises(ConfigError, match="base"):
            export_graph(tables, tmp_path / "c.ttl", format="turtle", base=wrong)


# --- GraphML and OBO ------------------------------------------------------------------------

xml_text = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff",
                  include_characters="\t\n"),
    max_size=8,
)  # fmt: skip


@given(graph_tables(text=xml_text, identifier=xml_text.filter(bool)))
@few
def test_graphml_is_read_by_networkx(tmp_path: Path, tables: GraphTables) -> None:
    path = export_graph(tables, tmp_path / "g.graphml", format="graphml").paths[0]
    graph = nx.read_graphml(path, force_multigraph=True)
    rows = {row["entity_id"]: row for row in tables.entities.to_pylist()}
    assert set(graph.nodes) == set(rows)
    for key, row in rows.items():
        # The parser of networkx makes an empty element None.
        assert (graph.nodes[key].get("name") or "") == row["name"]
        assert json.loads(graph.nodes[key]["synonyms"]) == row["synonyms"]
    links = {key: (head, tail, data) for head, tail, key, data in graph.edges(keys=True, data=True)}
    assert len(links) == len(tables.triples)
    for row in tables.triples.to_pylist():
        head, tail, data = links[row["triple_id"]]
        assert (head, tail, data["relation"]) == (row["head_id"], row["tail_id"], row["relation"])
        assert np.float32(data["score"]) == np.float32(row["score"])
        assert data["novel"] is row["novel"]
        assert len(json.loads(data["evidence"])) == row["n_evidence"]


@given(graph_tables())
@few
def test_graphml_is_always_xml_and_says_what_it_cannot_hold(
    tmp_path: Path, tables: GraphTables
) -> None:
    exported = export_graph(tables, tmp_path / "g.graphml", format="graphml")
    root = ET.parse(exported.paths[0]).getroot()
    space = "{http://graphml.graphdrawing.org/xmlns}"
    assert len(root.findall(f"{space}graph/{space}node")) == len(tables.entities)
    assert len(root.findall(f"{space}graph/{space}edge")) == len(tables.triples)
    assert exported.ledgers[0].check()
    texts = [*tables.entities["name"].to_pylist(), *tables.entities["entity_id"].to_pylist()]
    if any("\x00" in one for one in texts):
        assert exported.ledgers[0].reasons["character that XML cannot hold"] > 0


obo_text = st.text(
    st.sampled_from(string.ascii_letters + string.digits + "{}!\\\"'()[],:;-ßé🧬 \n\t"),
    min_size=1, max_size=10,
).filter(lambda text: text == text.strip())  # fmt: skip


@given(graph_tables(text=obo_text, identifier=obo_text))
@few
def test_obo_is_read_back_as_the_same_graph(tmp_path: Path, tables: GraphTables) -> None:
    tables = GraphTables(
        tables.entities.set_column(
            2, tables.entities.schema.field("type"),
            pa.array([one.strip() for one in tables.entities["type"].to_pylist()]),
        ).set_column(
            4, tables.entities.schema.field("merged_from"),
            pa.array([[] for _ in range(len(tables.entities))], pa.list_(pa.string())),
        ),
        tables.triples, tables.evidence,
    )  # fmt: skip
    exported = export_graph(tables, tmp_path / "g.obo", format="obo")
    assert read_obo(exported.paths[0]).kg == kg_of(tables)
    assert exported.ledgers[0].n_left_out == len(tables.evidence)


# --- all forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_equal_graphs_give_equal_bytes(tmp_path: Path, form: Any) -> None:
    written = [export_graph(make_tables(), tmp_path / one, format=form).paths for one in "ab"]
    assert [path.read_bytes() for path in written[0]] == [path.read_bytes() for path in written[1]]
    assert not list(tmp_path.rglob(".*"))


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="jsonl"):
        export_graph(make_tables(), tmp_path, format="excel")  # type: ignore[arg-type]


def test_a_selection_is_balanced_and_takes_its_evidence_along() -> None:
    tables = make_tables()
    part, ledger = tables.select(min_score=0.7, linked_only=True)
    assert part.triples["score"].to_pylist() == pytest.approx([0.9, 0.7])
    assert ledger.to_dict()["left_out"] == {"below the score asked for": 1}
    assert len(part.evidence) == 3
    ends = {end for triple, _, _ in ACCEPTED[:2] for end in (triple.head_id, triple.tail_id)}
    assert set(part.entities["entity_id"].to_pylist()) == ends
    same, ledger = tables.select()
    assert same is tables
    assert ledger.n_kept == 3
    none, ledger = tables.select(min_score=1.0)
    assert (len(none.triples), len(none.evidence), len(none.entities)) == (0, 0, 7)
    assert ledger.check().n_left_out == 3
