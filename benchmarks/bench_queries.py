"""Time answers to many queries of one text: one leafy chain against one pass for each query.

Usage: python benchmarks/bench_queries.py [RUN_DIR] [--texts 16] [--heads 8] [--repeats 5]
       [--precision bf16] [--threads 2] [--out FILE] [--tiny]

RUN_DIR is a run whose prepare stage is done; without it the sample inside the package is
prepared. What is measured and how texts are chosen: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_train import RESULTS, machine
from transformers.utils import logging

from graphmert.batch import RelationNames
from graphmert.chain import LeafyChain
from graphmert.errors import ConfigError
from graphmert.evaluate.biencoder import BiEncoder, BiEncoderConfig, tokenise
from graphmert.extract import Asker, Query, score_queries
from graphmert.model import GraphMERT, GraphMERTConfig
from graphmert.run import RunConfig, execute, load
from graphmert.run.answers import autocast
from graphmert.run.prepared import HeadSpan, Prepared
from graphmert.run.settings import DataSettings, SplitSettings, body_path
from graphmert.run.training import build_model, relation_names

TARGET = 5.0
MAX_TEXT_TOKENS = 128
SLOTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Case:
    """The texts, and the same queries in both forms."""

    chains: list[LeafyChain]
    queries: list[Query]
    texts: list[str]
    n_mentions: int
    n_filled: int


# --- what is asked -------------------------------------------------------------------------------


def make_case(prepared: Prepared, *, n_texts: int, n_heads: int, n_relations: int) -> Case:
    """The sequences with the most mentions, the first `n_heads` of them as heads.

    A sequence with fewer mentions gets further heads: single tokens of its text, spread evenly.
    """
    spans: dict[int, dict[tuple[int, int], HeadSpan]] = defaultdict(dict)
    for head in prepared.heads:
        spans[head.chain].setdefault((head.root_start, head.root_end), head)
    order = sorted(spans, key=lambda chain: (-min(n_heads, len(spans[chain])), chain))[:n_texts]
    texts = _sequence_texts(prepared, order)
    chains, queries, asked = [], [], []
    n_mentions = n_filled = 0
    for row, chain in enumerate(order):
        roots = prepared.chains[chain].roots
        heads = sorted(spans[chain])[:n_heads]
        filled = _more_heads(len(roots), heads, n_heads - len(heads))
        n_mentions, n_filled = n_mentions + len(heads), n_filled + len(filled)
        chains.append(LeafyChain(roots, chain_id=str(row)))
        for start, end in [*heads, *filled]:
            surface = prepared.tokenizer.decode(roots[start:end])
            for relation in range(n_relations):
                label = prepared.relation_labels[relation % len(prepared.relation_labels)]
                queries.append(Query(row, start, end, relation % len(prepared.relations)))
                asked.append(f"{label}: {surface}: {texts[row]}")
    return Case(chains, queries, asked, n_mentions, n_filled)


def _sequence_texts(prepared: Prepared, rows: Sequence[int]) -> list[str]:
    documents = prepared.run.read("corpus/documents")
    ids, texts = documents.column("doc_id").to_pylist(), documents.column("text").to_pylist()
    text_of = dict(zip(ids, texts, strict=True))
    table = prepared.run.read("corpus/sequences").take(list(rows)).to_pylist()
    return [text_of[row["doc_id"]][row["start"] : row["end"]] for row in table]


def _more_heads(
    n_roots: int, taken: Sequence[tuple[int, int]], n_more: int
) -> list[tuple[int, int]]:
    free = [i for i in range(1, n_roots - 1) if (i, i + 1) not in taken]
    places = np.linspace(0, len(free) - 1, n_more).astype(int) if n_more > 0 else []
    return [(free[i], free[i] + 1) for i in places]


def build_bi_encoder(config: RunConfig, model: GraphMERT, prepared: Prepared) -> BiEncoder:
    """The baseline on the same body; without one, random weights of the same shape."""
    settings = BiEncoderConfig(max_query_tokens=MAX_TEXT_TOKENS)
    body = body_path(config.data.body)
    if body is not None:
        return BiEncoder.from_body(body, settings).eval()
    shape = {
        name: getattr(model.config, name)
        for name in (
            *("vocab_size", "pad_token_id", "hidden_size", "n_layers", "n_attn_heads"),
            *("ffn_size", "n_positions", "position_offset", "norm_eps"),
        )
    }
    plain = GraphMERTConfig(
        **shape,
        objectives=(),
        decay="none",
        hgat="none",
        relation_embedding=False,
        relation_names=False,
        max_tail_tokens=0,
        n_types=1,
    )
    return BiEncoder(GraphMERT(plain), prepared.tokenizer, settings).eval()


# --- what is timed -------------------------------------------------------------------------------


class Bench:
    """Ways to answer all queries of a case; each returns the best cosine, (Q,), block by block."""

    def __init__(
        self, config: RunConfig, prepared: Prepared, case: Case, *, precision: str
    ) -> None:
        self.case = case
        self.precision = precision
        self.model = build_model(config, prepared).eval()
        visibility = self.model.config.leaf_visibility
        if self.model.entity_head is None or visibility != "isolated":
            raise ConfigError(
                "the run's model cannot answer many queries in one forward pass",
                got=f"visibility {visibility}, objectives {self.model.config.objectives}",
                expected="isolated visibility, and entity among the objectives",
            )
        self.biencoder = build_bi_encoder(config, self.model, prepared)
        settings = {"encode_precision": "bf16" if precision == "bf16" else "fp32"}
        self.biencoder.config = self.biencoder.config.model_copy(update=settings)
        self.asker = Asker(
            mask_id=prepared.tokenizer.mask_id,
            pad_id=prepared.tokenizer.pad_id,
            relation_names=relation_names(prepared, self.model.config),
            query_slots=1,
        )
        rng = np.random.default_rng(0)
        shape = (len(prepared.names), self.model.config.hidden_size)
        names_ED = rng.standard_normal(shape, dtype=np.float32)
        names_ED /= np.linalg.norm(names_ED, axis=1, keepdims=True)
        self.names_ED = torch.from_numpy(names_ED)

    def chains(
        self, queries: Sequence[Query] | None = None, *, together: bool = True, **asker: Any
    ) -> np.ndarray:
        """Ours: all queries of a text in one row, or a row for each."""
        queries = self.case.queries if queries is None else queries
        best_Q = np.empty(len(queries), np.float32)
        with autocast(self.precision):
            for block in score_queries(
                self.model,
                self.case.chains,
                queries,
                asker=replace(self.asker, **asker),
                entity_vectors=self.names_ED,
                relations=False,
                together=together,
            ):
                best_Q[block.index_Q] = block.entity_QE.max(axis=1)
        return best_Q

    def one_by_one(self, queries: Sequence[Query]) -> np.ndarray:
        """Ours: a forward pass for each query."""
        return np.concatenate([self.chains([query], together=False) for query in queries])

    def texts(self, *, batch_size: int) -> np.ndarray:
        """The bi-encoder: a text for each query, batched by length."""
        vectors_QD = self.biencoder.encode_texts(
            self.case.texts, max_tokens=MAX_TEXT_TOKENS, batch_size=batch_size
        )
        return self._best(vectors_QD)

    def tokenise(self) -> list[list[int]]:
        """The part of `texts` that is no network."""
        return tokenise(self.case.texts, self.biencoder.tokenizer, max_tokens=MAX_TEXT_TOKENS)

    def product(self) -> np.ndarray:
        """The part of every way that compares query vectors with all entities."""
        n, names_ED = len(self.case.queries), self.names_ED.numpy()
        return self._best(names_ED[np.arange(n) % len(names_ED)])

    def _best(self, vectors_QD: np.ndarray) -> np.ndarray:
        """Compare with every entity, 128 queries at a time."""
        names_DE = self.names_ED.numpy().T
        blocks = range(0, len(vectors_QD), 128)
        return np.concatenate([(vectors_QD[i : i + 128] @ names_DE).max(axis=1) for i in blocks])


def time_all(
    ways: dict[str, tuple[Callable[[], object], int]], *, repeats: int
) -> dict[str, dict[str, Any]]:
    """Seconds of every way, in turn, so that other load falls on all; medians and queries/s."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, (work, _) in ways.items():
            begun, cpu_begun = time.perf_counter(), time.process_time()
            work()
            if repeat:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - begun)
                cpu_seconds[name].append(time.process_time() - cpu_begun)
    return {
        name: {
            "n_queries": ways[name][1],
            "seconds": found,
            "median_s": statistics.median(found),
            "median_cpu_s": statistics.median(cpu_seconds[name]),
            "queries_per_s": ways[name][1] / statistics.median(found),
        }
        for name, found in seconds.items()
    }


def measure(bench: Bench, *, repeats: int) -> dict[str, dict[str, Any]]:
    """Every way once a round; slow ways on a part of the queries."""
    queries = bench.case.queries
    n = len(queries)
    few = queries[:: max(1, n // 40)]
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "together": (bench.chains, n),
        "together, no relation words": (lambda: bench.chains(relation_names=RelationNames()), n),
        "a row for each query": (lambda: bench.chains(together=False), n),
        "a forward pass for each query": (lambda: bench.one_by_one(few), len(few)),
        "tokenise": (bench.tokenise, n),
        "product": (bench.product, n),
    }
    for size in (32, 128):
        ways[f"bi-encoder, {size} texts a pass"] = (
            lambda size=size: bench.texts(batch_size=size),
            n,
        )
    for slots in SLOTS[1:]:
        ways[f"together, {slots} masked leaves"] = (
            lambda slots=slots: bench.chains(query_slots=slots),
            n,
        )
    return time_all(ways, repeats=repeats)


def largest_difference(bench: Bench) -> float:
    """Between answers given together and alone, in fp32, on the first text."""
    first = [query for query in bench.case.queries if query.chain == 0]
    precision, bench.precision = bench.precision, "fp32"
    alone, together = bench.chains(first, together=False), bench.chains(first)
    bench.precision = precision
    return float(np.abs(alone - together).max())


def compare(ways: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ratios of queries/s; the bi-encoder at its best batch size, without its tokenising."""
    best = min(
        (name for name in ways if name.startswith("bi-encoder")), key=lambda n: ways[n]["median_s"]
    )
    ours = ways["together"]["median_s"]
    bare = ways[best]["median_s"] - ways["tokenise"]["median_s"]
    alone = ways["a forward pass for each query"]
    cpu_s = {name: row["median_cpu_s"] for name, row in ways.items()}
    return {
        "bi_encoder": best,
        "over_bi_encoder": bare / ours,
        "over_bi_encoder_without_product": (bare - ways["product"]["median_s"])
        / (ours - ways["product"]["median_s"]),
        "over_bi_encoder_with_tokenising": ways[best]["median_s"] / ours,
        "over_bi_encoder_in_cpu_time": (cpu_s[best] - cpu_s["tokenise"]) / cpu_s["together"],
        "over_a_row_for_each_query": ways["a row for each query"]["median_s"] / ours,
        "over_a_forward_pass_for_each_query": ways["together"]["queries_per_s"]
        / alone["queries_per_s"],
        "target": TARGET,
        "by_masked_leaves": {
            str(n): ways["together" if n == 1 else f"together, {n} masked leaves"]["queries_per_s"]
            for n in SLOTS
        },
    }


# --- command line --------------------------------------------------------------------------------


def sample_run(folder: Path) -> None:
    """Prepare the sample inside the package."""
    config = RunConfig(
        out=str(folder),
        data=DataSettings(kg="sample:go"),
        split=SplitSettings(n_valid_heads=100, n_test_heads=100),
    )
    execute(config, stage="prepare")


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Queries per second on texts with many queries.")
    parser.add_argument("run_dir", type=Path, nargs="?")
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--relations", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_queries.json")
    parser.add_argument("--tiny", action="store_true", help="two texts, one repeat")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    args = parse(words)
    logging.disable_progress_bar()
    former = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        source = args.run_dir
        if source is None:
            print("no run directory given: texts come from the sample inside the package")
            source = Path(folder)
            sample_run(source)
        config = load(source / "run.toml")
        prepared = Prepared.load(source, max_tail_tokens=config.text.max_tail_tokens)
        n_texts = 2 if args.tiny else args.texts
        case = make_case(prepared, n_texts=n_texts, n_heads=args.heads, n_relations=args.relations)
        bench = Bench(config, prepared, case, precision=args.precision)
        busy = [list(os.getloadavg())]
        ways = measure(bench, repeats=1 if args.tiny else args.repeats)
        busy.append(list(os.getloadavg()))
    result = {
        "machine": machine(args),
        "tiny": args.tiny,
        "kg": config.data.kg,
        "precision": args.precision,
        "network": bench.model.config.to_dict() | {"n_entities": len(prepared.names)},
        "texts": {
            "n": len(case.chains),
            "heads": args.heads,
            "relations": args.relations,
            "mean_roots": float(np.mean([len(chain.roots) for chain in case.chains])),
            "mean_query_text_tokens": float(np.mean([len(row) for row in bench.tokenise()])),
            "heads_from_mentions": case.n_mentions,
            "heads_filled_in": case.n_filled,
        },
        "load_before_and_after": busy,
        "largest_difference_fp32": largest_difference(bench),
        "ways": ways,
        "ratios": compare(ways),
    }
    torch.set_num_threads(former)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print_result(result)


def print_result(result: dict[str, Any]) -> None:
    """Every way, then the ratios beside the target."""
    for name, row in result["ways"].items():
        print(f"{name:<32}{row['queries_per_s']:>10.1f} queries/s")
    ratios = result["ratios"]
    print(
        f"together / {ratios['bi_encoder']}: {ratios['over_bi_encoder']:.1f} "
        f"(target >= {ratios['target']:g}; {ratios['over_bi_encoder_with_tokenising']:.1f} with "
        f"the tokenising of its texts; {ratios['over_bi_encoder_in_cpu_time']:.1f} in CPU time)"
    )
    print(
        "the same without the product with all entities: "
        f"{ratios['over_bi_encoder_without_product']:.1f}"
    )
    print(f"together / a row for each query: {ratios['over_a_row_for_each_query']:.1f}")
    print(
        "together / a forward pass for each query: "
        f"{ratios['over_a_forward_pass_for_each_query']:.1f}"
    )
    print(f"largest difference between together and alone: {result['largest_difference_fp32']:.1e}")


if __name__ == "__main__":
    main()
