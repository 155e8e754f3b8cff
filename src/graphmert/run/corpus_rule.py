"""What decides about a corpus: which relations are asked about, and which scores are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphmert.evaluate import calibrator_from_dict
from graphmert.evaluate.calibration import Calibrator
from graphmert.run.gathering import PHRASE, Offer
from graphmert.run.places import RelationRule


@dataclass(frozen=True)
class AddedRelation:
    """What decides about a relation that came after training, in the rule's stead.

    Attributes:
        calibrator: fitted on triples of the relation held apart. None: scores go through the
            calibrator of the other relations, and are an order, not probabilities.
        threshold: least probability, where there is a calibrator.
        relations: the least log p with which it is asked about, where there is a calibrator.
    """

    calibrator: Calibrator | None = None
    threshold: float | None = None
    relations: RelationRule | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "calibrator": None if self.calibrator is None else self.calibrator.to_dict(),
            "threshold": self.threshold,
            "relations": None if self.relations is None else self.relations.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AddedRelation:
        """Read what `to_dict` wrote; a part that is missing or unknown is an error."""
        if values["calibrator"] is None:
            return cls()
        return cls(
            calibrator_from_dict(values["calibrator"]),
            float(values["threshold"]),
            RelationRule(**values["relations"]),
        )


@dataclass(frozen=True)
class CorpusRule:
    """What validation heads chose for the corpus.

    Attributes:
        relations: which relations are asked about.
        calibrator: of known entities as tails.
        threshold: least probability.
        phrases: calibrator of phrases where they stand, fitted on known entities scored as phrases
            are; None where too few of these were correct.
        phrase_threshold: least probability of a novel tail, never below `threshold`.
        added: relations that came after training, by name.
    """

    relations: RelationRule
    calibrator: Calibrator
    threshold: float
    phrases: Calibrator | None
    phrase_threshold: float
    added: Mapping[str, AddedRelation] = field(default_factory=dict)

    def probability(self, offer: Offer, relation: str) -> float:
        """Return the calibrated score of one place's proposal; 0 where there is no calibration."""
        own = self.added.get(relation)
        if offer.kind == PHRASE:
            calibrator = self.phrases
        else:
            calibrator = self.calibrator if own is None else own.calibrator or self.calibrator
        return 0.0 if calibrator is None else float(calibrator.predict([offer.raw])[0])

    def least(self, relation: str, *, novel: bool) -> float:
        """Return the least probability with which a place speaks for a triple of a relation.

        A place below it is no evidence, whatever other places say.
        """
        own = self.added.get(relation)
        least = self.threshold if own is None or own.threshold is None else own.threshold
        return max(least, self.phrase_threshold) if novel else least

    def added_places(self, relations: Sequence[str]) -> list[int]:
        """Return the indices of the relations that came after training."""
        return [place for place, name in enumerate(relations) if name in self.added]

    @property
    def asked_from(self) -> dict[str, float | None]:
        """The least log p of single relations, where it is not that of `relations`."""
        return {
            name: one.relations.threshold
            for name, one in self.added.items()
            if one.relations is not None
        }

    @property
    def uncalibrated(self) -> list[str]:
        """Relations whose scores are an order, not probabilities."""
        return sorted(name for name, one in self.added.items() if one.calibrator is None)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "relations": self.relations.to_dict(),
            "calibrator": self.calibrator.to_dict(),
            "threshold": self.threshold,
            "novel_tails": None
            if self.phrases is None
            else {"calibrator": self.phrases.to_dict(), "threshold": self.phrase_threshold},
        }
