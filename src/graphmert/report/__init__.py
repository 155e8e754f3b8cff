"""Reports of a run: one HTML page, the same in Markdown, and a short form for the terminal.

No number is typed by hand: everything is read from the files of the run directory. Identical run
files give identical reports; times and hardware stay in `timings.json`. `ledger.json` is
`{"stages": [ledger, …]}` in the order of the stages; `metrics.json` is described in
`graphmert.evaluate`.
"""

from __future__ import annotations

from pathlib import Path

from graphmert.report.console import console_summary
from graphmert.report.content import build_report
from graphmert.report.markdown import render_markdown
from graphmert.report.page import render_page
from graphmert.report.source import read_run
from graphmert.shards import atomic_write_text

__all__ = ["console_summary", "render_report"]


def render_report(run_dir: Path | str) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` from the other files of a run directory.

    Args:
        run_dir: the run directory; what its stages have not written yet is said to be missing.

    Returns:
        The paths of the HTML page and the Markdown file.

    Raises:
        FormatError: the folder is missing, or a file in it is broken.
        ProvenanceError: a shown sentence does not hold its head or tail at the given offsets.
    """
    run_dir = Path(run_dir)
    report = build_report(read_run(run_dir))
    page, markdown = run_dir / "report.html", run_dir / "report.md"
    atomic_write_text(page, render_page(report))
    atomic_write_text(markdown, render_markdown(report))
    return page, markdown
