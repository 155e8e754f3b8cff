"""The command line as a process: what it imports, and what Ctrl-C does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "accelerate", "pyarrow", "numpy", "rich")


def test_importing_the_cli_imports_nothing_heavy() -> None:
    code = f"import sys, graphmert.cli\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert finished.stdout.split() == []


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["data", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys, graphmert.cli\n"
        f"sys.argv = ['graphmert', *{words!r}]\n"
        "try:\n"
        "    graphmert.cli.main()\n"
        "finally:\n"
        f"    print(*[n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0
    assert "Usage:" in finished.stdout
    assert finished.stderr.split() == []


def test_ctrl_c_exits_130_and_says_how_to_resume(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = f"""
        import pathlib, signal, sys, time, types
        # A background job is started with SIGINT ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        import graphmert, graphmert.cli
        fake = types.ModuleType("graphmert.run")
        fake.load = lambda path, overrides: None
        def execute(config, **options):
            pathlib.Path({str(ready)!r}).touch()
            time.sleep(60)
        fake.execute = execute
        sys.modules["graphmert.run"] = graphmert.run = fake
        sys.argv = ["graphmert", "train", "RUN.toml"]
        graphmert.cli.main()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True
    )
    while not ready.exists():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == "interrupted; finished work is kept. To resume: graphmert train RUN.toml\n"
