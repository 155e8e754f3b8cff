"""Render a report as Markdown: the same content, charts as tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphmert.report.blocks import (
    Block,
    CalibrationPlot,
    Code,
    Funnel,
    Intervals,
    LossCurves,
    Paragraph,
    Report,
    Sample,
    Samples,
    Segment,
    SweepPlot,
    Table,
)

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def render_markdown(report: Report) -> str:
    """Return the report as Markdown with pipe tables."""
    parts = [f"# {escape_markdown(report.title)}", escape_markdown(report.lead)]
    if report.facts:
        parts.append(_table(("what", "value"), report.facts, n_text=1))
    for section in report.sections:
        parts.append(f"## {escape_markdown(section.title)}")
        parts.append(render_blocks(section.blocks))
    return "\n\n".join(part for part in parts if part) + "\n"


def render_blocks(blocks: Sequence[Block]) -> str:
    """Return some blocks of a report as Markdown."""
    return "\n\n".join(text for text in map(_block, blocks) if text)


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def mark_segments(segments: Sequence[Segment]) -> str:
    """Return a sentence as one line with ⟦head⟧ and ⟨tail⟩ in brackets."""
    text = ""
    in_head = in_tail = False
    for segment in segments:
        text += "⟩" * (in_tail and not segment.in_tail) + "⟧" * (in_head and not segment.in_head)
        text += "⟦" * (segment.in_head and not in_head) + "⟨" * (segment.in_tail and not in_tail)
        text += segment.text
        in_head, in_tail = segment.in_head, segment.in_tail
    return " ".join((text + "⟩" * in_tail + "⟧" * in_head).split())


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return escape_markdown(block.text)
        case Table():
            text = _table(block.columns, block.rows, n_text=block.n_text)
            return f"{text}\n\n{escape_markdown(block.note)}" if block.note else text
        case Funnel():
            return _funnel(block)
        case Intervals():
            return ""  # the table below it holds the same numbers
        case LossCurves():
            rows = [
                (panel.title, curve.name, f"{first:.3f}", f"{least:.3f}", f"{last:.3f}")
                for panel in block.panels
                for curve in panel.curves
                for first, least, last in [_ends([y for _, y in curve.points])]
            ]
            return _table(("objective", "data", "first", "least", "last"), rows, n_text=2)
        case CalibrationPlot():
            rows = [
                (f"{point.confidence:.3f}", f"{point.accuracy:.3f}", f"{point.n:,}")
                for point in block.points
            ]
            return _table(("probability", "share correct", "candidates"), rows, n_text=0)
        case SweepPlot():
            return _sweep(block)
        case Samples():
            items = "\n".join(_sample(sample) for sample in block.samples)
            return f"### {escape_markdown(block.title)}\n\n{items}"
        case Code():
            longest = max((len(run) for run in re.findall("`+", block.text)), default=0)
            fence = "`" * max(3, longest + 1)
            return f"{fence}\n{block.text}\n{fence}"


def _sweep(block: SweepPlot) -> str:
    """The chosen threshold's row and about a dozen others, highest first."""
    points = sorted(block.points, key=lambda point: -point.threshold)
    step = max(1, len(points) // 12)
    shown = [
        point
        for place, point in enumerate(points)
        if place % step == 0 or point.threshold == block.chosen
    ]
    rows = [
        (
            f"{point.threshold:.3f}",
            "–" if point.precision is None else f"{point.precision:.3f}",
            f"{point.recall:.3f}",
            f"{point.n_accepted:,}",
            "chosen" if point.threshold == block.chosen else "",
        )
        for point in shown
    ]
    return _table(("threshold", "precision", "recall", "accepted", ""), rows, n_text=0)


def _ends(values: Sequence[float]) -> tuple[float, float, float]:
    return values[0], min(values), values[-1]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, n_text: int) -> str:
    rule = [":--" if index < n_text else "--:" for index in range(len(columns))]
    lines = [[escape_markdown(cell) for cell in row] for row in (columns, *rows)]
    lines.insert(1, rule)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _funnel(funnel: Funnel) -> str:
    stages = [
        (stage.name, f"{stage.n_offered:,}", f"{stage.n_kept:,}", f"{stage.n_left_out:,}")
        for stage in funnel.stages
    ]
    text = _table(("stage", "offered", "kept", "left out"), stages, n_text=1)
    reasons = [
        (stage.name, reason.text, "; ".join(reason.examples), f"{reason.n:,}")
        for stage in funnel.stages
        for reason in stage.reasons
    ]
    if reasons:
        text += "\n\n" + _table(("stage", "left out because", "examples", "n"), reasons, n_text=3)
    return text


def _sample(sample: Sample) -> str:
    labels = f" ({', '.join(sample.labels)})" if sample.labels else ""
    head, relation, tail = (escape_markdown(t) for t in (sample.head, sample.relation, sample.tail))
    line = f"- **{head}** → {relation} → **{tail}**{labels}, score {sample.score:.3f}"
    if sample.segments:
        sentence = escape_markdown(mark_segments(sample.segments))
        line += f"\n  {sentence} ({escape_markdown(sample.document)})"
    return line
