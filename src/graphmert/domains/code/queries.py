"""Questions to an index: callers, callees, paths, impact, explanations."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from graphmert.domains.code.columns import rows_in, rows_where
from graphmert.domains.code.ontology import load_ontology
from graphmert.errors import ConfigError, FormatError
from graphmert.store import RunDir

CALLS = ("calls", "invokes", "instantiates")
IMPACT = (
    *CALLS,
    "inherits_from",
    "implements",
    "overrides",
    "uses",
    "imports",
    "reads_from",
    "writes_to",
    "annotated_with",
    "raises",
    "catches",
    "returns",
    "has_type",
    "alias_of",
    "exports",
)
_MEMBERS = ("declares", "contains", "has_field")
_MAX_SHOWN = 12


class CodeStore:
    """An index opened for reading. Every answer names files and lines.

    Args:
        path: the run directory that `build_index` wrote.

    Raises:
        FormatError: it is no index, or one of another version.
    """

    def __init__(self, path: Path | str) -> None:
        from graphmert.domains.code.index import INDEX_FORMAT

        self.run = RunDir(path)
        fix = "Run `graphmert code index PATH… --out DIR` again; it rebuilds what is there."
        if not self.run.manifest.is_file():
            is_begun = self.run.has("code/files")
            got = "tables without a manifest: a build was broken off" if is_begun else None
            raise FormatError("no index here", where=str(path), got=got, fix=fix)
        try:
            tree = json.loads(self.run.manifest.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise FormatError("manifest is damaged", where=str(path), got=error, fix=fix) from error
        if tree.get("kind") != "code index" or tree.get("format") != INDEX_FORMAT:
            raise FormatError(
                "index of another version",
                where=str(path),
                got=f"{tree.get('kind')} {tree.get('format')}",
                expected=f"code index {INDEX_FORMAT}",
                fix=fix,
            )
        self.manifest = tree

    # --- tables -----------------------------------------------------------------------------

    @cached_property
    def symbols(self) -> dict[str, dict[str, Any]]:
        """Rows of code/symbols by entity id."""
        columns = ["entity_id", "kind", "name", "qualified_name", "language", "package", "path"]
        columns += ["doc_id", "start", "end", "start_line", "end_line", "parent_id", "is_test"]
        columns += ["docstring_start", "docstring_end"]
        table = self.run.read("code/symbols").select(columns)
        return {one["entity_id"]: one for one in table.to_pylist()}

    @cached_property
    def triples(self) -> pa.Table:
        """The table kg/triples."""
        return self.run.read("kg/triples")

    @cached_property
    def _names(self) -> dict[str, tuple[str, str]]:
        table = self.run.read("kg/entities")
        return dict(
            zip(
                table["entity_id"].to_pylist(),
                zip(table["name"].to_pylist(), table["type"].to_pylist(), strict=True),
                strict=True,
            )
        )

    @cached_property
    def _edges(self) -> tuple[dict[str, list[tuple[str, str]]], dict[str, list[tuple[str, str]]]]:
        """Return (tails by head, heads by tail), each with the relation."""
        forward: dict[str, list[tuple[str, str]]] = defaultdict(list)
        backward: dict[str, list[tuple[str, str]]] = defaultdict(list)
        table = self.triples
        for head, relation, tail in zip(
            table["head_id"].to_pylist(),
            table["relation"].to_pylist(),
            table["tail_id"].to_pylist(),
            strict=True,
        ):
            forward[head].append((relation, tail))
            backward[tail].append((relation, head))
        return forward, backward

    # --- symbols ----------------------------------------------------------------------------

    def find(self, text: str) -> str:
        """Return the id of the one entity that a text means.

        Args:
            text: an id; a qualified or plain name; the end of a dotted name; or PATH:LINE.

        Raises:
            ConfigError: no entity, or several; the message lists them.
        """
        if text in self._names:
            return text
        found = self._by_line(text) or self._by_name(text)
        if len(found) == 1:
            return found[0]
        if not found:
            from graphmert.domains.code.search import search

            near = [one["entity_id"] for one in search(self, text, limit=5)]
            raise ConfigError(
                f"no entity named {text!r}", expected="; ".join(near) or "a name of the index"
            )
        raise ConfigError(
            f"{text!r} means {len(found)} entities",
            got="; ".join(found[:_MAX_SHOWN]) + (" …" if len(found) > _MAX_SHOWN else ""),
            fix="Give a longer name or path, the id, or PATH:LINE.",
        )

    def _by_line(self, text: str) -> list[str]:
        path, _, line = text.rpartition(":")
        if not line.isdigit() or not path:
            return []
        inside = [
            one
            for one in self.symbols.values()
            if (one["doc_id"] == path or one["doc_id"].endswith("/" + path))
            and one["start_line"] <= int(line) <= one["end_line"]
            and one["kind"] != "Variable"
        ]
        # The whole path of a document comes before the end of another's.
        for column in ("doc_id", "path"):
            whole = [one for one in inside if one[column] == path]
            inside = whole or inside
        inside.sort(key=lambda one: (one["end"] - one["start"], one["entity_id"]))
        innermost: dict[str, str] = {}
        for one in inside:
            innermost.setdefault(one["doc_id"], one["entity_id"])
        return sorted(innermost.values())

    def _by_name(self, text: str) -> list[str]:
        ranks: dict[int, list[str]] = defaultdict(list)
        for one in self.symbols.values():
            if one["qualified_name"] == text:
                ranks[0].append(one["entity_id"])
            elif one["name"] == text and one["kind"] != "Variable":
                ranks[1].append(one["entity_id"])
            elif one["qualified_name"].endswith("." + text):
                ranks[2].append(one["entity_id"])
            elif one["doc_id"].endswith("/" + text) and one["parent_id"] is None:
                ranks[0].append(one["entity_id"])
        for entity_id, (name, _) in self._names.items():
            if name == text and entity_id not in self.symbols:
                ranks[3].append(entity_id)
        return sorted(ranks[min(ranks)]) if ranks else []

    def describe(self, entity_id: str) -> dict[str, Any]:
        """Return what and where an entity is."""
        name, kind = self._names.get(entity_id, (entity_id, ""))
        found: dict[str, Any] = {"entity_id": entity_id, "name": name, "type": kind}
        symbol = self.symbols.get(entity_id)
        if symbol is not None:
            found |= {
                "qualified_name": symbol["qualified_name"],
                "language": symbol["language"],
                "package": symbol["package"],
                "path": symbol["path"],
                "line": symbol["start_line"],
            }
        return found

    # --- walks ------------------------------------------------------------------------------

    def callers(self, text: str, *, depth: int = 1) -> list[dict[str, Any]]:
        """Return what calls an entity, up to `depth` calls away, nearest first."""
        return self._walk([self.find(text)], CALLS, depth=depth, backward=True)

    def callees(self, text: str, *, depth: int = 1) -> list[dict[str, Any]]:
        """Return what an entity calls, up to `depth` calls away, nearest first."""
        return self._walk([self.find(text)], CALLS, depth=depth, backward=False)

    def impact(self, text: str, *, depth: int = 3) -> list[dict[str, Any]]:
        """Return what may be affected by a change of an entity: all that rests on it or on its
        members, up to `depth` steps away."""
        start = self.find(text)
        return self._walk(self._with_members(start), IMPACT, depth=depth, backward=True)

    def _with_members(self, start: str) -> list[str]:
        found, todo = [start], [start]
        while todo:
            for relation, tail in self._edges[0].get(todo.pop(), ()):
                if relation in _MEMBERS and tail not in found:
                    found.append(tail)
                    todo.append(tail)
        return found

    def _walk(
        self, starts: Sequence[str], relations: Iterable[str], *, depth: int, backward: bool
    ) -> list[dict[str, Any]]:
        wanted = frozenset(relations)
        edges = self._edges[1 if backward else 0]
        seen = set(starts)
        level = [(one, one) for one in starts]
        found: list[dict[str, Any]] = []
        for step in range(1, depth + 1):
            following: list[tuple[str, str]] = []
            for node, _ in level:
                for relation, other in sorted(edges.get(node, ())):
                    if relation in wanted and other not in seen:
                        seen.add(other)
                        following.append((other, node))
                        row = {"depth": step, "relation": relation, **self.describe(other)}
                        row["via"] = node
                        found.append(row)
            level = following
        return found

    def path(
        self, start: str, end: str, *, relations: Sequence[str] = (), max_depth: int = 12
    ) -> list[dict[str, Any]] | None:
        """Return a shortest chain of triples from one entity to another; None for no chain.

        The chain from an entity to itself has no triples.

        Args:
            start, end: entities.
            relations: which relations may be followed, in their direction; calls when empty.
            max_depth: longest chain.
        """
        first, last = self.find(start), self.find(end)
        wanted = frozenset(relations or CALLS)
        unknown = wanted - set(load_ontology().relations)
        if unknown:
            raise ConfigError(
                "unknown relation", got=sorted(unknown), expected=load_ontology().relation_names
            )
        before: dict[str, tuple[str, str]] = {}
        todo = deque([(first, 0)])
        seen = {first}
        while todo:
            node, depth = todo.popleft()
            if node == last or depth == max_depth:
                break
            for relation, other in sorted(self._edges[0].get(node, ())):
                if relation in wanted and other not in seen:
                    seen.add(other)
                    before[other] = (node, relation)
                    todo.append((other, depth + 1))
        if last not in seen:
            return None
        steps: list[dict[str, Any]] = []
        node = last
        while node != first:
            head, relation = before[node]
            steps.append({"head": head, "relation": relation, "tail": node, **self._at(head, node)})
            node = head
        return steps[::-1]

    def _at(self, head: str, tail: str) -> dict[str, Any]:
        evidence = self._evidence(head, tail)
        return evidence[0] if evidence else {}

    def _evidence(self, head: str, tail: str) -> list[dict[str, Any]]:
        table = rows_where(rows_where(self.triples, "head_id", head), "tail_id", tail)
        return self._of_triples(table["triple_id"].to_pylist())

    @cached_property
    def _evidence_table(self) -> pa.Table:
        columns = ["triple_id", "doc_id", "sentence", "locator", "method", "score"]
        return self.run.read("kg/evidence").select(columns)

    def _of_triples(self, ids: list[str]) -> list[dict[str, Any]]:
        rows = rows_in(self._evidence_table, "triple_id", ids).to_pylist()
        found = []
        for one in rows:
            locator = json.loads(one["locator"])
            found.append(
                {
                    "triple_id": one["triple_id"],
                    "path": locator["file"],
                    "package": locator["package"],
                    "line": locator["start_line"],
                    "text": one["sentence"].strip(),
                    "resolver": one["method"],
                    "confidence": round(one["score"], 4),
                }
            )
        return found

    # --- explanations -----------------------------------------------------------------------

    def explain(self, text: str, *, limit: int = 50) -> dict[str, Any]:
        """Return all that is known of an entity, or the evidence of a triple given by its id.

        Args:
            text: the entity, as in `find`, or the id of a triple.
            limit: the most ends of a relation, or pieces of evidence; `left_out` counts the rest.
        """
        row = rows_where(self.triples, "triple_id", text)
        if row.num_rows:
            shown = row.to_pylist()[0]
            evidence = self._of_triples([text])
            return {
                "triple": {key: shown[key] for key in ("head_id", "relation", "tail_id", "score")},
                "evidence": evidence[:limit],
                "left_out": max(len(evidence) - limit, 0),
            }
        entity_id = self.find(text)
        forward, backward = self._edges
        inverse = {
            name: one.inverse for name, one in load_ontology().relations.items() if one.inverse
        }
        outgoing: dict[str, list[str]] = defaultdict(list)
        for relation, tail in sorted(forward.get(entity_id, ())):
            outgoing[relation].append(tail)
        incoming: dict[str, list[str]] = defaultdict(list)
        for relation, head in sorted(backward.get(entity_id, ())):
            incoming[inverse.get(relation) or f"{relation} (from)"].append(head)
        ends = {"outgoing": outgoing, "incoming": incoming}
        return {
            "entity": self.describe(entity_id),
            "source": self.source(entity_id),
            **{
                side: {name: found[:limit] for name, found in named.items()}
                for side, named in ends.items()
            },
            "left_out": {
                side: {n: len(found) - limit for n, found in named.items() if len(found) > limit}
                for side, named in ends.items()
            },
        }

    @cached_property
    def _texts(self) -> dict[str, str]:
        table = self.run.read("corpus/documents")
        return dict(zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True))

    def source(self, entity_id: str, *, max_chars: int = 2_000) -> str:
        """Return the text of a definition, cut after `max_chars`; empty for what has none."""
        symbol = self.symbols.get(entity_id)
        if symbol is None:
            return ""
        text = self._texts[symbol["doc_id"]][symbol["start"] : symbol["end"]]
        return text if len(text) <= max_chars else text[:max_chars] + " …"

    def docstring(self, entity_id: str) -> str:
        """Return the docstring of a symbol as it stands in the file, or an empty text."""
        symbol = self.symbols[entity_id]
        if symbol["docstring_start"] is None:
            return ""
        text = self._texts[symbol["doc_id"]]
        return text[symbol["docstring_start"] : symbol["docstring_end"]]
