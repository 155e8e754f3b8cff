"""Charts as inline SVG: no scripts, no fonts, no files beside the page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from graphmert.report.blocks import CalibrationPlot, Intervals, LossPanel, SweepPlot

COLOURS = {"main": "#0b6e4f", "trained": "#2563a8", "untrained": "#8b95a1"}
_CURVE_COLOURS = ("#2563a8", "#c2410c", "#0b6e4f", "#7c3aed")
_GRID, _INK, _SOFT = "#e4e7eb", "#1f2933", "#52606d"
_MAX_POINTS = 300


def intervals_chart(block: Intervals) -> str:
    """Return a dot with a whisker per system, on the block's axis."""
    left, right, row_height, top = 190, 64, 26, 8
    width = 720
    inner = width - left - right
    bottom = top + row_height * len(block.rows)
    span = block.high - block.low
    parts = []
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x = left + inner * tick
        label = block.low + span * tick
        parts.append(_line(x, top, x, bottom, _GRID))
        digits = 1 if span == 1 else 3
        parts.append(_text(x, bottom + 16, f"{label:.{digits}f}", anchor="middle", colour=_SOFT))
    for index, row in enumerate(block.rows):
        y = top + row_height * (index + 0.5)
        colour = COLOURS[row.kind]
        low, value, high = (
            left + inner * _clip((v - block.low) / span) for v in (row.low, row.value, row.high)
        )
        weight = "600" if row.kind == "main" else "400"
        parts.append(_text(left - 12, y + 4, row.label, anchor="end", weight=weight))
        parts.append(_line(low, y, high, y, colour, 3))
        parts.append(f'<circle cx="{_n(value)}" cy="{_n(y)}" r="5" fill="{colour}"/>')
        parts.append(_text(width - right + 12, y + 4, f"{row.value:.3f}", weight=weight))
    return _svg(width, bottom + 24, parts, block.title)


def loss_chart(panel: LossPanel) -> str:
    """Return the curves of one objective."""
    width, height, left, top, right, bottom = 344, 200, 44, 12, 12, 26
    curves = [(curve.name, _thin(curve.points)) for curve in panel.curves]
    xs = [x for _, points in curves for x, _ in points]
    ys = [y for _, points in curves for _, y in points]
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    ticks = _ticks(panel.low, max(max(ys), panel.low + 1e-9))
    y_low, y_high = ticks[0], ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x_low) / (x_high - x_low) * (width - left - right),
            height - bottom - (y - y_low) / (y_high - y_low) * (height - top - bottom),
        )

    parts = []
    for tick in ticks:
        _, y = place(x_low, tick)
        parts.append(_line(left, y, width - right, y, _GRID))
        parts.append(_text(left - 6, y + 4, f"{tick:g}", anchor="end", colour=_SOFT))
    for x, anchor in ((x_low, "start"), (x_high, "end")):
        parts.append(
            _text(place(x, y_low)[0], height - 8, f"{x:,.0f}", anchor=anchor, colour=_SOFT)
        )
    middle = (left + width - right) / 2
    parts.append(_text(middle, height - 8, panel.x_label, anchor="middle", colour=_SOFT))
    for index, (name, points) in enumerate(curves):
        colour = _CURVE_COLOURS[index % len(_CURVE_COLOURS)]
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in (place(*point) for point in points))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        )
        if len(points) <= 40:
            for point in points:
                x, y = place(*point)
                parts.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="2.2" fill="{colour}"/>')
        if len(curves) > 1:
            y = top + 10 + 16 * index
            parts.append(_text(width - right - 6, y, name, anchor="end", colour=colour))
    return _svg(width, height, parts, f"Loss of {panel.title}")


def calibration_chart(block: CalibrationPlot) -> str:
    """Return share correct over mean probability, dots sized by the number of candidates."""
    size, left, top, right = 360, 48, 12, 16
    inner = size - left - right

    def place(x: float, y: float) -> tuple[float, float]:
        return left + _clip(x) * inner, top + (1 - _clip(y)) * inner

    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(tick, tick)
        parts.append(_line(left, y, left + inner, y, _GRID))
        parts.append(_line(x, top, x, top + inner, _GRID))
        parts.append(_text(left - 6, y + 4, f"{tick:g}", anchor="end", colour=_SOFT))
        parts.append(_text(x, top + inner + 16, f"{tick:g}", anchor="middle", colour=_SOFT))
    parts.append(_line(*place(0, 0), *place(1, 1), _SOFT, dashed=True))
    if block.threshold is not None:
        x, _ = place(block.threshold, 0)
        parts.append(_line(x, top, x, top + inner, "#c2410c", 1.5))
        side = "end" if block.threshold > 0.7 else "start"
        shift = -5 if side == "end" else 5
        parts.append(_text(x + shift, top + 14, "threshold", anchor=side, colour="#c2410c"))
    largest = max((point.n for point in block.points), default=1)
    centres = [place(point.confidence, point.accuracy) for point in block.points]
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in centres)
    colour = COLOURS["trained"]
    parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    for point, (x, y) in zip(block.points, centres, strict=True):
        radius = 3 + 4 * math.sqrt(point.n / largest)
        parts.append(
            f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{colour}" '
            f'fill-opacity="0.75"><title>{point.n:,} candidates: mean probability '
            f"{point.confidence:.3f}, correct {point.accuracy:.3f}</title></circle>"
        )
    middle = left + inner / 2
    parts.append(_text(middle, top + inner + 34, "probability", anchor="middle", colour=_SOFT))
    parts.append(
        f'<text x="12" y="{_n(top + inner / 2)}" text-anchor="middle" fill="{_SOFT}" '
        f'transform="rotate(-90 12 {_n(top + inner / 2)})">share correct</text>'
    )
    return _svg(size, top + inner + 44, parts, "Calibration")


def sweep_chart(block: SweepPlot) -> str:
    """Return precision and recall over the threshold, the chosen one marked."""
    width, height, left, top, right, bottom = 520, 300, 48, 12, 84, 44
    inner_x, inner_y = width - left - right, height - top - bottom

    def place(x: float, y: float) -> tuple[float, float]:
        return left + _clip(x) * inner_x, top + (1 - _clip(y)) * inner_y

    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(tick, tick)
        parts.append(_line(left, y, left + inner_x, y, _GRID))
        parts.append(_line(x, top, x, top + inner_y, _GRID))
        parts.append(_text(left - 6, y + 4, f"{tick:g}", anchor="end", colour=_SOFT))
        parts.append(_text(x, top + inner_y + 16, f"{tick:g}", anchor="middle", colour=_SOFT))
    ordered = sorted(block.points, key=lambda point: point.threshold)
    curves = (
        ("precision", [(p.threshold, p.precision) for p in ordered if p.precision is not None]),
        ("recall", [(p.threshold, p.recall) for p in ordered]),
    )
    for index, (name, points) in enumerate(curves):
        colour = _CURVE_COLOURS[index]
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in (place(*point) for point in points))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        )
        for point in ordered:
            value = point.precision if name == "precision" else point.recall
            if value is None:
                continue
            x, y = place(point.threshold, value)
            parts.append(
                f'<circle cx="{_n(x)}" cy="{_n(y)}" r="2.4" fill="{colour}"><title>threshold '
                f"{point.threshold:.3f}: {name} {value:.3f}, {point.n_accepted:,} accepted"
                "</title></circle>"
            )
        parts.append(_text(left + inner_x + 8, top + 12 + 16 * index, name, colour=colour))
    if block.chosen is not None:
        x, _ = place(block.chosen, 0)
        parts.append(_line(x, top, x, top + inner_y, "#0b6e4f", 1.5, dashed=True))
        parts.append(_text(left + inner_x + 8, top + 44, "chosen", colour="#0b6e4f"))
    middle = left + inner_x / 2
    parts.append(_text(middle, height - 8, "threshold", anchor="middle", colour=_SOFT))
    return _svg(width, height, parts, "Precision and recall by threshold, validation heads")


def _ticks(low: float, high: float) -> list[float]:
    """Four to six round values from low to at least high."""
    raw = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    n_steps = math.ceil((high - low) / step - 1e-9)
    return [low + step * index for index in range(n_steps + 1)]


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbours so that a long curve keeps at most a few hundred points."""
    size = math.ceil(len(points) / _MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (math.fsum(x for x, _ in group) / len(group), math.fsum(y for _, y in group) / len(group))
        for group in groups
    ]


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    colour: str,
    width: float = 1,
    *,
    dashed: bool = False,
) -> str:
    dash = ' stroke-dasharray="4 4"' if dashed else ""
    return (
        f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" '
        f'stroke="{colour}" stroke-width="{_n(width)}"{dash}/>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK, weight: str = "400"
) -> str:
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{html.escape(text)}</text>'
    )


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" role="img" '
        f'aria-label="{html.escape(title)}"><title>{html.escape(title)}</title>'
        + "".join(parts)
        + "</svg>"
    )
