"""Measure what leaves of vectors are worth: named tails, and the next vector with and without.

RUN/leaves.json::

    {"format", "part", "fingerprint", "n_windows", "n_windows_with_leaves", "n_entities",
     "next_vector": {"with_leaves": INTERVAL, "leaves_taken_away": INTERVAL, "change": INTERVAL,
                     "trained_without": INTERVAL, "gain_over_trained_without": INTERVAL},
     "n_candidates", "leaf": {SYSTEM: {"all"|"unseen": {"n", "mrr", "r@1", "r@5", "r@10":
     INTERVAL}}}, "chance": {"r@1", "r@5", "r@10", "mrr"}}

A query masks one leaf of a window, on every row where it hangs; the true tail is ranked among the
entities by the model, by the cosine with the vector of the row, by that with the vector of the head
entity, by how often training rows have the tail under the relation, and by how often at all. For
all of them the head entity itself, entities that are vectors of the corpus and never are leaves,
and other true tails of the same head entity and relation are no candidates; ties count half.
"n_candidates" is their mean number, "chance" what random ranks among them give. "unseen" are
triples that no training row carries. Intervals are over resampled documents.

Shapes: M windows, B windows of a block, E entities, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from graphmert.domains.vectors.data import Part, VectorData, Windows
from graphmert.domains.vectors.links import Leaves
from graphmert.errors import DataError
from graphmert.evaluate.forecasts import chance_of_ranks, document_interval
from graphmert.forecast import LeafFeed, LeafForecaster, known_tails
from graphmert.forecast.leaves import KnownTails
from graphmert.progress import Progress, Silent

FORMAT = "graphmert-vector-leaves-2"
CUTOFFS = (1, 5, 10)
SYSTEMS = (
    "model",
    "nearest entity to the row",
    "nearest entity to the head",
    "most frequent of relation",
    "most frequent",
)
_BLOCK = 64


def evaluate_leaves(
    model: LeafForecaster,
    data: VectorData,
    leaves: Leaves,
    *,
    part: Part = "test",
    size: int | None = None,
    without: nn.Module | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the content of leaves.json.

    Args:
        model: trained with leaves.
        data: the data set.
        leaves: leaves of its rows.
        part: what to measure on.
        size: training vectors that the model saw, for frequencies and unseen triples.
        without: a model of contexts alone, such as the same network trained without leaves.
        seed: which leaf of a window is masked, and of the resamples.
        progress: told how many windows are done.

    Raises:
        DataError: no window of the part has a leaf.

    Checked by: tests/unit/evaluate/test_vector_leaves.py
    """
    windows = data.windows(part)
    seen = Seen(leaves, np.unique(data.windows("train", size=size).context_rows(slice(None))))
    model.eval()
    cosines = _cosines(model, windows, leaves, without, progress or Silent())
    table = _ranks(model, windows, leaves, seen, seed=seed)
    if not len(table["window"]):
        raise DataError(
            "no window has a leaf", where=part, fix="Link with a lower alpha, or more entities."
        )

    chance = chance_of_ranks(table["n_candidates"])
    return {
        "format": FORMAT,
        "part": part,
        "fingerprint": data.fingerprint(part),
        "n_windows": len(windows),
        "n_windows_with_leaves": len(table["window"]),
        "n_entities": len(leaves.entities),
        "n_candidates": round(float(table["n_candidates"].mean()), 3),
        "next_vector": _next_vector(cosines, windows.doc, seed=seed),
        "leaf": _by_system(table, windows.doc, seed=seed),
        "chance": {name: round(value, 6) for name, value in chance.items()},
    }


def _next_vector(
    cosines: dict[str, NDArray[np.float32]], docs: NDArray[np.int32], *, seed: int
) -> dict[str, dict[str, float]]:
    """Mean cosines, and paired differences, with intervals."""
    given = cosines["with_leaves"]
    rows = cosines | {"change": given - cosines["leaves_taken_away"]}
    if "trained_without" in cosines:
        rows["gain_over_trained_without"] = given - cosines["trained_without"]
    return {name: _interval(values, docs, seed) for name, values in rows.items()}


def _by_system(
    table: dict[str, NDArray[Any]], docs: NDArray[np.int32], *, seed: int
) -> dict[str, Any]:
    """MRR and R@k of each system, for all triples and for those not seen in training."""
    docs, is_unseen = docs[table["window"]], table["unseen"]
    found: dict[str, Any] = {}
    for system in SYSTEMS:
        found[system] = {}
        for group, chosen in (("all", np.ones_like(is_unseen)), ("unseen", is_unseen)):
            ranks = table[system][chosen]
            row: dict[str, Any] = {"n": len(ranks)}
            if len(ranks):
                row["mrr"] = _interval(1 / ranks, docs[chosen], seed)
                row |= {f"r@{k}": _interval(ranks <= k, docs[chosen], seed) for k in CUTOFFS}
            found[system][group] = row
    return found


def _interval(values: NDArray[Any], docs: NDArray[Any], seed: int) -> dict[str, float]:
    return document_interval(values.astype(np.float64), docs, seed=seed).to_dict()


class Seen:
    """What the leaves of training rows tell: how often a tail occurs, and which triples do."""

    def __init__(self, leaves: Leaves, rows: NDArray[np.int64]) -> None:
        spans = [leaves.of_row(int(row)) for row in rows]
        parts = [np.arange(span.start, span.stop) for span in spans]
        chosen = np.concatenate([np.zeros(0, np.int64), *parts])
        n_entities = len(leaves.entities)
        tails, relations = leaves.tail[chosen], leaves.relation[chosen]
        self.count_E = np.bincount(tails, minlength=n_entities).astype(np.float32)
        self.count_RE = np.zeros((len(leaves.relations), n_entities), np.float32)
        np.add.at(self.count_RE, (relations, tails), 1)
        columns = (leaves.head[chosen], relations, tails)
        self.triples = set(zip(*(column.tolist() for column in columns), strict=True))


def _blocks(n: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, n, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, n))


def _cosines(
    model: LeafForecaster,
    windows: Windows,
    leaves: Leaves,
    without: nn.Module | None,
    progress: Progress,
) -> dict[str, NDArray[np.float32]]:
    """Cosine of prediction and target by window: with leaves, with none, of another model."""
    feed = _feed(model, windows, leaves, masking="none", seed=0)
    found: dict[str, list[NDArray[np.float32]]] = {}
    progress.begin("next vectors", total=len(windows), unit="windows")
    with torch.no_grad():
        for index in _blocks(len(windows)):
            batch = feed.take(index, key=(0,))
            contexts = torch.from_numpy(windows.contexts(index))
            outputs = {
                "with_leaves": model.next_vectors(batch.chains),
                "leaves_taken_away": model(contexts),
            }
            if without is not None:
                outputs["trained_without"] = without.eval()(contexts)
            for name, raw in outputs.items():
                cosine = F.cosine_similarity(raw.float(), batch.targets_BC, dim=-1)
                found.setdefault(name, []).append(cosine.numpy())
            progress.update(int(index[-1]) + 1)
    progress.end()
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _feed(
    model: LeafForecaster, windows: Windows, leaves: Leaves, *, masking: Any, seed: int
) -> LeafFeed:
    settings = model.settings.model_copy(update={"n_negatives": 1})
    return LeafFeed(
        windows, leaves, settings, known={}, batch_size=_BLOCK, masking=masking, seed=seed
    )


def _ranks(
    model: LeafForecaster, windows: Windows, leaves: Leaves, seen: Seen, *, seed: int
) -> dict[str, NDArray[Any]]:
    """Ranks of the true tails of one masked leaf a window, by system."""
    feed = _feed(model, windows, leaves, masking="one", seed=seed)
    known = known_tails(leaves)
    unit_EC = F.normalize(torch.from_numpy(np.array(leaves.entities)), dim=-1)
    names = ("window", "unseen", "n_candidates", *SYSTEMS)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for index in _blocks(len(windows)):
        batch = feed.take(index, key=(seed, int(index[0])))
        if not len(batch.query_Q):
            continue
        chains = batch.chains
        rows_Q = chains.row_T[batch.query_Q]
        relation_Q = chains.relation_T[batch.query_Q].numpy()
        head_row_Q = windows.starts[index[rows_Q.numpy()]]
        head_row_Q = head_row_Q + chains.head_start_T[batch.query_Q].numpy()
        row_QC = F.normalize(torch.from_numpy(np.asarray(windows.vectors[head_row_Q])), dim=-1)
        triples = _masked_triples(feed, windows, index, batch.query_Q.numpy())
        head_QC = unit_EC[[head for head, _, _ in triples]]
        with torch.no_grad():
            query_QC = model.leaf_queries(model.core(chains), chains, batch.query_Q)
        scores = {
            SYSTEMS[0]: (query_QC @ unit_EC.T).numpy(),
            SYSTEMS[1]: (row_QC @ unit_EC.T).numpy(),
            SYSTEMS[2]: (head_QC @ unit_EC.T).numpy(),
            SYSTEMS[3]: seen.count_RE[relation_Q],
            SYSTEMS[4]: np.broadcast_to(seen.count_E, (len(relation_Q), len(unit_EC))),
        }
        hidden = _no_candidates(triples, known, leaves.usable)
        tail_Q = np.array([tail for _, _, tail in triples])
        for name, score in scores.items():
            columns[name].append(_realistic(score, tail_Q, hidden))
        columns["window"].append(index[rows_Q.numpy()])
        columns["unseen"].append(np.array([one not in seen.triples for one in triples]))
        columns["n_candidates"].append((~hidden).sum(1))
    empty = {"window": np.zeros(0, np.int64), "unseen": np.zeros(0, bool)}
    return {
        name: np.concatenate(parts) if parts else empty.get(name, np.zeros(0))
        for name, parts in columns.items()
    }


def _no_candidates(
    triples: Sequence[tuple[int, int, int]], known: KnownTails, usable: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(Q, E) True at entities that are not ranked for a triple: see the head of the module."""
    hidden = np.tile(~usable, (len(triples), 1))
    for place, (head, relation, tail) in enumerate(triples):
        hidden[place, [head, *known.get((head, relation), frozenset())]] = True
        hidden[place, tail] = False
    return hidden


def _masked_triples(
    feed: LeafFeed, windows: Windows, index: NDArray[np.int64], query_Q: NDArray[np.int64]
) -> list[tuple[int, int, int]]:
    """(head entity, relation, tail) of triples by their number in the batch."""
    every = [
        (one.head_entity, one.relation, one.tail_entity)
        for rows in windows.context_rows(index)
        for one in feed.chain(rows).triples
    ]
    return [every[int(place)] for place in query_Q]


def _realistic(
    score_QE: NDArray[np.floating], tail_Q: NDArray[np.int64], hidden_QE: NDArray[np.bool_]
) -> NDArray[np.float64]:
    true_Q1 = score_QE[np.arange(len(tail_Q)), tail_Q][:, None]
    above = ((score_QE > true_Q1) & ~hidden_QE).sum(1)
    equal = ((score_QE == true_Q1) & ~hidden_QE).sum(1) - 1
    return 1 + above + equal / 2
