"""Put facts together while a tree is walked; the same for all languages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphmert.domains.code.facts import Expr, FileFacts, Ref, Symbol
from graphmert.domains.code.syntax import Source

if TYPE_CHECKING:
    from tree_sitter import Node

FUNCTIONS = frozenset({"function", "method", "lambda"})
CLASSES = frozenset({"class", "interface", "enum", "annotation", "object"})
VARIABLES = frozenset({"variable", "field", "parameter", "local"})
_MAX_TEXT = 2_000


class Builder:
    """Symbols, bindings and references of one file.

    Args:
        source: the parsed text.
        language: the language's name.
        is_test: whether the file lies among tests.
    """

    def __init__(self, source: Source, language: str, *, is_test: bool) -> None:
        self.source = source
        self.is_test = is_test
        self.facts = FileFacts(language)
        self._variables: dict[tuple[int, str], int] = {}
        whole = [0, len(source.text), 0, 0, 0, len(source.text), -1, -1, 1, 1]
        whole[9] = source.root.end_point[0] + 1
        self.facts.symbols.append(Symbol("module", "", "", -1, whole))

    @property
    def symbols(self) -> list[Symbol]:
        """The symbols so far."""
        return self.facts.symbols

    def add(
        self,
        kind: str,
        name: str,
        parent: int,
        whole: Node,
        *,
        name_node: Node | None = None,
        body: Node | None = None,
        doc: tuple[int, int] | None = None,
    ) -> int:
        """Add a definition and return its index."""
        start, end = self.source.span(whole)
        name_span = self.source.span(name_node) if name_node is not None else (start, start)
        body_span = self.source.span(body) if body is not None else (end, end)
        span = [start, end, *name_span, *body_span, *(doc or (-1, -1))]
        span += [whole.start_point[0] + 1, whole.end_point[0] + 1]
        self.symbols.append(Symbol(kind, name, self._qualify(parent, name), parent, span))
        return len(self.symbols) - 1

    def _qualify(self, parent: int, name: str) -> str:
        """Return the dotted name; anonymous functions leave no trace in it."""
        while parent > 0 and (
            self.symbols[parent].kind == "lambda" or not self.symbols[parent].name
        ):
            parent = self.symbols[parent].parent
        return f"{self.symbols[parent].qualname}.{name}" if parent > 0 else name

    def variable(self, scope: int, kind: str, name: str, node: Node, whole: Node) -> int:
        """Return the variable of that name and scope, added where it is first seen."""
        key = (scope, name)
        if key not in self._variables:
            self._variables[key] = self.add(kind, name, scope, whole, name_node=node)
        return self._variables[key]

    def known_variable(self, scope: int, name: str) -> int:
        """Return the index of a variable, or -1."""
        return self._variables.get((scope, name), -1)

    def refer(
        self, kind: str, name: Node, site: Node, scope: int, expr: Expr, *, target: int = -1
    ) -> None:
        """Add a reference at a name within a whole expression."""
        start, end = self.source.span(name)
        if end <= start:
            return
        site_start, site_end = self.source.span(site)
        end = min(end, start + _MAX_TEXT)
        line = name.start_point[0] + 1
        self.facts.refs.append(
            Ref(kind, start, end, site_start, site_end, line, scope, expr, target)
        )

    def enclosing(self, scope: int, kinds: frozenset[str]) -> int:
        """Return the nearest scope of one of the kinds, from `scope` outwards, or -1."""
        for index in self.facts.scopes(scope):
            if self.symbols[index].kind in kinds:
                return index
        return -1

    def finish(self) -> FileFacts:
        """Drop references to plain locals, and return the facts."""
        self.facts.refs = [one for one in self.facts.refs if not self._is_local_use(one)]
        self.facts.refs.sort(key=lambda one: (one.start, one.end, one.kind, one.site_start))
        self.facts.problems = self.source.errors()
        return self.facts

    def _is_local_use(self, ref: Ref) -> bool:
        if ref.kind not in ("use", "write"):
            return False
        expr = ref.expr
        while expr[0] == "nr":
            expr = expr[1]
        if expr[0] != "n":
            return False
        for index in self.facts.scopes(ref.scope):
            symbol = self.symbols[index]
            if expr[1] in symbol.globals:
                continue
            if symbol.kind == "class" and index != ref.scope and self.facts.language == "python":
                continue
            if expr[1] in symbol.names:
                if symbol.kind not in FUNCTIONS:
                    return False
                return any(one[0] not in ("d", "im", "if") for one in symbol.names[expr[1]])
        # A name bound nowhere in the file may be inherited in Java, or come by a star import.
        return self.facts.language != "java" and "*" not in self.symbols[0].names
