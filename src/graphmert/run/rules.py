"""What a run chose on validation heads, read again to be used on new documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphmert.errors import DataError
from graphmert.evaluate import calibrator_from_dict
from graphmert.run.corpus_rule import AddedRelation, CorpusRule
from graphmert.run.extraction import Rule
from graphmert.run.places import RelationRule


@dataclass(frozen=True)
class FrozenRule:
    """Everything that decides about a proposal beside the schema.

    Attributes:
        weights: of token scores and relations.
        corpus: which relations are asked about, calibrators, thresholds. Of a run that asked
            held-out heads only: every relation, one calibrator, no tail beyond the seed.
        beta: least similarity of a triple's words and its sequence; None is no filter.
    """

    weights: Rule
    corpus: CorpusRule
    beta: float | None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FrozenRule:
        """Read the `rule` of kg/measured.json.

        Raises:
            DataError: a part is missing or unknown; another version of this package wrote it.
        """
        try:
            calibrator = calibrator_from_dict(values["calibrator"])
            threshold = float(values["threshold"])
            token, relation = float(values["token_weight"]), float(values["relation_weight"])
            weights = Rule(token, relation, calibrator, threshold, dict(values["tried"]))
            relations, phrases, phrase_threshold = RelationRule(None, 1.0), None, threshold
            if "relations" in values:
                relations = RelationRule(**values["relations"])
                if (novel := values["novel_tails"]) is not None:
                    phrases = calibrator_from_dict(novel["calibrator"])
                    phrase_threshold = float(novel["threshold"])
            added = {
                name: AddedRelation.from_dict(one) for name, one in values.get("added", {}).items()
            }
            corpus = CorpusRule(relations, calibrator, threshold, phrases, phrase_threshold, added)
            return cls(weights, corpus, values["beta"] if "relations" in values else None)
        except (KeyError, TypeError) as error:
            raise DataError(
                "the rule of a run lacks a part, or has one that is not known",
                got=f"{', '.join(values)}: {error}",
                fix="Do the run's extract stage again with this version.",
            ) from error
