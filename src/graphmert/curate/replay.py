"""Edits replayed over the tables that extraction wrote."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from graphmert.curate.log import Edit, in_force, locked, read_edits, write_edits
from graphmert.errors import ConfigError, SchemaError
from graphmert.export import GraphTables
from graphmert.kg import Closure, Schema, SchemaGate, Triple, triple_id
from graphmert.shards import Ledger
from graphmert.store import RunDir, make_table

BY_HAND = "by hand"


@dataclass(frozen=True)
class Curated:
    """A graph as its edits leave it.

    Attributes:
        tables: what counts now.
        edits: the whole log, undone edits too.
        ledger: edits in force: applied, or without effect and why.
        withdrawn: triples taken out, with their evidence, by their id.
        touched: numbers of the edits applied to each triple, by its present id.
    """

    tables: GraphTables
    edits: tuple[Edit, ...] = ()
    ledger: Ledger = field(default_factory=lambda: Ledger("edits"))
    withdrawn: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    touched: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def read_curated(run: RunDir) -> Curated:
    """Read a graph with its edits.

    Raises:
        FormatError: the folder holds no extracted graph, or a table or the log is damaged.
    """
    return replay(run, GraphTables.read(run), read_edits(run))


def replay(run: RunDir, tables: GraphTables, edits: Sequence[Edit]) -> Curated:
    """Return the graph with the edits in force applied in order.

    The same tables and log give the same graph. An edit that finds nothing to change, because an
    earlier one was undone or extraction ran again, is left out with its reason.

    Args:
        run: where rejected candidates, seed and documents are read, if an edit needs them.
        tables: the graph as extracted.
        edits: the log.
    """
    counting = in_force(edits)
    if not counting:
        return Curated(tables, tuple(edits))
    state = _State(run, tables)
    ledger = Ledger("edits")
    for edit in counting:
        ledger.offered()
        problem = state.apply(edit)
        if problem is None:
            ledger.keep()
        else:
            ledger.leave_out(problem, example=f"edit {edit.number}")
    return Curated(
        tables=state.tables(),
        edits=tuple(edits),
        ledger=ledger.check(),
        withdrawn=state.withdrawn,
        touched={key: tuple(numbers) for key, numbers in sorted(state.touched.items())},
    )


def add_edits(run: RunDir, edits: Sequence[Edit]) -> Curated:
    """Add edits to the log, all or none, and return the graph as they leave it.

    Raises:
        ConfigError: an edit has nothing to change, or undoes what is undone.
        SchemaError: the graph and the seed would together break the schema.
    """
    with locked(run):
        former = read_edits(run)
        tables = GraphTables.read(run)
        log = list(former)
        for edit in edits:
            log.append(edit.model_copy(update={"number": len(log) + 1}))
            if edit.kind == "undo":
                _check_undo(edit, log)
        before = replay(run, tables, former)
        curated = replay(run, tables, log)
        _check_schema(run, before, curated)
        # An undo may leave later edits without their object: those are counted, not refused.
        if not any(edit.kind == "undo" for edit in edits):
            _check_effect(before.ledger, curated.ledger)
        write_edits(run, log)
        return curated


def _check_undo(edit: Edit, log: Sequence[Edit]) -> None:
    live = {one.number for one in _standing(log[:-1])}
    if edit.edit not in live:
        raise ConfigError(
            "there is no such edit to undo",
            got=edit.edit,
            expected=f"one of {sorted(live)}" if live else "a log with an edit in force",
        )


def _standing(edits: Sequence[Edit]) -> list[Edit]:
    """The edits that no undo in force names, undoing ones included."""
    undone: set[int] = set()
    standing: list[Edit] = []
    for edit in reversed(edits):
        if edit.number not in undone:
            standing.append(edit)
            if edit.kind == "undo":
                undone.add(edit.edit or 0)
    return standing


def _check_schema(run: RunDir, before: Curated, after: Curated) -> None:
    """Refuse a graph that says, with the seed, what the schema forbids and the former did not."""
    schema = after.tables.schema
    former, present = _triples(before), _triples(after)
    if not schema.relations or not (present - former or _merged(after) != _merged(before)):
        return
    seed = _seed(run)
    standing = _renamed(seed, _merged(before))
    known = (former & present) | (standing & _renamed(seed, _merged(after)))
    gate = SchemaGate(schema, (one for one in sorted(known) if one.relation in schema.relations))
    rows = after.tables.entities.select(["entity_id", "type"]).to_pylist()
    types = {row["entity_id"]: row["type"] for row in rows}
    for triple in sorted((present | _renamed(seed, _merged(after))) - known):
        if triple.relation not in schema.relations:
            raise SchemaError(
                "the schema has no such relation",
                got=triple.relation,
                expected=f"one of {', '.join(schema.relation_names)}",
            )
        _check_types(triple, schema, types)
        reason = gate.objection(triple, types.get(triple.tail_id, ""))
        if reason is not None:
            raise SchemaError(
                "the edit breaks the schema",
                where=" ".join(triple),
                got=reason.removeprefix("schema, "),
                fix="Reject what speaks against it first, or edit seed/schema.toml.",
            )
        gate.add(triple)


def _check_types(triple: Triple, schema: Schema, types: Mapping[str, str]) -> None:
    relation = schema.relations[triple.relation]
    for name, entity_id, allowed in (
        ("head", triple.head_id, relation.domain),
        ("tail", triple.tail_id, relation.range),
    ):
        if allowed and types.get(entity_id) not in allowed:
            raise SchemaError(
                f"the {name} has a type that the relation does not allow",
                where=f"{triple.relation}, {name} {entity_id}",
                got=types.get(entity_id),
                expected=f"one of {', '.join(sorted(allowed))}",
                fix="Edit seed/schema.toml where it is too narrow.",
            )


def _triples(curated: Curated) -> set[Triple]:
    rows = curated.tables.triples.select(["head_id", "relation", "tail_id"]).to_pylist()
    return {Triple(row["head_id"], row["relation"], row["tail_id"]) for row in rows}


def _merged(curated: Curated) -> dict[str, str]:
    """The entity that each merged one has become."""
    rows = curated.tables.entities.select(["entity_id", "merged_from"]).to_pylist()
    return {gone: row["entity_id"] for row in rows for gone in row["merged_from"]}


def _seed(run: RunDir) -> list[Triple]:
    """All triples of the seed: an edit must not contradict a held-out one either."""
    if not run.has("seed/triples"):
        return []
    rows = run.read("seed/triples").select(["head_id", "relation", "tail_id"]).to_pylist()
    return [Triple(row["head_id"], row["relation"], row["tail_id"]) for row in rows]


def _renamed(triples: Sequence[Triple], into: Mapping[str, str]) -> set[Triple]:
    """Triples between the entities that are left; those within one entity are no more."""
    renamed = set()
    for one in triples:
        head, tail = into.get(one.head_id, one.head_id), into.get(one.tail_id, one.tail_id)
        if head != tail or one.head_id == one.tail_id:
            renamed.add(Triple(head, one.relation, tail))
    return renamed


def _check_effect(before: Ledger, after: Ledger) -> None:
    for reason, count in after.reasons.items():
        if count > before.reasons.get(reason, 0):
            raise ConfigError(
                "the edit has nothing to change",
                got=reason,
                fix="Look the triple or entity up with `graphmert query`.",
            )


class _State:
    """The graph while edits are applied: rows by id, in the order of the tables."""

    def __init__(self, run: RunDir, tables: GraphTables) -> None:
        self.run, self.schema = run, tables.schema
        self.entities = {row["entity_id"]: row for row in tables.entities.to_pylist()}
        self.triples = {row["triple_id"]: row for row in tables.triples.to_pylist()}
        self.evidence: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in tables.evidence.to_pylist():
            self.evidence[row["triple_id"]].append(row)
        self.withdrawn: dict[str, dict[str, Any]] = {}
        self.touched: dict[str, list[int]] = defaultdict(list)
        self._moved: dict[str, str] = {}
        self._into: dict[str, str] = {}

    def present(self, identity: str) -> str:
        """The id that a triple has after relabelling and merging."""
        while identity in self._moved:
            identity = self._moved[identity]
        return identity

    def merged_into(self, entity_id: str) -> str:
        """The entity that an entity has become."""
        while entity_id in self._into:
            entity_id = self._into[entity_id]
        return entity_id

    def apply(self, edit: Edit) -> str | None:
        """Apply an edit; return why it changes nothing, or None."""
        if edit.kind == "reject":
            return self._reject(edit)
        if edit.kind == "relabel":
            return self._relabel(edit)
        if edit.kind == "merge":
            return self._merge(edit)
        return self._accept(edit)

    def _reject(self, edit: Edit) -> str | None:
        identity = self.present(edit.triple_id or "")
        if identity not in self.triples:
            return "no such triple"
        self._withdraw(identity, edit)
        return None

    def _withdraw(self, identity: str, edit: Edit) -> None:
        row = self.triples.pop(identity)
        kept = {"triple": row, "evidence": self.evidence.pop(identity, []), "edit": edit.number}
        self.withdrawn[identity] = kept

    def _relabel(self, edit: Edit) -> str | None:
        identity = self.present(edit.triple_id or "")
        if identity not in self.triples:
            return "no such triple"
        row = self.triples[identity]
        if row["relation"] == edit.relation:
            return "the triple has that relation already"
        self._move(identity, {**row, "relation": edit.relation}, edit)
        return None

    def _merge(self, edit: Edit) -> str | None:
        stays, goes = (self.merged_into(one or "") for one in (edit.entity_id, edit.merged_id))
        if stays not in self.entities or goes not in self.entities:
            return "no such entity"
        if stays == goes:
            return "the entities are one already"
        kept, gone = self.entities[stays], self.entities.pop(goes)
        names = {*kept["synonyms"], gone["name"], *gone["synonyms"]} - {kept["name"]}
        merged = {*kept["merged_from"], goes, *gone["merged_from"]}
        self.entities[stays] = {
            **kept,
            "synonyms": sorted(names),
            "merged_from": sorted(merged),
        }
        self._into[goes] = stays
        for identity, row in list(self.triples.items()):
            if goes in (row["head_id"], row["tail_id"]):
                changed = dict(row)
                for end in ("head", "tail"):
                    if row[f"{end}_id"] == goes:
                        changed |= {f"{end}_id": stays, end: kept["name"]}
                if changed["head_id"] == changed["tail_id"]:
                    self._withdraw(identity, edit)
                else:
                    self._move(identity, changed, edit)
        return None

    def _move(self, identity: str, row: dict[str, Any], edit: Edit) -> None:
        """Give a triple another content and so another id; equal triples become one."""
        new = triple_id(row["head_id"], row["relation"], row["tail_id"])
        former = self.triples.pop(identity)
        evidence = [{**one, "triple_id": new} for one in self.evidence.pop(identity, [])]
        self._moved[identity] = new
        # Coming back to a former content must not make a circle of ids.
        self._moved.pop(new, None)
        self.touched[new] += [*self.touched.pop(identity, []), edit.number]
        other = self.triples.get(new)
        if other is not None:
            evidence = [*self.evidence.get(new, []), *evidence]
            row = {**other, "score": max(other["score"], former["score"])}
        else:
            row = {**row, "novel": self._is_novel(row)}
        self.evidence[new] = evidence
        self.triples[new] = {**row, "triple_id": new, "n_evidence": len(evidence)}

    def _accept(self, edit: Edit) -> str | None:
        head, tail = (self.merged_into(one or "") for one in (edit.head_id, edit.tail_id))
        if head not in self.entities or tail not in self.entities:
            return "no such entity"
        identity = triple_id(head, edit.relation or "", tail)
        if identity in self.triples:
            return "the triple is accepted already"
        self._moved.pop(identity, None)
        self.touched[identity].append(edit.number)
        if identity in self.withdrawn:
            kept = self.withdrawn.pop(identity)
            self.triples[identity], self.evidence[identity] = kept["triple"], kept["evidence"]
            return None
        original = (edit.head_id or "", edit.relation or "", edit.tail_id or "")
        candidate = self._rejected.get(original)
        evidence = self._evidence(identity, original, candidate)
        row = {
            "triple_id": identity,
            "head_id": head,
            "head": self.entities[head]["name"],
            "relation": edit.relation,
            "tail_id": tail,
            "tail": self.entities[tail]["name"],
            "score": 1.0 if candidate is None else candidate["score"] or 0.0,
            "n_evidence": len(evidence),
        }
        self.triples[identity] = {**row, "novel": self._is_novel(row)}
        self.evidence[identity] = evidence
        return None

    def _is_novel(self, row: Mapping[str, Any]) -> bool:
        return not self._closure.contains(row["head_id"], row["relation"], row["tail_id"])

    @cached_property
    def _closure(self) -> Closure:
        if not self.run.has("seed/triples"):
            return Closure((), self.schema)
        rows = self.run.read("seed/triples").to_pylist()
        return Closure(
            (
                Triple(row["head_id"], row["relation"], row["tail_id"])
                for row in rows
                if row["split"] == "train"
            ),
            self.schema,
        )

    @cached_property
    def _rejected(self) -> dict[tuple[str, ...], dict[str, Any]]:
        """The best rejected candidate of each triple."""
        if not self.run.has("kg/rejected"):
            return {}
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for row in self.run.read("kg/rejected").to_pylist():
            parts = json.loads(row["candidate"])
            if isinstance(parts, list) and len(parts) == 3:
                best = found.get(tuple(parts))
                if best is None or (row["score"] or 0.0) > (best["score"] or 0.0):
                    found[tuple(parts)] = row
        return found

    @cached_property
    def _documents(self) -> dict[str, tuple[str, str]]:
        table = self.run.read("corpus/documents").select(["doc_id", "text", "sha256"])
        return {row["doc_id"]: (row["text"], row["sha256"]) for row in table.to_pylist()}

    @cached_property
    def _mentions(self) -> dict[tuple[str, str], list[tuple[int, int]]]:
        found: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        table = self.run.read("corpus/mentions").select(["doc_id", "entity_id", "start", "end"])
        for row in table.to_pylist():
            found[row["doc_id"], row["entity_id"]].append((row["start"], row["end"]))
        return found

    def _evidence(
        self,
        identity: str,
        triple: tuple[str, str, str],
        candidate: Mapping[str, Any] | None,
    ) -> list[dict[str, Any]]:
        """The sentence a rejected candidate came from, if its head is still found in it."""
        has_text = self.run.has("corpus/documents") and self.run.has("corpus/mentions")
        if candidate is None or not has_text:
            return []
        start, end = candidate["sent_start"], candidate["sent_end"]
        spans = []
        for entity_id in (triple[0], triple[2]):
            inside = self._mentions.get((candidate["doc_id"], entity_id), ())
            spans.append(next(((a, b) for a, b in inside if start <= a and b <= end), None))
        if spans[0] is None or candidate["doc_id"] not in self._documents:
            return []
        text, sha256 = self._documents[candidate["doc_id"]]
        head, tail = spans
        return [
            {
                "triple_id": identity,
                "domain": "text",
                "doc_id": candidate["doc_id"],
                "sha256": sha256,
                "sent_start": start,
                "sent_end": end,
                "sentence": text[start:end],
                "head_start": head[0],
                "head_end": head[1],
                "head_surface": text[slice(*head)],
                "tail_start": None if tail is None else tail[0],
                "tail_end": None if tail is None else tail[1],
                "tail_surface": None if tail is None else text[slice(*tail)],
                "locator": None,
                "model_hash": "",
                "method": f"{BY_HAND}, {'inferred' if tail is None else 'in text'}",
                "score": candidate["score"] or 0.0,
            }
        ]

    def tables(self) -> GraphTables:
        """The tables as they are now."""
        evidence = [row for key in self.triples for row in self.evidence.get(key, ())]
        rows = {
            "kg/entities": list(self.entities.values()),
            "kg/triples": list(self.triples.values()),
            "kg/evidence": evidence,
        }
        made = [_table(name, found) for name, found in rows.items()]
        return GraphTables(*made, schema=self.schema)


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    from graphmert.store import schema_of

    return make_table(name, {key: [row[key] for row in rows] for key in schema_of(name).names})
