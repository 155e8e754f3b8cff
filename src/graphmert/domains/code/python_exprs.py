"""Expressions and annotations of Python: what they are, and the references inside them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from graphmert.domains.code.builder import CLASSES, FUNCTIONS, Builder
from graphmert.domains.code.facts import Expr
from graphmert.domains.code.syntax import Source

if TYPE_CHECKING:
    from tree_sitter import Node

NOTHING: Expr = ["l", "None"]
_ADDERS = frozenset({"append", "add", "appendleft", "insert", "setdefault", "push"})
_MAX_PARTS = 12
_LITERALS = {
    "string": "str",
    "concatenated_string": "str",
    "integer": "int",
    "float": "float",
    "true": "bool",
    "false": "bool",
    "none": "None",
    "comparison_operator": "bool",
    "not_operator": "bool",
}


class PythonExprs:
    """Turn expression nodes into expressions, once each."""

    def __init__(self, builder: Builder) -> None:
        self.b = builder
        self.asserted: dict[int, dict[str, Expr]] = {}
        self._narrowed: list[tuple[str, Expr]] = []
        self.handlers: dict[str, Callable[[Node, int], Expr]] = {
            "identifier": self._identifier,
            "attribute": self._attribute,
            "call": self._call,
            "assignment": self._assignment,
            "augmented_assignment": self._augmented,
            "named_expression": self._named,
            "subscript": self._subscript,
            "list": self._container,
            "set": self._container,
            "tuple": self._tuple,
            "expression_list": self._tuple,
            "dictionary": self._dictionary,
            "list_comprehension": self._comprehension,
            "set_comprehension": self._comprehension,
            "generator_expression": self._comprehension,
            "dictionary_comprehension": self._comprehension,
            "lambda": self._lambda,
            "conditional_expression": self._conditional,
            "boolean_operator": self._union,
            "binary_operator": self._binary,
            "await": lambda node, scope: ["aw", self._first(node, scope)],
            "parenthesized_expression": self._first,
            "unary_operator": self._first,
            "yield": self._yield,
            **dict.fromkeys(_LITERALS, self._literal),
        }

    def visit(self, node: Node, scope: int) -> Expr:
        """Return the expression of a node and record the references inside it."""
        handler = self.handlers.get(node.type)
        if handler is not None:
            return handler(node, scope)
        for child in node.named_children:
            self.visit(child, scope)
        return NOTHING

    def name_node(self, node: Node) -> Node:
        """Return the node of the last name of a dotted expression."""
        if node.type == "attribute":
            return node.child_by_field_name("attribute") or node
        if node.type == "call":
            return self.name_node(node.child_by_field_name("function") or node)
        if node.type == "subscript":
            return self.name_node(node.child_by_field_name("value") or node)
        return node

    # --- narrowing --------------------------------------------------------------------------

    def narrowings(self, node: Node, scope: int) -> list[tuple[str, Expr]]:
        """Return (text, type) for each `isinstance(text, type)` that must hold."""
        if node.type == "parenthesized_expression" and node.named_children:
            return self.narrowings(node.named_children[0], scope)
        if node.type == "boolean_operator":
            if any(one.type == "and" for one in node.children):
                return [pair for one in node.named_children for pair in self.narrowings(one, scope)]
            return []
        function = node.child_by_field_name("function") if node.type == "call" else None
        if function is None or self.b.source.of(function) != "isinstance":
            return []
        arguments = node.child_by_field_name("arguments")
        parts = arguments.named_children if arguments is not None else []
        if len(parts) != 2 or parts[0].type not in ("identifier", "attribute"):
            return []
        kinds = parts[1].named_children if parts[1].type == "tuple" else [parts[1]]
        return [(self.b.source.of(parts[0]), ["u", [self.plain(one) for one in kinds]])]

    @contextlib.contextmanager
    def narrowing(self, pairs: list[tuple[str, Expr]]) -> Iterator[None]:
        """Let names be of narrower types within the block."""
        self._narrowed.extend(pairs)
        yield
        del self._narrowed[len(self._narrowed) - len(pairs) :]

    def _narrow(self, node: Node, scope: int, expr: Expr) -> Expr:
        if not self._narrowed and not self.asserted:
            return expr
        text = self.b.source.of(node)
        for key, kind in reversed(self._narrowed):
            if key == text:
                return ["nr", expr, kind]
        function = self.b.enclosing(scope, FUNCTIONS)
        kind = self.asserted.get(function, {}).get(text)
        return expr if kind is None else ["nr", expr, kind]

    def plain(self, node: Node) -> Expr:
        """Return a dotted name as an expression, without references."""
        if node.type in ("identifier", "dotted_name") and not node.named_children:
            return ["n", self.b.source.of(node)]
        if node.type == "dotted_name":
            expr: Expr = ["n", self.b.source.of(node.named_children[0])]
            for one in node.named_children[1:]:
                expr = ["a", expr, self.b.source.of(one)]
            return expr
        if node.type == "attribute":
            base = node.child_by_field_name("object")
            name = node.child_by_field_name("attribute")
            if base is not None and name is not None:
                return ["a", self.plain(base), self.b.source.of(name)]
        return NOTHING

    def visit_dotted(self, node: Node, scope: int) -> None:
        """Record a use of a dotted name, as patterns have it."""
        last = node.named_children[-1] if node.named_children else node
        self.b.refer("use", last, node, scope, self.plain(node))

    # --- names, attributes, calls -----------------------------------------------------------

    def _identifier(self, node: Node, scope: int) -> Expr:
        expr = self._narrow(node, scope, ["n", self.b.source.of(node)])
        self.b.refer("use", node, node, scope, expr)
        return expr

    def _attribute(self, node: Node, scope: int) -> Expr:
        expr = self._attribute_expr(node, scope)
        name = node.child_by_field_name("attribute")
        if name is not None:
            self.b.refer("use", name, node, scope, expr)
        return expr

    def _attribute_expr(self, node: Node, scope: int) -> Expr:
        base, name = node.child_by_field_name("object"), node.child_by_field_name("attribute")
        if base is None or name is None:
            return NOTHING
        expr: Expr = ["a", self.visit(base, scope), self.b.source.of(name)]
        return self._narrow(node, scope, expr)

    def _callee(self, node: Node, scope: int) -> Expr:
        """A called name is a call, not a use besides."""
        if node.type == "identifier":
            return self._narrow(node, scope, ["n", self.b.source.of(node)])
        if node.type == "attribute":
            return self._attribute_expr(node, scope)
        return self.visit(node, scope)

    def _call(self, node: Node, scope: int) -> Expr:
        function, arguments = (
            node.child_by_field_name("function"),
            node.child_by_field_name("arguments"),
        )
        if function is None:
            return NOTHING
        callee = self._callee(function, scope)
        args: list[Expr] = []
        kwargs: list[list[object]] = []
        if arguments is not None and arguments.type == "generator_expression":
            args.append(self.visit(arguments, scope))
        elif arguments is not None:
            for one in arguments.named_children:
                if one.type == "keyword_argument":
                    name, value = one.child_by_field_name("name"), one.child_by_field_name("value")
                    if name is not None and value is not None:
                        kwargs.append([self.b.source.of(name), self.visit(value, scope)])
                elif one.type in ("list_splat", "dictionary_splat"):
                    self.visit(one, scope)
                    args.append(["l", "*"])
                elif one.type != "comment":
                    args.append(self.visit(one, scope))
        self._append(function, args, scope)
        expr: Expr = ["sup"] if callee == ["n", "super"] else ["c", callee, args, kwargs]
        site_expr: Expr = ["c", callee, args, kwargs]
        self.b.refer("call", self.name_node(function), node, scope, site_expr)
        return expr

    def _append(self, function: Node, args: list[Expr], scope: int) -> None:
        """`names.append(value)`: the container holds the value too."""
        if function.type != "attribute" or not args or args[-1][0] == "l":
            return
        base, name = (
            function.child_by_field_name("object"),
            function.child_by_field_name("attribute"),
        )
        if base is None or name is None or self.b.source.of(name) not in _ADDERS:
            return
        self._hold(base, ["g", "list", [args[-1]]], scope)

    # --- bindings ---------------------------------------------------------------------------

    def _assignment(self, node: Node, scope: int) -> Expr:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        kind = node.child_by_field_name("type")
        if left is None:
            return NOTHING
        if right is not None and right.type == "lambda" and left.type == "identifier":
            expr = self._lambda(right, scope, name_node=left, whole=node)
            self.b.symbols[scope].bind(self.b.source.of(left), expr)
            return expr
        expr = NOTHING if right is None else self.visit(right, scope)
        if kind is not None:
            annotation = self.annotation(kind, scope)
            target = self.assign(left, ["y", annotation], scope, node)
            if target >= 0:
                self.b.symbols[target].annotation = annotation
                self.b.refer("type", kind, kind, scope, annotation, target=target)
        if right is not None:
            target = self.assign(left, expr, scope, node)
            core = expr[1] if expr[0] == "nr" else expr
            if target >= 0 and core[0] in ("n", "a"):
                self.b.refer("flow", self.name_node(right), node, scope, core, target=target)
                if self.b.symbols[scope].kind not in FUNCTIONS:
                    self.b.refer("alias", self.name_node(right), node, scope, core, target=target)
        return expr

    def _augmented(self, node: Node, scope: int) -> Expr:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is not None:
            self.visit(left, scope)
        if right is not None:
            self.visit(right, scope)
        if left is not None:
            name = self.name_node(left)
            if left.type in ("identifier", "attribute"):
                self.b.refer("write", name, node, scope, self.plain(left))
                if left.type == "identifier":
                    self._bind_name(left, None, scope, node)
        return NOTHING

    def _named(self, node: Node, scope: int) -> Expr:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is None or value is None:
            return NOTHING
        expr = self.visit(value, scope)
        self.assign(name, expr, scope, node)
        return expr

    def assign(self, target: Node, expr: Expr, scope: int, whole: Node) -> int:
        """Bind a target, taken apart where it is a tuple; return the variable's index or -1."""
        if target.type == "identifier":
            return self._bind_name(target, expr, scope, whole)
        if target.type == "attribute":
            return self._bind_attribute(target, expr, scope, whole)
        if target.type in ("pattern_list", "tuple_pattern", "list_pattern", "tuple", "list"):
            for place, one in enumerate(target.named_children):
                if one.type in ("list_splat_pattern", "list_splat"):
                    if one.named_children:
                        inner: Expr = ["g", "list", [["i", expr]]]
                        self.assign(one.named_children[0], inner, scope, whole)
                else:
                    self.assign(one, ["ti", expr, place], scope, whole)
            return -1
        if target.type in ("as_pattern_target", "parenthesized_expression"):
            inner_nodes = target.named_children
            return self.assign(inner_nodes[0], expr, scope, whole) if inner_nodes else -1
        if target.type == "subscript":
            self.visit(target, scope)
            self._bind_element(target, expr, scope)
            return -1
        self.visit(target, scope)
        return -1

    def _bind_name(self, node: Node, expr: Expr | None, scope: int, whole: Node) -> int:
        name = self.b.source.of(node)
        place = scope
        if name in self.b.symbols[scope].globals:
            place = 0
            self.b.refer("write", node, whole, scope, ["n", name])
        symbol = self.b.symbols[place]
        if expr is not None:
            symbol.bind(name, expr if place == scope else ["@", scope, expr])
        kind = "local" if symbol.kind in FUNCTIONS else "variable"
        if symbol.kind in CLASSES:
            kind = "field"
        known = self.b.known_variable(place, name)
        return known if known >= 0 else self.b.variable(place, kind, name, node, whole)

    def _bind_attribute(self, node: Node, expr: Expr, scope: int, whole: Node) -> int:
        base, name_node = node.child_by_field_name("object"), node.child_by_field_name("attribute")
        if base is None or name_node is None:
            return -1
        name = self.b.source.of(name_node)
        base_expr = self.visit(base, scope)
        self.b.refer("write", name_node, whole, scope, ["a", base_expr, name])
        owner = self.owner_of(self.b.source.of(base), scope)
        if owner < 0:
            self.b.facts.assigns.append([scope, base_expr, name, expr])
            return -1
        self.b.symbols[owner].bind_attr(name, ["@", scope, expr])
        return self.b.variable(owner, "field", name, name_node, whole)

    def owner_of(self, text: str, scope: int) -> int:
        """Return the class whose instance (or self) a name is within a method, or -1."""
        for index in self.b.facts.scopes(scope):
            symbol = self.b.symbols[index]
            if symbol.kind == "method" and "staticmethod" not in symbol.flags:
                if symbol.params and symbol.params[0][0] == text:
                    return symbol.parent
                return -1
        return -1

    def _bind_element(self, target: Node, expr: Expr, scope: int) -> None:
        """`names[key] = value`: the container holds the value too."""
        value = target.child_by_field_name("value")
        if value is None or expr[0] == "l":
            return
        self._hold(value, ["g", "dict", [expr]], scope)

    def _hold(self, value: Node, holder: Expr, scope: int) -> None:
        """Bind a container to a local name or an attribute of self."""
        if value.type == "identifier":
            name = self.b.source.of(value)
            if name in self.b.symbols[scope].names:
                self.b.symbols[scope].bind(name, holder)
        elif value.type == "attribute":
            base, name_node = (
                value.child_by_field_name("object"),
                value.child_by_field_name("attribute"),
            )
            if base is not None and name_node is not None:
                owner = self.owner_of(self.b.source.of(base), scope)
                if owner >= 0:
                    name = self.b.source.of(name_node)
                    self.b.symbols[owner].bind_attr(name, ["@", scope, holder])

    def parameter(self, node: Node, index: int, scope: int, mode: str) -> bool:
        """Add a parameter; return whether what follows must be named."""
        name_node = node.child_by_field_name("name")
        if name_node is None:
            name_node = node if node.type == "identifier" else (node.named_children or [node])[0]
        if name_node.type in ("list_splat_pattern", "dictionary_splat_pattern"):
            mode = "*" if name_node.type == "list_splat_pattern" else "**"
            name_node = (name_node.named_children or [name_node])[0]
        elif node.type in ("list_splat_pattern", "dictionary_splat_pattern"):
            mode = "*" if node.type == "list_splat_pattern" else "**"
        name = self.b.source.of(name_node)
        kind, value = node.child_by_field_name("type"), node.child_by_field_name("value")
        annotation = None if kind is None else self.annotation(kind, scope)
        default = None if value is None else self.visit(value, scope)
        variable = self.b.variable(index, "parameter", name, name_node, node)
        symbol = self.b.symbols[index]
        symbol.params.append([name, annotation, default, mode, variable])
        symbol.bind(name, ["pa", index, len(symbol.params) - 1])
        if kind is not None and annotation is not None:
            self.b.symbols[variable].annotation = annotation
            self.b.refer("type", kind, kind, index, annotation, target=variable)
        return mode == "*"

    # --- other expressions ------------------------------------------------------------------

    def _literal(self, node: Node, scope: int) -> Expr:
        for child in node.named_children:
            if child.type not in ("string_start", "string_content", "string_end"):
                self.visit(child, scope)
        return ["l", _LITERALS[node.type]]

    def _first(self, node: Node, scope: int) -> Expr:
        exprs = [self.visit(one, scope) for one in node.named_children if one.type != "comment"]
        return exprs[0] if exprs else NOTHING

    def _union(self, node: Node, scope: int) -> Expr:
        return ["u", [self.visit(one, scope) for one in node.named_children]]

    def _binary(self, node: Node, scope: int) -> Expr:
        exprs = [self.visit(one, scope) for one in node.named_children]
        if any(one.type == "|" for one in node.children):
            return ["u", exprs]
        return exprs[0] if exprs else NOTHING

    def _conditional(self, node: Node, scope: int) -> Expr:
        parts = [one for one in node.named_children if one.type != "comment"]
        if len(parts) != 3:
            return NOTHING
        self.visit(parts[1], scope)
        with self.narrowing(self.narrowings(parts[1], scope)):
            first = self.visit(parts[0], scope)
        return ["u", [first, self.visit(parts[2], scope)]]

    def _subscript(self, node: Node, scope: int) -> Expr:
        value = node.child_by_field_name("value")
        keys = node.children_by_field_name("subscript")
        key = None
        args: list[Expr] = []
        for one in keys:
            args.append(self.visit(one, scope))
            if one.type in ("string", "integer") and len(keys) == 1:
                key = self.b.source.of(one).strip("\"'")
            elif one.type == "slice":
                return self.visit(value, scope) if value is not None else NOTHING
        if value is None:
            return NOTHING
        base = self.visit(value, scope)
        # Arguments matter for aliases of types alone, which stand outside functions.
        keep = self.b.symbols[scope].kind not in FUNCTIONS
        return ["s", base, key, args] if keep else ["s", base, key]

    def _container(self, node: Node, scope: int) -> Expr:
        exprs = [self.visit(one, scope) for one in node.named_children if one.type != "comment"]
        return ["g", node.type, _distinct(exprs)]

    def _tuple(self, node: Node, scope: int) -> Expr:
        exprs = [self.visit(one, scope) for one in node.named_children if one.type != "comment"]
        return ["t", exprs] if len(exprs) <= _MAX_PARTS else ["g", "tuple", _distinct(exprs)]

    def _dictionary(self, node: Node, scope: int) -> Expr:
        values: list[Expr] = []
        for one in node.named_children:
            if one.type == "pair":
                key, value = one.child_by_field_name("key"), one.child_by_field_name("value")
                if key is not None:
                    self.visit(key, scope)
                if value is not None:
                    values.append(self.visit(value, scope))
            else:
                self.visit(one, scope)
        return ["g", "dict", _distinct(values)]

    def _comprehension(self, node: Node, scope: int) -> Expr:
        body = node.child_by_field_name("body")
        for one in node.named_children:
            if one.type == "for_in_clause":
                left, right = one.child_by_field_name("left"), one.child_by_field_name("right")
                if left is not None and right is not None:
                    self.assign(left, ["i", self.visit(right, scope)], scope, one)
            elif body is None or one.id != body.id:
                self.visit(one, scope)
        kind = {"list_comprehension": "list", "set_comprehension": "set"}.get(node.type)
        if body is None:
            return NOTHING
        if body.type == "pair":
            key, value = body.child_by_field_name("key"), body.child_by_field_name("value")
            if key is not None:
                self.visit(key, scope)
            return ["g", "dict", [self.visit(value, scope)] if value is not None else []]
        return ["g", kind or "generator", [self.visit(body, scope)]]

    def _lambda(
        self, node: Node, scope: int, *, name_node: Node | None = None, whole: Node | None = None
    ) -> Expr:
        """A lambda bound to a name at once is a function of that name."""
        if name_node is None:
            index = self.b.add("lambda", "<lambda>", scope, node)
        else:
            kind = "method" if self.b.symbols[scope].kind == "class" else "function"
            name = self.b.source.of(name_node)
            body = node.child_by_field_name("body")
            index = self.b.add(kind, name, scope, whole or node, name_node=name_node, body=body)
        parameters = node.child_by_field_name("parameters")
        for one in parameters.named_children if parameters is not None else ():
            if one.type not in ("keyword_separator", "positional_separator"):
                self.parameter(one, index, scope, "")
        body = node.child_by_field_name("body")
        if body is not None:
            self.b.symbols[index].returns.append(self.visit(body, index))
        return ["d", index]

    def _yield(self, node: Node, scope: int) -> Expr:
        function = self.b.enclosing(scope, FUNCTIONS)
        is_from = any(one.type == "from" for one in node.children)
        for one in node.named_children:
            expr = self.visit(one, scope)
            expr = ["i", expr] if is_from else expr
            if function >= 0 and expr not in self.b.symbols[function].yields:
                self.b.symbols[function].yields.append(expr)
        return NOTHING

    # --- annotations ------------------------------------------------------------------------

    def annotation(self, node: Node, scope: int) -> Expr:
        """Return an annotation as an expression of types; names in it are uses."""
        expr = annotation_expr(node, self.b.source)
        self._use_types(node, scope)
        return expr

    def _use_types(self, node: Node, scope: int) -> None:
        if node.type == "identifier":
            self.b.refer("use", node, node, scope, ["n", self.b.source.of(node)])
        elif node.type == "attribute":
            self.b.refer("use", self.name_node(node), node, scope, self.plain(node))
        elif node.type != "string":
            for child in node.named_children:
                self._use_types(child, scope)


def annotation_expr(node: Node, source: Source) -> Expr:
    """Return the types that an annotation names, texts in quotes included."""
    parts = [one for one in node.named_children if one.type != "comment"]
    if node.type == "identifier":
        return ["n", source.of(node)]
    if node.type == "attribute":
        return ["a", annotation_expr(parts[0], source), source.of(parts[-1])]
    if node.type in ("subscript", "generic_type") and parts:
        base, rest = parts[0], parts[1:]
        if rest and rest[0].type == "type_parameter":
            rest = rest[0].named_children
        return ["ta", annotation_expr(base, source), [annotation_expr(r, source) for r in rest]]
    if node.type == "binary_operator" or node.type == "union_type":
        return ["u", [annotation_expr(one, source) for one in parts]]
    if node.type == "string":
        content = "".join(source.of(one) for one in parts if one.type == "string_content")
        inner = Source(content.strip(), "python")
        return annotation_expr(inner.root, inner) if content.strip() else NOTHING
    if node.type == "member_type" and len(parts) == 2:
        return ["a", annotation_expr(parts[0], source), source.of(parts[1])]
    if node.type in ("type", "module", "expression_statement", "parenthesized_expression"):
        return annotation_expr(parts[0], source) if parts else NOTHING
    if node.type in ("list", "tuple"):
        return ["t", [annotation_expr(one, source) for one in parts[:_MAX_PARTS]]]
    return NOTHING


def _distinct(exprs: list[Expr]) -> list[Expr]:
    found: list[Expr] = []
    for expr in exprs:
        if expr not in found:
            found.append(expr)
        if len(found) == _MAX_PARTS:
            break
    return found
