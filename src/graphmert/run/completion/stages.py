"""The stages of a run that completes a graph: train, rank, evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from graphmert.evaluate.bootstrap import clustered_interval
from graphmert.evaluate.ranks import HITS_AT
from graphmert.known import KnownGraph, mirrored
from graphmert.progress import Progress
from graphmert.run.completion.prepared import Completion
from graphmert.run.completion.ranking import SIDES, Ranker, encode_graph
from graphmert.run.completion.training import train_completion
from graphmert.run.manifest import StageOutput
from graphmert.run.settings import RunConfig
from graphmert.run.stages import MODEL_FILES, load_model
from graphmert.shards import atomic_write_json
from graphmert.store import make_table

RANKED = ("valid", "test")


def load_completion(config: RunConfig, run_dir: Path) -> Completion:
    """Read what the prepare stage wrote."""
    return Completion.load(run_dir, max_leaf_tokens=config.complete.max_leaf_tokens)


def train_stage(
    config: RunConfig, run_dir: Path, fingerprint: str, progress: Progress
) -> StageOutput:
    """Train, going on from the last checkpoint of the same fingerprint."""
    prepared = load_completion(config, run_dir)
    out = run_dir / "model"
    result = train_completion(config, prepared, out, fingerprint=fingerprint, progress=progress)
    counts: dict[str, Any] = {
        "n_updates": result.n_steps,
        "stop_reason": result.stop_reason,
        "best_update": result.best_step,
        "best_valid_loss": result.best_value,
    }
    files = [out / name for name in (*MODEL_FILES, "training.jsonl")]
    return StageOutput(files, counts, timings=result.timings)


def shown_graphs(prepared: Completion) -> dict[str, KnownGraph]:
    """What a question may see: nothing, what was trained on, all training triples as given."""
    graphs = {"none": prepared.graph(), "train": prepared.graph("train")}
    if len(prepared.triples["mirrors"]):
        graphs["given"] = prepared.graph("train", "mirrors")
    return graphs


def rank_stage(config: RunConfig, run_dir: Path, progress: Progress) -> StageOutput:
    """Rank both ends of the validation and test triples, once for each graph shown."""
    prepared = load_completion(config, run_dir)
    model = load_model(run_dir / "model")
    columns: dict[str, list[Any]] = {
        name: [] for name in ("graph", "split", "side", "head_id", "relation", "tail_id", "rank")
    }
    held = np.concatenate([prepared.triples[part] for part in RANKED])
    n_relations = len(prepared.relations)
    asked = np.concatenate([held[:, :2], np.stack([held[:, 2], held[:, 1] + n_relations], axis=1)])
    for name, graph in shown_graphs(prepared).items():
        encoded = encode_graph(
            model,
            prepared,
            graph,
            asked,
            max_shown=config.complete.walks.max_shown,
            precision=config.train.precision,
            progress=progress,
        )
        ranker = Ranker(model, prepared, graph, encoded, shows=name != "none")
        for part in RANKED:
            triples = prepared.triples[part]
            for side, ranks in ranker.ranks(triples).items():
                for (head, relation, tail), rank in zip(triples.tolist(), ranks, strict=True):
                    columns["graph"].append(name)
                    columns["split"].append(part)
                    columns["side"].append(side)
                    columns["head_id"].append(prepared.entity_ids[head])
                    columns["relation"].append(prepared.relations[relation])
                    columns["tail_id"].append(prepared.entity_ids[tail])
                    columns["rank"].append(float(rank))
    path = prepared.run.write("kg/completion", make_table("kg/completion", columns))
    return StageOutput([path], {"ranks": len(columns["rank"])})


def evaluate_stage(config: RunConfig, run_dir: Path) -> StageOutput:
    """Average the ranks as the literature does, and write metrics.json."""
    prepared = load_completion(config, run_dir)
    ranks = prepared.run.read("kg/completion")
    results = []
    for graph in dict.fromkeys(ranks["graph"].to_pylist()):
        for part in RANKED:
            rows = ranks.filter(_equal(ranks, graph=graph, split=part))
            results.append(_summarise(prepared, rows, graph, part, config))
    held = np.concatenate([prepared.triples[part] for part in RANKED])
    inverse = _inverse(prepared)
    section = {
        "n_entities": len(prepared.entity_ids),
        "n_relations": len(prepared.relations),
        "n_triples": {name: len(rows) for name, rows in prepared.triples.items()},
        "leaks": leaks(prepared.leaves_in_chains(), held, inverse, len(prepared.relations)),
        "results": results,
        "already_have": already_have(prepared, "test"),
        "published": [one.model_dump(mode="json") for one in config.complete.published],
    }
    path = run_dir / "metrics.json"
    atomic_write_json(path, {"system": "graphmert", "completion": section})
    counts = {
        f"{one['graph']} {one['split']}": {"mrr": one["both"]["mrr"]["value"]} for one in results
    }
    return StageOutput([path], counts)


def leaks(
    leaves_X3: np.ndarray, held_H3: np.ndarray, inverse_E: np.ndarray, n_relations: int
) -> dict[str, int]:
    """Count held-out triples, and their mirrors, among the leaves of training chains.

    A leaf read from its tail's end counts as the triple it says.
    """
    head, relation, tail = leaves_X3.T if len(leaves_X3) else np.zeros((3, 0), np.int64)
    is_turned = relation >= n_relations
    plain = np.where(
        is_turned, np.stack([tail, relation - n_relations, head]), np.stack([head, relation, tail])
    ).T
    shown = set(map(tuple, plain.tolist()))
    same = set(map(tuple, held_H3.tolist()))
    back = set(map(tuple, mirrored(held_H3, inverse_E).tolist()))
    return {"held_out_triples": len(shown & same), "mirrors_of_held_out": len(shown & back)}


def already_have(prepared: Completion, part: str) -> dict[str, dict[str, float]]:
    """How many entities have a relation in training, and how many ends of held-out triples do.

    Returns: relation -> shares: of all entities, of the part's heads; the same as tails.
    """
    graph, rows = prepared.graph("train"), prepared.triples[part]
    found: dict[str, dict[str, float]] = {}
    for place, name in enumerate(prepared.relations):
        asked = rows[rows[:, 1] == place]
        if not len(asked):
            continue
        as_head = graph.counts[:, place] > 0
        as_tail = graph.counts[:, place + len(prepared.relations)] > 0
        shares = {
            "entities_as_head": as_head.mean(),
            "held_out_heads": as_head[asked[:, 0]].mean(),
            "entities_as_tail": as_tail.mean(),
            "held_out_tails": as_tail[asked[:, 2]].mean(),
        }
        found[name] = {key: round(float(value), 4) for key, value in shares.items()}
    return found


def _inverse(prepared: Completion) -> np.ndarray:
    place_of = {name: place for place, name in enumerate(prepared.relations)}
    relations = prepared.schema.relations
    return np.array([place_of[relations[name].inverse or name] for name in prepared.relations])


def _equal(table: pa.Table, **wanted: str) -> pa.Array:
    columns = [np.array(table[name].to_pylist()) == value for name, value in wanted.items()]
    return pa.array(np.logical_and.reduce(columns))


def _summarise(
    prepared: Completion, rows: pa.Table, graph: str, part: str, config: RunConfig
) -> dict[str, Any]:
    """Means over both sides, over each, by relation, and apart for triples with a mirror."""
    triples = prepared.triples[part]
    sides = np.array(rows["side"].to_pylist())
    rank_S = {side: rows["rank"].to_numpy()[sides == side] for side in SIDES}
    given = prepared.graph("train", "mirrors")
    has_mirror = given.find(mirrored(triples, _inverse(prepared))) >= 0
    every = np.ones(len(triples), dtype=bool)
    by_relation = {
        name: {side: _means(rank_S, (side,), triples[:, 1] == place) for side in SIDES}
        | {"both": _means(rank_S, SIDES, triples[:, 1] == place)}
        for place, name in enumerate(prepared.relations)
        if (triples[:, 1] == place).any()
    }
    return {
        "graph": graph,
        "split": part,
        "both": _intervals(rank_S, triples, config),
        **{side: _means(rank_S, (side,), every) for side in SIDES},
        "with_mirror": _means(rank_S, SIDES, has_mirror),
        "without_mirror": _means(rank_S, SIDES, ~has_mirror),
        "per_relation": by_relation,
    }


def _means(
    rank_S: Mapping[str, np.ndarray], sides: tuple[str, ...], chosen: np.ndarray
) -> dict[str, Any]:
    """Means over some triples and sides; None where there are none."""
    rank = np.concatenate([rank_S[side][chosen] for side in sides])
    if not len(rank):
        return {"n": 0, "mrr": None, **{f"hits@{k}": None for k in HITS_AT}}
    found = {"mrr": 1 / rank} | {f"hits@{k}": rank <= k for k in HITS_AT}
    return {"n": int(chosen.sum())} | {
        name: round(float(np.mean(values)), 6) for name, values in found.items()
    }


def _intervals(
    rank_S: Mapping[str, np.ndarray], triples: np.ndarray, config: RunConfig
) -> dict[str, Any]:
    """The mean of both sides of every triple, with intervals over resampled heads."""
    found: dict[str, Any] = {"n": len(triples)}
    for name in ("mrr", *(f"hits@{k}" for k in HITS_AT)):
        limit = None if name == "mrr" else int(name.removeprefix("hits@"))
        values = np.mean(
            [1 / rank if limit is None else rank <= limit for rank in rank_S.values()], axis=0
        )
        found[name] = clustered_interval(
            values,
            triples[:, 0],
            triples[:, 1],
            average="micro",
            seed=config.seed,
            n_resamples=config.evaluate.n_resamples,
        ).to_dict()
    return found
