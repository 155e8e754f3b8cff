"""What was measured of the extracted graph itself, as blocks of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphmert.report.blocks import Block, Paragraph, Table

DASH = "–"
_GRAPHS = {
    "seed": "seed, training triples",
    "extracted": "extracted",
    "both": "both",
    "commonest_tail": "baseline: commonest tail",
}


def graph_blocks(measures: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return the blocks on `metrics.json`, section graph; nothing where there is none."""
    if not measures:
        return ()
    blocks: list[Block] = [
        *_support(measures["support"]),
        *_queries(measures["queries"]),
        *_top_one(measures["top_one"]),
        *_questions(measures["graph_qa"]),
    ]
    if measures.get("frequency"):
        blocks += _frequency(measures["frequency"])
    return tuple(blocks)


def judged_blocks(judged: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return the table of what a judge said; nothing where there was none."""
    if not judged:
        return ()
    names = {
        "factscore": "FActScore*, the text alone",
        "factscore_truth": "FActScore*, the text or general truth",
        "validity": "ValidityScore",
    }
    rows = tuple(
        (
            names.get(measure, measure),
            entry["judge"],
            share(entry["score"]),
            _count(entry["n_judged"]),
            _count(entry["n_unjudged"]),
        )
        for measure, entry in judged.items()
    )
    columns = ("judged", "by", "score", "triples", "without a verdict")
    note = "Accepted triples drawn evenly. Brackets: 95 % Wilson interval. A judge errs too."
    return (Table(columns, rows, n_text=2, note=note),)


def share(entry: Mapping[str, float] | None) -> str:
    """Return "value [low, high]", or a dash of nothing."""
    if entry is None:
        return DASH
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def _count(value: int) -> str:
    return f"{value:,}"


def _support(entry: Mapping[str, Any]) -> Sequence[Block]:
    text = (
        f"SupportScore {share(entry['score'])}: {entry['n_supported']:,} of {entry['n']:,} "
        "accepted triples have a sentence that names head and tail, keep the schema and reach the "
        "threshold. It does not say that the sentence states the relation."
    )
    reasons = sorted(entry["unsupported"].items(), key=lambda item: (-item[1], item[0]))
    if not reasons:
        return (Paragraph(text),)
    rows = tuple((reason, _count(n)) for reason, n in reasons)
    return Paragraph(text), Table(("not supported because", "triples"), rows)


def _queries(entry: Mapping[str, Any]) -> Sequence[Block]:
    rows = tuple(
        (name, share(entry[key]), DASH if entry[macro] is None else f"{entry[macro]:.3f}")
        for name, key, macro in (
            ("precision", "precision", "precision_macro"),
            ("recall", "recall", "recall_macro"),
            ("F1", "f1", "f1_macro"),
        )
    )
    note = (
        f"{entry['n_queries']:,} queries (head, relation) with {entry['n_true']:,} held-out tails; "
        f"{entry['n_answered']:,} were answered, {entry['n_correct']:,} of "
        f"{entry['n_accepted']:,} accepted tails are held-out ones. "
        f"{entry['n_accepted_elsewhere']:,} triples were accepted where no tail is held out. "
        "Brackets: 95 % bootstrap interval, heads resampled. Macro: mean over queries."
    )
    return (Table(("accepted triples", "over triples", "over queries"), rows, note=note),)


def _top_one(entry: Mapping[str, Any]) -> Sequence[Block]:
    if not entry:
        return ()
    order = sorted(
        entry, key=lambda name: (name != "graphmert", -((entry[name]["f1"] or {}).get("value", 0)))
    )
    rows = tuple(
        (
            name.replace("_", " "),
            *(share(entry[name][one]) for one in ("precision", "recall", "f1")),
        )
        for name in order
    )
    note = (
        "The best tail of every query is accepted, whatever its score. Brackets: 95 % bootstrap "
        "interval, heads resampled."
    )
    columns = ("best tail of each query", "precision", "recall", "F1")
    return (Table(columns, rows, strong=frozenset({0}), note=note),)


def _questions(entry: Mapping[str, Any]) -> Sequence[Block]:
    asked = entry["n_questions"]
    if not any(asked.values()):
        return ()
    rows = []
    for key, name in _GRAPHS.items():
        hops = [entry["systems"][key][n] for n in ("1", "2")]
        cells = [
            cell for hop in hops for cell in (share(hop["accuracy"]), _count(hop["n_answered"]))
        ]
        rows.append((name, *cells))
    header = (
        "graph asked",
        f"1 hop ({asked['1']:,})",
        "answered",
        f"2 hops ({asked['2']:,})",
        "answered",
    )
    gain = entry["gain"]
    note = (
        "Questions in words from held-out triples that the seed does not answer by itself, "
        "answered by local search; exact match. Brackets: 95 % Wilson interval. "
        f"Both minus seed: {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]."
    )
    return (Table(header, tuple(rows), strong=frozenset({2}), note=note),)


def _frequency(entry: Mapping[str, Any]) -> Sequence[Block]:
    blocks: list[Block] = []
    for side in ("head", "tail"):
        rows = tuple(
            (
                band["band"],
                _count(band["n"]),
                *(f"{band[name]:.3f}" for name in ("mrr", "hits@1", "hits@10")),
                DASH if band["recall"] is None else f"{band['recall']:.3f}",
            )
            for band in entry[side]
        )
        columns = (f"{side} in training triples", "test triples", "MRR", "Hits@1", "Hits@10",
                   "accepted")  # fmt: skip
        slope = entry["tail_slope"]
        note = (
            f"Hits@10 changes by {slope:+.3f} for each doubling of a tail's triples."
            if side == "tail" and slope is not None
            else ""
        )
        blocks.append(Table(columns, rows, note=note))
    return blocks
