"""Call sites and their candidates: every definition of the package with the name that is called.

Legend: S sites, K features of a candidate.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from graphmert.domains.code.samples import CLASSES, FUNCTIONS
from graphmert.domains.code.tables import CodeTables, Reference, Symbol
from graphmert.errors import FormatError
from graphmert.model import GraphMERT
from graphmert.run.code.asking import Asking, Pool, Question, ask
from graphmert.run.code.prepared import CodePrepared
from graphmert.shards import Ledger

CALLS = frozenset({"calls", "invokes", "instantiates"})
FEATURES = ("model", "same_class", "same_file", "imported", "path", "shape")
SURE = 0.8
"""Confidence from which a resolved reference counts as true where no other truth is given."""


@dataclass(frozen=True)
class Site:
    """One place that calls something by name.

    Attributes:
        question: how it is asked; its tail is -1.
        reference: the row of the index.
        candidates: ids of the package's definitions of that name, sorted.
        truth: the definition called; None where it lies outside the package.
        features: float64 (candidates, K), see FEATURES.
    """

    question: Question
    reference: Reference
    candidates: tuple[str, ...]
    truth: str | None
    features: np.ndarray


def read_truth(path: str) -> dict[tuple[str, int], str | None]:
    """Read known targets of call sites: (doc_id, start of the name) -> target, None: outside.

    Raises:
        FormatError: a line is no JSON object with doc_id, start and target_id.
    """
    truth: dict[tuple[str, int], str | None] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            truth[row["doc_id"], int(row["start"])] = row["target_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                "a line of the truth of call sites cannot be read",
                where=f"{path}, line {number}",
                got=str(error),
                expected="a JSON object with doc_id, start and target_id",
            ) from error
    return truth


def collect_sites(
    prepared: CodePrepared,
    part: str,
    *,
    truth: Mapping[tuple[str, int], str | None] | None = None,
    sources: frozenset[str] | None = None,
) -> tuple[list[Site], Ledger]:
    """Find the call sites of a part whose truth is known and whose name the package defines.

    Args:
        truth: targets known from elsewhere, for the packages it names; in others those count
            that the index is sure of.
        sources: only sites inside these definitions.
    """
    tables = prepared.tables
    ledger = Ledger(f"call sites of {part}")
    by_name = _definitions(tables)
    imported = _imports(tables)
    traced = {tables.package_of.get(doc_id, "") for doc_id, _ in truth or {}}
    sites: list[Site] = []
    for row, sample in enumerate(prepared.split.parts[part]):
        if sources is not None and sample.entity_id not in sources:
            continue
        places = _Places(prepared, row, part)
        for reference in tables.references_from.get(sample.entity_id, []):
            if reference.relation not in CALLS:
                continue
            ledger.offered()
            name = reference.text.rsplit(".", 1)[-1]
            candidates = tuple(
                s.entity_id for s in by_name.get((sample.package, name), ())
                if s.entity_id != sample.entity_id
            )  # fmt: skip
            known = truth if reference.package in traced else None
            reason, target = _target(reference, known, candidates)
            question = places.question(reference) if reason is None else None
            if reason is None and question is None:
                reason = "the site lies behind the last root"
            if reason is not None or question is None:
                ledger.leave_out(reason or "", example=f"{sample.doc_id}:{reference.line}")
                continue
            ledger.keep()
            features = np.array([_features(tables, reference, one, imported) for one in candidates])
            sites.append(Site(question, reference, candidates, target, features))
    return sites, ledger.check()


def _target(
    reference: Reference,
    truth: Mapping[tuple[str, int], str | None] | None,
    candidates: Sequence[str],
) -> tuple[str | None, str | None]:
    """(why the site is left out, its target); a target outside the candidates is None."""
    if not candidates:
        return "the package defines nothing of that name", None
    if truth is not None:
        key = (reference.doc_id, reference.start)
        if key not in truth:
            return "not in the truth", None
        target = truth[key]
    elif reference.state == "external":
        target = None
    elif reference.state == "resolved" and reference.confidence >= SURE:
        target = reference.target_id
    else:
        return f"its target is not known ({reference.state})", None
    if target == reference.source_id:
        return "it calls itself", None
    return None, target if target in candidates else None


def _definitions(tables: CodeTables) -> dict[tuple[str, str], list[Symbol]]:
    """Functions and classes by (package, name), sorted by id."""
    found: dict[tuple[str, str], list[Symbol]] = defaultdict(list)
    for symbol in sorted(tables.symbols, key=lambda one: one.entity_id):
        if symbol.kind in FUNCTIONS or symbol.kind in CLASSES:
            found[symbol.package, symbol.name].append(symbol)
    return dict(found)


def _imports(tables: CodeTables) -> dict[str, frozenset[str]]:
    """What each document imports: ids of entities and of their documents."""
    found: dict[str, set[str]] = defaultdict(set)
    for reference in tables.references:
        if reference.relation in ("imports", "imported_from") and reference.target_id:
            found[reference.doc_id].add(reference.target_id)
    return {doc_id: frozenset(ids) for doc_id, ids in found.items()}


def _features(
    tables: CodeTables,
    reference: Reference,
    candidate_id: str,
    imported: Mapping[str, frozenset[str]],
) -> list[float]:
    """FEATURES of a candidate; the model's comes later."""
    candidate = tables.symbol_of[candidate_id]
    source = tables.symbol_of.get(reference.source_id)
    text = tables.texts[reference.doc_id]
    receiver = text[reference.site_start : reference.start].strip()
    own = receiver in ("self.", "this.", "cls.", "super().", "super.")
    same_class = own and source is not None and candidate.parent_id == source.parent_id
    seen = imported.get(reference.doc_id, frozenset())
    known = {candidate_id, candidate.doc_id, candidate.parent_id or ""}
    here, there = PurePosixPath(reference.doc_id).parts, PurePosixPath(candidate.doc_id).parts
    shared = sum(1 for _ in _common(here, there))
    has_receiver = receiver.endswith(".")
    fits = (candidate.kind in ("Method", "Test")) == has_receiver
    return [
        0.0,
        float(same_class),
        float(candidate.doc_id == reference.doc_id),
        float(bool(known & seen)),
        shared / max(len(here), len(there)),
        float(fits),
    ]


def _common(one: Sequence[str], two: Sequence[str]) -> list[str]:
    found = []
    for a, b in zip(one, two, strict=False):
        if a != b:
            break
        found.append(a)
    return found


class _Places:
    """Root spans of a sample: its own name, and the places where things are called."""

    def __init__(self, prepared: CodePrepared, row: int, part: str) -> None:
        self.prepared, self.row = prepared, row
        self.sample = prepared.split.parts[part][row]
        self.encoding = prepared.tokenizer.encode(self.sample.text)

    def question(self, reference: Reference) -> Question | None:
        """The site as a question, None where the head or the site is not among the roots."""
        builder = self.prepared.builder
        offsets = self.encoding.offsets[: builder.settings.max_roots - 2]
        own = builder.own_span(self.sample)
        site = self.sample.place(reference.start, reference.end)
        if own is None or site is None or not len(offsets):
            return None
        head = builder.root_span(offsets, *own)
        place = builder.root_span(offsets, *site)
        relation = self._relation(reference.relation)
        if head is None or place is None or relation is None:
            return None
        row_of = self.prepared.vocabulary.row_of
        return Question(
            chain=self.row,
            head=row_of.get(self.sample.entity_id, -1),
            relation=relation,
            tail=-1,
            head_start=head.start,
            head_end=head.end,
            mentions=((place.start, place.end),),
        )

    def _relation(self, name: str) -> int | None:
        for index, members in enumerate(self.prepared.profile.values()):
            if name in members:
                return index
        return None


def add_model_feature(
    prepared: CodePrepared, model: GraphMERT, sites: Sequence[Site], pool: Pool, part: str
) -> None:
    """Write the model's cosine, less its mean over the site's candidates, into the features.

    Every triple of a site's source with one of its candidates is hidden.
    """
    row_of, columns = prepared.vocabulary.row_of, pool.column_of
    rows = [[row_of.get(one, -1) for one in site.candidates] for site in sites]
    pairs = frozenset(
        (site.question.head, row)
        for site, candidates in zip(sites, rows, strict=True)
        for row in candidates
    )
    for start in range(0, len(sites), 256):
        block = sites[start : start + 256]
        questions = [site.question for site in block]
        scores = ask(
            prepared, model, questions, pool, part=part, pairs=pairs,
            asking=Asking(hide_mentions=True),
        )  # fmt: skip
        for i, site in enumerate(block):
            found = [columns.get(row, -1) for row in rows[start + i]]
            values = np.array([scores[i, c] if c >= 0 else np.nan for c in found])
            fallback = np.nanmin(values) if np.isfinite(values).any() else 0.0
            values = np.where(np.isfinite(values), values, fallback)
            site.features[:, 0] = values - values.mean()
