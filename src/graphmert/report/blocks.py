"""What a report is made of, before it becomes HTML or Markdown.

Both renderers walk the same blocks, so both files say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SystemKind = Literal["main", "trained", "untrained"]


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table of text cells; columns after the first `n_text` hold numbers.

    Attributes:
        columns: headings.
        rows: cells, as many per row as there are columns.
        n_text: leading columns that hold text.
        strong: indices of rows to set off.
        note: a line below the table.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_text: int = 1
    strong: frozenset[int] = frozenset()
    note: str = ""


@dataclass(frozen=True)
class Reason:
    """Why a stage left items out, how many, and a few of them."""

    text: str
    n: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """One line of the funnel."""

    name: str
    n_offered: int
    n_kept: int
    reasons: tuple[Reason, ...]

    @property
    def n_left_out(self) -> int:
        """Items left out, over all reasons."""
        return sum(reason.n for reason in self.reasons)


@dataclass(frozen=True)
class Funnel:
    """What every stage was offered, kept and left out."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class IntervalRow:
    """One system's score with its interval."""

    label: str
    value: float
    low: float
    high: float
    kind: SystemKind


@dataclass(frozen=True)
class Intervals:
    """Scores of several systems side by side, on an axis from `low` to `high`.

    `main` says in the key what the system of kind "main" is.
    """

    title: str
    rows: tuple[IntervalRow, ...]
    low: float = 0.0
    high: float = 1.0
    main: str = "this run"


@dataclass(frozen=True)
class Curve:
    """A named line of (update, loss) points."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class LossPanel:
    """The curves of one objective; the vertical axis begins at `low`."""

    title: str
    curves: tuple[Curve, ...]
    x_label: str = "updates"
    low: float = 0.0


@dataclass(frozen=True)
class LossCurves:
    """Loss over updates, one panel per objective."""

    panels: tuple[LossPanel, ...]


@dataclass(frozen=True)
class CalibrationPoint:
    """One bin: mean probability, share correct, number of candidates."""

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class CalibrationPlot:
    """Probability against share correct."""

    points: tuple[CalibrationPoint, ...]
    threshold: float | None


@dataclass(frozen=True)
class SweepPoint:
    """What accepting from a threshold gives; precision is None where nothing is accepted."""

    threshold: float
    precision: float | None
    recall: float
    n_accepted: int


@dataclass(frozen=True)
class SweepPlot:
    """Precision and recall of validation heads over the threshold, and the one chosen."""

    points: tuple[SweepPoint, ...]
    chosen: float | None


@dataclass(frozen=True)
class Segment:
    """A piece of a sentence that lies in the head, in the tail, in both or in neither."""

    text: str
    in_head: bool
    in_tail: bool


@dataclass(frozen=True)
class Sample:
    """One accepted triple with one sentence of evidence.

    Attributes:
        head: name of the head.
        relation: name of the relation.
        tail: name of the tail.
        score: calibrated score.
        novel: not in the closure of the training triples.
        held_out: one of the triples kept back for validation or test.
        inferred: the tail is not in the text.
        n_evidence: rows of evidence in all.
        document: id of the document the sentence is from.
        segments: the sentence, cut at the ends of head and tail.
    """

    head: str
    relation: str
    tail: str
    score: float
    novel: bool
    held_out: bool
    inferred: bool
    n_evidence: int
    document: str
    segments: tuple[Segment, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """What is to be said about the triple in one word each."""
        named = {"novel": self.novel, "held-out truth": self.held_out, "inferred": self.inferred}
        return tuple(name for name, holds in named.items() if holds)


@dataclass(frozen=True)
class Samples:
    """Sample triples under one heading."""

    title: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str


Block = (
    Paragraph
    | Table
    | Funnel
    | Intervals
    | LossCurves
    | CalibrationPlot
    | SweepPlot
    | Samples
    | Code
)


@dataclass(frozen=True)
class Section:
    """A heading with its blocks."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def anchor(self) -> str:
        """The name that links point to."""
        return "-".join(self.title.lower().split())


@dataclass(frozen=True)
class Report:
    """A whole report: a title, a few facts in large type, sections."""

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
