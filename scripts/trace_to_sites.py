"""Write traced calls as the truth that `evaluate.truth` of a code run names.

python scripts/trace_to_sites.py INDEX OUT.jsonl PACKAGE=TRACE.json ...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from graphmert.domains.code.traced_sites import traced_sites
from graphmert.shards import atomic_write_text
from graphmert.store import RunDir


def main() -> None:
    index, out, *pairs = sys.argv[1:]
    lines = []
    for pair in pairs:
        package, _, trace = pair.partition("=")
        rows, ledger = traced_sites(RunDir(Path(index)), package, Path(trace))
        print(json.dumps(ledger.to_dict()))
        lines += [json.dumps(row) for row in rows]
    atomic_write_text(out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
