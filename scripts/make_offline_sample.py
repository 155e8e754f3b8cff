"""Build the ontology sample inside the package from the Human Disease Ontology.

    python scripts/make_offline_sample.py HumanDO.obo

Keeps, for every live term: id, name, definition, EXACT synonyms and is_a. Drops cross
references, comments and everything else. In definitions a relation written as one token, such
as has_symptom, becomes words: "has symptom". Same input, same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
from pathlib import Path

from graphmert.kg import OboDocument, read_obo
from graphmert.shards import atomic_write_bytes

OUT = Path(__file__).parents[1] / "src" / "graphmert" / "data" / "doid-sample.obo.gz"
RELATION_MARK = re.compile(r" ?(?<=[a-z ])_(?=[a-z ]) ?")
MAX_BYTES = 2_000_000


def main() -> None:
    """Read the ontology named on the command line and write the sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("obo", type=Path, help="HumanDO.obo of the Human Disease Ontology")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    data = compress(render(read_obo(options.obo)))
    if len(data) > MAX_BYTES:
        raise SystemExit(f"the sample has {len(data)} bytes, more than {MAX_BYTES}")
    atomic_write_bytes(options.out, data)
    print(f"{options.out}: {len(data)} bytes")


def render(obo: OboDocument) -> str:
    """Return the sample as OBO text, terms sorted by id."""
    lines = [
        "format-version: 1.2",
        f"data-version: {obo.version}",
        "default-namespace: disease_ontology",
        "remark: Excerpt of the Human Disease Ontology (disease-ontology.org), CC0 1.0.",
        "remark: Holds names, definitions, EXACT synonyms and is_a; relation tokens in",
        "remark: definitions are written as words.",
    ]
    parents: dict[str, list[str]] = {}
    for head_id, relation, tail_id in obo.kg.triples:
        if relation == "is_a":
            parents.setdefault(head_id, []).append(tail_id)
    for entity_id, entity in obo.kg.entities.items():
        lines += ["", "[Term]", f"id: {entity_id}", f"name: {escape(entity.name)}"]
        if entity_id in obo.definitions:
            lines.append(f'def: "{escape(as_words(obo.definitions[entity_id]))}" []')
        lines += [f'synonym: "{escape(synonym)}" EXACT []' for synonym in entity.synonyms]
        lines += [f"is_a: {parent}" for parent in parents.get(entity_id, ())]
    return "\n".join(lines) + "\n"


def as_words(definition: str) -> str:
    """Write relation tokens of a definition as words."""
    return RELATION_MARK.sub(" ", definition)


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
