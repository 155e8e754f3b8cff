"""A small extracted graph with documents, seed and schema, and random ones."""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphmert.export import GraphTables
from graphmert.kg import KG, Entity, Relation, Schema, Triple, triple_id, write_schema
from graphmert.store import RunDir, kg_to_tables, make_table, schema_of

ENTITIES = (
    Entity("T:1", "cell growth", "process", ("growth of cells",)),
    Entity("T:2", "growth", "process"),
    Entity("T:3", "regulation of cell growth", "process"),
    Entity("T:4", "cell", "part", ("cells",)),
    Entity("T:5", "cell membrane", "part", ("plasmalemma", "Cell-Membrane")),
    Entity("T:6", "naïve transport", "process"),
    Entity("T:7", "plasma membrane", "part", ("plasmalemma",)),
)
SCHEMA = Schema(
    ("part", "process"),
    {
        "is_a": Relation("is_a", domain=frozenset({"process", "part"}), transitive=True,
                         antisymmetric=True, acyclic=True),
        "part_of": Relation("part_of", range=frozenset({"part"}), inverse="has_part",
                            transitive=True),
        "has_part": Relation("has_part", domain=frozenset({"part"}), inverse="part_of"),
        "regulates": Relation("regulates", domain=frozenset({"process"}),
                              range=frozenset({"process"})),
        "speeds_up": Relation("speeds_up", domain=frozenset({"process"}),
                              sub_relation_of=("regulates",)),
    },
)  # fmt: skip
TRAIN = (
    Triple("T:1", "is_a", "T:2"),
    Triple("T:1", "part_of", "T:4"),
    Triple("T:5", "part_of", "T:4"),
)
TEST = (
    Triple("T:3", "regulates", "T:1"),
    Triple("T:6", "part_of", "T:5"),
    Triple("T:6", "is_a", "T:2"),
)
TEXTS = {
    "D1": "A growth. Regulation of cell growth changes cell growth 🧬 in the cell. More.",
    "D2": "Naïve transport\r\ncrosses the cell membrane of a cell.",
}
# (triple, score, [(document, sentence, head, tail or None)])
ACCEPTED: tuple[tuple[Triple, float, tuple[tuple[str, str, str, str | None], ...]], ...] = (
    (
        TEST[0],
        0.9,
        (
            ("D1", "Regulation of cell growth changes cell growth 🧬 in the cell.",
             "Regulation of cell growth", "cell growth 🧬"),
            ("D1", "Regulation of cell growth changes cell growth 🧬 in the cell.",
             "Regulation of cell growth", None),
        ),
    ),
    (
        TEST[1],
        0.7,
        (("D2", "Naïve transport\r\ncrosses the cell membrane of a cell.",
          "Naïve transport", "cell membrane"),),
    ),
    (
        Triple("T:6", "part_of", "T:4"),
        0.4,
        (("D2", "Naïve transport\r\ncrosses the cell membrane of a cell.",
          "Naïve transport", None),),
    ),
)  # fmt: skip


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def names() -> dict[str, str]:
    return {one.entity_id: one.name for one in ENTITIES}


def identity(head: str, relation: str, tail: str) -> str:
    return triple_id(head, relation, tail)


def evidence_row(
    triple: Triple, score: float, place: tuple[str, str, str, str | None]
) -> dict[str, Any]:
    document, sentence, head, tail = place
    text = TEXTS[document]
    start = text.index(sentence)
    head_start = text.index(head, start)
    tail_start = None if tail is None else text.index(tail, head_start + len(head))
    surface = None if tail is None else tail.removesuffix(" 🧬")
    return {
        "triple_id": triple.triple_id,
        "domain": "text",
        "doc_id": document,
        "sha256": sha256(text),
        "sent_start": start,
        "sent_end": start + len(sentence),
        "sentence": sentence,
        "head_start": head_start,
        "head_end": head_start + len(head),
        "head_surface": head,
        "tail_start": tail_start,
        "tail_end": None if tail_start is None else tail_start + len(surface or ""),
        "tail_surface": surface,
        "locator": None,
        "model_hash": "f" * 64,
        "method": "mnm-entity, inferred" if tail is None else "mnm-entity, in text",
        "score": score,
    }


def table(name: str, rows: list[dict[str, Any]]) -> Any:
    return make_table(name, {key: [row[key] for row in rows] for key in schema_of(name).names})


def make_tables() -> GraphTables:
    """The extracted graph: 7 entities, 3 triples, 4 places."""
    called = names()
    triples = [
        {
            "triple_id": triple.triple_id,
            "head_id": triple.head_id,
            "head": called[triple.head_id],
            "relation": triple.relation,
            "tail_id": triple.tail_id,
            "tail": called[triple.tail_id],
            "score": score,
            "novel": True,
            "n_evidence": len(places),
        }
        for triple, score, places in ACCEPTED
    ]
    evidence = [evidence_row(t, score, one) for t, score, places in ACCEPTED for one in places]
    entities = [
        {"entity_id": one.entity_id, "name": one.name, "type": one.type,
         "synonyms": list(one.synonyms), "merged_from": []}
        for one in ENTITIES
    ]  # fmt: skip
    return GraphTables(
        table("kg/entities", entities),
        table("kg/triples", triples),
        table("kg/evidence", evidence),
        SCHEMA,
    )


def make_run(folder: Path) -> RunDir:
    """A copy of the graph with documents, mentions, seed, schema and rejected candidates."""
    return RunDir(shutil.copytree(_template(), folder, dirs_exist_ok=True))


@cache
def _template() -> Path:
    """Written once: every file written is flushed to disk, which a copy is not."""
    folder = Path(tempfile.mkdtemp(prefix="toy-graph-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run = RunDir(folder)
    tables = make_tables()
    for name in ("entities", "triples", "evidence"):
        run.write(f"kg/{name}", getattr(tables, name))
    split = {**dict.fromkeys(TRAIN, "train"), **dict.fromkeys(TEST, "test")}
    seed = KG.build(ENTITIES, split)
    for name, found in zip(("entities", "triples"), kg_to_tables(seed, split), strict=True):
        run.write(f"seed/{name}", found)
    write_schema(run.seed_schema, SCHEMA)
    run.write(
        "corpus/documents",
        table(
            "corpus/documents",
            [
                {"doc_id": key, "sha256": sha256(text), "title": "", "text": text,
                 "source": "toy", "meta": "{}"}
                for key, text in TEXTS.items()
            ],
        ),
    )  # fmt: skip
    mentions = [("D2", "T:6", "Naïve transport"), ("D2", "T:5", "cell membrane"),
                ("D2", "T:4", "cell.")]  # fmt: skip
    rows = []
    for document, entity_id, surface in mentions:
        start = TEXTS[document].index(surface)
        end = start + len(surface.rstrip("."))
        rows.append({"seq_id": f"{document}#0", "doc_id": document, "entity_id": entity_id,
                     "start": start, "end": end, "surface": surface.rstrip("."),
                     "is_title": False})  # fmt: skip
    run.write("corpus/mentions", table("corpus/mentions", rows))
    run.write(
        "kg/rejected",
        table(
            "kg/rejected",
            [
                {"candidate": json.dumps(list(triple)), "reason": "below threshold",
                 "score": score, "doc_id": "D2", "sent_start": 0, "sent_end": len(TEXTS["D2"])}
                for triple, score in (
                    (Triple("T:6", "speeds_up", "T:2"), 0.2),
                    (Triple("T:6", "has_part", "T:5"), 0.3),
                )
            ],
        ),
    )  # fmt: skip
    return folder


# --- random graphs --------------------------------------------------------------------------

ids = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@st.composite
def graph_tables(draw: st.DrawFn, *, text: st.SearchStrategy[str] = words,
                 identifier: st.SearchStrategy[str] = ids) -> GraphTables:  # fmt: skip
    """Return a graph whose ids, names and sentences are any text."""
    keys = draw(st.lists(identifier, min_size=1, max_size=4, unique=True))
    kinds = st.sampled_from(["process", "a part\n", "fünction"])
    entities = [
        {
            "entity_id": key,
            "name": draw(text),
            "type": draw(kinds),
            "synonyms": draw(st.lists(text, max_size=2)),
            "merged_from": draw(st.lists(identifier, max_size=1)),
        }
        for key in keys
    ]
    called = {row["entity_id"]: row["name"] for row in entities}
    ends = st.sampled_from(keys)
    relations = st.sampled_from(["is_a", "part_of", 'odd relation "x" <&>'])
    found = draw(st.lists(st.builds(Triple, ends, relations, ends), max_size=4, unique=True))
    scores = st.floats(0, 1, width=32)
    triples, evidence = [], []
    for triple in sorted(found):
        rows = [_random_evidence(draw, triple, text) for _ in range(draw(st.integers(0, 2)))]
        evidence += rows
        triples.append(
            {
                "triple_id": triple.triple_id,
                "head_id": triple.head_id,
                "head": called[triple.head_id],
                "relation": triple.relation,
                "tail_id": triple.tail_id,
                "tail": called[triple.tail_id],
                "score": draw(scores),
                "novel": draw(st.booleans()),
                "n_evidence": len(rows),
            }
        )
    return GraphTables(
        table("kg/entities", entities),
        table("kg/triples", triples),
        table("kg/evidence", evidence),
    )


def _random_evidence(draw: st.DrawFn, triple: Triple, text: Any) -> dict[str, Any]:
    head, between, tail = draw(text), draw(text), draw(text)
    sentence, offset = head + between + tail, draw(st.integers(0, 9))
    has_tail = draw(st.booleans())
    tail_start = offset + len(head) + len(between)
    return {
        "triple_id": triple.triple_id,
        "domain": "text",
        "doc_id": draw(ids),
        "sha256": "0" * 64,
        "sent_start": offset,
        "sent_end": offset + len(sentence),
        "sentence": sentence,
        "head_start": offset,
        "head_end": offset + len(head),
        "head_surface": head,
        "tail_start": tail_start if has_tail else None,
        "tail_end": tail_start + len(tail) if has_tail else None,
        "tail_surface": tail if has_tail else None,
        "locator": draw(st.none() | text),
        "model_hash": "m",
        "method": "mnm",
        "score": float(np.float32(draw(st.floats(0, 1, width=32)))),
    }
