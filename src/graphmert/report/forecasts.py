"""The comparison of next-vector models as a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphmert.report.blocks import (
    Block,
    Curve,
    IntervalRow,
    Intervals,
    LossCurves,
    LossPanel,
    Paragraph,
    Report,
    Section,
    SystemKind,
    Table,
)


def comparison_report(comparison: Mapping[str, Any]) -> Report:
    """Return the report of a comparison.json; equal comparisons give equal reports."""
    chosen = comparison["recommendation"]
    data = comparison["data"]
    facts = (
        ("Test windows", f"{comparison['n_windows']:,}"),
        ("Test documents", f"{comparison['n_documents']:,}"),
        ("Dimensions", str(data["dim"])),
        ("Recommended", str(chosen["system"] or "none")),
    )
    sections = [Section("Recommendation", (Paragraph(chosen["reason"]),))]
    sections += [_size_section(one, chosen) for one in comparison["sizes"]]
    if comparison["growth"]["steps"]:
        sections.append(_growth_section(comparison))
    curves = _curves(comparison)
    if curves:
        sections.append(Section("Training", curves))
    sections.append(_method(comparison))
    return Report(
        title="Next-vector models compared",
        lead=f"All systems predict the same {comparison['n_windows']:,} vectors of "
        f"{comparison['n_documents']:,} documents that none of them was trained on. The score is "
        "the cosine of prediction and truth; intervals resample documents.",
        facts=facts,
        sections=tuple(sections),
    )


def _size_section(one: Mapping[str, Any], chosen: Mapping[str, Any]) -> Section:
    rows: Sequence[Mapping[str, Any]] = one["systems"]
    baseline = one["best_baseline"]
    gain = f"gain over {baseline}" if baseline else "gain"
    strong = frozenset(
        index
        for index, row in enumerate(rows)
        if row["system"] == chosen["system"] and row["size"] == chosen["size"]
    )
    blocks: list[Block] = [
        _chart(rows, chosen),
        Table(
            columns=("system", "rank", "test cosine", gain, "seeds", "best epoch", "parameters"),
            rows=tuple(_ranking_row(row) for row in rows),
            strong=strong,
            note=_unranked_note(rows),
        ),
        Table(
            columns=("system", "R@1", "R@5", "R@10", "MRR", "R@1 in document", "R@10 in document",
                     "MRR in document"),
            rows=(*(_retrieval_row(row) for row in rows), _chance_row(rows[0])),
            note="Retrieval of the true next vector among all test vectors and among those of its "
            "document, the context left out; ties count half.",
        ),
        Table(
            columns=("system", "valid cosine", "shuffled", "reversed"),
            rows=tuple(
                (row["system"], f"{row['valid_cosine']['value']:.4f}",
                 f"{row['order_change']['shuffled']:+.4f}",
                 f"{row['order_change']['reversed']:+.4f}")
                for row in rows
            ),
            note="The cosine on validation windows, and the change on test windows when the "
            "context is shuffled or reversed: 0 means that order is not used.",
        ),
    ]  # fmt: skip
    latency = [row for row in rows if row["latency"]]
    if latency:
        blocks.append(_latency_table(latency))
    return Section(f"{one['size']:,} training vectors", tuple(blocks))


def _kind(row: Mapping[str, Any], chosen: Mapping[str, Any]) -> SystemKind:
    if row["system"] == chosen["system"] and row["size"] == chosen["size"]:
        return "main"
    return "trained" if row["trained"] else "untrained"


def _chart(rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> Intervals:
    lows = [row["cosine"]["low"] for row in rows]
    highs = [row["cosine"]["high"] for row in rows]
    low = int(20 * min(lows)) / 20 if min(lows) > 0 else -1.0
    high = min(1.0, (int(20 * max(highs)) + 1) / 20)
    return Intervals(
        title="Cosine on test windows",
        rows=tuple(
            IntervalRow(
                row["system"] + (" (unranked)" if row["unranked"] else ""),
                row["cosine"]["value"],
                row["cosine"]["low"],
                row["cosine"]["high"],
                _kind(row, chosen),
            )
            for row in rows
        ),
        low=low,
        high=high,
        main="recommended",
    )


def _ranking_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    epochs = [str(one) for one in row["best_epoch"] if one is not None]
    return (
        row["system"],
        "unranked" if row["unranked"] else str(row["rank"]),
        _interval(row["cosine"]),
        _interval(row["gain"], sign=True) if row["gain"] else "-",
        str(row["n_seeds"]) if row["n_seeds"] else "-",
        ", ".join(epochs) or "-",
        f"{row['n_parameters']:,}",
    )


def _unranked_note(rows: Sequence[Mapping[str, Any]]) -> str:
    notes = [
        f"{row['system']} is not ranked: {row['unranked']}." for row in rows if row["unranked"]
    ]
    return " ".join(notes)


def _retrieval_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    whole, own = row["retrieval"]["global"], row["retrieval"]["document"]
    return (
        row["system"],
        *(f"{whole[name]:.4f}" for name in ("r@1", "r@5", "r@10", "mrr")),
        *(f"{own[name]:.4f}" for name in ("r@1", "r@10", "mrr")),
    )


def _chance_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    whole, own = (row["retrieval"][scope]["chance"] for scope in ("global", "document"))
    return (
        "chance",
        *(f"{whole[name]:.4f}" for name in ("r@1", "r@5", "r@10", "mrr")),
        *(f"{own[name]:.4f}" for name in ("r@1", "r@10", "mrr")),
    )


def _latency_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    sizes = [one["batch_size"] for one in rows[0]["latency"]]
    return Table(
        columns=("system", *(f"batch {size}, p50 / p95 / p99 ms" for size in sizes)),
        rows=tuple(
            (
                row["system"],
                *(
                    f"{one['p50_ms']:.2f} / {one['p95_ms']:.2f} / {one['p99_ms']:.2f}"
                    for one in row["latency"]
                ),
            )
            for row in rows
        ),
        note="Time of one prediction, warm, on the machine where the runs were evaluated.",
    )


def _growth_section(comparison: Mapping[str, Any]) -> Section:
    blocks: list[Block] = []
    for step in comparison["growth"]["steps"]:
        rows = [
            (
                one["system"],
                _interval(one["change"], sign=True),
                "-" if one["percent"] is None else f"{one['percent']:+.2f} %",
                "yes" if one["ranked"] else "no",
            )
            for one in step["systems"]
        ]
        average = step["average"]
        note = ""
        if average["n_systems"]:
            note = (
                f"Average over {average['n_systems']} ranked trained systems: "
                f"{average['change']:+.4f}, {average['percent']:+.2f} %."
            )
        blocks.append(Paragraph(f"From {step['from']:,} to {step['to']:,} training vectors:"))
        columns = ("system", "change of test cosine", "relative", "ranked")
        blocks.append(Table(columns, tuple(rows), note=note))
    blocks.insert(0, _growth_panel(comparison))
    return Section("More training data", tuple(blocks))


def _growth_panel(comparison: Mapping[str, Any]) -> LossCurves:
    points: dict[str, list[tuple[float, float]]] = {}
    for one in comparison["sizes"]:
        for row in one["systems"]:
            if row["trained"] or row["system"] == one["best_baseline"]:
                points.setdefault(row["system"], []).append(
                    (float(one["size"]), row["cosine"]["value"])
                )
    curves = [Curve(name, tuple(one)) for name, one in sorted(points.items()) if len(one) > 1]
    panels = tuple(_panel(curve.name, (curve,), "training vectors") for curve in curves)
    return LossCurves(panels)


def _curves(comparison: Mapping[str, Any]) -> tuple[Block, ...]:
    panels = []
    for one in comparison["sizes"]:
        for row in one["systems"]:
            curves = tuple(
                Curve(
                    f"seed {curve['seed']}", tuple((float(x), float(y)) for x, y in curve["points"])
                )
                for curve in row["curves"]
            )
            if curves:
                title = f"{row['system']}, {row['size']:,} vectors"
                panels.append(_panel(title, curves, "epochs"))
    if not panels:
        return ()
    return (Paragraph("Validation cosine by epoch."), LossCurves(tuple(panels)))


def _panel(title: str, curves: tuple[Curve, ...], x_label: str) -> LossPanel:
    least = min(y for curve in curves for _, y in curve.points)
    return LossPanel(title, curves, x_label=x_label, low=max(0.0, int(20 * least) / 20))


def _method(comparison: Mapping[str, Any]) -> Section:
    return Section(
        "How it was measured",
        (
            Paragraph(
                "Documents, not windows, are split, so that no test vector lies in a training "
                "context. Scores of several seeds are averaged window by window before intervals "
                "are taken; an interval is the middle 95 % of 1,000 resamples of documents and "
                "says nothing about other corpora. Gains and changes are paired on windows. The "
                "best baseline and the recommendation are chosen on validation windows. Trained "
                f"systems with fewer than {comparison['min_seeds']} seeds are not ranked."
            ),
            Paragraph(f"Test fingerprint: {comparison['fingerprint']}."),
        ),
    )


def _interval(value: Mapping[str, float], *, sign: bool = False) -> str:
    form = "+.4f" if sign else ".4f"
    return f"{value['value']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"
