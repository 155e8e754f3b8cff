"""Candidate entities beyond the KG: phrases of the corpus and spans of the mention tagger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from graphmert.config import Settings
from graphmert.domains.text.mentions import NameIndex, find_mentions
from graphmert.domains.text.phrases import PhraseSettings
from graphmert.domains.text.selection import texts_of
from graphmert.domains.text.tagger import MentionTagger, TaggerSettings
from graphmert.shards import Ledger
from graphmert.store import make_table, schema_of

_Span = tuple[int, int, str, float]


class CandidateSettings(Settings):
    """What is looked for beside exact names."""

    phrases: PhraseSettings = PhraseSettings()
    tagger: TaggerSettings = Field(default=TaggerSettings(), description="the mention tagger")


def phrase_index(phrases: pa.Table) -> NameIndex:
    """Return the phrases of the table corpus/phrases, ready to be searched for."""
    names = phrases["phrase"].to_pylist()
    table = pa.table({"entity_id": names, "name": names, "synonyms": [[] for _ in names]})
    return NameIndex(table.cast(_INDEX_COLUMNS), normalise=True)


_INDEX_COLUMNS = pa.schema(
    [("entity_id", pa.string()), ("name", pa.string()), ("synonyms", pa.list_(pa.string()))]
)


def find_candidates(
    sequences: pa.Table,
    documents: pa.Table,
    mentions: pa.Table,
    *,
    phrases: NameIndex | None,
    tagger: MentionTagger | None,
    min_score: float,
) -> tuple[pa.Table, Ledger]:
    """Find spans that may be entities and are no mention of the KG's.

    A span may hold a mention and more, as "rye sourdough bread" holds "bread"; one within a
    mention or across its border is left out. Of candidates that overlap the longest stays, of
    equal ones the phrase.

    Args:
        sequences, documents: the texts.
        mentions: exact matches.
        phrases: from `phrase_index`, or None.
        tagger: or None.
        min_score: of the tagger.

    Returns:
        Table corpus/candidates without entities (entity_id null) in order of sequence and
        place, and the ledger, which counts spans.
    """
    ledger = Ledger("candidates")
    found: dict[str, list[_Span]] = defaultdict(list)
    if phrases is not None and phrases.patterns:
        table, _ = find_mentions(sequences, documents, phrases)
        for seq_id, start, end in _spans(table):
            found[seq_id].append((start, end, "phrase", 1.0))
    seq_ids, starts = sequences["seq_id"].to_pylist(), sequences["start"].to_pylist()
    texts = texts_of(sequences, documents)
    if tagger is not None:
        spans = tagger.spans(texts, min_score=min_score)
        for seq_id, first, own in zip(seq_ids, starts, spans, strict=True):
            found[seq_id] += [(first + a, first + b, "tagger", score) for a, b, score in own]
    taken: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for seq_id, start, end in _spans(mentions):
        taken[seq_id].append((start, end))
    rows: list[tuple[object, ...]] = []
    doc_ids = sequences["doc_id"].to_pylist()
    for seq_id, doc_id, first, text in zip(seq_ids, doc_ids, starts, texts, strict=True):
        for start, end, method, score in _apart(found.get(seq_id, []), taken[seq_id], ledger):
            surface = text[start - first : end - first]
            rows.append((seq_id, doc_id, start, end, surface, method, score, None))
    names = schema_of("corpus/candidates").names
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    table = make_table("corpus/candidates", dict(zip(names, columns, strict=True)))
    return table, ledger.check()


def _spans(table: pa.Table) -> Iterator[tuple[str, int, int]]:
    columns = (table[name].to_pylist() for name in ("seq_id", "start", "end"))
    return zip(*columns, strict=True)


def _apart(spans: Sequence[_Span], mentions: list[tuple[int, int]], ledger: Ledger) -> list[_Span]:
    """Return the spans that clash with no mention and overlap no better span, in order."""
    kept: list[_Span] = []
    ledger.offered(len(spans))
    for span in sorted(spans, key=lambda one: (one[0] - one[1], one[2], one[0])):
        start, end = span[:2]
        if any(_clashes(start, end, a, b) for a, b in mentions):
            ledger.leave_out("within a mention of the KG, or across its border")
        elif any(start < one[1] and one[0] < end for one in kept):
            ledger.leave_out("overlaps a longer candidate")
        else:
            kept.append(span)
    ledger.keep(len(kept))
    return sorted(kept)


def _clashes(start: int, end: int, a: int, b: int) -> bool:
    """Return whether a span overlaps a mention [a, b) that it does not hold as a part."""
    holds = start <= a and b <= end and end - start > b - a
    return start < b and a < end and not holds


def with_links(candidates: pa.Table, entity_of: dict[str, str]) -> pa.Table:
    """Return the candidates with the entity that each surface is linked to, or null."""
    linked = [entity_of.get(surface) for surface in candidates["surface"].to_pylist()]
    place = candidates.schema.get_field_index("entity_id")
    return candidates.set_column(
        place, candidates.schema.field("entity_id"), pa.array(linked, pa.string())
    )


def add_linked_mentions(mentions: pa.Table, candidates: pa.Table, sequences: pa.Table) -> pa.Table:
    """Return mentions and linked candidates together, by sequence and place.

    A linked candidate that holds a mention is none itself: mentions do not overlap.
    """
    linked = candidates.filter(pc.field("entity_id").is_valid())
    spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for seq_id, start, end in _spans(mentions):
        spans[seq_id].append((start, end))
    free = [
        not any(start < b and a < end for a, b in spans.get(seq_id, ()))
        for seq_id, start, end in _spans(linked)
    ]
    linked = linked.filter(pa.array(free, pa.bool_()))
    columns = {name: linked[name] for name in mentions.column_names if name != "is_title"}
    columns["is_title"] = pa.array([False] * linked.num_rows, pa.bool_())
    added = pa.table({name: columns[name] for name in mentions.column_names})
    both = pa.concat_tables([mentions, added.cast(mentions.schema)])
    row_of = {one: row for row, one in enumerate(sequences["seq_id"].to_pylist())}
    order = sorted(
        range(both.num_rows),
        key=list(
            zip(
                (row_of[one] for one in both["seq_id"].to_pylist()),
                both["start"].to_pylist(),
                strict=True,
            )
        ).__getitem__,
    )
    return both.take(pa.array(order, pa.int64())).combine_chunks()
