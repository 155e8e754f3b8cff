"""Say how large a run is before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphmert.documents.records import corpus_files
from graphmert.domains.text.helper import most_calls
from graphmert.kg import read_kg
from graphmert.run.settings import RunConfig, body_path

_EFFICIENCY = 0.35  # share of the matrix product rate that a training step reaches
_NODES_PER_CHAIN = 75  # roots and leaves of a definition, measured on GO
_NODES_PER_NAME = 11
_NODES_PER_ENTITY = 28  # an entity with its gloss and shown leaves, measured on WN18RR
_BYTES_PER_TOKEN = 4.5  # of English text
_FILLED = 0.7  # share of a sequence's tokens that whole sentences fill
# Text that a file holds for each of its bytes: PubMed XML is mostly markup.
_TEXT_SHARE = {".xml": 0.12, ".parquet": 2.0}
_GZIP = 4.0


def estimate(config: RunConfig, kg: Sequence[Path], corpus: Path | None = None) -> dict[str, Any]:
    """Count the input and estimate training from the measured rate of matrix products.

    Returns: sizes, updates, floating-point operations, and seconds on this machine, which are
        good to a factor of two.
    """
    obo = read_kg(kg)
    found: dict[str, Any] = {
        "terms": len(obo.kg.entities),
        "triples": len(obo.kg.triples),
        "definitions": len(obo.definitions),
    }
    nodes_per_chain: float = _NODES_PER_CHAIN
    if config.complete.is_on:
        nodes_per_chain = _NODES_PER_ENTITY
        walks = config.complete.walks
        n_walks = (config.train.batch_size - walks.n_random) // (walks.walk_length + 1)
        n_chains = round(len(obo.kg.triples) * config.train.batch_size / max(1, n_walks))
    elif corpus is None:
        n_chains = len(obo.definitions) - config.split.n_valid_heads - config.split.n_test_heads
    else:
        nodes_per_chain = _FILLED * config.text.max_tokens
        n_bytes = sum(_text_bytes(path) for path, _ in corpus_files(corpus))
        n_chains = round(n_bytes / (_BYTES_PER_TOKEN * nodes_per_chain))
        found |= {"corpus_bytes": n_bytes, "estimated_sequences": n_chains}
    batch = config.train.batch_size
    if config.train.total_steps is not None:
        n_updates = config.train.total_steps
    else:
        n_updates = max(1, round((config.train.epochs or 1) * n_chains / batch))
    per_node = _parameters_per_node(config)
    names = 0 if config.complete.is_on else config.feed.n_negatives + 2 * batch
    nodes = batch * nodes_per_chain + names * _NODES_PER_NAME
    operations = 6.0 * per_node * nodes * n_updates
    rate = _matrix_rate(config.train.precision)
    helper = config.extract.helper
    calls: dict[str, Any] = {}
    if helper.llm.is_set:
        calls["helper"] = most_calls(helper, config.split.n_test_heads)
    if config.evaluate.judge.llm.is_set:
        calls["judge"] = {"calls": config.evaluate.judge.most_calls}
    return {
        **calls,
        "input": found,
        "training": {
            "updates": n_updates,
            "samples_per_update": batch,
            "floating_point_operations": operations,
            "measured_matrix_products_per_s": rate,
            "estimated_seconds": round(operations / (rate * _EFFICIENCY)),
        },
    }


def _text_bytes(path: Path) -> int:
    """About how many bytes of text a file of a corpus holds."""
    plain = Path(path.name.removesuffix(".gz"))
    share = _TEXT_SHARE.get(plain.suffix.lower(), 1.0)
    return round(path.stat().st_size * share * (_GZIP if path.suffix == ".gz" else 1.0))


def _parameters_per_node(config: RunConfig) -> int:
    """Weights that every node passes through."""
    body = body_path(config.data.body)
    if body is not None:
        from graphmert.pretrained import load_body_config

        shape = load_body_config(body)
        width, ffn, layers = shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers
    else:
        from graphmert.presets import preset_config

        preset = preset_config(config.model.preset, **config.model.changes)
        width, ffn, layers = preset.hidden_size, preset.ffn_size, preset.n_layers
    return layers * (4 * width * width + 2 * width * ffn)


def _matrix_rate(precision: str) -> float:
    """Floating-point operations a second of a matrix product of training size, measured."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.ones(2048, 512, dtype=dtype), torch.ones(512, 2048, dtype=dtype)
    torch.mm(a, b)
    started, n = time.perf_counter(), 0
    while time.perf_counter() - started < 0.3:
        torch.mm(a, b)
        n += 1
    return round(2 * 2048 * 512 * 2048 * n / (time.perf_counter() - started))
