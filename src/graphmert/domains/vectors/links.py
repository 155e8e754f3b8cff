"""Link vectors of texts to vectors of entity names, and hang the entities' triples on them.

LINKS is a folder::

    entities/        a VECTORS folder: doc_id is the entity's id, text its name; row = entity number
    linked.parquet   row (of the corpus' vectors), entity_id, relation, tail_id, score,
                     entity, relation_number, tail (numbers: entities by row of entities/,
                     relations by place in links.json), rank (0 is the row's best leaf)
    links.json       {"format", "relations": [...], "unusable": [...] (numbers of entities that
                      are vectors of the corpus), "vectors_sha256", "entities_sha256",
                      "kg_sha256", "linked_sha256", "settings", "ledgers"}

A row is a root of a leafy chain of vectors; its rows in linked.parquet are its leaves, each the
tail of one triple of the entity that the row was linked to.

What a row gets depends on its own vector, on earlier rows of its document and on the entity
table, never on a later vector such as the target of a window. The table never holds vectors of the
corpus itself: an entity whose vector is (nearly) one of them is left out of the whole table, as
head and as tail, so that no leaf can be a target.

Shapes: N vectors, C channels, E entities, T triples, L leaves, B rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from graphmert import shards
from graphmert.config import Settings
from graphmert.domains.vectors.data import VectorTable, open_vectors, read_json
from graphmert.errors import DataError, FormatError, ProvenanceError
from graphmert.kg import KG, Triple
from graphmert.progress import Progress, Silent
from graphmert.shards import Ledger

LINKS_FORMAT = "graphmert-vector-links-2"
LINKED_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("relation", pa.string(), nullable=False),
        pa.field("tail_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("entity", pa.int32(), nullable=False),
        pa.field("relation_number", pa.int32(), nullable=False),
        pa.field("tail", pa.int32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
    ]
)
_LEAF_KINDS: dict[str, Any] = {
    "row": np.int64,
    "entity": np.int32,
    "relation_number": np.int32,
    "tail": np.int32,
    "score": np.float32,
    "rank": np.int32,
}
_BLOCK_CELLS = 8_000_000
_SPARE = 8


class LinkSettings(Settings):
    """How rows are linked and which triples become leaves."""

    alpha: float = Field(default=0.55, ge=-1, le=1)
    """Least cosine of a row's vector and an entity's vector."""
    max_entities: int = Field(default=10, ge=1)
    """The most entities that a row is linked to."""
    max_leaves: int = Field(default=8, ge=1)
    """The most leaves on a row."""
    score_bucket: float = Field(default=0.01, gt=0)
    """Scores that fall in one bucket of this width count as equal; diversity then decides."""
    relation_bucket: int = Field(default=10, ge=1)
    """Relations used so many times fewer in the document come first among equal scores."""
    same_vector: float = Field(default=0.999, gt=0, le=1)
    """Entities at least this near to some vector of the corpus are left out of the table."""


# --- reading --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Leaves:
    """The leaves of every row, in one array after another.

    Attributes:
        entities: (E, C) float32 entity vectors, a memory map.
        entity_ids: their ids.
        relations: relation names by number.
        offsets: (N + 1,) int64; the leaves of row r are offsets[r] to offsets[r + 1].
        head: (L,) int32 entity that the row was linked to.
        relation: (L,) int32.
        tail: (L,) int32 entity of the leaf.
        score: (L,) float32 cosine of row and head.
        usable: (E,) bool, False for entities that are vectors of the corpus; no leaf has them.
    """

    entities: NDArray[np.float32]
    entity_ids: tuple[str, ...]
    relations: tuple[str, ...]
    offsets: NDArray[np.int64]
    head: NDArray[np.int32]
    relation: NDArray[np.int32]
    tail: NDArray[np.int32]
    score: NDArray[np.float32]
    usable: NDArray[np.bool_]

    @classmethod
    def load(cls, path: Path | str, vectors: VectorTable) -> Leaves:
        """Read a LINKS folder.

        Args:
            path: the folder.
            vectors: the corpus that was linked.

        Raises:
            FormatError: a file is missing or of another form.
            ProvenanceError: the links are of other vectors, or the folder holds files of
                different links.
        """
        path = Path(path)
        info = read_json(path / "links.json", LINKS_FORMAT, "Write it with `vectors link`.")
        if info["vectors_sha256"] != vectors.sha256:
            raise ProvenanceError(
                "the links are of other vectors",
                where=str(path),
                got=f"sha256 {info['vectors_sha256']}",
                expected=vectors.sha256,
                fix="Link again.",
            )
        entities = open_vectors(path / "entities")
        _check_whole(path / "entities", entities.sha256, info.get("entities_sha256"))
        linked = path / "linked.parquet"
        table = shards.read_table(linked, LINKED_SCHEMA.names)
        _check_whole(linked, shards.sha256_file(linked), info.get("linked_sha256"))
        usable = np.ones(entities.n_vectors, bool)
        usable[info["unusable"]] = False
        rows = np.asarray(table["row"].to_numpy())
        if np.any(np.diff(rows) < 0):
            raise FormatError("links are not in the order of rows", where=str(path))
        return cls(
            entities=entities.vectors,
            entity_ids=tuple(entities.rows(["doc_id"])["doc_id"].to_pylist()),
            relations=tuple(info["relations"]),
            offsets=np.searchsorted(rows, np.arange(vectors.n_vectors + 1)).astype(np.int64),
            head=np.asarray(table["entity"].to_numpy(), np.int32),
            relation=np.asarray(table["relation_number"].to_numpy(), np.int32),
            tail=np.asarray(table["tail"].to_numpy(), np.int32),
            score=np.asarray(table["score"].to_numpy(), np.float32),
            usable=usable,
        )

    def of_row(self, row: int) -> slice:
        """Return where the leaves of a row lie in head, relation, tail and score."""
        return slice(int(self.offsets[row]), int(self.offsets[row + 1]))


def _check_whole(path: Path, found: str, wanted: str | None) -> None:
    if found != wanted:
        raise ProvenanceError(
            "the folder holds files of different links",
            where=str(path),
            got=f"sha256 {found}",
            expected=f"{wanted}, as links.json says",
            fix="Link again.",
        )


# --- linking --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linked:
    """What `link_rows` found: for each row up to `max_entities` entities, the best first.

    Attributes:
        entity: (N, K) int32 numbers of entities, -1 where there is none.
        score: (N, K) float32 cosines, 0 where there is none.
        usable: (E,) bool, False for entities that are vectors of the corpus.
        ledger: counts rows.
    """

    entity: NDArray[np.int32]
    score: NDArray[np.float32]
    usable: NDArray[np.bool_]
    ledger: Ledger


def link_rows(
    vectors: NDArray[np.float32],
    entities: NDArray[np.float32],
    settings: LinkSettings,
    *,
    allowed: NDArray[np.bool_] | None = None,
    progress: Progress | None = None,
) -> Linked:
    """Link every row to the entities whose vectors have a cosine of at least alpha with it.

    Memory is bounded by a block of rows times all entities.

    Args:
        vectors: (N, C) the corpus.
        entities: (E, C) the entity table.
        settings: alpha and the most entities of a row.
        allowed: (E,) False for entities that must not be linked; all are allowed when None.
        progress: told how many rows are done.

    Raises:
        DataError: the two have different numbers of channels, or the entity table is the corpus.
    """
    _check_tables(vectors, entities)
    progress = progress or Silent()
    unit_EC = _unit(entities)
    n_rows, n_entities = len(vectors), len(unit_EC)
    usable = np.ones(n_entities, bool) if allowed is None else allowed.copy()
    # Spare places, because entities may turn out to be vectors of the corpus later on.
    n_kept = min(settings.max_entities + _SPARE, n_entities)
    entity = np.empty((n_rows, n_kept), np.int32)
    score = np.empty((n_rows, n_kept), np.float32)
    nearest = np.full(n_entities, -1.0, np.float32)
    progress.begin("link", total=n_rows, unit="rows")
    for start, end in _blocks(n_rows, n_entities):
        cosine_BE = _unit(vectors[start:end]) @ unit_EC.T
        np.maximum(nearest, cosine_BE.max(0), out=nearest)
        entity[start:end], score[start:end] = _best(cosine_BE, n_kept)
        progress.update(end)
    progress.end()
    usable &= nearest < settings.same_vector
    short = _drop(entity, score, usable, settings)
    for row in short:  # rows whose places were taken by entities left out since
        cosine_BE = np.where(usable, _unit(vectors[row : row + 1]) @ unit_EC.T, -2.0)
        entity[row], score[row] = _best(cosine_BE.astype(np.float32), n_kept)
    _drop(entity, score, usable, settings)
    linked = score[:, 0] > -2
    ledger = Ledger("link")
    ledger.offered(n_rows)
    ledger.keep(int(linked.sum()))
    ledger.leave_out(f"no entity with a cosine of {settings.alpha:g}", int((~linked).sum()))
    width = settings.max_entities
    found = score[:, :width] > -2
    return Linked(
        entity=np.where(found, entity[:, :width], -1).astype(np.int32),
        score=np.where(found, score[:, :width], 0).astype(np.float32),
        usable=usable,
        ledger=ledger.check(),
    )


def _check_tables(vectors: NDArray[np.float32], entities: NDArray[np.float32]) -> None:
    if vectors.shape[1] != entities.shape[1]:
        raise DataError(
            "texts and entities were embedded with different models",
            got=f"{entities.shape[1]} channels of the entities",
            expected=f"{vectors.shape[1]} channels of the texts",
            fix="Embed both with one model.",
        )
    if vectors.shape == entities.shape and np.array_equal(vectors, entities):
        raise DataError(
            "the entity table is the corpus itself",
            fix="Link to names of entities: every text would be linked to itself.",
        )
    if not len(entities):
        raise DataError("the entity table is empty", expected="at least one entity")


def _blocks(n_rows: int, n_columns: int) -> Iterator[tuple[int, int]]:
    size = max(1, _BLOCK_CELLS // max(1, n_columns))
    for start in range(0, n_rows, size):
        yield start, min(start + size, n_rows)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)


def _best(
    cosine_BE: NDArray[np.float32], n_kept: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the best entities of each row; equal scores in the order of numbers."""
    chosen = np.argpartition(-cosine_BE, n_kept - 1, axis=1)[:, :n_kept]
    chosen.sort(axis=1)
    scores = np.take_along_axis(cosine_BE, chosen, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return (
        np.take_along_axis(chosen, order, axis=1).astype(np.int32),
        np.take_along_axis(scores, order, axis=1),
    )


def _drop(
    entity: NDArray[np.int32],
    score: NDArray[np.float32],
    usable: NDArray[np.bool_],
    settings: LinkSettings,
) -> list[int]:
    """Mark entities that may not be linked with score -2, last; return the rows to look up again.

    A row must be looked up again where it lost entities, has fewer than it may have, and its last
    place was still good enough, so that another entity may follow.
    """
    last = score[:, -1].copy()
    score[~usable[entity] | (score < settings.alpha)] = -2.0
    order = np.argsort(-score, axis=1, kind="stable")
    entity[:] = np.take_along_axis(entity, order, axis=1)
    score[:] = np.take_along_axis(score, order, axis=1)
    n_good = (score > -2).sum(1)
    more = last >= settings.alpha
    wanted = (n_good < settings.max_entities) & more & (len(usable) > entity.shape[1])
    return np.flatnonzero(wanted).tolist()


# --- leaves ---------------------------------------------------------------------------------


def choose_leaves(
    linked: Linked,
    doc_starts: Sequence[int] | NDArray[np.int64],
    triples: Sequence[tuple[int, int, int]],
    settings: LinkSettings,
) -> tuple[dict[str, NDArray[Any]], Ledger]:
    """Choose the triples that hang on each row: the best score first, then diversity.

    Candidates of a row are the triples whose head is one of its linked entities, with the
    cosine of row and head as score. They are sorted by (score bucket, relation bucket, score
    falling, entity, relation, tail); score bucket = floor((1 - score) / score_bucket), relation
    bucket = floor(times the relation was used by earlier rows of the document /
    relation_bucket). The first `max_leaves` are kept.

    Args:
        linked: the result of `link_rows`.
        doc_starts: first row of each document, rising.
        triples: (head, relation, tail) by number.
        settings: buckets and the most leaves of a row.

    Returns:
        Columns row, entity, relation_number, tail, score, rank; and the ledger, which counts
        candidates.

    Source: GraphMERT, injection algorithm. Differs: buckets are counted from 1 and not from the
    best score of the corpus, uses are those of earlier rows of the document, and a triple stays
    on every row that it matches; so no row depends on a later one.
    Checked by: tests/unit/domains/vectors/test_links.py
    """
    ledger = Ledger("leaves")
    of_head = _by_head(triples, linked.usable, ledger)
    first = set(np.asarray(doc_starts).tolist())
    used: dict[int, int] = {}
    columns: dict[str, list[float]] = {name: [] for name in _LEAF_KINDS}
    for row, (entities, scores) in enumerate(zip(linked.entity, linked.score, strict=True)):
        if row in first:
            used = {}
        candidates = _candidates(entities, scores, of_head)
        chosen = _rank(candidates, used, settings)
        n_distinct = len({one[2:] for one in candidates})
        ledger.offered(len(candidates))
        ledger.keep(len(chosen))
        ledger.leave_out("leaf of a nearer entity too", len(candidates) - n_distinct)
        ledger.leave_out(
            f"more than {settings.max_leaves} leaves on a row", n_distinct - len(chosen)
        )
        for rank, (score, head, relation, tail) in enumerate(chosen):
            used[relation] = used.get(relation, 0) + 1
            values = (row, head, relation, tail, score, rank)
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
    arrays = {name: np.array(column, _LEAF_KINDS[name]) for name, column in columns.items()}
    return arrays, ledger.check()


def _candidates(
    entities: NDArray[np.int32],
    scores: NDArray[np.float32],
    of_head: Mapping[int, list[tuple[int, int]]],
) -> list[tuple[float, int, int, int]]:
    return [
        (float(score), head, relation, tail)
        for head, score in zip(entities.tolist(), scores.tolist(), strict=True)
        for relation, tail in of_head.get(head, ())
    ]


def _by_head(
    triples: Sequence[tuple[int, int, int]], usable: NDArray[np.bool_], ledger: Ledger
) -> dict[int, list[tuple[int, int]]]:
    """Return (relation, tail) by head, without entities that are vectors of the corpus."""
    of_head: dict[int, list[tuple[int, int]]] = {}
    n_bad = 0
    for head, relation, tail in sorted(set(triples)):
        if usable[head] and usable[tail]:
            of_head.setdefault(head, []).append((relation, tail))
        elif usable[head]:
            n_bad += 1
    ledger.offered(n_bad)
    ledger.leave_out("tail is a vector of the corpus", n_bad)
    return of_head


def _rank(
    candidates: list[tuple[float, int, int, int]], used: Mapping[int, int], settings: LinkSettings
) -> list[tuple[float, int, int, int]]:
    def key(one: tuple[float, int, int, int]) -> tuple[float, ...]:
        score, head, relation, tail = one
        bucket = np.floor((1 - score) / settings.score_bucket)
        uses = used.get(relation, 0) // settings.relation_bucket
        return (bucket, uses, -score, head, relation, tail)

    chosen: list[tuple[float, int, int, int]] = []
    seen: set[tuple[int, int]] = set()
    for one in sorted(candidates, key=key):
        if one[2:] not in seen and len(chosen) < settings.max_leaves:
            seen.add(one[2:])
            chosen.append(one)
    return chosen


# --- the whole step -------------------------------------------------------------------------


@dataclass(frozen=True)
class EntityNames:
    """The names to embed: every entity of a graph that is the head or tail of a triple.

    Attributes:
        ids: entity ids, sorted.
        names: their names.
        relations: relations of the triples, sorted.
        triples: (head, relation, tail) by number.
        ledger: counts entities and triples.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    relations: tuple[str, ...]
    triples: tuple[tuple[int, int, int], ...]
    ledger: Ledger = field(default_factory=lambda: Ledger("entities"))


def entity_names(kg: KG) -> EntityNames:
    """Return the entities and triples of a graph by number.

    Raises:
        DataError: the graph has no triple between its entities.
    """
    ledger = Ledger("entities")
    triples = [one for one in kg.triples if _known(one, kg)]
    ledger.offered(len(kg.triples))
    ledger.keep(len(triples))
    ledger.leave_out("an end of the triple is no entity", len(kg.triples) - len(triples))
    if not triples:
        raise DataError("the graph has no triple between its entities", fix="Check the graph.")
    in_triples = {one.head_id for one in triples} | {one.tail_id for one in triples}
    ids = tuple(one for one in sorted(kg.entities) if one in in_triples)
    ledger.offered(len(kg.entities))
    ledger.keep(len(ids))
    ledger.leave_out("entity is in no triple", len(kg.entities) - len(ids))
    number = {entity_id: index for index, entity_id in enumerate(ids)}
    relations = tuple(sorted({one.relation for one in triples}))
    relation_number = {relation: index for index, relation in enumerate(relations)}
    return EntityNames(
        ids=ids,
        names=tuple(kg.entities[one].name for one in ids),
        relations=relations,
        triples=tuple(
            (number[one.head_id], relation_number[one.relation], number[one.tail_id])
            for one in triples
        ),
        ledger=ledger.check(),
    )


def _known(triple: Triple, kg: KG) -> bool:
    return triple.head_id in kg.entities and triple.tail_id in kg.entities


def write_links(
    path: Path | str,
    corpus: VectorTable,
    entities: VectorTable,
    names: EntityNames,
    settings: LinkSettings,
    *,
    kg_sha256: str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Link a corpus and write linked.parquet and links.json beside the entity table.

    Args:
        path: the LINKS folder, whose entities/ is `entities`.
        corpus: the vectors to link.
        entities: one vector for each of `names`, in their order.
        names: entities, relations and triples.
        settings: how to link.
        kg_sha256: hash of the graph's file, for the record.
        progress: told how many rows are done.

    Returns:
        The content of links.json.

    Raises:
        DataError: the entity table is not that of the names, or is the corpus.
        ProvenanceError: texts and entities were embedded with different models.
    """
    path = Path(path)
    _check_entities(corpus, entities, names)
    # links.json is the mark of a whole folder: it goes first and comes back last.
    (path / "links.json").unlink(missing_ok=True)
    linked = link_rows(corpus.vectors, entities.vectors, settings, progress=progress)
    _, doc_starts, _ = corpus.documents()
    columns, leaf_ledger = choose_leaves(linked, doc_starts, names.triples, settings)
    table = _linked_table(columns, names)
    shards.write_table(path / "linked.parquet", table)
    table_ledger = Ledger("entity table")
    table_ledger.offered(len(linked.usable))
    table_ledger.keep(int(linked.usable.sum()))
    own = np.flatnonzero(~linked.usable)
    table_ledger.leave_out("entity is a vector of the corpus", len(own))
    ledgers = [names.ledger, table_ledger.check(), linked.ledger, leaf_ledger]
    info: dict[str, Any] = {
        "format": LINKS_FORMAT,
        "relations": list(names.relations),
        "unusable": own.tolist(),
        "vectors_sha256": corpus.sha256,
        "entities_sha256": entities.sha256,
        "kg_sha256": kg_sha256,
        "linked_sha256": shards.sha256_file(path / "linked.parquet"),
        "settings": settings.model_dump(mode="json"),
        "n_leaves": table.num_rows,
        "n_rows_with_leaves": len(np.unique(columns["row"])),
        "ledgers": [ledger.to_dict() for ledger in ledgers],
    }
    shards.atomic_write_json(path / "links.json", info)
    return info


def _check_entities(corpus: VectorTable, entities: VectorTable, names: EntityNames) -> None:
    found = tuple(entities.rows(["doc_id"])["doc_id"].to_pylist())
    if found != names.ids:
        raise DataError("the entity table is not that of the graph", where=str(entities.path))
    models = corpus.manifest.get("model_sha256"), entities.manifest.get("model_sha256")
    if models[0] != models[1]:
        raise ProvenanceError(
            "texts and entities were embedded with different models",
            where=str(entities.path),
            got=models[1],
            expected=models[0],
            fix="Embed both with one model.",
        )


def _linked_table(columns: Mapping[str, NDArray[Any]], names: EntityNames) -> pa.Table:
    ids, relations = np.array(names.ids, object), np.array(names.relations, object)
    table = pa.table(
        {
            **columns,
            "entity_id": ids[columns["entity"]].tolist(),
            "relation": relations[columns["relation_number"]].tolist(),
            "tail_id": ids[columns["tail"]].tolist(),
        }
    ).select(LINKED_SCHEMA.names)
    return table.cast(LINKED_SCHEMA)
