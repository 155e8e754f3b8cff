"""Take seed triples away on purpose: a share of each relation's, or whole relations."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace

import pyarrow as pa
from pydantic import Field

from graphmert.config import Settings
from graphmert.errors import ConfigError
from graphmert.kg.schema import Schema
from graphmert.shards import Ledger

TRAIN = "train"


class ReduceSettings(Settings):
    """What of the seed is taken away after the split: for measuring what it is worth."""

    share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of each relation's training triples taken away; a larger share takes "
        "away the same and more",
    )
    relations: tuple[str, ...] = Field(
        default=(), description="relations taken away whole, as if the seed did not know them"
    )
    seed: int = Field(default=0, ge=0, description="another seed takes away other triples")

    @property
    def is_set(self) -> bool:
        """Whether anything is taken away."""
        return bool(self.share or self.relations)


def reduce_seed(
    triples: pa.Table, schema: Schema, settings: ReduceSettings
) -> tuple[pa.Table, Schema, Ledger]:
    """Take triples away after the split, so that the held-out heads stay the same.

    Of n training triples of a relation those with the floor(share * n) least
    SHA-256(seed, head, relation, tail) go; valid and test stay whole. Entities stay.

    Args:
        triples: columns head_id, relation, tail_id, split.
        schema: of the graph; relations taken away whole leave it too.
        settings: how much.

    Returns:
        The triples left, in their order, the schema, and the ledger, which counts triples.

    Raises:
        ConfigError: a relation that the schema does not have.
    """
    unknown = sorted(set(settings.relations) - set(schema.relations))
    if unknown:
        raise ConfigError(
            "a relation to take away is not there",
            where="reduce.relations",
            got=", ".join(unknown),
            expected="some of " + ", ".join(schema.relation_names),
        )
    ledger = Ledger("reduce seed")
    columns = (triples[name].to_pylist() for name in ("head_id", "relation", "tail_id", "split"))
    rows = list(zip(*columns, strict=True))
    ledger.offered(len(rows))
    by_relation: dict[str, list[int]] = defaultdict(list)
    for index, (_, relation, _, part) in enumerate(rows):
        if part == TRAIN:
            by_relation[relation].append(index)
    gone: set[int] = set()
    for own in by_relation.values():
        own.sort(key=lambda index: _key(settings.seed, *rows[index][:3]))
        gone.update(own[: int(settings.share * len(own))])
    keep = []
    for index, (head, relation, tail, _) in enumerate(rows):
        example = f"{head} {relation} {tail}"
        if relation in settings.relations:
            ledger.leave_out(f"relation {relation} is taken away", example=example)
        elif index in gone:
            ledger.leave_out(f"share {settings.share:g} is taken away", example=example)
        else:
            ledger.keep()
        keep.append(relation not in settings.relations and index not in gone)
    kept = triples.filter(pa.array(keep, pa.bool_())).combine_chunks()
    return kept, schema_without(schema, settings.relations), ledger.check()


def schema_without(schema: Schema, relations: Collection[str]) -> Schema:
    """Return the schema without some relations, and without mention of them in others."""
    gone = frozenset(relations)
    if not gone:
        return schema
    left = {
        name: replace(
            one,
            inverse=None if one.inverse in gone else one.inverse,
            sub_relation_of=tuple(parent for parent in one.sub_relation_of if parent not in gone),
        )
        for name, one in schema.relations.items()
        if name not in gone
    }
    return Schema(schema.types, left)


def _key(seed: int, head: str, relation: str, tail: str) -> bytes:
    text = "".join(f"{len(part)}:{part}" for part in (head, relation, tail))
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()
