"""Find entities that are one and the same, and say why; merging them is an edit."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from graphmert.curate import Curated, Edit, add_edits
from graphmert.errors import ConfigError
from graphmert.export import GraphTables
from graphmert.export.tables import rows_of
from graphmert.kg import Entity
from graphmert.shards import Ledger
from graphmert.store import RunDir

How = Literal["name", "synonym", "like"]

GRAM = 3

# Runs of letters and digits with their primes, plus signs, and minus signs before a bracket or
# the end.
_KEPT = re.compile(r"(?:[^\W_]|(?<=\d)')+|\+|-(?=\)|$)")


@dataclass(frozen=True)
class Duplicate:
    """Two entities that seem to be one.

    Attributes:
        entity_id, name: the one to keep: it has more triples, then the smaller id.
        merged_id, merged_name: the one to merge into it.
        how: equal names after normalising; a name equal to a synonym, or equal synonyms; or
            names whose character 3-grams are alike.
        similarity: Jaccard of the 3-grams of the two names that are nearest; 1 but for `like`.
    """

    entity_id: str
    name: str
    merged_id: str
    merged_name: str
    how: How
    similarity: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "similarity": round(self.similarity, 4)}


def normalise(name: str) -> str:
    """Return a name without case, accents, punctuation and surplus blanks.

    "α-Synuclein (human)" and "α synuclein, human" become the same. Letters and digits stay, so
    "IL-2" and "IL-3" do not; nor do signs of charge and optical rotation ("2+", "(-)") and the
    primes of positions ("5'"), which tell chemicals apart.
    """
    plain = unicodedata.normalize("NFKD", name.casefold())
    plain = "".join(one for one in plain if not unicodedata.combining(one))
    return " ".join(_KEPT.findall(plain.replace("′", "'").replace("−", "-")))


def grams(text: str) -> frozenset[str]:
    """Return the character 3-grams of a normalised name with its two borders."""
    padded = f"  {text} "
    return frozenset(padded[i : i + GRAM] for i in range(len(padded) - GRAM + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """|A ∩ B| / |A ∪ B|, 1 for two empty sets."""
    union = len(one | other)
    return len(one & other) / union if union else 1.0


def find_duplicates(
    tables: GraphTables, *, threshold: float | None = None
) -> tuple[list[Duplicate], Ledger]:
    """List entities of one type that share a normalised name or synonym.

    Args:
        tables: the graph.
        threshold: also list pairs whose names have at least this Jaccard of 3-grams, which is
            a suggestion to look at: "type 1" and "type 2" are alike too.

    Returns:
        Pairs, the surest first, each entity merged at most once and never into one that is
        merged itself; and the ledger of pairs found.

    Raises:
        ConfigError: threshold not in (0, 1].
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError("threshold is no Jaccard", got=threshold, expected="above 0, at most 1")
    entities = {
        row["entity_id"]: Entity(row["entity_id"], row["name"], row["type"], tuple(row["synonyms"]))
        for row in rows_of(tables.entities)
    }
    degree: dict[str, int] = defaultdict(int)
    for column in ("head_id", "tail_id"):
        for entity_id in tables.triples[column].to_pylist():
            degree[entity_id] += 1
    pairs = _same_names(entities)
    if threshold is not None:
        for pair, similarity in _like_names(entities, threshold).items():
            pairs.setdefault(pair, ("like", similarity))
    ledger = Ledger("resolve: pairs")
    order: dict[How, int] = {"name": 0, "synonym": 1, "like": 2}
    ranked = sorted(pairs.items(), key=lambda item: (order[item[1][0]], -item[1][1], item[0]))
    merged: dict[str, str] = {}
    kept: set[str] = set()
    found: list[Duplicate] = []
    for (first, second), (how, similarity) in ranked:
        ledger.offered()
        one, other = _final(first, merged), _final(second, merged)
        if one == other:
            ledger.leave_out("merged by a surer pair", example=f"{first} {second}")
            continue
        stays, goes = sorted((one, other), key=lambda key: (-degree[key], key))
        if goes in kept and stays not in kept:
            stays, goes = goes, stays
        if goes in kept:
            ledger.leave_out("both are kept for others", example=f"{first} {second}")
            continue
        ledger.keep()
        merged[goes] = stays
        kept.add(stays)
        names = (entities[stays].name, entities[goes].name)
        found.append(Duplicate(stays, names[0], goes, names[1], how, similarity))
    return found, ledger.check()


def merge_duplicates(
    run: RunDir, duplicates: Iterable[Duplicate], *, by: str = "", at: str = ""
) -> Curated:
    """Write one merge into the log of edits for each pair; undo takes it back.

    Raises:
        ConfigError: an entity is not there any more.
    """
    return add_edits(
        run,
        [
            Edit(
                kind="merge",
                entity_id=one.entity_id,
                merged_id=one.merged_id,
                by=by,
                at=at,
                note=f"{one.how}, similarity {one.similarity:.3f}",
            )
            for one in duplicates
        ],
    )


def _final(entity_id: str, merged: Mapping[str, str]) -> str:
    while entity_id in merged:
        entity_id = merged[entity_id]
    return entity_id


def _same_names(entities: Mapping[str, Entity]) -> dict[tuple[str, str], tuple[How, float]]:
    """Pairs of one type with an equal name: each entity with the first of its group."""
    by_name: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
    for entity in entities.values():
        for place, name in enumerate((entity.name, *entity.synonyms)):
            key = normalise(name)
            if key:
                group = by_name[entity.type, key]
                group[entity.entity_id] = group.get(entity.entity_id, False) or place == 0
    pairs: dict[tuple[str, str], tuple[How, float]] = {}
    for _, group in sorted(by_name.items()):
        members = sorted(group, key=lambda one: (not group[one], one))
        for other in members[1:]:
            both_named = group[members[0]] and group[other]
            how: How = "name" if both_named else "synonym"
            first, second = sorted((members[0], other))
            if how == "name" or (first, second) not in pairs:
                pairs[first, second] = (how, 1.0)
    return pairs


def _like_names(entities: Mapping[str, Entity], threshold: float) -> dict[tuple[str, str], float]:
    """Pairs of one type whose preferred names are alike, by an index of rare 3-grams.

    Names with Jaccard >= t share at least t / (1 + t) * (|A| + |B|) grams. With the grams of
    each name ordered from rare to frequent, such a pair shares one of the first
    |A| - ceil(t * |A|) + 1 grams of both, so only those are indexed.
    """
    sets = {key: grams(normalise(one.name)) for key, one in entities.items()}
    count: dict[str, int] = defaultdict(int)
    for one in sets.values():
        for gram in one:
            count[gram] += 1
    index: dict[tuple[str, str], list[str]] = defaultdict(list)
    found: dict[tuple[str, str], float] = {}
    for entity_id in sorted(entities):
        own = sorted(sets[entity_id], key=lambda gram: (count[gram], gram))
        n_prefix = len(own) - _ceil(threshold * len(own)) + 1
        kind = entities[entity_id].type
        candidates = {other for gram in own[:n_prefix] for other in index[kind, gram]}
        for other in candidates:
            sizes = sorted((len(own), len(sets[other])))
            if sizes[0] >= threshold * sizes[1]:
                similarity = jaccard(sets[entity_id], sets[other])
                if similarity >= threshold:
                    found[other, entity_id] = similarity
        for gram in own[:n_prefix]:
            index[kind, gram].append(entity_id)
    return found


def _ceil(value: float) -> int:
    # 0.7 * 10 is 7.000000000000001 in some forms of the sum; one too few would lose pairs.
    return -int(-(value - 1e-9) // 1)
