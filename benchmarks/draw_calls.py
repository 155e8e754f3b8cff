"""Draw call sites of an index at random, for labelling by hand.

    python benchmarks/draw_calls.py INDEX --language java --n 200 --seed 7 > sites.jsonl

Each line holds the site, the line of text, and the definitions of that name in the index, sorted by
id: what the resolver found is not shown. Sites of tests and of minified files are not drawn. Sites
are references of the index: a call that the parser did not see cannot be drawn, so that labels of
these sites tell nothing of such calls.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

from graphmert.store import RunDir

CALLS = ("calls", "invokes", "instantiates")


def draw(run: RunDir, language: str, n: int, seed: int) -> list[dict]:
    documents = run.read("corpus/documents").select(["doc_id", "text"]).to_pylist()
    texts = {one["doc_id"]: one["text"] for one in documents}
    files = {one["doc_id"]: one for one in run.read("code/files").to_pylist()}
    named: dict[str, list[str]] = defaultdict(list)
    for one in run.read("code/symbols").to_pylist():
        kinds = ("Function", "Method", "Class", "ExceptionType", "Interface", "Test")
        if one["language"] == language and one["kind"] in kinds:
            named[one["name"]].append(one["entity_id"])
    sites = [
        one
        for one in run.read("code/references").to_pylist()
        if one["language"] == language
        and one["relation"] in CALLS
        and not files[one["doc_id"]]["is_test"]
        and ".min." not in one["path"]
    ]
    sites.sort(key=lambda one: (one["doc_id"], one["site_start"], one["start"]))
    chosen = random.Random(seed).sample(sites, min(n, len(sites)))
    rows = []
    for one in chosen:
        text = texts[one["doc_id"]]
        first = text.rfind("\n", 0, one["start"]) + 1
        last = text.find("\n", one["start"])
        rows.append(
            {
                "doc_id": one["doc_id"],
                "line": one["line"],
                "start": one["start"],
                "end": one["end"],
                "name": one["text"],
                "text": text[first : last if last >= 0 else len(text)].strip()[:200],
                "inside": one["source_id"],
                "definitions": sorted(named.get(one["text"], [])),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("--language", required=True)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    for row in draw(RunDir(given.index), given.language, given.n, given.seed):
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
