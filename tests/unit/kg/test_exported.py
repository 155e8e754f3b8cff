"""Graphs that were exported with provenance are read as graphs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphmert.kg import KG, Entity, Triple, read_kg

GRAPH = KG.build(
    [Entity("T:1", "cell growth", "process", ("growth",)), Entity("T:2", "cell", "part")],
    [Triple("T:1", "part_of", "T:2")],
)
STATEMENT = """
@prefix rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix oio: <http://www.geneontology.org/formats/oboInOwl#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix prov: <http://www.w3.org/ns/prov#> .
@prefix g: <urn:graphmert:vocab:> .
<urn:graphmert:relation:part_of> a rdf:Property ; rdfs:label "part of" ; oio:shorthand "part_of" .
<urn:graphmert:entity:T:1> a <urn:graphmert:type:process> ; rdfs:label "cell growth" ;
    oio:id "T:1" ; oio:hasOBONamespace "process" ; skos:altLabel "growth" .
<urn:graphmert:entity:T:2> a <urn:graphmert:type:part> ; rdfs:label "cell" ;
    oio:id "T:2" ; oio:hasOBONamespace "part" .
<urn:graphmert:entity:T:1> <urn:graphmert:relation:part_of> <urn:graphmert:entity:T:2> .
<urn:graphmert:triple:x> a rdf:Statement ; rdf:subject <urn:graphmert:entity:T:1> ;
    rdf:predicate <urn:graphmert:relation:part_of> ; rdf:object <urn:graphmert:entity:T:2> ;
    g:score 0.9 ; prov:wasDerivedFrom <urn:graphmert:evidence:x:0> .
<urn:graphmert:evidence:x:0> a prov:Entity ; prov:value "Growth of a cell." ;
    prov:wasQuotedFrom <urn:graphmert:document:D1> ; g:sentStart 0 .
"""


def test_statements_and_their_evidence_are_no_entities(tmp_path: Path) -> None:
    (tmp_path / "g.ttl").write_text(STATEMENT, encoding="utf-8")
    document = read_kg(tmp_path / "g.ttl")
    assert document.kg == GRAPH
    assert document.ledger.check().n_left_out == 0


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_columns_of_provenance_are_accepted(tmp_path: Path, ending: str) -> None:
    if ending == "csv":
        files = {
            "entities": "id,name,type,synonyms,merged_from\nT:1,cell growth,process,growth,\n"
            "T:2,cell,part,,T:9\n",
            "triples": "head,relation,tail,triple_id,score,novel,n_evidence\n"
            "T:1,part_of,T:2,x,0.9,true,1\n",
            "evidence": 'triple_id,doc_id,sentence,score\nx,D1,"Growth, of a cell.",0.9\n',
        }
    else:
        rows = [
            {"id": "T:1", "name": "cell growth", "type": "process", "synonyms": ["growth"],
             "merged_from": []},
            {"id": "T:2", "name": "cell", "type": "part", "merged_from": ["T:9"]},
        ]  # fmt: skip
        triple = {"head": "T:1", "relation": "part_of", "tail": "T:2", "triple_id": "x",
                  "score": 0.9, "novel": True, "n_evidence": 1, "evidence": [{}]}  # fmt: skip
        files = {
            "entities": "".join(json.dumps(row) + "\n" for row in rows),
            "triples": json.dumps(triple) + "\n",
        }
    for name, text in files.items():
        (tmp_path / f"{name}.{ending}").write_text(text, encoding="utf-8")
    document = read_kg(tmp_path)
    assert document.kg == GRAPH
    left_out = document.ledger.check().to_dict()["left_out"]
    assert left_out == ({"row of evidence": 1} if ending == "csv" else {})
