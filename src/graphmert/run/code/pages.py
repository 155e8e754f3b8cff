"""Pages made from a run's files: the report, the model card, and how to use the model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphmert.presets import PRESETS
from graphmert.run.code.settings import CodeRunConfig
from graphmert.shards import atomic_write_text


def write_pages(config: CodeRunConfig, run_dir: Path) -> list[Path]:
    """Write report.md, model_card.md and deployment.md from manifest, metrics and timings."""
    manifest = _read(run_dir / "manifest.json")
    timings = _read(run_dir / "timings.json")
    metrics = _read(run_dir / "metrics.json")
    shape = _read(run_dir / "model" / "config.json")
    texts = {
        "report.md": report(metrics, manifest),
        "model_card.md": model_card(config, manifest, metrics, shape),
        "deployment.md": deployment(config, timings, shape),
    }
    paths = []
    for name, text in texts.items():
        atomic_write_text(run_dir / name, text)
        paths.append(run_dir / name)
    return paths


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "pass" if value else "fail"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def compliance(metrics: Mapping[str, Any]) -> str:
    """The table of targets."""
    columns = ("measure", "target", "measured", "", "best other system", "its value")
    rows = []
    for r in metrics.get("compliance", []):
        said = r["reason"] if r["passes"] is None else r["passes"]
        best = (r["other"] or "none", r["best_other"])
        rows.append((r["measure"], r["target"], r["value"], said, *best))
    return table(columns, rows)


def report(metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """Every measure beside its baselines."""
    parts = ["# Code encoder: what was measured", ""]
    if not metrics:
        return "\n".join([*parts, "Nothing is measured yet.", ""])
    packages = ", ".join(metrics["packages"])
    parts += [f"Packages measured ({metrics['part']}): {packages}. None of them was trained on."]
    parts += ["", "## Targets of the source system", "", compliance(metrics), ""]
    links = metrics.get("links") or {}
    for title, section in (
        ("Link prediction", links),
        ("Link prediction without relations that names give away", links.get("without_structure")),
    ):
        if section and section.get("systems"):
            parts += [f"## {title}", "", _links(section), ""]
    if chosen := links.get("embeddings"):
        names = ("width", "learning_rate", "best_epoch", "epochs", "valid_mrr")
        rows = [(form, *(one[name] for name in names)) for form, one in chosen.items()]
        head = ("form", "width", "learning rate", "best epoch", "epochs", "validation MRR")
        parts += ["## Graph embeddings, as validation packages chose them", "", table(head, rows)]
        parts += [""]
    for title, key, columns in (
        ("Call-target disambiguation", "disambiguation", ("accuracy",)),
        ("Call graph", "call_graph", ("precision", "recall", "f1")),
        ("Dependencies", "dependencies", ("precision", "recall", "f1")),
        ("Code search", "search", ("mrr@10", "mrr", "hits@1")),
    ):
        section = metrics.get(key) or {}
        if section.get("systems"):
            counts = ", ".join(f"{k} {v}" for k, v in section.items() if k.startswith("n_"))
            rows = [(n, *(one[c] for c in columns)) for n, one in section["systems"].items()]
            parts += [f"## {title}", "", table(("system", *columns), rows), "", f"{counts}.", ""]
    parts += ["## Masked tokens, tails and relations", "", _masked(metrics["masked"]), ""]
    if violations := metrics.get("violations"):
        rows = [(name, value) for name, value in violations.items()]
        parts += ["## Constraints broken", "", table(("constraint", "share"), rows), ""]
    return "\n".join(parts)


def _links(section: Mapping[str, Any]) -> str:
    rows = []
    for name, one in section["systems"].items():
        mrr = one["mrr_micro"]
        interval = f"{mrr['value']:.3f} [{mrr['low']:.3f}, {mrr['high']:.3f}]"
        hits = [one[f"hits@{k}"]["value"] for k in (1, 10)]
        rows.append((name, interval, one["mrr_macro"]["value"], *hits))
    head = ("system", "MRR, micro", "MRR, macro", "Hits@1", "Hits@10")
    own = section["systems"]["graphmert"]["per_relation"]
    per = [(name, g["n"], g["mrr"], g["hits@10"]) for name, g in own.items()]
    return "\n".join(
        [
            table(head, rows),
            "",
            (
                f"{section['n_triples']} hidden triples of {section['n_heads']} heads among "
                f"{section['n_entities']} entities; 95 % bootstrap intervals by head."
            ),
            "",
            table(("relation", "triples", "MRR", "Hits@10"), per),
        ]
    )


def _masked(masked: Mapping[str, Any]) -> str:
    rows = [
        (objective, system, one["n"], one["accuracy"], one["cross_entropy"])
        for objective in ("mlm", "leaf", "relation")
        for system, one in masked.get(objective, {}).items()
        if one["n"]
    ]
    text = table(("objective", "system", "n", "accuracy", "cross-entropy"), rows)
    if (share := masked.get("share_of_best_count")) is not None:
        text += f"\n\nCross-entropy of relations over that of the best count: {share:.3f}."
    return text


def _trained(
    config: CodeRunConfig, trained: Mapping[str, Any], shape: Mapping[str, Any]
) -> list[str]:
    """The lines of a card on training."""
    return [
        "## Training",
        "",
        (
            f"{trained.get('n_updates')} updates of {config.train.batch_size} chains, objectives "
            f"{', '.join(shape.get('objectives', []))}; the best validation loss "
            f"{_cell(trained.get('best_valid_loss'))} at update {trained.get('best_update')}. "
            f"Seed {config.seed}."
        ),
        "",
    ]


def model_card(
    config: CodeRunConfig,
    manifest: Mapping[str, Any],
    metrics: Mapping[str, Any],
    shape: Mapping[str, Any],
) -> str:
    """What the model is, what it was made of, what it can and cannot do."""
    stages = manifest.get("stages", {})
    counts = stages.get("prepare", {}).get("counts", {})
    trained = stages.get("train", {}).get("counts", {})
    rows = [
        (part, c["samples"], c["functions"], c["roots"], c["triples"])
        for part, c in counts.items()
        if isinstance(c, Mapping)
    ]
    form = PRESETS[config.model.preset]
    features = [
        name
        for name in ("relation_bias", "graph_depth", "n_hops", "hgat", "decay", "leaf_visibility")
        if name in shape
    ]
    lines = [
        "# Model card",
        "",
        (
            f"Preset `{config.model.preset}`, {shape.get('n_layers')} layers of width "
            f"{shape.get('hidden_size')} (preset: {form['n_layers']} of {form['hidden_size']}), "
            f"{shape.get('vocab_size')} tokens, {shape.get('n_relations')} relations."
        ),
        "Start: " + (f"`{config.data.body}`." if config.data.body else "random weights."),
        "",
        table(("feature", "value"), [(name, str(shape[name])) for name in features]),
        "",
        "## Data",
        "",
        table(("part", "samples", "functions", "roots", "triples"), rows),
        "",
        (
            f"{counts.get('entities')} entities. Split by package; near-duplicates removed at a "
            f"Jaccard similarity of {config.split.near_duplicate}. Docstrings are no part of the "
            "code."
        ),
        "",
        *_trained(config, trained, shape),
        "## Results",
        "",
        compliance(metrics) if metrics else "Not measured yet.",
        "",
        "## Limits",
        "",
        (
            "Triples come from static analysis and carry its mistakes. Languages and kinds of "
            "packages that are not in the training data were not measured. Licences of the code "
            "trained on are in the index, in `meta` of `corpus/documents`."
        ),
        "",
    ]
    return "\n".join(lines)


def _searching(config: CodeRunConfig) -> list[str]:
    """The lines on code search: what holds for a run that was tuned for it, or was not."""
    if not config.tune.steps:
        return [
            (
                "No encoder was tuned for code search (`tune.steps = 0`), so this run does not "
                "serve `graphmert code search --model`. Set `tune.steps` and train again."
            ),
            "",
        ]
    return [
        "`search/` beside it holds the encoder tuned for code search and the vectors of all",
        "functions of the index:",
        "",
        "```",
        f"graphmert code search --model {config.out} 'words that describe a function'",
        "```",
        "",
    ]


OUTPUTS = {
    "mlm": "tokens of code",
    "leaf": "tokens of a tail",
    "relation": "the relation of a triple",
    "entity": "the tail of a triple among all entities",
}


def _answering(objectives: Sequence[str]) -> list[str]:
    """The lines on what the network can be asked, and what not."""
    known = [name for name in OUTPUTS if name in objectives]
    lines = [f"The network answers: {'; '.join(f'{OUTPUTS[n]} (`{n}`)' for n in known)}."]
    if "entity" not in objectives:
        lines.append(
            "It was trained without `entity` and ranks no entities: link prediction, "
            "disambiguation and call graphs cannot be asked of it."
        )
    return ["\n".join(lines), ""]


def deployment(config: CodeRunConfig, timings: Mapping[str, Any], shape: Mapping[str, Any]) -> str:
    """Files, commands, and what a forward pass costs here."""
    cost = timings.get("evaluate", {}).get("inference", {})
    rows = [(name.replace("_", " "), value) for name, value in cost.items()]
    hardware = timings.get("hardware", {})
    objectives = shape.get("objectives", [])
    lines = [
        "# Deployment",
        "",
        (
            "The folder `model/` is complete: weights (safetensors), `config.json`, "
            "`tokenizer.json`, `relations.json`. Nothing is fetched at run time."
        ),
        "",
        *_searching(config),
        "```python",
        "from graphmert import GraphMERT",
        "",
        f'model = GraphMERT.from_pretrained("{config.out}/model")',
        "```",
        "",
        *_answering(objectives),
        "## Cost",
        "",
        table(("", "value"), rows) if rows else "Not measured yet.",
        "",
        (
            f"Measured on {hardware.get('processor', 'unknown hardware')}. Chains have at most "
            f"{config.chains.max_roots} roots; memory grows with the square of the longest chain."
        ),
        "",
    ]
    return "\n".join(lines)
