"""Measure link prediction honestly: ranks, intervals, calibration and baselines.

`metrics.json` of a run directory holds one object::

    {
      "system": NAME,                    # the system the run is about
      "test": {                          # and "valid", of the same shape
        "n_triples": int, "n_heads": int, "n_entities": int,
        "systems": {
          NAME: {
            "trained": bool,             # false: an untrained baseline
            "n": int,
            "mrr_micro":  {"value": float, "low": float, "high": float},
            "mrr_macro":  {...},         # mean over relations of their means
            "hits@1": {...}, "hits@3": {...}, "hits@10": {...},                    # micro
            "hits@1_macro": {...}, "hits@3_macro": {...}, "hits@10_macro": {...},
            "per_relation":    {RELATION: {"n", "mrr", "hits@1", "hits@3", "hits@10"}},
            "per_tail_length": {"1"|"2"|"3"|"4"|"5+": {same}},
            "heads_seen_as_tails": {same},    # heads that occur as tails in training
            "unseen_heads": {same}            # heads that occur in no training triple at all
          }
        },
        "differences": [                 # paired, a - b, clustered by head
          {"a": NAME, "b": NAME, "statistic": "mrr_micro"|"mrr_macro",
           "value": float, "low": float, "high": float}
        ]
      },
      "calibration": {
        "calibrator": {"kind": "isotonic"|"temperature", ...},
        "fitted_on": "valid", "measured_on": "test",
        "ece": float,
        "bins": [{"n": int, "confidence": float, "accuracy": float, "low": float, "high": float}],
        "threshold": float, "precision": float|null, "recall": float, "f1": float,
        "n_accepted": int, "n_true": int, "target_reached": bool
      },
      "sweep": [{"threshold", "precision", "recall", ...}],    # with extract.sweep; valid heads
      "beta_sweep": [{"beta", "n_candidates", "n_correct"}],   # with extract.corpus.beta too
      "extraction": {MEASURE: number|text},   # counts and shares of the extracted graph
      "graph": {                       # of `graph_measures`
        "support": {"n", "n_supported", "threshold", "score": interval|null, "unsupported"},
        "queries": {"n_queries", "n_true", "n_accepted", "n_correct", "precision", "recall",
                    "f1", ...},        # on queries with a held-out tail
        "top_one": {NAME: {"n_queries", "n_true", "n_correct", "precision", "recall", "f1"}},
        "graph_qa": {"n_questions", "systems": {GRAPH: {HOPS: {...}}}, "gain", "questions"},
        "frequency": {"head": [band], "tail": [band], "tail_slope": float|null}|null
      },
      "judged": {MEASURE: {"judge", "n", "n_judged", "score", ...}}    # where there is a judge
    }

Group numbers are null where the group is empty. Measures are rounded to six decimals.
The bi-encoder (`graphmert.evaluate.biencoder`) needs torch and is imported by name only.
"""

from __future__ import annotations

from graphmert.evaluate.baselines import (
    Baseline,
    NearestName,
    Query,
    score_block,
    untrained_baselines,
)
from graphmert.evaluate.bootstrap import Interval, clustered_interval, paired_difference
from graphmert.evaluate.calibration import (
    IsotonicCalibrator,
    OperatingPoint,
    TemperatureCalibrator,
    calibrator_from_dict,
    choose_threshold,
    operating_point,
    reliability,
)
from graphmert.evaluate.metrics import (
    exceeds_untrained,
    summarise_calibration,
    summarise_split,
    summarise_system,
)
from graphmert.evaluate.ranks import (
    QueryRow,
    Targets,
    filtered_rank,
    filtered_ranks,
    rank_in_blocks,
    rank_metrics,
)

__all__ = [
    "Baseline",
    "Interval",
    "IsotonicCalibrator",
    "NearestName",
    "OperatingPoint",
    "Query",
    "QueryRow",
    "Targets",
    "TemperatureCalibrator",
    "calibrator_from_dict",
    "choose_threshold",
    "clustered_interval",
    "exceeds_untrained",
    "filtered_rank",
    "filtered_ranks",
    "operating_point",
    "paired_difference",
    "rank_in_blocks",
    "rank_metrics",
    "reliability",
    "score_block",
    "summarise_calibration",
    "summarise_split",
    "summarise_system",
    "untrained_baselines",
]
