"""From the files of a run to the sections of its report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from graphmert.report.blocks import (
    Block,
    CalibrationPlot,
    CalibrationPoint,
    Code,
    Curve,
    Funnel,
    IntervalRow,
    Intervals,
    LossCurves,
    LossPanel,
    Paragraph,
    Reason,
    Report,
    Samples,
    Section,
    Stage,
    SweepPlot,
    SweepPoint,
    SystemKind,
    Table,
)
from graphmert.report.completion import completion_facts, completion_lead, completion_sections
from graphmert.report.graph import graph_blocks, judged_blocks
from graphmert.report.samples import best_samples, drawn_samples
from graphmert.report.source import RunFiles, read_checked

N_BEST = 16
N_DRAWN = 16
DASH = "–"
_HITS = ("hits@1", "hits@3", "hits@10")
_NOT_YET = "This run holds no {}: the stage that writes it has not run."


def build_report(files: RunFiles) -> Report:
    """Return the whole report of a run.

    Raises:
        FormatError: a run file has another shape than documented.
    """
    if files.metrics.get("completion"):
        return _completion_report(files)
    sections = [
        Section("Funnel", _funnel_blocks(files)),
        Section("Link prediction", _metric_blocks(files)),
        Section("By relation", _relation_blocks(files)),
        Section("By tail length and head", _group_blocks(files)),
        Section("Calibration", _calibration_blocks(files)),
        Section("Thresholds", sweep_blocks(files.metrics)),
        Section("Extracted graph", _extraction_blocks(files)),
        Section("The graph itself", _graph_blocks(files)),
        Section("Sample triples", _sample_blocks(files)),
        Section("Training", _training_blocks(files)),
        Section("Configuration", _configuration_blocks(files)),
    ]
    return Report(
        title="graphmert report",
        lead=_lead(files),
        facts=_facts(files),
        sections=tuple(section for section in sections if section.blocks),
    )


def _completion_report(files: RunFiles) -> Report:
    """The report of a run that completed a graph."""
    section = files.metrics["completion"]

    def build() -> Report:
        return Report(
            title="graphmert report",
            lead=completion_lead(section),
            facts=completion_facts(section),
            sections=(
                *completion_sections(section),
                Section("Funnel", _funnel_blocks(files)),
                Section("Training", _training_blocks(files)),
                Section("Configuration", _configuration_blocks(files)),
            ),
        )

    return read_checked("metrics.json", build)


# --- systems ---------------------------------------------------------------------------------


def main_system(metrics: Mapping[str, Any]) -> str | None:
    """Return the system the run is about: named, else compared first, else the best trained."""
    section = metrics.get("test") or metrics.get("valid")
    if not section or not section["systems"]:
        return None
    if metrics.get("system") in section["systems"]:
        return metrics["system"]
    if section.get("differences"):
        return section["differences"][0]["a"]
    trained = [name for name, entry in section["systems"].items() if entry["trained"]]
    return max(
        trained or section["systems"],
        key=lambda name: (section["systems"][name]["mrr_macro"]["value"], name),
    )


def ordered_systems(metrics: Mapping[str, Any], split: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the systems of a split, the run's own first, then by macro MRR."""
    main = main_system(metrics)
    systems = metrics[split]["systems"]
    order = sorted(
        systems, key=lambda name: (name != main, -systems[name]["mrr_macro"]["value"], name)
    )
    return [(name, systems[name]) for name in order]


def best_untrained(metrics: Mapping[str, Any], split: str) -> tuple[str, Mapping[str, Any]] | None:
    """Return the untrained baseline with the highest macro MRR."""
    rows = [(n, entry) for n, entry in ordered_systems(metrics, split) if not entry["trained"]]
    return max(rows, key=lambda row: row[1]["mrr_macro"]["value"]) if rows else None


def label(name: str) -> str:
    """Return a system's or a measure's name in words."""
    return name.removeprefix("n_").replace("_", " ")


def number(value: Any) -> str:
    """Return a number for a table: counts with commas, shares with three decimals."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


def interval(entry: Mapping[str, Any], *, signed: bool = False) -> str:
    """Return "value [low, high]"."""
    form = "+.3f" if signed else ".3f"
    return f"{entry['value']:{form}} [{entry['low']:{form}}, {entry['high']:{form}}]"


def _kind(name: str, entry: Mapping[str, Any], main: str | None) -> SystemKind:
    if name == main:
        return "main"
    return "trained" if entry["trained"] else "untrained"


# --- sections --------------------------------------------------------------------------------


def _lead(files: RunFiles) -> str:
    def build() -> str:
        main = main_system(files.metrics)
        if main is None or "test" not in files.metrics:
            return "What this run was offered, kept and left out, and how well it did."
        section = files.metrics["test"]
        score = section["systems"][main]["mrr_macro"]
        text = (
            f"On {section['n_triples']:,} held-out triples of {section['n_heads']:,} heads, "
            f"ranked among {section['n_entities']:,} entities, {label(main)} reaches a macro MRR "
            f"of {interval(score)}"
        )
        floor = best_untrained(files.metrics, "test")
        if floor is not None and floor[0] != main:
            text += (
                f"; the best untrained baseline, {label(floor[0])}, reaches "
                f"{interval(floor[1]['mrr_macro'])}"
            )
        return text + "."

    return read_checked("metrics.json", build)


def _facts(files: RunFiles) -> tuple[tuple[str, str], ...]:
    def build() -> tuple[tuple[str, str], ...]:
        facts = []
        main = main_system(files.metrics)
        if main is not None and "test" in files.metrics:
            score = files.metrics["test"]["systems"][main]["mrr_macro"]["value"]
            facts.append(("test MRR, macro", number(score)))
            floor = best_untrained(files.metrics, "test")
            if floor is not None:
                facts.append(("best untrained", number(floor[1]["mrr_macro"]["value"])))
        if files.triples is not None:
            facts.append(("triples accepted", number(len(files.triples))))
            n_novel = sum(files.triples["novel"].to_pylist())
            facts.append(("of them novel", number(n_novel)))
        if files.evidence is not None:
            facts.append(("pieces of evidence", number(len(files.evidence))))
        if files.n_documents is not None:
            facts.append(("documents", number(files.n_documents)))
        return tuple(facts)

    return read_checked("metrics.json", build)


def funnel_stages(files: RunFiles) -> tuple[Stage, ...]:
    """Return the stages of ledger.json."""

    def build() -> tuple[Stage, ...]:
        return tuple(
            Stage(
                name=stage["stage"],
                n_offered=stage["offered"],
                n_kept=stage["kept"],
                reasons=tuple(
                    Reason(reason, n, tuple(stage.get("examples", {}).get(reason, ())))
                    for reason, n in sorted(
                        stage["left_out"].items(), key=lambda item: (-item[1], item[0])
                    )
                ),
            )
            for stage in files.stages
        )

    return read_checked("ledger.json", build)


def _funnel_blocks(files: RunFiles) -> tuple[Block, ...]:
    stages = funnel_stages(files)
    if not stages:
        return (Paragraph(_NOT_YET.format("ledger")),)
    text = "Every stage keeps or leaves out all that it is offered: kept + left out = offered."
    return (Paragraph(text), Funnel(stages))


def metric_table(metrics: Mapping[str, Any], split: str) -> Table:
    """Return MRR with intervals and hits of every system on a split."""
    main = main_system(metrics)
    rows = ordered_systems(metrics, split)
    return Table(
        columns=("system", "kind", "MRR, macro", "MRR, micro", "Hits@1", "Hits@3", "Hits@10"),
        rows=tuple(
            (
                label(name),
                "trained" if entry["trained"] else "untrained",
                interval(entry["mrr_macro"]),
                interval(entry["mrr_micro"]),
                *(number(entry[hit]["value"]) for hit in _HITS),
            )
            for name, entry in rows
        ),
        n_text=2,
        strong=frozenset(index for index, (name, _) in enumerate(rows) if name == main),
        note="Filtered ranks among all entities, realistic ties. Macro: mean over relations. "
        "Hits are over triples. Brackets: 95 % bootstrap interval, heads resampled.",
    )


def _metric_blocks(files: RunFiles) -> tuple[Block, ...]:
    metrics = files.metrics
    if not metrics.get("test") and not metrics.get("valid"):
        return (Paragraph(_NOT_YET.format("metrics")),)

    def build() -> tuple[Block, ...]:
        blocks: list[Block] = []
        for split, words in (("test", "Test"), ("valid", "Validation")):
            if not metrics.get(split):
                continue
            section = metrics[split]
            blocks.append(
                Paragraph(
                    f"{words}: {section['n_triples']:,} triples of {section['n_heads']:,} heads, "
                    f"{section['n_entities']:,} entities."
                    + (" All choices were made here." if split == "valid" else "")
                )
            )
            if split == "test":
                blocks.append(_intervals(metrics))
            blocks.append(metric_table(metrics, split))
            if section.get("differences"):
                blocks.append(_difference_table(section["differences"]))
        return tuple(blocks)

    return read_checked("metrics.json", build)


def _intervals(metrics: Mapping[str, Any]) -> Intervals:
    main = main_system(metrics)
    rows = tuple(
        IntervalRow(label(name), **entry["mrr_macro"], kind=_kind(name, entry, main))
        for name, entry in ordered_systems(metrics, "test")
    )
    return Intervals("Macro MRR on test heads", rows)


def _difference_table(differences: Sequence[Mapping[str, Any]]) -> Table:
    pairs: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in differences:
        pairs.setdefault((row["a"], row["b"]), {})[row["statistic"]] = row
    rows = []
    for (a, b), measures in pairs.items():
        first = measures.get("mrr_macro") or next(iter(measures.values()))
        verdict = "above" if first["low"] > 0 else "below" if first["high"] < 0 else "level"
        cells = (
            interval(measures[statistic], signed=True) if statistic in measures else DASH
            for statistic in ("mrr_macro", "mrr_micro")
        )
        rows.append((f"{label(a)} − {label(b)}", verdict, *cells))
    return Table(
        columns=("difference", "verdict", "MRR, macro", "MRR, micro"),
        rows=tuple(rows),
        n_text=2,
        note="Paired on the same triples, heads resampled. Level: the interval of the macro MRR "
        "holds zero.",
    )


def _relation_blocks(files: RunFiles) -> tuple[Block, ...]:
    if not files.metrics.get("test"):
        return ()

    def build() -> tuple[Block, ...]:
        systems = ordered_systems(files.metrics, "test")
        relations = list(systems[0][1]["per_relation"])
        counts = {r: systems[0][1]["per_relation"][r]["n"] for r in relations}
        relations.sort(key=lambda relation: (-counts[relation], relation))
        table = Table(
            columns=("MRR", *(f"{r} ({counts[r]:,})" for r in relations)),
            rows=tuple(
                (label(name), *(number(entry["per_relation"][r]["mrr"]) for r in relations))
                for name, entry in systems
            ),
            strong=frozenset({0}),
            note="In brackets: number of test triples.",
        )
        return (table,)

    return read_checked("metrics.json", build)


def _group_blocks(files: RunFiles) -> tuple[Block, ...]:
    if not files.metrics.get("test"):
        return ()

    def build() -> tuple[Block, ...]:
        systems = ordered_systems(files.metrics, "test")
        groups = {
            f"{bucket} token{'s' if bucket != '1' else ''}": ("per_tail_length", bucket)
            for bucket in systems[0][1]["per_tail_length"]
        }
        rows = []
        for name, entry in systems:
            cells = [entry[group][bucket] for group, bucket in groups.values()]
            cells += [entry["unseen_heads"], entry["heads_seen_as_tails"]]
            rows.append((cells, (label(name), *(number(cell["mrr"]) for cell in cells))))
        counts = [f"({cell['n']:,})" for cell in rows[0][0]]
        names = [*groups, "heads in no training triple", "heads seen as tails"]
        table = Table(
            columns=("MRR, micro", *(f"{n} {c}" for n, c in zip(names, counts, strict=True))),
            rows=tuple(row for _, row in rows),
            strong=frozenset({0}),
            note="Length of the true tail's name in tokens; in brackets: number of test triples. "
            "No test head is the head of a training triple; some are tails of one.",
        )
        return (table,)

    return read_checked("metrics.json", build)


def _calibration_blocks(files: RunFiles) -> tuple[Block, ...]:
    data = files.metrics.get("calibration")
    if not data:
        return ()

    def build() -> tuple[Block, ...]:
        points = tuple(
            CalibrationPoint(item["confidence"], item["accuracy"], item["n"])
            for item in data["bins"]
        )
        text = (
            f"Fitted on {data.get('fitted_on', 'valid')} candidates and measured on "
            f"{data.get('measured_on', 'test')} candidates, in {len(points)} bins of equal size: "
            f"expected calibration error {data['ece']:.3f}."
        )
        if counted := (files.metrics.get("extraction") or {}).get("measured_on"):
            unseen = counted["test"]
            text += (
                f" Counted are {unseen['n_places']:,} places of {unseen['n_heads']:,} test heads, "
                f"in {unseen['n_documents']:,} documents that trained nothing; other places of "
                f"test heads, {unseen['n_places_in_training_documents']:,}, are asked, not counted."
            )
        if data.get("target_reached") is False:
            text += " The wanted precision is reached at no threshold."
        names = ("threshold", "precision", "recall", "f1", "n_accepted", "n_true")
        known = [name for name in names if name in data]
        numbers = Table(
            columns=tuple(label(name) for name in known),
            rows=(tuple(number(data[name]) for name in known),),
            n_text=0,
        )
        return (Paragraph(text), CalibrationPlot(points, data.get("threshold")), numbers)

    return read_checked("metrics.json", build)


def sweep_blocks(metrics: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return what other thresholds, and other values of beta, would give on validation heads."""
    points = metrics.get("sweep")
    if not points:
        return ()

    def build() -> tuple[Block, ...]:
        names = ("threshold", "precision", "recall", "n_accepted")
        plot = SweepPlot(
            tuple(SweepPoint(**{name: point[name] for name in names}) for point in points),
            metrics["rule"]["threshold"],
        )
        text = "Candidates of validation heads accepted from each threshold on."
        blocks: list[Block] = [Paragraph(text), plot]
        if rows := metrics.get("beta_sweep"):
            blocks.append(_beta_table(rows, metrics["rule"].get("beta")))
        return tuple(blocks)

    return read_checked("metrics.json", build)


def _beta_table(rows: Sequence[Mapping[str, Any]], chosen: float | None) -> Table:
    shares = [
        (
            f"{row['beta']:.2f}",
            number(row["n_candidates"]),
            number(row["n_correct"]),
            number(row["n_correct"] / row["n_candidates"]) if row["n_candidates"] else DASH,
        )
        for row in rows
    ]
    return Table(
        columns=("beta", "candidates left", "correct among them", "share correct"),
        rows=tuple(shares),
        n_text=0,
        strong=frozenset(place for place, row in enumerate(rows) if row["beta"] == chosen),
        note="Candidates of validation heads, whatever their score.",
    )


def _extraction_blocks(files: RunFiles) -> tuple[Block, ...]:
    blocks: list[Block] = []
    extraction = files.metrics.get("extraction") or {}
    choice = dict(extraction.get("relation_choice") or {})
    by_relation = choice.pop("by_relation", None)
    shown = {**extraction, "relation_choice": choice} if choice else extraction
    rows = [(label(name), number(value)) for name, value in _flatten(shown)]
    if rows:
        blocks.append(Table(columns=("measure", "value"), rows=tuple(rows)))
    if by_relation:
        blocks.append(_choice_table(by_relation))
    if files.triples is not None and len(files.triples):
        counts: dict[str, list[int]] = {}
        table = files.triples.select(["relation", "novel"]).to_pylist()
        for row in table:
            pair = counts.setdefault(row["relation"], [0, 0])
            pair[0] += 1
            pair[1] += bool(row["novel"])
        relations = sorted(counts, key=lambda relation: (-counts[relation][0], relation))
        blocks.append(
            Table(
                columns=("relation", "accepted", "novel"),
                rows=tuple((r, *(number(n) for n in counts[r])) for r in relations),
                note="Novel: not in the closure of the training triples.",
            )
        )
    if files.rejected is not None and len(files.rejected):
        blocks.append(_rejected_table(files))
    return tuple(blocks)


def _choice_table(by_relation: Mapping[str, Mapping[str, Any]]) -> Table:
    names = ("n_true", "n_heads", "share", "average_precision")
    return Table(
        columns=("relation chosen", "heads that have it", "heads", "share", "average precision"),
        rows=tuple(
            (relation, *(number(own[name]) for name in names))
            for relation, own in sorted(by_relation.items())
        ),
        note="Test heads in order of the relation's log p; by chance the average precision is "
        "about the share.",
    )


def _graph_blocks(files: RunFiles) -> tuple[Block, ...]:
    measures, judged = (files.metrics.get(name) or {} for name in ("graph", "judged"))
    return read_checked("metrics.json", lambda: (*graph_blocks(measures), *judged_blocks(judged)))


def _rejected_table(files: RunFiles) -> Table:
    assert files.rejected is not None
    reasons: dict[str, list[str]] = {}
    for row in files.rejected.to_pylist():
        reasons.setdefault(row["reason"], []).append(str(row["candidate"]))
    order = sorted(reasons, key=lambda reason: (-len(reasons[reason]), reason))
    return Table(
        columns=("rejected because", "for example", "candidates"),
        rows=tuple((r, reasons[r][0], number(len(reasons[r]))) for r in order),
        n_text=2,
    )


def _sample_blocks(files: RunFiles) -> tuple[Block, ...]:
    best = best_samples(files, N_BEST)
    if not best:
        return ()
    return (
        Paragraph(
            "Each with one sentence of its evidence. Novel: not in the closure of the training "
            "triples. Held-out truth: one of the triples kept back. Inferred: the tail is not in "
            "the text."
        ),
        Samples("Highest scores, novel first, relations in turn, one per head", best),
        Samples("A fair draw: the first triples by their hash", drawn_samples(files, N_DRAWN)),
    )


def _training_blocks(files: RunFiles) -> tuple[Block, ...]:
    if not files.training:
        return ()

    def build() -> tuple[Block, ...]:
        curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for line in files.training:
            for objective, kind, value in _losses(line):
                lines = curves.setdefault(objective, {})
                lines.setdefault(kind, []).append((line["step"], value))
        order = sorted(curves, key=lambda name: (name != "loss", name))
        panels = tuple(
            LossPanel(
                title="all objectives" if name == "loss" else name,
                curves=tuple(Curve(kind, tuple(points)) for kind, points in curves[name].items()),
            )
            for name in order
        )
        n_updates = max(line["step"] for line in files.training)
        return (Paragraph(f"Loss over {n_updates:,} updates."), LossCurves(panels))

    return read_checked("model/training.jsonl", build)


def _losses(line: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """(objective, training or validation, loss) of one line of training.jsonl."""
    found = []
    if isinstance(line.get("loss"), int | float):
        found.append(("loss", "training", float(line["loss"])))
    for objective, value in (line.get("losses") or {}).items():
        found.append((objective, "training", float(value)))
    for name, value in (line.get("metrics") or {}).items():
        if name == "valid_loss":
            found.append(("loss", "validation", float(value)))
        elif name.startswith("valid_loss/"):
            found.append((name.removeprefix("valid_loss/"), "validation", float(value)))
    return found


def _configuration_blocks(files: RunFiles) -> tuple[Block, ...]:
    manifest = files.manifest
    if not manifest:
        return (Paragraph(_NOT_YET.format("manifest")),)
    blocks: list[Block] = [
        Paragraph("Times, memory and hardware are in timings.json; nothing here depends on them.")
    ]
    facts = {key: manifest[key] for key in ("config_hash", "seed") if key in manifest}
    rows = [(label(key), str(value)) for key, value in facts.items()]
    for part in ("versions", "inputs"):
        rows += [(f"{part}: {k}", str(v)) for k, v in _flatten(manifest.get(part) or {})]
    if rows:
        blocks.append(Table(columns=("what", "value"), rows=tuple(rows), n_text=2))
    config = manifest.get("config") or {}
    if config:
        lines = [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in _flatten(config)]
        blocks.append(Code("\n".join(lines)))
    return tuple(blocks)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and leaf values, in order."""
    flat: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat += _flatten(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", value))
    return flat
