"""GraphML and OBO."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.sax.saxutils import escape

from graphmert.export.plain import evidence_of
from graphmert.export.tables import GraphTables, rows_of, short_float
from graphmert.kg import Relation
from graphmert.shards import Ledger, atomic_path

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KEPT_BLANKS = {"\r": "&#13;", '"': "&quot;", "\n": "&#10;", "\t": "&#9;"}
_OBO_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "{": "\\{", "}": "\\}",
                              "!": "\\!", '"': '\\"'})  # fmt: skip
_OBO_BLANKS = str.maketrans({" ": "\\W"})

_NODE_KEYS = (("name", "string"), ("type", "string"), ("synonyms", "string"),
              ("merged_from", "string"))  # fmt: skip
_EDGE_KEYS = (("relation", "string"), ("score", "double"), ("novel", "boolean"),
              ("n_evidence", "int"), ("evidence", "string"))  # fmt: skip


def write_graphml(tables: GraphTables, path: Path) -> tuple[list[Path], Ledger]:
    """Write GraphML; lists and evidence are JSON texts.

    Returns: the file, and a ledger of texts, in which characters that XML cannot hold were
    replaced by U+FFFD.
    """
    ledger = Ledger("export: texts")

    def text(value: str) -> str:
        ledger.offered()
        clean, n_replaced = _NOT_XML.subn("\ufffd", value)
        if n_replaced:
            ledger.leave_out("character that XML cannot hold", example=clean[:60])
        else:
            ledger.keep()
        return escape(clean, _KEPT_BLANKS)

    def listed(values: list[str]) -> str:
        return json.dumps(values, ensure_ascii=False)

    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as out,
    ):
        out.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        out.write('<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n')
        for side, keys in (("node", _NODE_KEYS), ("edge", _EDGE_KEYS)):
            for name, kind in keys:
                out.write(f'  <key id="{side}-{name}" for="{side}" attr.name="{name}" ')
                out.write(f'attr.type="{kind}"/>\n')
        out.write('  <graph id="graph" edgedefault="directed">\n')
        for row in rows_of(tables.entities):
            values = (row["name"], row["type"], listed(row["synonyms"]), listed(row["merged_from"]))
            out.write(f'    <node id="{text(row["entity_id"])}">')
            for (name, _), value in zip(_NODE_KEYS, values, strict=True):
                out.write(f'<data key="node-{name}">{text(value)}</data>')
            out.write("</node>\n")
        for row in rows_of(tables.triples):
            ends = f'source="{text(row["head_id"])}" target="{text(row["tail_id"])}"'
            out.write(f'    <edge id="{row["triple_id"]}" {ends}>')
            values = (
                row["relation"],
                repr(short_float(row["score"])),
                str(row["novel"]).lower(),
                str(row["n_evidence"]),
                json.dumps(evidence_of(tables, row["triple_id"]), ensure_ascii=False),
            )
            for (name, _), value in zip(_EDGE_KEYS, values, strict=True):
                out.write(f'<data key="edge-{name}">{text(value)}</data>')
            out.write("</edge>\n")
        out.write("  </graph>\n</graphml>\n")
    return [path], ledger.check()


def write_obo(tables: GraphTables, path: Path) -> tuple[list[Path], Ledger]:
    """Write OBO 1.4; score and triple id stand in braces behind each triple.

    Returns: the file, and a ledger of evidence rows, none of which OBO can hold.
    """
    links: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows_of(tables.triples):
        note = f'{{score="{short_float(row["score"])}", triple="{row["triple_id"]}"}}'
        links.setdefault(row["head_id"], []).append((row["relation"], row["tail_id"], note))
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as out,
    ):
        out.write("format-version: 1.4\n")
        for row in rows_of(tables.entities):
            out.write(f"\n[Term]\nid: {_obo_id(row['entity_id'])}\nname: {_obo(row['name'])}\n")
            out.write(f"namespace: {_obo(row['type'])}\n")
            for synonym in row["synonyms"]:
                out.write(f'synonym: "{_obo(synonym)}" EXACT []\n')
            out.writelines(f"alt_id: {_obo_id(one)}\n" for one in row["merged_from"])
            for relation, tail, note in sorted(links.get(row["entity_id"], ())):
                tag = "is_a:" if relation == "is_a" else f"relationship: {_obo_id(relation)}"
                out.write(f"{tag} {_obo_id(tail)} {note}\n")
        for name in sorted({*tables.schema.relations, *tables.triples["relation"].to_pylist()}):
            if name != "is_a":
                out.writelines(_typedef(tables.schema.relations.get(name) or Relation(name)))
    ledger = Ledger("export: evidence")
    ledger.offered(len(tables.evidence))
    ledger.leave_out("OBO holds no evidence", len(tables.evidence))
    return [path], ledger.check()


def _typedef(relation: Relation) -> list[str]:
    flags = (
        ("is_transitive", relation.transitive),
        ("is_symmetric", relation.symmetric),
        ("is_anti_symmetric", relation.antisymmetric),
    )
    lines = [f"\n[Typedef]\nid: {_obo_id(relation.name)}\nname: {_obo(relation.label)}\n"]
    if relation.description:
        lines.append(f'def: "{_obo(relation.description)}" []\n')
    lines += [f"{tag}: true\n" for tag, holds in flags if holds]
    lines += [f"is_a: {_obo_id(one)}\n" for one in relation.sub_relation_of]
    if relation.inverse is not None:
        lines.append(f"inverse_of: {_obo_id(relation.inverse)}\n")
    return lines


def _obo(text: str) -> str:
    """Escape a text; a lone carriage return has no form in OBO and stays."""
    return text.translate(_OBO_ESCAPES)


def _obo_id(identifier: str) -> str:
    return _obo(identifier).translate(_OBO_BLANKS)
