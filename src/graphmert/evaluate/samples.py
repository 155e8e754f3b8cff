"""Samples of a graph for people to label, and what their labels say.

The protocol is in docs/judging.md: triples drawn evenly, shown in random order with their
sentence, without score, novelty or method; one label each; two raters where possible.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graphmert.errors import ConfigError, DataError, FormatError
from graphmert.evaluate.proportions import share_of
from graphmert.export import GraphTables
from graphmert.export.tables import having, short_float
from graphmert.shards import atomic_write_text

Label = Literal["yes", "no", "unsure"]
LABELS: dict[str, Label] = {
    "yes": "yes", "y": "yes", "true": "yes", "1": "yes",
    "no": "no", "n": "no", "false": "no", "0": "no",
    "unsure": "unsure", "u": "unsure", "?": "unsure",
}  # fmt: skip
_BLIND = ("item", "triple_id", "head", "relation", "tail", "sentence", "doc_id")
_OPEN = (*_BLIND, "score", "novel", "method")
_FILLED_IN = ("label", "comment")


@dataclass(frozen=True)
class SampleItem:
    """One triple to be labelled, with its best evidence.

    Attributes:
        item: place in the sample, from 1.
        relation: in words.
        sentence: of the evidence with the highest score; "" where there is none.
        sent_start: where it starts in the document.
    """

    item: int
    triple_id: str
    head: str
    relation: str
    tail: str
    sentence: str
    doc_id: str
    score: float
    novel: bool
    method: str
    sent_start: int = 0


def draw_sample(tables: GraphTables, *, n: int, seed: int) -> list[SampleItem]:
    """Draw triples evenly, without replacement, in random order.

    The same graph, n and seed give the same sample; the order of the table plays no part.

    Raises:
        ConfigError: n below 1.
        DataError: the graph has no triple.
    """
    if n < 1:
        raise ConfigError("a sample needs a triple", got=n, expected="at least 1")
    if not len(tables.triples):
        raise DataError("the graph has no triple to sample", fix="Lower the threshold.")
    ids = sorted(tables.triples["triple_id"].to_pylist())
    chosen = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:n]]
    rows = {row["triple_id"]: row for row in _rows(tables, set(chosen))}
    return [_item(tables, place, rows[key]) for place, key in enumerate(chosen, start=1)]


def _rows(tables: GraphTables, wanted: set[str]) -> Iterable[dict[str, Any]]:
    return having(tables.triples, "triple_id", wanted).to_pylist()


def _item(tables: GraphTables, place: int, row: Mapping[str, Any]) -> SampleItem:
    evidence = tables.evidence_of(row["triple_id"])
    best = min(
        evidence,
        key=lambda one: (-one["score"], one["tail_start"] is None, one["doc_id"],
                         one["head_start"]),
        default=None,
    )  # fmt: skip
    known = tables.schema.relations.get(row["relation"])
    return SampleItem(
        item=place,
        triple_id=row["triple_id"],
        head=row["head"],
        relation=row["relation"].replace("_", " ") if known is None else known.label,
        tail=row["tail"],
        sentence="" if best is None else best["sentence"],
        doc_id="" if best is None else best["doc_id"],
        score=short_float(row["score"]),
        novel=row["novel"],
        method="" if best is None else best["method"],
        sent_start=0 if best is None else best["sent_start"],
    )


def write_sample(path: Path, items: Sequence[SampleItem], *, blind: bool = True) -> None:
    """Write a sample to be filled in, CSV or JSON lines by the file's ending.

    Args:
        path: ends in .csv or .jsonl.
        items: the sample.
        blind: leave out score, novelty and method, which would sway the rater.

    Raises:
        ConfigError: another ending.
    """
    kind = _kind(path)
    names = _BLIND if blind else _OPEN
    rows = [
        {**{name: asdict(item)[name] for name in names}, **dict.fromkeys(_FILLED_IN, "")}
        for item in items
    ]
    if kind == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, [*names, *_FILLED_IN], lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
        text = out.getvalue()
    atomic_write_text(path, text)


def read_labels(path: Path) -> dict[str, Label | None]:
    """Read labels by triple id; None where a row is not labelled.

    Raises:
        FormatError: missing or damaged file, no column triple_id or label, a triple twice, or
            a label that is none; names the line.
        ConfigError: the file ends in neither .csv nor .jsonl.
    """
    kind = _kind(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise FormatError("label file not found", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise FormatError("label file is not UTF-8", where=str(path)) from error
    labels: dict[str, Label | None] = {}
    for line, row in _numbered_rows(text, kind, path):
        where = f"{path}, line {line}"
        if not isinstance(row, dict) or not {"triple_id", "label"} <= row.keys():
            raise FormatError(
                "a row of labels lacks its columns", where=where, expected="triple_id and label"
            )
        identity = str(row["triple_id"])
        given = "" if row["label"] is None else str(row["label"]).strip().casefold()
        if identity in labels:
            raise FormatError("a triple is labelled twice", where=where, got=identity)
        if given and given not in LABELS:
            raise FormatError(
                "a label is none", where=where, got=repr(row["label"]), expected="yes, no, unsure"
            )
        labels[identity] = LABELS[given] if given else None
    return labels


def _numbered_rows(text: str, kind: str, path: Path) -> Iterable[tuple[int, Any]]:
    if kind == "csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        for row in reader:
            yield reader.line_num, row
        return
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                yield line, json.loads(content)
            except ValueError as error:
                where = f"{path}, line {line}"
                raise FormatError("a line is not JSON", where=where, got=error) from error


def _kind(path: Path) -> str:
    kind = path.suffix.removeprefix(".")
    if kind not in ("csv", "jsonl"):
        raise ConfigError(
            "samples are CSV or JSON lines",
            got=str(path),
            expected="a name ending in .csv or .jsonl",
        )
    return kind


# --- what labels say ------------------------------------------------------------------------


def score_sample(
    tables: GraphTables,
    first: Mapping[str, Label | None],
    second: Mapping[str, Label | None] | None = None,
) -> dict[str, Any]:
    """Return the precision that labels give, with Wilson intervals.

    precision = #yes / #labelled: unsure counts as wrong. `precision_decided` leaves unsure out.
    With two raters a triple is right if both say yes; agreement is the share of equal labels
    among triples both have labelled, kappa = (p_o - p_e) / (1 - p_e).

    Args:
        tables: the graph the sample was drawn from.
        first: labels by triple id, of `read_labels`.
        second: those of another rater.

    Raises:
        DataError: no label, or labels of triples that the graph does not hold.

    Source: none.
    Checked by: tests/unit/evaluate/test_samples.py
    """
    labels = _joined(first, second)
    if not labels:
        raise DataError(
            "nothing is labelled", expected="yes, no or unsure in the column label of some rows"
        )
    rows = {row["triple_id"]: row for row in _rows(tables, set(labels))}
    if missing := sorted(set(labels) - set(rows)):
        raise DataError(
            "labels of triples that the graph does not hold",
            got=f"{len(missing)}, such as {', '.join(missing[:3])}",
            fix="Give the graph that the sample was drawn from.",
        )
    in_text = {key: any(one["tail_start"] is not None for one in tables.evidence_of(key))
               for key in labels}  # fmt: skip
    groups: dict[str, dict[str, list[str]]] = {
        "by_novelty": _grouped(labels, lambda k: "novel" if rows[k]["novel"] else "known"),
        "by_place": _grouped(labels, lambda k: "in text" if in_text[k] else "inferred"),
        "by_relation": _grouped(labels, lambda k: rows[k]["relation"]),
    }
    result = {
        "n_sampled": len(set(first) | set(second or ())),
        **_precision([labels[key] for key in labels]),
        **{
            name: {key: _precision([labels[one] for one in ids]) for key, ids in found.items()}
            for name, found in groups.items()
        },
    }
    return result if second is None else {**result, "agreement": agreement(first, second)}


def _joined(
    first: Mapping[str, Label | None], second: Mapping[str, Label | None] | None
) -> dict[str, Label]:
    """One label a triple: of one rater, or of both: equal labels stand, unequal are unsure."""
    labels: dict[str, Label] = {}
    for key in sorted(set(first) | set(second or ())):
        given: set[Label] = set()
        for labelled in (first, second or {}):
            if (label := labelled.get(key)) is not None:
                given.add(label)
        if given:
            labels[key] = given.pop() if len(given) == 1 else "unsure"
    return labels


def _precision(labels: Sequence[Label]) -> dict[str, Any]:
    n_yes, n_no = labels.count("yes"), labels.count("no")
    return {
        "n_labelled": len(labels),
        "n_yes": n_yes,
        "n_no": n_no,
        "n_unsure": len(labels) - n_yes - n_no,
        "precision": share_of(n_yes, len(labels)),
        "precision_decided": share_of(n_yes, n_yes + n_no),
    }


def _grouped(labels: Mapping[str, Label], name_of: Any) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key in labels:
        groups.setdefault(name_of(key), []).append(key)
    return dict(sorted(groups.items()))


def agreement(
    first: Mapping[str, Label | None], second: Mapping[str, Label | None]
) -> dict[str, Any]:
    """Return how far two raters agree on the triples that both have labelled.

    kappa is None where chance alone would make them agree fully.
    """
    both = [
        (key, one, other)
        for key in sorted(first)
        if (one := first[key]) is not None and (other := second.get(key)) is not None
    ]
    n = len(both)
    n_equal = sum(one == other for _, one, other in both)
    kappa = None
    if n:
        kinds = ("yes", "no", "unsure")
        by_chance = sum(
            sum(one == kind for _, one, _ in both) * sum(other == kind for _, _, other in both)
            for kind in kinds
        ) / (n * n)
        if by_chance < 1:
            kappa = round((n_equal / n - by_chance) / (1 - by_chance), 6)
    return {
        "n_both": n,
        "n_equal": n_equal,
        "share": share_of(n_equal, n),
        "kappa": kappa,
        "disagreements": [
            {"triple_id": key, "first": one, "second": other}
            for key, one, other in both
            if one != other
        ],
    }
