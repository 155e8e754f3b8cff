"""A small run directory made by hand, with everything that a report shows."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from graphmert.evaluate import (
    IsotonicCalibrator,
    QueryRow,
    summarise_calibration,
    summarise_split,
)
from graphmert.shards import Ledger, atomic_write_json, atomic_write_text, write_table

RELATIONS = ("is_a", "part_of", "regulates", "negatively_regulates")
HOSTILE = "<script>alert('x')</script> | *cell*"


def make_rows(factor: float) -> list[QueryRow]:
    return [
        QueryRow(i // 2, i % 4, i, 1 + i % 7, i % 3 == 0, 1 + round(factor * ((i * 7) % 11)))
        for i in range(240)
    ]


def make_metrics() -> dict[str, Any]:
    systems = {
        "graphmert": make_rows(0.2),
        "bi_encoder": make_rows(0.25),
        "no_relation": make_rows(0.9),
        "bm25_names": make_rows(1.5),
        "longest_name_in_text": make_rows(3),
        "relation_frequency": make_rows(40),
    }
    names = list(systems)
    section = summarise_split(
        systems,
        RELATIONS,
        n_entities=43_789,
        trained=names[:3],
        compare=[("graphmert", name) for name in names[1:]],
        seed=0,
        n_resamples=60,
    )
    valid = summarise_split(
        {"graphmert": make_rows(0.2)}, RELATIONS, n_entities=43_789, trained=["graphmert"], seed=0,
        n_resamples=60,
    )  # fmt: skip
    scores = [math.sin(i * 1.7) + i / 150 for i in range(300)]
    correct = [int((i * 37) % 300 < i) for i in range(300)]
    calibration = summarise_calibration(
        IsotonicCalibrator.fit(scores[::2], correct[::2]),
        scores[1::2],
        correct[1::2],
        threshold=0.62,
        n_true=110,
        fitted_on="valid",
        measured_on="test",
    )
    extraction = {"n_queries": 12_034, "precision_on_test_heads": 0.7312, "novel_share": 0.41}
    return {
        "system": "graphmert",
        "test": section,
        "valid": valid,
        "calibration": calibration,
        "extraction": extraction,
    }


def make_ledgers() -> list[dict[str, Any]]:
    sequences = Ledger("sequences from documents")
    sequences.offered(43_789)
    sequences.keep(43_120)
    sequences.leave_out("definition longer than 128 tokens", 631, "GO:0000001")
    sequences.leave_out("empty text", 38, HOSTILE)
    chains = Ledger("triples into chains")
    chains.offered(86_549)
    chains.keep(78_010)
    chains.leave_out("tail longer than 16 tokens", 6_410, "GO:2 is_a regulation of a long name")
    chains.leave_out("chain already full", 2_129)
    accepted = Ledger("candidates to triples")
    accepted.offered(12_034)
    accepted.keep(3_310)
    accepted.leave_out("score below the threshold", 8_100)
    accepted.leave_out("schema: cycle in is_a", 624, "GO:1 is_a GO:1")
    for ledger in (sequences, chains, accepted):
        ledger.check()
    return [ledger.to_dict() for ledger in (sequences, chains, accepted)]


def make_graph(folder: Path) -> None:
    triples, evidence = [], []
    for i in range(40):
        head = f"regulation of vesicle fusion {i}" if i else HOSTILE
        tail = f"vesicle fusion {i}"
        text = f"{head}: Any process that modulates the rate or extent of {tail} & the like."
        relation = RELATIONS[i % 4]
        triple_id = hashlib.sha256(f"{i}".encode()).hexdigest()[:16]
        triples.append(
            {
                "triple_id": triple_id, "head_id": f"GO:{i:07}", "head": head,
                "relation": relation, "tail_id": f"GO:{i + 500:07}", "tail": tail,
                "score": 0.99 - i / 100, "novel": i % 3 != 1, "n_evidence": 1 + (i == 2),
            }
        )  # fmt: skip
        at = text.rindex(tail) if i % 5 else None
        evidence.append(
            {
                "triple_id": triple_id, "domain": "text", "doc_id": f"GO:{i:07}", "sha256": "0",
                "sent_start": 0, "sent_end": len(text), "sentence": text, "head_start": 0,
                "head_end": len(head), "head_surface": head, "tail_start": at,
                "tail_end": None if at is None else at + len(tail),
                "tail_surface": None if at is None else tail,
                "locator": None, "model_hash": "0", "method": "entity", "score": 0.9,
            }
        )  # fmt: skip
    write_table(folder / "kg" / "triples.parquet", pa.Table.from_pylist(triples))
    write_table(folder / "kg" / "evidence.parquet", pa.Table.from_pylist(evidence))
    rejected = [
        {"candidate": f"a {i} is_a b", "reason": "score below the threshold" if i % 3 else HOSTILE}
        for i in range(9)
    ]
    write_table(folder / "kg" / "rejected.parquet", pa.Table.from_pylist(rejected))
    seed = [
        {"head_id": row["head_id"], "relation": row["relation"], "tail_id": row["tail_id"],
         "split": "test" if i % 4 == 0 else "train"}
        for i, row in enumerate(triples)
    ]  # fmt: skip
    write_table(folder / "seed" / "triples.parquet", pa.Table.from_pylist(seed))
    documents = pa.table({"doc_id": [f"GO:{i:07}" for i in range(40)]})
    write_table(folder / "corpus" / "documents.parquet", documents)


def make_run(folder: Path) -> Path:
    lines: list[dict[str, Any]] = []
    for step in range(10, 1510, 10):
        wave = 0.2 * math.sin(step)
        losses = {
            "entity": 3.2 * math.exp(-step / 400) + 0.4 + wave * 0.3,
            "mlm": 4 * math.exp(-step / 500) + 1.9 + wave,
            "mnm_leaf": 6 * math.exp(-step / 350) + 0.8 + wave,
        }
        lines.append(
            {"step": step, "loss": sum(losses.values()), "losses": losses, "lr": 1e-4,
             "grad_norm": 1.0}
        )  # fmt: skip
        if step % 250 == 0:
            metrics = {f"valid_loss/{name}": value + 0.15 for name, value in losses.items()}
            metrics["valid_loss"] = sum(losses.values()) + 0.45
            lines.append({"step": step, "metrics": metrics})
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    atomic_write_text(folder / "model" / "training.jsonl", text)
    atomic_write_json(folder / "metrics.json", make_metrics())
    atomic_write_json(folder / "ledger.json", {"stages": make_ledgers()})
    manifest = {
        "config": {"seed": 7, "corpus": {"source": "go.obo"}, "train": {"total_steps": 1500}},
        "config_hash": "ab12" * 16,
        "seed": 7,
        "versions": {"graphmert": "0.1.0", "torch": "2.13.0"},
        "inputs": {"go.obo": "cd34" * 16},
    }
    atomic_write_json(folder / "manifest.json", manifest)
    make_graph(folder)
    return folder


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")
