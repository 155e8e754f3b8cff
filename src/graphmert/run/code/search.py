"""Code search: fine-tune docstrings against code, encode functions, answer words with functions.

Legend: B pairs of a batch, D width, Q queries, F functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphmert.batch import ChainBatch, RelationNames, collate
from graphmert.chain import LeafyChain, crop
from graphmert.domains.code.samples import CodeSample
from graphmert.evaluate.baselines import Bm25Names, Query
from graphmert.model import GraphMERT
from graphmert.objectives import INITIAL_LOG_SCALE, cross_entropy
from graphmert.progress import Progress
from graphmert.recipe import TrainConfig
from graphmert.run.code.prepared import CodePrepared
from graphmert.run.code.settings import CodeRunConfig, TuneSettings
from graphmert.run.code.training import words_for
from graphmert.tokens import Tokenizer
from graphmert.train import TrainResult, train

QUERIES = "queries.json"
"""How words become queries, beside the tuned encoder that was trained on such queries."""
MIN_WORDS = 3
"""Docstrings of fewer words say too little to be asked for."""


@dataclass(frozen=True)
class SearchBatch:
    """Functions and their docstrings, in the same order; equal docstrings share a number."""

    code: ChainBatch
    text: ChainBatch
    number_B: Tensor

    @property
    def n_samples(self) -> int:
        """Pairs."""
        return len(self.number_B)

    def to(self, device: Any) -> SearchBatch:
        """Return it on a device."""
        return SearchBatch(self.code.to(device), self.text.to(device), self.number_B.to(device))

    def counts(self) -> dict[str, int]:
        """How many terms the loss sums over."""
        return {"search": 2 * self.n_samples}


class SearchModel(nn.Module):
    """Two towers that are one encoder: a chain's vector is the mean state of its roots.

    loss = InfoNCE(text -> code) + InfoNCE(code -> text) within the batch, cosine times exp(t).
    """

    def __init__(self, encoder: GraphMERT) -> None:
        super().__init__()
        self.encoder = encoder
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_LOG_SCALE))

    def loss(self, batch: SearchBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """(sum, count) over both directions; pairs with equal docstrings are no negatives."""
        code_BD = self.encoder.encode_names(batch.code)
        text_BD = self.encoder.encode_names(batch.text)
        with torch.autocast(code_BD.device.type, enabled=False):
            logits_BB = text_BD @ code_BD.T * self.log_scale.clamp(max=math.log(100.0)).exp()
        same_BB = batch.number_B[:, None] == batch.number_B[None, :]
        same_BB = same_BB & ~torch.eye(len(same_BB), dtype=torch.bool, device=same_BB.device)
        logits_BB = logits_BB.masked_fill(same_BB, -math.inf)
        label_B = torch.arange(len(logits_BB), device=logits_BB.device)
        there, n_there = cross_entropy(logits_BB, label_B)
        back, n_back = cross_entropy(logits_BB.T.contiguous(), label_B)
        return {"search": (there + back, n_there + n_back)}


@dataclass(frozen=True)
class SearchPairs:
    """Functions with descriptions; row i of one belongs to row i of the other."""

    code: Sequence[LeafyChain]
    text: Sequence[LeafyChain]
    docstrings: Sequence[str]
    samples: Sequence[CodeSample]


def has_description(sample: CodeSample) -> bool:
    """Whether a sample is a function whose docstring says enough to be asked for."""
    return sample.kind == "function" and len(sample.docstring.split()) >= MIN_WORDS


def words_chain(tokenizer: Tokenizer, words: str, *, max_tokens: int) -> LeafyChain:
    """Words as a chain without leaves."""
    ids = tokenizer.encode(words).ids[:max_tokens].tolist()
    return LeafyChain((tokenizer.cls_id, *ids, tokenizer.sep_id))


def search_pairs(prepared: CodePrepared, part: str) -> SearchPairs:
    """Every described function of a part, its chain cropped, and its docstring."""
    settings = prepared.config.tune
    chosen = [
        (sample, chain)
        for sample, chain in zip(prepared.split.parts[part], prepared.chains[part], strict=True)
        if has_description(sample)
    ]
    return SearchPairs(
        code=[crop(chain, settings.max_roots) for _, chain in chosen],
        text=[
            words_chain(prepared.tokenizer, s.docstring, max_tokens=settings.max_query_tokens)
            for s, _ in chosen
        ],
        docstrings=[sample.docstring for sample, _ in chosen],
        samples=[sample for sample, _ in chosen],
    )


class SearchFeed:
    """Batches of pairs, a pure function of (seed, step); some functions without their leaves."""

    def __init__(
        self,
        pairs: SearchPairs,
        *,
        words: RelationNames,
        pad_id: int,
        settings: TuneSettings,
        seed: int,
    ) -> None:
        self.pairs, self.words, self.pad_id, self.seed = pairs, words, pad_id, seed
        self.settings = settings
        numbers = {text: i for i, text in enumerate(dict.fromkeys(pairs.docstrings))}
        self.number = np.array([numbers[text] for text in pairs.docstrings])

    @property
    def steps_per_epoch(self) -> int:
        """Updates that see about every pair once."""
        return max(1, len(self.pairs.code) // self.settings.batch_size)

    def batch(self, step: int) -> list[SearchBatch]:
        """One update: pairs drawn without replacement within an epoch.

        Pairs are told from those of their micro-batch, whatever the number of processes.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.pairs.code))
        size = self.settings.batch_size
        rows = order[place * size : (place + 1) * size]
        rng = np.random.default_rng([self.seed, step, 1])
        bare = rng.random(len(rows)) < self.settings.empty_graph_share
        code = [
            replace(self.pairs.code[int(row)], triples=()) if empty else self.pairs.code[int(row)]
            for row, empty in zip(rows, bare, strict=True)
        ]
        text = [self.pairs.text[int(row)] for row in rows]
        size = self.settings.micro_batch_size or len(rows)
        return [
            SearchBatch(
                code=collate(
                    code[start : start + size], relation_names=self.words, pad_id=self.pad_id
                ),
                text=collate(text[start : start + size], pad_id=self.pad_id),
                number_B=torch.from_numpy(self.number[rows[start : start + size]]),
            )
            for start in range(0, len(rows), size)
        ]


def tune_search(
    config: CodeRunConfig,
    prepared: CodePrepared,
    model: GraphMERT,
    out_dir: Path,
    *,
    fingerprint: str,
    progress: Progress,
) -> TrainResult:
    """Fine-tune a trained encoder on described functions of the training packages."""
    tuned = SearchModel(model)
    pairs = search_pairs(prepared, "train")
    settings = TrainConfig(
        total_steps=config.tune.steps,
        batch_size=config.tune.batch_size,
        learning_rate=config.tune.learning_rate,
        min_learning_rate=min(1e-5, config.tune.learning_rate),
        warmup_steps=config.tune.warmup_steps,
        precision=config.train.precision,
        device=config.train.device,
        n_threads=config.train.n_threads,
        final_weights="last",
        seed=config.seed,
    )
    feed = SearchFeed(
        pairs,
        words=words_for(prepared, model.config),
        pad_id=prepared.tokenizer.pad_id,
        settings=config.tune,
        seed=config.seed,
    )
    progress.begin("tune for search", total=config.tune.steps, unit="updates")

    def report(step: int, of: int, line: object) -> None:
        progress.update(step, total=of)

    result = train(
        tuned, feed, config=settings, out_dir=out_dir, fingerprint=fingerprint, on_progress=report
    )
    progress.end()
    return result


@torch.no_grad()
def encode_chains(
    model: GraphMERT,
    chains: Sequence[LeafyChain],
    *,
    words: RelationNames,
    pad_id: int,
    max_nodes: int = 16_384,
) -> np.ndarray:
    """Unit vectors of chains, float32 (F, D), shortest first for speed."""
    model.eval()
    sizes = np.array([chain.n_nodes + 4 * len(chain.triples) for chain in chains])
    order = np.argsort(sizes, kind="stable")
    vectors = np.zeros((len(chains), model.config.hidden_size), dtype=np.float32)
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * sizes[order[stop]] <= max_nodes:
            stop += 1
        rows = order[start:stop]
        batch = collate([chains[int(r)] for r in rows], relation_names=words, pad_id=pad_id)
        vectors[rows] = model.encode_names(batch.to(model.device)).float().cpu().numpy()
        start = stop
    return vectors


def shuffled_graph(chains: Sequence[LeafyChain], seed: int) -> list[LeafyChain]:
    """Give every chain the leaves of another, at its own first head."""
    order = np.random.default_rng(seed).permutation(len(chains))
    giver = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    result = []
    for row, chain in enumerate(chains):
        own = chain.triples[0] if chain.triples else None
        start, end = (own.head_start, own.head_end) if own else (1, 2)
        given = chains[giver[row]].triples
        moved = [replace(t, head_start=start, head_end=end, mentions=()) for t in given]
        result.append(replace(chain, triples=tuple(moved)))
    return result


def split_words(text: str) -> str:
    """Identifiers as words: `parseHTMLDoc` and `parse_doc` read `parse HTML Doc`, `parse doc`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_", " ", text)


def reciprocal_ranks(scores_QF: np.ndarray, truth_Q: np.ndarray) -> np.ndarray:
    """1 / rank of the true function, ties counted half (Q,)."""
    true_Q1 = scores_QF[np.arange(len(truth_Q)), truth_Q][:, None]
    above = (scores_QF > true_Q1).sum(1)
    ties = (scores_QF == true_Q1).sum(1)
    return 1.0 / (above + (1 + ties) / 2)


def bm25_scores(samples: Sequence[CodeSample], queries: Sequence[str]) -> np.ndarray:
    """BM25 of docstrings against function texts, identifiers split into words."""
    ranker = Bm25Names([split_words(sample.text) for sample in samples])
    asked = [Query(head=-1, head_name="", relation=0, text=split_words(text)) for text in queries]
    return ranker.score(asked)


def measure_search(
    prepared: CodePrepared, model: GraphMERT, part: str, *, n_queries: int, seed: int
) -> dict[str, Any]:
    """MRR and MRR@10 of docstring -> function over all functions of the part.

    Returns: systems graph, shuffled_graph, empty_graph and bm25, each with mrr, mrr@10, hits@1.
    """
    parts = list(zip(prepared.split.parts[part], prepared.chains[part], strict=True))
    pool = [(s, crop(c, prepared.config.tune.max_roots)) for s, c in parts if s.kind == "function"]
    samples, chains = [s for s, _ in pool], [c for _, c in pool]
    asked = [i for i, sample in enumerate(samples) if has_description(sample)]
    rng = np.random.default_rng(seed)
    if len(asked) > n_queries:
        asked = sorted(rng.choice(asked, size=n_queries, replace=False).tolist())
    truth = np.array(asked, dtype=np.int64)
    if not len(truth):
        return {"n_queries": 0, "n_functions": len(samples), "systems": {}}
    queries = [samples[i].docstring for i in asked]
    words, pad_id = words_for(prepared, model.config), prepared.tokenizer.pad_id
    room = prepared.config.tune.max_query_tokens
    text = encode_chains(
        model,
        [words_chain(prepared.tokenizer, q, max_tokens=room) for q in queries],
        words=words,
        pad_id=pad_id,
    )
    graphs = {
        "graph": chains,
        "shuffled_graph": shuffled_graph(chains, seed),
        "empty_graph": [replace(chain, triples=()) for chain in chains],
    }
    systems = {}
    for name, given in graphs.items():
        vectors = encode_chains(model, given, words=words, pad_id=pad_id)
        systems[name] = _search_numbers(reciprocal_ranks(text @ vectors.T, truth))
    systems["bm25"] = _search_numbers(reciprocal_ranks(bm25_scores(samples, queries), truth))
    return {"n_queries": len(queries), "n_functions": len(samples), "systems": systems}


def _search_numbers(reciprocal: np.ndarray) -> dict[str, float]:
    within = np.where(reciprocal >= 0.1, reciprocal, 0.0)
    return {
        "mrr@10": round(float(within.mean()), 4),
        "mrr": round(float(reciprocal.mean()), 4),
        "hits@1": round(float((reciprocal >= 1).mean()), 4),
        "standard_error": round(float(within.std() / math.sqrt(len(within))), 4),
    }
