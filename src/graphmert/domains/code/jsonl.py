"""Export of an index as JSON lines: triples with qualifiers, entities, a manifest."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from graphmert.domains.code.ontology import load_profile, rename_relation
from graphmert.domains.code.queries import CodeStore
from graphmert.shards import atomic_path, atomic_write_json, sha256_file


def export_jsonl(index: Path | str, out: Path | str, *, profile: str = "all") -> dict[str, Any]:
    """Write `triples.jsonl`, `entities.jsonl` and `manifest.json`.

    A triple record holds head, relation, tail and qualifiers {language, file, start_line,
    end_line, package, version, licence, resolver, confidence, n_evidence}, those of its first
    evidence; an entity record holds id, name, type, file, span. Relations are renamed by the
    profile, what it leaves out is counted.

    Args:
        index: the run directory of the index.
        out: folder to write to.
        profile: "graphmer-se", "codebert" or "all".

    Raises:
        ConfigError: unknown profile.
        FormatError: no index.
    """
    store, out = CodeStore(index), Path(out)
    names = load_profile(profile)
    evidence = _first_evidence(store)
    left_out: Counter[str] = Counter()
    used: set[str] = set()
    written: set[tuple[str, str, str]] = set()
    with atomic_path(out / "triples.jsonl") as path, path.open("w", encoding="utf-8") as stream:
        for row in store.triples.to_pylist():
            relation = rename_relation(names, row["relation"])
            if relation is None:
                left_out[row["relation"]] += 1
                continue
            key = (row["head_id"], relation, row["tail_id"])
            if key in written:
                left_out["same after renaming"] += 1
                continue
            written.add(key)
            used |= {row["head_id"], row["tail_id"]}
            counts = {"confidence": round(row["score"], 4), "n_evidence": row["n_evidence"]}
            record = {
                "head": row["head_id"],
                "relation": relation,
                "tail": row["tail_id"],
                "qualifiers": {**evidence[row["triple_id"]], **counts},
            }
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
    n_entities = _write_entities(store, out / "entities.jsonl", used)
    manifest = {
        "version": store.manifest["version"],
        "profile": profile,
        "relations": list(names),
        "seconds_to_build": json.loads(store.run.timings.read_text(encoding="utf-8"))["seconds"],
        "files": store.manifest["inputs"],
        "counts": {"triples": len(written), "entities": n_entities},
        "left_out": dict(sorted(left_out.items())),
        "validation": store.manifest["validation"],
        "sha256": {name: sha256_file(out / name) for name in ("triples.jsonl", "entities.jsonl")},
    }
    atomic_write_json(out / "manifest.json", manifest)
    return {"out": str(out), "counts": manifest["counts"], "left_out": manifest["left_out"]}


def _first_evidence(store: CodeStore) -> dict[str, dict[str, Any]]:
    """Return the locator of the first evidence of each triple."""
    found: dict[str, dict[str, Any]] = {}
    table = store.run.read("kg/evidence").select(["triple_id", "locator"])
    for triple, locator in zip(
        table["triple_id"].to_pylist(), table["locator"].to_pylist(), strict=True
    ):
        if triple not in found:
            found[triple] = json.loads(locator)
    return found


def _write_entities(store: CodeStore, path: Path, used: set[str]) -> int:
    n = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for row in store.run.read("kg/entities").to_pylist():
            if row["entity_id"] not in used:
                continue
            n += 1
            symbol = store.symbols.get(row["entity_id"])
            record = {"id": row["entity_id"], "name": row["name"], "type": row["type"]}
            if symbol is not None:
                record |= {
                    "qualified_name": symbol["qualified_name"],
                    "file": symbol["path"],
                    "package": symbol["package"],
                    "language": symbol["language"],
                    "span": [symbol["start"], symbol["end"]],
                    "lines": [symbol["start_line"], symbol["end_line"]],
                }
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
    return n
