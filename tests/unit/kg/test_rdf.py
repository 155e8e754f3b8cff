from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from graphmert.errors import CapabilityError, DataError, FormatError
from graphmert.kg import Entity, KGDocument, Triple, infer_schema, read_kg, read_rdf

pyoxigraph = pytest.importorskip("pyoxigraph")

TURTLE = """
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix oio: <http://www.geneontology.org/formats/oboInOwl#> .
@prefix obo: <http://purl.obolibrary.org/obo/> .
@prefix ex: <http://example.org/v#> .

<http://example.org/onto> a owl:Ontology ; owl:versionInfo "2021" .
ex:partOf a owl:ObjectProperty, owl:TransitiveProperty ; rdfs:label "part of" ;
    owl:inverseOf ex:hasPart .
ex:hasPart a owl:ObjectProperty ; rdfs:comment "Teil"@de, "Holds it."@en .
ex:properPartOf a owl:ObjectProperty ; rdfs:subPropertyOf ex:partOf .
oio:hasExactSynonym a owl:AnnotationProperty .

obo:A_0001 a owl:Class ; rdfs:label "cell wall"@en, "Zellwand"@de ;
    obo:IAO_0000115 "A wall of a cell." ;
    oio:hasExactSynonym "wall of the cell", "Wand"@de ;
    oio:hasRelatedSynonym "wall" ;
    oio:hasOBONamespace "part" ;
    rdfs:seeAlso <http://example.org/page> ;
    rdfs:subClassOf obo:A_0002, [ a owl:Restriction ; owl:onProperty ex:partOf ;
        owl:someValuesFrom obo:A_0003 ], [ a owl:Class ; owl:unionOf ( obo:A_0002 obo:A_0003 ) ] .
obo:A_0002 a owl:Class ; rdfs:label "wall" ; rdfs:subClassOf owl:Thing .
obo:A_0003 a owl:Class ; rdfs:label "cell" ; rdfs:subClassOf obo:GONE_1 .
obo:A_0004 a owl:Class ; rdfs:label "old" ; owl:deprecated true ; rdfs:subClassOf obo:A_0002 .
ex:Drug a owl:Class .
ex:aspirin a ex:Drug ; ex:treats ex:headAche .
ex:headAche a owl:NamedIndividual .
"""


@pytest.fixture
def turtle(tmp_path: Path) -> Path:
    path = tmp_path / "onto.ttl"
    path.write_text(TURTLE, encoding="utf-8")
    return path


@pytest.fixture
def document(turtle: Path) -> KGDocument:
    return read_rdf(turtle)


def test_entities_names_types_and_ids(document: KGDocument) -> None:
    entities = document.kg.entities
    assert entities["A:0001"] == Entity("A:0001", "cell wall", "part", ("wall of the cell",))
    assert entities["http://example.org/v#aspirin"].type == "Drug"
    assert entities["http://example.org/v#headAche"].name == "head ache"
    assert "A:0004" not in entities
    assert document.definitions == {"A:0001": "A wall of a cell."}
    assert document.version == "2021"


def test_triples_from_subclasses_restrictions_and_statements(document: KGDocument) -> None:
    assert set(document.kg.triples) == {
        Triple("A:0001", "is_a", "A:0002"),
        Triple("A:0001", "part_of", "A:0003"),
        Triple("http://example.org/v#aspirin", "treats", "http://example.org/v#headAche"),
    }


def test_ledger_names_what_was_left_out(document: KGDocument) -> None:
    assert document.ledger.check().reasons == {
        "deprecated entity": 1,
        "class expression that is no restriction": 1,
        "tail is not in the file": 1,
        "head is deprecated": 1,
        "synonym in another language": 1,
        "synonym not exact": 1,
    }


def test_declarations_feed_the_schema(document: KGDocument) -> None:
    assert document.typedefs["part_of"].transitive
    assert document.typedefs["part_of"].inverse == "hasPart"
    assert document.typedefs["hasPart"].description == "Holds it."
    assert document.typedefs["part_of"].description == ""
    assert document.typedefs["properPartOf"].sub_relation_of == ("part_of",)
    relation = infer_schema(document.kg, typedefs=document.typedefs).relations["part_of"]
    assert (relation.label, relation.transitive) == ("part of", True)
    assert relation.domain == {"part"}


@pytest.mark.parametrize(
    ("suffix", "form"),
    [(".nt", "N_TRIPLES"), (".rdf", "RDF_XML"), (".owl", "RDF_XML"), (".ttl", "TURTLE")],
)
def test_every_syntax_reads_the_same(
    tmp_path: Path, document: KGDocument, suffix: str, form: str
) -> None:
    quads = pyoxigraph.parse(TURTLE.encode(), pyoxigraph.RdfFormat.TURTLE)
    data = pyoxigraph.serialize(
        (quad.triple for quad in quads), format=getattr(pyoxigraph.RdfFormat, form)
    )
    path = tmp_path / f"copy{suffix}"
    path.write_bytes(data)
    packed = tmp_path / f"packed{suffix}.gz"
    packed.write_bytes(gzip.compress(data))
    for one in (path, packed):
        again = read_kg(one)
        assert again.kg == document.kg
        assert again.typedefs == document.typedefs
        assert again.ledger.reasons == document.ledger.reasons


def test_a_thesaurus_in_skos(tmp_path: Path) -> None:
    path = tmp_path / "s.ttl"
    path.write_text(
        """@prefix skos: <http://www.w3.org/2004/02/skos/core#> . @prefix ex: <http://e.org/> .
        ex:cat a skos:Concept ; skos:prefLabel "cat" ; skos:altLabel "feline" ;
            skos:broader ex:animal ; skos:definition "It purrs." ; skos:exactMatch ex:other .
        ex:animal a skos:Concept ; skos:prefLabel "animal" .""",
        encoding="utf-8",
    )
    document = read_rdf(path)
    cat = Entity("http://e.org/cat", "cat", "entity", ("feline",))
    assert document.kg.entities["http://e.org/cat"] == cat
    assert document.kg.triples == (Triple("http://e.org/cat", "broader", "http://e.org/animal"),)
    assert list(document.definitions.values()) == ["It purrs."]


def test_properties_with_one_label_keep_their_iris(tmp_path: Path) -> None:
    path = tmp_path / "p.ttl"
    path.write_text(
        """@prefix owl: <http://www.w3.org/2002/07/owl#> . @prefix ex: <http://e.org/> .
        @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
        ex:p a owl:ObjectProperty ; rdfs:label "has" . ex:q a owl:ObjectProperty ;
        rdfs:label "has" . ex:a ex:p ex:b ; ex:q ex:b . ex:b a ex:T .""",
        encoding="utf-8",
    )
    assert read_rdf(path).kg.relations == ("http://e.org/p", "http://e.org/q")


def test_bad_syntax_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.ttl"
    path.write_text("@prefix ex: <http://e.org/> .\n\nex:a ex:b \n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"bad.ttl, line \d"):
        read_rdf(path)


@pytest.mark.parametrize(
    "declaration",
    [
        '<!ENTITY x SYSTEM "file:///etc/hostname">',
        '<!ENTITY a "aa"><!ENTITY x "&a;&a;&a;&a;">',
        "<!ENTITY a 'aa'><!ENTITY x '&a;&a;&a;&a;'>",
    ],
)
def test_xml_entities_from_outside_or_nested_are_refused(tmp_path: Path, declaration: str) -> None:
    path = tmp_path / "x.rdf"
    path.write_text(
        f'<?xml version="1.0"?><!DOCTYPE r [{declaration}]>'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns:rdfs="http://www.w3.org/2000/01/rdf-schema#">'
        '<rdf:Description rdf:about="http://a/b"><rdfs:label>&x;</rdfs:label>'
        "</rdf:Description></rdf:RDF>",
        encoding="utf-8",
    )
    with pytest.raises(FormatError):
        read_rdf(path)


def test_no_entity_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.ttl"
    path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="no entity"):
        read_rdf(path)


def test_the_missing_package_is_named(turtle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyoxigraph", None)
    with pytest.raises(CapabilityError, match=r"graphmert\[rdf\]"):
        read_rdf(turtle)
