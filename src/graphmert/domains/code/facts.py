"""What one file says by itself: symbols, what their names are bound to, and references.

Facts of a file depend on its bytes and path alone, so they are kept by content hash. An
expression is a small nested list, the same for all languages; `inference` gives it a value once
all files are known:

    ["n", name]                 a name, looked up through the scopes
    ["a", expr, name]           an attribute
    ["c", expr, args, kwargs]   a call; args are expressions, kwargs pairs [name, expr]
    ["nw", expr, args]          `new`
    ["d", symbol]               the symbol defined there
    ["@", scope, expr]          the expression, seen from another scope
    ["l", name]                 an instance of an external type, such as a literal's
    ["g", kind, [expr]]         a container and what it holds
    ["t", [expr]]               a tuple, by place
    ["u", [expr]]               any of these
    ["i", expr]                 what iteration yields
    ["s", expr, key]            a subscript; key is a text for a constant one, else null
    ["ti", expr, k]             the k-th part of a tuple
    ["w", expr]                 what `with` binds
    ["aw", expr]                what `await` yields
    ["y", expr]                 an instance of an annotated type
    ["nr", expr, type]          narrowed by isinstance
    ["ta", expr, [expr]]        a generic type and its arguments
    ["sup"]                     the parent of the class around
    ["this"]                    the instance around
    ["im", module, level]       an imported module
    ["if", module, level, name] a name imported from a module; JavaScript: "default" and "*" too
    ["o", symbol]               the object that a literal makes
    ["mg"]                      the global object of modules (`module`) in JavaScript
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Expr = list[Any]

FACTS_VERSION = "1"
"""Changes whenever facts of the same bytes would change; older caches are then not read."""


@dataclass(slots=True)
class Symbol:
    """One definition, or one scope.

    Attributes:
        kind: module, class, interface, annotation, enum, object, function, method, lambda,
            variable, parameter, field, local.
        name, qualname: short and dotted name within the file.
        parent: index of the symbol around it; -1 for the module.
        span: start, end, name_start, name_end, body_start, body_end, doc_start, doc_end (-1, -1
            for none), first line, last line.
        flags: async, generator, static, classmethod, property, abstract, test, star ...
        params: [name, annotation, default, mode, symbol]; mode is "", "*", "**", "kw" or "pos".
        names: names bound in this scope, each to the expressions it may stand for.
        attrs: attributes of instances.
        bases, interfaces, decorators, returns, yields: expressions.
        annotation: declared type of a variable, or return type of a function.
    """

    kind: str
    name: str
    qualname: str
    parent: int
    span: list[int]
    flags: list[str] = field(default_factory=list)
    params: list[list[Any]] = field(default_factory=list)
    names: dict[str, list[Expr]] = field(default_factory=dict)
    attrs: dict[str, list[Expr]] = field(default_factory=dict)
    bases: list[Expr] = field(default_factory=list)
    interfaces: list[Expr] = field(default_factory=list)
    decorators: list[Expr] = field(default_factory=list)
    returns: list[Expr] = field(default_factory=list)
    yields: list[Expr] = field(default_factory=list)
    annotation: Expr | None = None
    globals: list[str] = field(default_factory=list)

    def bind(self, name: str, expr: Expr) -> None:
        """Add an expression that the name may stand for in this scope."""
        known = self.names.setdefault(name, [])
        if expr not in known:
            known.append(expr)

    def bind_attr(self, name: str, expr: Expr) -> None:
        """Add an expression that an attribute of instances may hold."""
        known = self.attrs.setdefault(name, [])
        if expr not in known:
            known.append(expr)

    def to_list(self) -> list[Any]:
        """Return the fields as a list, in order."""
        return [getattr(self, name) for name in _SYMBOL_FIELDS]


_SYMBOL_FIELDS = tuple(Symbol.__dataclass_fields__)


@dataclass(slots=True)
class Ref:
    """One place that names something.

    Attributes:
        kind: call, new, import, from, base, implements, decorator, raise, catch, returns, type,
            use, write, export, alias, flow.
        start, end: the name at the site.
        site_start, site_end: the whole expression.
        line: line of `start`, from 1.
        scope: index of the symbol around.
        expr: what is named.
        target: for type, alias and flow: the symbol that is typed, is an alias, receives.
    """

    kind: str
    start: int
    end: int
    site_start: int
    site_end: int
    line: int
    scope: int
    expr: Expr
    target: int = -1

    def to_list(self) -> list[Any]:
        """Return the fields as a list, in order."""
        return [getattr(self, name) for name in _REF_FIELDS]


_REF_FIELDS = tuple(Ref.__dataclass_fields__)


@dataclass(slots=True)
class FileFacts:
    """Facts of one file. `symbols[0]` is the file itself.

    Attributes:
        language: python, java, javascript or typescript.
        package_name: dotted package of a Java file.
        exports: `__all__` of a Python module, or None; exported names of a JavaScript module.
        assigns: [scope, base, name, expr], assignments to attributes of what is no `self`.
        problems: what did not parse, in words with lines.
    """

    language: str
    symbols: list[Symbol] = field(default_factory=list)
    refs: list[Ref] = field(default_factory=list)
    package_name: str = ""
    exports: list[str] | None = None
    export_exprs: dict[str, list[Expr]] = field(default_factory=dict)
    assigns: list[list[Any]] = field(default_factory=list)
    imports: list[list[Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def scopes(self, index: int) -> Iterator[int]:
        """Yield a scope and those around it, innermost first."""
        while index >= 0:
            yield index
            index = self.symbols[index].parent

    def to_json(self) -> str:
        """Return the facts as JSON text."""
        return json.dumps(
            [
                self.language,
                [one.to_list() for one in self.symbols],
                [one.to_list() for one in self.refs],
                self.package_name,
                self.exports,
                self.export_exprs,
                self.assigns,
                self.imports,
                self.problems,
            ],
            separators=(",", ":"),
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> FileFacts:
        """Build facts from what `to_json` returned."""
        language, symbols, refs, *rest = json.loads(text)
        return cls(language, [Symbol(*one) for one in symbols], [Ref(*one) for one in refs], *rest)
