"""Which definition is called: disambiguation, call graphs and dependencies of held-out packages.

A linear model over features of candidates is fitted on the validation packages, with and without
the encoder's score. Legend: K features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from graphmert.domains.code.tables import CodeTables
from graphmert.run.code.sites import FEATURES, Site

MODEL = FEATURES.index("model")
RULES = tuple(range(1, len(FEATURES)))
IMPORTED = FEATURES.index("imported")

Choice = Callable[[Site], np.ndarray]
"""Scores of a site's candidates; the best wins, ties share."""


@dataclass(frozen=True)
class Chooser:
    """A linear score of candidates, and of calling none of them.

    Attributes:
        columns: the features it reads.
        weight_K: their weights.
        none: score of a target outside the package.
    """

    columns: tuple[int, ...]
    weight_K: np.ndarray
    none: float

    def scores(self, site: Site) -> np.ndarray:
        """Scores of the candidates."""
        return site.features[:, list(self.columns)] @ self.weight_K


def fit_chooser(sites: Sequence[Site], columns: tuple[int, ...], *, none: bool) -> Chooser:
    """Fit the softmax over a site's candidates (and `none`) to the truth, with a small ridge."""
    usable = [site for site in sites if site.truth is not None or none]
    weight = torch.zeros(len(columns) + 1, dtype=torch.float64, requires_grad=True)
    if not usable:
        return Chooser(columns, np.zeros(len(columns)), 0.0)
    features = [torch.from_numpy(site.features[:, list(columns)]) for site in usable]
    truth = [
        site.candidates.index(site.truth) if site.truth is not None else len(site.candidates)
        for site in usable
    ]
    sizes = [len(one) for one in features]
    longest = max(sizes)
    table = torch.zeros(len(usable), longest + 1, len(columns), dtype=torch.float64)
    live = torch.zeros(len(usable), longest + 1, dtype=torch.bool)
    is_none = torch.zeros(len(usable), longest + 1, dtype=torch.float64)
    label = torch.tensor(truth)
    for i, one in enumerate(features):
        table[i, : sizes[i]] = one
        live[i, : sizes[i] + none] = True
        is_none[i, sizes[i]] = 1.0
    optimizer = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = table @ weight[:-1] + is_none * weight[-1]
        logits = logits.masked_fill(~live, -torch.inf)
        loss = torch.nn.functional.cross_entropy(logits, label)
        loss = loss + 1e-3 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    values = weight.detach().numpy()
    return Chooser(columns, values[:-1].copy(), float(values[-1]))


def expected_accuracy(sites: Sequence[Site], choose: Choice) -> float:
    """Share of sites whose best candidate is the true one; ties count their share."""
    total = 0.0
    for site in sites:
        assert site.truth is not None
        scores = choose(site)
        best = np.flatnonzero(scores >= scores.max() - 1e-12)
        if site.candidates.index(site.truth) in best:
            total += 1 / len(best)
    return total / len(sites) if sites else float("nan")


def _column(name: str) -> Choice:
    index = FEATURES.index(name)
    return lambda site: site.features[:, index]


def _import_aware(site: Site) -> np.ndarray:
    """Same class, else same file, else imported, else nothing."""
    f = site.features
    return f[:, 1] * 8 + f[:, 2] * 4 + f[:, IMPORTED] * 2 + f[:, 5]


BASELINES: dict[str, Choice] = {
    "same_file": _column("same_file"),
    "import_aware": _import_aware,
    "nearest_name": _column("path"),
}


def measure_disambiguation(
    valid: Sequence[Site], test: Sequence[Site], *, truth: str
) -> dict[str, Any]:
    """Top-1 accuracy over call sites of several candidates, one of them true."""

    def several(sites: Sequence[Site]) -> list[Site]:
        return [s for s in sites if s.truth is not None and len(s.candidates) > 1]

    chosen, fitted_on = several(test), several(valid)
    if not chosen:
        return {"n_sites": 0, "systems": {}}
    whole = fit_chooser(fitted_on, (MODEL, *RULES), none=False)
    rules = fit_chooser(fitted_on, RULES, none=False)
    systems: dict[str, Choice] = {
        "graphmert": whole.scores,
        "encoder_alone": _column("model"),
        "rules_alone": rules.scores,
        **BASELINES,
    }
    return {
        "n_sites": len(chosen),
        "n_sites_fitted": len(fitted_on),
        "mean_candidates": round(float(np.mean([len(s.candidates) for s in chosen])), 2),
        "truth": truth,
        "weights": _weights(whole),
        "systems": {
            name: {"accuracy": round(expected_accuracy(chosen, choose), 4)}
            for name, choose in systems.items()
        },
    }


def _weights(chooser: Chooser) -> dict[str, float]:
    names = [FEATURES[c] for c in chooser.columns]
    return {n: round(float(w), 3) for n, w in zip(names, chooser.weight_K, strict=True)}


def predict_edges(sites: Sequence[Site], chooser: Chooser) -> set[tuple[str, str]]:
    """(source, target) of every site whose best candidate scores above calling none."""
    found = set()
    for site in sites:
        scores = chooser.scores(site)
        best = int(scores.argmax())
        if scores[best] > chooser.none:
            found.add((site.reference.source_id, site.candidates[best]))
    return found


def _all_names(sites: Sequence[Site]) -> set[tuple[str, str]]:
    return {(s.reference.source_id, c) for s in sites for c in s.candidates}


def _by_rule(sites: Sequence[Site], choose: Choice, least: float) -> set[tuple[str, str]]:
    found = set()
    for site in sites:
        scores = choose(site)
        best = int(scores.argmax())
        if scores[best] >= least:
            found.add((site.reference.source_id, site.candidates[best]))
    return found


def f1(predicted: set[Any], true: set[Any]) -> dict[str, float]:
    """Precision, recall and their harmonic mean."""
    hits = len(predicted & true)
    precision = hits / len(predicted) if predicted else 0.0
    recall = hits / len(true) if true else 0.0
    both = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {"precision": round(precision, 4), "recall": round(recall, 4), "f1": round(both, 4)}


def measure_call_graph(valid: Sequence[Site], test: Sequence[Site]) -> dict[str, Any]:
    """F1 of the edges of a package's own call graph, every site's resolution hidden."""
    truth = {(s.reference.source_id, s.truth) for s in test if s.truth is not None}
    whole = fit_chooser(valid, (MODEL, *RULES), none=True)
    rules = fit_chooser(valid, RULES, none=True)
    alone = fit_chooser(valid, (MODEL,), none=True)
    predicted = {
        "graphmert": predict_edges(test, whole),
        "encoder_alone": predict_edges(test, alone),
        "rules_alone": predict_edges(test, rules),
        "every_same_name": _all_names(test),
        "import_aware": _by_rule(test, _import_aware, 2.0),
        "nearest_name": _by_rule(test, _column("path"), 0.0),
    }
    return {
        "n_sites": len(test),
        "n_edges": len(truth),
        "systems": {name: f1(edges, truth) for name, edges in predicted.items()},
    }


def measure_dependencies(
    tables: CodeTables,
    valid: Sequence[Site],
    test: Sequence[Site],
    dependencies: Mapping[str, set[tuple[str, str]]],
) -> dict[str, Any]:
    """F1 of which file depends on which, read from calls; no system sees an import.

    Args:
        dependencies: part -> (file, imported file) inside the part's packages; only files with
            a call site are asked about.
    """
    unseen = tuple(c for c in RULES if c != IMPORTED)
    whole = fit_chooser(valid, (MODEL, *unseen), none=True)
    rules = fit_chooser(valid, unseen, none=True)
    asked = {site.reference.doc_id for site in test}
    truth = {edge for edge in dependencies["test"] if edge[0] in asked}

    def files(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
        symbol_of = tables.symbol_of
        pairs = {(symbol_of[a].doc_id, symbol_of[b].doc_id) for a, b in edges if a in symbol_of}
        return {pair for pair in pairs if pair[0] != pair[1]}

    predicted = {
        "graphmert": files(predict_edges(test, whole)),
        "rules_alone": files(predict_edges(test, rules)),
        "every_same_name": files(_all_names(test)),
        "nearest_name": files(_by_rule(test, _column("path"), 0.0)),
    }
    return {
        "n_files": len(asked),
        "n_dependencies": len(truth),
        "systems": {name: f1(edges, truth) for name, edges in predicted.items()},
    }


def file_dependencies(tables: CodeTables, packages: set[str]) -> set[tuple[str, str]]:
    """(document, document it imports from) within one package each."""
    found = set()
    for reference in tables.references:
        if reference.relation not in ("imports", "imported_from") or not reference.target_id:
            continue
        symbol = tables.symbol_of.get(reference.target_id)
        target = symbol.doc_id if symbol is not None else reference.target_id
        if target not in tables.texts or target == reference.doc_id:
            continue
        package = tables.package_of[reference.doc_id]
        if package in packages and tables.package_of[target] == package:
            found.add((reference.doc_id, target))
    return found
