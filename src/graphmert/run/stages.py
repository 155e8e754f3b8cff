"""The five stages: prepare, train, extract, evaluate, report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors import SafetensorError

from graphmert.errors import CheckpointError
from graphmert.evaluate.graph_measures import graph_measures
from graphmert.evaluate.judged import judge_run
from graphmert.model import GraphMERT
from graphmert.progress import Progress
from graphmert.report import render_report
from graphmert.run.answers import Scorer
from graphmert.run.corpus_extraction import CorpusExtracted, extract_corpus
from graphmert.run.evaluation import check_baselines, evaluate_run, ranks_to_table, summarise
from graphmert.run.extraction import Extracted, Rule, choose_rule, extract_test
from graphmert.run.forming import form_test_tails
from graphmert.run.helping import help_extraction
from graphmert.run.manifest import StageOutput
from graphmert.run.prepared import Prepared
from graphmert.run.settings import RunConfig, open_embedder
from graphmert.run.training import train_run
from graphmert.shards import Ledger, atomic_write_json, sha256_file, write_table

KEPT = ("relation_choice",)  # of what is measured where held-out heads are defined
OPTIONAL_TABLES = ("kg/helper", "kg/novel_entities")
SWEEPS = ("sweep", "beta_sweep")
MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json", "relations.json")


def train_stage(
    config: RunConfig, run_dir: Path, fingerprint: str, progress: Progress
) -> StageOutput:
    """Train, going on from the last checkpoint of the same fingerprint."""
    prepared = load_prepared(config, run_dir)
    check_baselines(config, prepared)
    out = run_dir / "model"
    result = train_run(config, prepared, out, fingerprint=fingerprint, progress=progress)
    counts: dict[str, Any] = {
        "n_updates": result.n_steps,
        "stop_reason": result.stop_reason,
        "best_update": result.best_step,
        "best_valid_loss": result.best_value,
    }
    files = [out / name for name in (*MODEL_FILES, "training.jsonl")]
    return StageOutput(files, counts, timings=result.timings)


def load_prepared(config: RunConfig, run_dir: Path) -> Prepared:
    """Read what the prepare stage wrote."""
    return Prepared.load(run_dir, max_tail_tokens=config.text.max_tail_tokens)


def load_model(path: Path) -> GraphMERT:
    """Read a trained model.

    Raises:
        CheckpointError: the folder does not hold a model that can be read.
    """
    fix = "Train again, or give another folder."
    try:
        loaded: Any = GraphMERT.from_pretrained(
            path, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            "the model cannot be read",
            where=str(path),
            got=str(error).splitlines()[0],
            expected="config.json and model.safetensors of a trained run",
            fix=fix,
        ) from error
    model, found = loaded
    # A tensor that is not in the file would hold whatever was in memory.
    if wrong := sorted({*found["missing_keys"], *found["unexpected_keys"]}):
        raise CheckpointError(
            "the model's tensors are not those of its configuration",
            where=str(path),
            got=f"missing or unknown: {', '.join(wrong[:5])}",
            fix=fix,
        )
    return model


@dataclass(frozen=True)
class _Found:
    """The graph of the extract stage, of held-out heads or of the corpus, and its measures."""

    tables: Mapping[str, pa.Table]
    ledgers: Sequence[Ledger]
    counts: dict[str, Any]
    measured: dict[str, Any]

    @classmethod
    def held_out(cls, result: Extracted, rule: Rule, fitted: dict[str, Any]) -> _Found:
        measured = {
            "rule": rule.to_dict(),
            "calibration": result.calibration,
            "calibration_on_valid": fitted,
        }
        ledgers = (result.query_ledger, result.ledger)
        return cls(result.tables, ledgers, result.summary, measured)

    @classmethod
    def of_corpus(cls, graph: CorpusExtracted, result: Extracted) -> _Found:
        measured = {
            "rule": graph.rule,
            "calibration": graph.calibration,
            "calibration_on_valid": graph.fitted,
        }
        choice = {name: result.summary[name] for name in KEPT if name in result.summary}
        return cls(graph.tables, graph.ledgers, graph.summary | choice, measured)


def extract_stage(config: RunConfig, run_dir: Path, progress: Progress) -> StageOutput:
    """Choose every rule on validation heads, then answer the test heads once."""
    prepared = load_prepared(config, run_dir)
    model = load_model(run_dir / "model")
    progress.begin("encode entity names", total=1)
    scorer = Scorer.build(
        model,
        prepared,
        query_slots=config.masking.query_slots,
        token_scores=config.extract.token_scores,
        precision=config.train.precision,
    )
    progress.end()
    rule, fitted = choose_rule(scorer, config.extract, progress)
    model_hash = sha256_file(run_dir / "model" / "model.safetensors")
    helped = None
    if config.extract.helper.llm.is_set:
        helped = help_extraction(config.extract.helper, scorer, run_dir / "llm", progress)
    result = extract_test(
        scorer,
        rule,
        config.extract,
        model_hash=model_hash,
        progress=progress,
        also={} if helped is None else helped.tails,
    )
    found = _Found.held_out(result, rule, fitted)
    if config.extract.corpus.enabled:
        graph = extract_corpus(
            scorer,
            rule,
            config.extract,
            embedder=lambda: open_embedder(config.embedding),
            model_hash=model_hash,
            progress=progress,
            also={} if helped is None else helped.tails,
        )
        found = _Found.of_corpus(graph, result)
    formed = form_test_tails(scorer, config.extract.n_formed, progress)
    run, tables, ledgers = prepared.run, dict(found.tables), list(found.ledgers)
    if helped is not None:
        tables["kg/helper"] = helped.table
        ledgers += helped.ledgers
        formed |= {"helper": helped.summary}
    for name in OPTIONAL_TABLES:
        run.table_path(name).unlink(missing_ok=True)
    for name, table in tables.items():
        run.write(name, table)
    ranks = run_dir / "kg" / "ranks.parquet"
    write_table(ranks, ranks_to_table(result.ranks))
    measured = found.measured | {"extraction": found.counts | formed}
    atomic_write_json(run_dir / "kg" / "measured.json", measured)
    files = [run_dir / f"{name}.parquet" for name in tables]
    files += [ranks, run_dir / "kg" / "measured.json"]
    bill = {} if helped is None else {"helper": helped.bill}
    return StageOutput(files, found.counts, tuple(ledgers), timings=bill)


def evaluate_stage(config: RunConfig, run_dir: Path, progress: Progress) -> StageOutput:
    """Compare with the baselines and write metrics.json."""
    import json

    prepared = load_prepared(config, run_dir)
    systems, timings = evaluate_run(config, prepared, run_dir, progress)
    ranks = run_dir / "kg" / "ranks_all.parquet"
    write_table(ranks, ranks_to_table(systems))
    measured = json.loads((run_dir / "kg" / "measured.json").read_text(encoding="utf-8"))
    fitted = measured["calibration_on_valid"]
    section = summarise(systems, prepared, config.evaluate, config.seed)
    metrics = {
        "system": "graphmert",
        "test": section,
        "calibration": measured["calibration"],
        "extraction": measured["extraction"],
        "rule": measured["rule"],
        **{name: fitted[name] for name in SWEEPS if name in fitted},
        "graph": graph_measures(
            prepared.run,
            threshold=measured["rule"]["threshold"],
            systems=systems,
            seed=config.seed,
            n_resamples=config.evaluate.n_resamples,
        ),
    }
    files = [run_dir / "metrics.json", ranks]
    if config.evaluate.judge.llm.is_set:
        said = judge_run(
            prepared.run, config.evaluate.judge, cache_dir=run_dir / "llm", progress=progress
        )
        metrics["judged"] = said.scores
        timings = {**timings, "judge": said.bill}
        files.append(run_dir / "kg" / "judged.json")
        atomic_write_json(files[-1], {"scores": said.scores, "verdicts": said.verdicts})
    atomic_write_json(run_dir / "metrics.json", metrics)
    counts = {
        name: {"mrr_macro": entry["mrr_macro"]["value"], "mrr_micro": entry["mrr_micro"]["value"]}
        for name, entry in section["systems"].items()
    }
    return StageOutput(files, counts, timings=timings)


def report_stage(run_dir: Path) -> StageOutput:
    """Render report.html and report.md from the run's files."""
    html, markdown = render_report(run_dir)
    return StageOutput([html, markdown])


def set_threads(n_threads: int | None) -> None:
    """Fix the threads of inference as in training: bytes may depend on their number."""
    if n_threads is not None:
        torch.set_num_threads(n_threads)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread for a while: bytes may depend on their number."""
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(former)
