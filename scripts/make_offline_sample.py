"""Build the ontology sample inside the package from the Gene Ontology.

    python scripts/make_offline_sample.py go-basic.obo

Draws terms by the hash of their ids, adds all terms above them, and keeps for each: id, name,
namespace, definition, EXACT synonyms and the triples among them. Drops cross references, comments
and everything else. Same input, same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
from pathlib import Path

from graphmert.kg import KGDocument, read_obo
from graphmert.shards import atomic_write_bytes

OUT = Path(__file__).parents[1] / "src" / "graphmert" / "data" / "go-sample.obo.gz"
N_DRAWN = 9_000
MAX_BYTES = 2_000_000


def main() -> None:
    """Read the ontology named on the command line and write the sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("obo", type=Path, help="go-basic.obo of the Gene Ontology")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    data = compress(render(read_obo(options.obo)))
    if len(data) > MAX_BYTES:
        raise SystemExit(f"the sample has {len(data)} bytes, more than {MAX_BYTES}")
    atomic_write_bytes(options.out, data)
    print(f"{options.out}: {len(data)} bytes")


def draw(obo: KGDocument) -> set[str]:
    """Return the ids of drawn terms and of everything above them."""
    above: dict[str, set[str]] = {}
    for head_id, _, tail_id in obo.kg.triples:
        above.setdefault(head_id, set()).add(tail_id)
    ids = sorted(obo.kg.entities, key=lambda one: hashlib.sha256(one.encode()).digest())
    todo, kept = ids[:N_DRAWN], set(ids[:N_DRAWN])
    while todo:
        for parent in above.get(todo.pop(), ()):
            if parent not in kept:
                kept.add(parent)
                todo.append(parent)
    return kept


def render(obo: KGDocument) -> str:
    """Return the sample as OBO text, terms sorted by id."""
    kept = draw(obo)
    lines = [
        "format-version: 1.2",
        f"data-version: {obo.version}",
        "default-namespace: gene_ontology",
        "remark: Excerpt of the Gene Ontology (geneontology.org), CC BY 4.0.",
        "remark: Holds names, definitions, EXACT synonyms and triples of a part of the terms.",
    ]
    triples: dict[str, list[str]] = {}
    for head_id, relation, tail_id in obo.kg.triples:
        if head_id in kept and tail_id in kept:
            tag = "is_a:" if relation == "is_a" else f"relationship: {relation}"
            triples.setdefault(head_id, []).append(f"{tag} {tail_id}")
    for entity_id in sorted(kept):
        entity = obo.kg.entities[entity_id]
        lines += ["", "[Term]", f"id: {entity_id}", f"name: {escape(entity.name)}"]
        lines.append(f"namespace: {entity.type}")
        if entity_id in obo.definitions:
            lines.append(f'def: "{escape(obo.definitions[entity_id])}" []')
        lines += [f'synonym: "{escape(synonym)}" EXACT []' for synonym in entity.synonyms]
        lines += triples.get(entity_id, [])
    for name in ("part_of", "regulates", "positively_regulates", "negatively_regulates"):
        lines += ["", "[Typedef]", f"id: {name}", f"name: {name.replace('_', ' ')}"]
        declared = obo.typedefs[name]
        lines += [f"is_a: {parent}" for parent in declared.sub_relation_of]
        if declared.transitive:
            lines.append("is_transitive: true")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape what OBO reads in a special way."""
    for character in '\\"{}!':
        text = text.replace(character, "\\" + character)
    return text.replace("\n", "\\n")


def compress(text: str) -> bytes:
    """Gzip without a time or a file name."""
    stream = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(text.encode("utf-8"))
    return stream.getvalue()


if __name__ == "__main__":
    main()
