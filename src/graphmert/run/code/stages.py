"""The five stages of a code run, each from files to files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from graphmert.model import GraphMERT
from graphmert.processes import is_main_process
from graphmert.progress import Progress
from graphmert.run.code.measuring import evaluate_code
from graphmert.run.code.pages import write_pages
from graphmert.run.code.prepared import CodePrepared, prepare_code
from graphmert.run.code.search import QUERIES, encode_chains, tune_search
from graphmert.run.code.settings import CodeRunConfig
from graphmert.run.code.together import wait_for_all
from graphmert.run.code.training import save_code_model, train_code, words_for
from graphmert.run.manifest import StageOutput
from graphmert.run.stages import MODEL_FILES, load_model, set_threads
from graphmert.run.training import drop_stale_training
from graphmert.shards import atomic_write_json, sha256_file, write_table


def load_prepared(config: CodeRunConfig, run_dir: Path) -> CodePrepared:
    """Build chains again from the index and the run's tokenizer, once in a process."""
    tokenizer = sha256_file(run_dir / "chains" / "tokenizer.json")
    return _prepared(config.model_dump_json(), run_dir / "chains", tokenizer)


@lru_cache(maxsize=1)
def _prepared(config: str, folder: Path, tokenizer: str) -> CodePrepared:
    del tokenizer  # part of the key: another vocabulary makes other chains
    return CodePrepared.load(CodeRunConfig.model_validate_json(config), folder)


def prepare(config: CodeRunConfig, run_dir: Path, body: str | None) -> StageOutput:
    """Split, tokenizer, samples."""
    return prepare_code(config, run_dir, body)


def train(
    config: CodeRunConfig, run_dir: Path, body: str | None, mark: str, progress: Progress
) -> StageOutput:
    """Train, going on from the last checkpoint of the same fingerprint."""
    out = run_dir / "model"
    _make_room(out, mark, progress)
    prepared = load_prepared(config, run_dir)
    result = train_code(config, prepared, out, body=body, fingerprint=mark, progress=progress)
    counts: dict[str, Any] = {
        "n_updates": result.n_steps,
        "stop_reason": result.stop_reason,
        "best_update": result.best_step,
        "best_valid_loss": result.best_value,
    }
    files = [out / name for name in (*MODEL_FILES, "training.jsonl")]
    return StageOutput(files, counts, timings=result.timings)


def tune(config: CodeRunConfig, run_dir: Path, mark: str, progress: Progress) -> StageOutput:
    """Fine-tune for code search and encode every function; nothing where tune.steps is 0."""
    if not config.tune.steps:
        return StageOutput([], {"n_updates": 0})
    set_threads(config.train.n_threads)
    out = run_dir / "search"
    _make_room(out, mark, progress)
    prepared = load_prepared(config, run_dir)
    model = load_model(run_dir / "model")
    result = tune_search(config, prepared, model, out, fingerprint=mark, progress=progress)
    counts = {"n_updates": result.n_steps}
    if not is_main_process():
        return StageOutput([], counts)
    save_code_model(model, prepared, out)
    atomic_write_json(out / QUERIES, {"max_query_tokens": config.tune.max_query_tokens})
    vectors = out / "functions.parquet"
    write_table(vectors, function_vectors(prepared, model))
    files = [out / name for name in (*MODEL_FILES, "training.jsonl", QUERIES, vectors.name)]
    return StageOutput(files, counts, timings=result.timings)


def _make_room(out: Path, mark: str, progress: Progress) -> None:
    """Drop the training of other inputs, once for all processes."""
    if is_main_process():
        drop_stale_training(out, mark, progress)
    wait_for_all()


def function_vectors(prepared: CodePrepared, model: GraphMERT) -> pa.Table:
    """Unit vectors of all functions of the index, those left out as near-duplicates too."""
    from graphmert.chain import crop
    from graphmert.domains.code.samples import make_samples

    samples, _ = make_samples(prepared.tables)
    functions = [sample for sample in samples if sample.kind == "function"]
    chains, _ = prepared.builder.build(functions)
    chains = [crop(chain, prepared.config.tune.max_roots) for chain in chains]
    words = words_for(prepared, model.config)
    vectors = encode_chains(model, chains, words=words, pad_id=prepared.tokenizer.pad_id)
    return pa.table(
        {
            "entity_id": [sample.entity_id for sample in functions],
            "doc_id": [sample.doc_id for sample in functions],
            "docstring": [sample.docstring for sample in functions],
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.astype("float16").ravel()), vectors.shape[1]
            ),
        }
    )


def evaluate(config: CodeRunConfig, run_dir: Path, progress: Progress) -> StageOutput:
    """Measure the trained encoder, and the tuned one for search."""
    set_threads(config.train.n_threads)
    prepared = load_prepared(config, run_dir)
    device = device_of(config)
    model = _load_on(device, run_dir / "model")
    searcher = _load_on(device, run_dir / "search") if config.tune.steps else None
    return evaluate_code(prepared, model, searcher, run_dir, progress)


def _load_on(device: torch.device, folder: Path) -> GraphMERT:
    model: Any = load_model(folder)
    return model.to(device)


def device_of(config: CodeRunConfig) -> torch.device:
    """Where training and measuring take place: an accelerator unless train.device is cpu."""
    if config.train.device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
    return torch.device("cpu")


def report(config: CodeRunConfig, run_dir: Path) -> StageOutput:
    """Pages from the files above."""
    return StageOutput(write_pages(config, run_dir))
