"""Time `graphmert --help` in fresh processes and write the seconds as JSON.

Usage: python benchmarks/bench_cli.py [OUT.json]
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

N_RUNS = 15
COMMANDS = (["--help"], ["run", "--help"], ["data", "fetch", "--help"])
DEFAULT_OUT = Path(__file__).parent / "results" / "cli.json"


def time_command(words: list[str]) -> list[float]:
    seconds = []
    for _ in range(N_RUNS):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "graphmert.cli", *words],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds.append(time.perf_counter() - begun)
    return seconds


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_OUT
    rows = []
    for words in COMMANDS:
        seconds = time_command(words)
        rows.append(
            {
                "command": " ".join(["graphmert", *words]),
                "median_s": round(statistics.median(seconds), 4),
                "max_s": round(max(seconds), 4),
                "n_runs": N_RUNS,
            }
        )
    result = {"python": platform.python_version(), "machine": platform.machine(), "rows": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
