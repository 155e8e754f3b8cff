"""The short form of a report, for the end of a run in a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphmert.report.blocks import Sample, Stage, Table
from graphmert.report.content import best_untrained, funnel_stages, main_system, metric_table
from graphmert.report.markdown import mark_segments
from graphmert.report.samples import best_samples
from graphmert.report.source import read_checked, read_run


def console_summary(
    run_dir: Path | str, *, n_triples: int = 10, width: int = 100
) -> dict[str, Any]:
    """Return funnel, metrics beside baselines and sample triples, as values and as text.

    Args:
        run_dir: the run directory.
        n_triples: how many triples to show, the best of each relation in turn.
        width: columns of the text.

    Returns:
        system, test ({name: entry}), funnel, triples, report (path), and text, all of it as lines
        for a terminal.

    Raises:
        FormatError: a run file is broken.
    """
    files = read_run(Path(run_dir))
    stages = funnel_stages(files)
    samples = best_samples(files, n_triples)
    report = Path(run_dir) / "report.html"
    parts = []
    if stages:
        parts.append("Funnel\n" + _columns(_funnel_table(stages)))
    test = files.metrics.get("test")
    if test:
        table = read_checked("metrics.json", lambda: metric_table(files.metrics, "test"))
        counts = f"{test['n_triples']:,} triples, {test['n_entities']:,} entities"
        parts.append(f"Link prediction on unseen heads ({counts})\n" + _columns(table))
    if samples:
        lines = "\n".join(_triple(sample, width) for sample in samples)
        parts.append(f"Triples (⟦head⟧ ⟨tail⟩)\n{lines}")
    parts.append(f"Report: {report}")
    floor = best_untrained(files.metrics, "test") if test else None
    return {
        "system": main_system(files.metrics),
        "best_untrained": floor[0] if floor else None,
        "test": dict(test["systems"]) if test else {},
        "funnel": [
            {"stage": s.name, "offered": s.n_offered, "kept": s.n_kept, "left_out": s.n_left_out}
            for s in stages
        ],
        "triples": [_triple_values(sample) for sample in samples],
        "report": str(report),
        "text": "\n\n".join(parts) + "\n",
    }


def _funnel_table(stages: Sequence[Stage]) -> Table:
    rows = []
    for stage in stages:
        reasons = "; ".join(f"{reason.text} {reason.n:,}" for reason in stage.reasons[:3])
        more = len(stage.reasons) - 3
        reasons += f"; {more} more" if more > 0 else ""
        rows.append((stage.name, f"{stage.n_offered:,}", f"{stage.n_kept:,}", reasons))
    return Table(columns=("stage", "offered", "kept", "left out"), rows=tuple(rows))


def _columns(table: Table) -> str:
    """Lay a table out in columns; the last column of a funnel is text and runs free."""
    lines = [table.columns, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    text = []
    for line in lines:
        cells = [
            cell.ljust(size)
            if index < table.n_text or _is_words(table, index)
            else cell.rjust(size)
            for index, (cell, size) in enumerate(zip(line, widths, strict=True))
        ]
        text.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(text)


def _is_words(table: Table, column: int) -> bool:
    return table.columns[column] == "left out"


def _triple(sample: Sample, width: int) -> str:
    labels = f" ({', '.join(sample.labels)})" if sample.labels else ""
    line = f"  {sample.score:.3f}  {sample.head} → {sample.relation} → {sample.tail}{labels}"
    if not sample.segments:
        return line
    sentence = textwrap.fill(
        mark_segments(sample.segments),
        width=width,
        initial_indent=" " * 9,
        subsequent_indent=" " * 9,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{line}\n{sentence}"


def _triple_values(sample: Sample) -> dict[str, Any]:
    return {
        "head": sample.head,
        "relation": sample.relation,
        "tail": sample.tail,
        "score": sample.score,
        "novel": sample.novel,
        "inferred": sample.inferred,
        "document": sample.document,
        "sentence": "".join(segment.text for segment in sample.segments),
    }
