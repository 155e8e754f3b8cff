"""Keep a short summary of a prepared corpus in results/.

    python scripts/keep_prepared.py run-output/pubmed pubmed_part

Writes results/NAME/prepared.json: settings, counts, ledgers without their examples (these hold
pieces of texts that may not be passed on), hashes of the tables, seconds and peak memory.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from graphmert.shards import atomic_write_json

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    target = ROOT / "results" / options.name / "prepared.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(target, summarise(options.run))


def summarise(run: Path) -> dict[str, Any]:
    """Return what may be kept of a prepared run."""
    manifest, timings = (
        json.loads((run / name).read_text(encoding="utf-8"))
        for name in ("manifest.json", "timings.json")
    )
    stage = manifest["stages"]["prepare"]
    ledgers = [{k: v for k, v in one.items() if k != "examples"} for one in stage["ledgers"]]
    return {
        "config": manifest["config"],
        "inputs": manifest["inputs"],
        "versions": manifest["versions"],
        "counts": stage["counts"],
        "ledgers": ledgers,
        "outputs": stage["outputs"],
        "timings": timings["prepare"] | {"hardware": timings["hardware"]},
    }


if __name__ == "__main__":
    main()
