"""Expressions, functions and classes of JavaScript and TypeScript."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphmert.domains.code.builder import CLASSES, FUNCTIONS, Builder
from graphmert.domains.code.facts import Expr
from graphmert.domains.code.javascript_defs import (
    FUNCTION_NODES,
    MAX_PARTS,
    NOTHING,
    anonymous_function,
    class_like,
    function,
    object_literal,
    type_expr,
)

if TYPE_CHECKING:
    from tree_sitter import Node

_LITERALS = {
    "string": "String",
    "template_string": "String",
    "number": "Number",
    "true": "Boolean",
    "false": "Boolean",
    "regex": "RegExp",
}


_WRAPPERS = ("parenthesized_expression", "non_null_expression", "sequence_expression")


class ScriptExprs:
    """Turn nodes into expressions, once each, and record what they name."""

    def __init__(self, builder: Builder) -> None:
        self.b = builder
        self.handlers: dict[str, Callable[[Node, int], Expr]] = {
            "identifier": self._identifier,
            "shorthand_property_identifier": self._identifier,
            "this": lambda node, scope: ["this"],
            "super": lambda node, scope: ["sup"],
            "member_expression": self._member,
            "subscript_expression": self._subscript,
            "call_expression": self._call,
            "new_expression": self._new,
            "assignment_expression": self._assignment,
            "augmented_assignment_expression": self._augmented,
            "object": lambda node, scope: object_literal(self, node, scope, None, node),
            "array": self._array,
            "class": lambda node, scope: class_like(
                self, node, scope, name_node=node.child_by_field_name("name"), whole=node
            ),
            "ternary_expression": self._ternary,
            "binary_expression": self._binary,
            "sequence_expression": self._last,
            "parenthesized_expression": self._last,
            "await_expression": lambda node, scope: ["aw", self._last(node, scope)],
            "yield_expression": self._yield,
            "as_expression": self._as,
            "satisfies_expression": self._as,
            "non_null_expression": self._last,
            "decorator": self._decorator,
            "jsx_opening_element": self._jsx,
            "jsx_self_closing_element": self._jsx,
            "type_annotation": lambda node, scope: self.use_types(node, scope),
            "type_arguments": lambda node, scope: self.use_types(node, scope),
            **dict.fromkeys(
                FUNCTION_NODES, lambda node, scope: anonymous_function(self, node, scope)
            ),
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
        for field in ("property", "function", "constructor"):
            inner = node.child_by_field_name(field)
            if inner is not None:
                return self.name_node(inner)
        if node.type in _WRAPPERS:
            return self.name_node(node.named_children[-1]) if node.named_children else node
        return node

    # --- documents --------------------------------------------------------------------------

    def whole_of(self, node: Node) -> Node:
        """Return the node with the `export` or declaration around it."""
        parent = node.parent
        if parent is not None and parent.type == "export_statement":
            return parent
        return node

    def doc_of(self, node: Node) -> tuple[int, int] | None:
        """Return the span of the doc comment right before a node."""
        before = node.prev_named_sibling
        if before is None or before.type != "comment":
            return None
        return self.b.source.span(before) if self.b.source.of(before).startswith("/**") else None

    # --- names and attributes ---------------------------------------------------------------

    def _identifier(self, node: Node, scope: int) -> Expr:
        name = self.b.source.of(node)
        if name == "undefined":
            return NOTHING
        self.b.refer("use", node, node, scope, ["n", name])
        return ["n", name]

    def _member(self, node: Node, scope: int) -> Expr:
        expr = self._member_expr(node, scope)
        name = node.child_by_field_name("property")
        if name is not None:
            self.b.refer("use", name, node, scope, expr)
        return expr

    def _member_expr(self, node: Node, scope: int) -> Expr:
        base, name = node.child_by_field_name("object"), node.child_by_field_name("property")
        if base is None or name is None:
            return NOTHING
        return ["a", self.visit(base, scope), self.b.source.of(name)]

    def _subscript(self, node: Node, scope: int) -> Expr:
        base, index = node.child_by_field_name("object"), node.child_by_field_name("index")
        if base is None or index is None:
            return NOTHING
        expr = self.visit(base, scope)
        self.visit(index, scope)
        text = self.b.source.of(index)
        if index.type == "string":
            return ["a", expr, text[1:-1]]
        return ["s", expr, text if index.type == "number" else None]

    # --- calls ------------------------------------------------------------------------------

    def _callee(self, node: Node, scope: int) -> Expr:
        if node.type == "identifier":
            return ["n", self.b.source.of(node)]
        if node.type == "member_expression":
            return self._member_expr(node, scope)
        if node.type == "import":
            return ["n", "import"]
        return self.visit(node, scope)

    def _arguments(self, node: Node | None, scope: int) -> list[Expr]:
        args: list[Expr] = []
        for one in node.named_children if node is not None else ():
            if one.type == "spread_element":
                self.visit(one, scope)
                args.append(["l", "*"])
            elif one.type != "comment":
                args.append(self.visit(one, scope))
        return args

    def _call(self, node: Node, scope: int) -> Expr:
        function, arguments = (
            node.child_by_field_name("function"),
            node.child_by_field_name("arguments"),
        )
        if function is None:
            return NOTHING
        callee = self._callee(function, scope)
        spec = self._required(callee, arguments)
        if spec is not None:
            expr: Expr = ["im", self.b.source.of(spec)[1:-1], 0]
            self.b.facts.imports.append([expr[1], 0])
            self.b.refer("import", spec, node, scope, expr)
            return expr
        args = self._arguments(arguments, scope)
        expr = ["c", callee, args, []]
        name = self.name_node(function)
        if callee != ["sup"]:
            self.b.refer("call", name, node, scope, expr)
        else:
            # A constructor of the parent is what `super(…)` calls.
            self.b.refer("call", name, node, scope, ["c", ["a", callee, "constructor"], args, []])
        if callee[-1] == "inherits" and len(args) == 2 and args[0][0] == "n":
            self._inherit(args[0][1], args[1], scope)
        if callee[0] == "a" and callee[2] in ("push", "unshift", "add") and args:
            self._hold(callee[1], ["g", "list", [args[-1]]], scope)
        return expr

    def _required(self, callee: Expr, arguments: Node | None) -> Node | None:
        if callee not in (["n", "require"], ["n", "import"]) or arguments is None:
            return None
        parts = [one for one in arguments.named_children if one.type != "comment"]
        return parts[0] if len(parts) == 1 and parts[0].type == "string" else None

    def _inherit(self, name: str, base: Expr, scope: int) -> None:
        for index in self.b.facts.scopes(scope):
            for bound in self.b.symbols[index].names.get(name, ()):
                if bound[0] == "d":
                    self.b.symbols[bound[1]].bases.append(base)
                    return

    def _hold(self, base: Expr, holder: Expr, scope: int) -> None:
        if base[0] == "n" and base[1] in self.b.symbols[scope].names:
            self.b.symbols[scope].bind(base[1], holder)
        elif base[0] == "a" and base[1] == ["this"]:
            owner = self.owner_of(scope)
            if owner >= 0:
                self.b.symbols[owner].bind_attr(base[2], ["@", scope, holder])

    def _new(self, node: Node, scope: int) -> Expr:
        made, arguments = (
            node.child_by_field_name("constructor"),
            node.child_by_field_name("arguments"),
        )
        if made is None:
            return NOTHING
        expr: Expr = ["nw", self._callee(made, scope), self._arguments(arguments, scope)]
        self.b.refer("new", self.name_node(made), node, scope, expr)
        return expr

    def _decorator(self, node: Node, scope: int) -> Expr:
        for one in node.named_children:
            expr = self.visit(one, scope)
            target = expr[1] if expr[0] == "c" else expr
            self.b.refer("decorator", self.name_node(one), one, scope, target)
        return NOTHING

    def _jsx(self, node: Node, scope: int) -> Expr:
        name = node.child_by_field_name("name")
        if name is not None and self.b.source.of(name)[:1].isupper():
            self.visit(name, scope)
        for one in node.named_children:
            if name is None or one.id != name.id:
                self.visit(one, scope)
        return NOTHING

    # --- bindings ---------------------------------------------------------------------------

    def owner_of(self, scope: int) -> int:
        """Return what `this` is an instance of: a class, an object or a function, or -1."""
        for index in self.b.facts.scopes(scope):
            symbol = self.b.symbols[index]
            if "arrow" in symbol.flags:
                continue
            if symbol.kind in CLASSES:
                return index
            if symbol.kind == "function" or symbol.kind == "lambda":
                return index
            if symbol.kind == "method":
                owner = [one for one in symbol.flags if one.startswith("owner=")]
                return int(owner[0][6:]) if owner else symbol.parent
        return -1

    def named_value(self, value: Node, scope: int, name: Node, whole: Node) -> Expr:
        """Return a value that a name is given; functions, classes and objects take the name."""
        if value.type in FUNCTION_NODES:
            return ["d", function(self, value, scope, name_node=name, whole=whole)]
        if value.type == "class":
            return class_like(self, value, scope, name_node=name, whole=whole)
        if value.type == "object":
            return object_literal(self, value, scope, name, whole)
        if value.type == "assignment_expression":
            left, right = value.child_by_field_name("left"), value.child_by_field_name("right")
            if left is not None and right is not None and right.type in (*FUNCTION_NODES, "object"):
                expr = self.named_value(right, scope, name, whole)
                self._store(left, expr, scope, value)
                return expr
        return self.visit(value, scope)

    def _assignment(self, node: Node, scope: int) -> Expr:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is None or right is None:
            return NOTHING
        if left.type == "member_expression":
            name = left.child_by_field_name("property")
            owner = self._prototype_owner(left, scope)
            if name is not None and right.type in FUNCTION_NODES:
                kind = "method" if owner >= 0 else "function"
                index = function(
                    self,
                    right,
                    scope,
                    name_node=name,
                    whole=self._statement(node),
                    kind=kind,
                    owner=owner,
                )
                expr: Expr = ["d", index]
            elif name is not None:
                expr = self.named_value(right, scope, name, self._statement(node))
            else:
                expr = self.visit(right, scope)
        elif left.type == "identifier":
            expr = self.named_value(right, scope, left, self._statement(node))
        else:
            expr = self.visit(right, scope)
        self._store(left, expr, scope, node)
        return expr

    def _statement(self, node: Node) -> Node:
        parent = node.parent
        return parent if parent is not None and parent.type == "expression_statement" else node

    def _prototype_owner(self, left: Node, scope: int) -> int:
        """Return the function F of `F.prototype.name = …` where it is defined here, or -1."""
        base = left.child_by_field_name("object")
        if base is None or base.type != "member_expression":
            return -1
        inner, name = base.child_by_field_name("object"), base.child_by_field_name("property")
        if inner is None or name is None or self.b.source.of(name) != "prototype":
            return -1
        text = self.b.source.of(inner)
        for index in self.b.facts.scopes(scope):
            for bound in self.b.symbols[index].names.get(text, ()):
                if bound[0] == "d":
                    return bound[1]
        return -1

    def _store(self, left: Node, expr: Expr, scope: int, node: Node) -> None:
        target = self.assign(left, expr, scope, node)
        self.flow(node.child_by_field_name("right"), expr, node, scope, target)

    def flow(self, value: Node | None, expr: Expr, node: Node, scope: int, target: int) -> None:
        """Record that a variable is given another's value, and an alias outside functions."""
        if value is None or target < 0 or expr[0] not in ("n", "a"):
            return
        name = self.name_node(value)
        self.b.refer("flow", name, node, scope, expr, target=target)
        if self.b.symbols[scope].kind not in FUNCTIONS:
            self.b.refer("alias", name, node, scope, expr, target=target)

    def _augmented(self, node: Node, scope: int) -> Expr:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is not None:
            expr = self.visit(left, scope)
            self.b.refer("write", self.name_node(left), node, scope, expr)
        if right is not None:
            value = self.visit(right, scope)
            if left is not None and left.type == "identifier":
                self.assign(left, value, scope, node)
        return NOTHING

    def assign(self, target: Node, expr: Expr, scope: int, whole: Node) -> int:
        """Bind a target, patterns taken apart; return the variable's index or -1."""
        kind = target.type
        if kind in ("identifier", "shorthand_property_identifier_pattern"):
            return self._bind_name(target, expr, scope, whole)
        if kind == "member_expression":
            return self._bind_member(target, expr, scope, whole)
        if kind in ("object_pattern", "object"):
            self._object_pattern(target, expr, scope, whole)
        elif kind in ("array_pattern", "array"):
            for place, one in enumerate(target.named_children):
                self.assign(one, ["ti", expr, place], scope, whole)
        elif kind in ("assignment_pattern", "object_assignment_pattern"):
            left, right = target.child_by_field_name("left"), target.child_by_field_name("right")
            default = self.visit(right, scope) if right is not None else NOTHING
            if left is not None:
                return self.assign(left, ["u", [expr, default]], scope, whole)
        elif kind in ("rest_pattern", "spread_element") and target.named_children:
            return self.assign(target.named_children[0], ["g", "list", []], scope, whole)
        elif kind in ("parenthesized_expression", "non_null_expression"):
            return self.assign(target.named_children[0], expr, scope, whole)
        else:
            self.visit(target, scope)
        return -1

    def _object_pattern(self, target: Node, expr: Expr, scope: int, whole: Node) -> None:
        for one in target.named_children:
            if one.type in ("shorthand_property_identifier_pattern", "identifier"):
                self._bind_name(one, ["a", expr, self.b.source.of(one)], scope, whole)
            elif one.type == "object_assignment_pattern":
                left = one.child_by_field_name("left")
                if left is not None:
                    self.assign(one, ["a", expr, self.b.source.of(left)], scope, whole)
            elif one.type in ("pair_pattern", "pair"):
                key, value = one.child_by_field_name("key"), one.child_by_field_name("value")
                if key is not None and value is not None:
                    name = self.b.source.of(key).strip("\"'")
                    self.assign(value, ["a", expr, name], scope, whole)
            elif one.type == "rest_pattern" and one.named_children:
                self.assign(one.named_children[0], expr, scope, whole)

    def _bind_name(self, node: Node, expr: Expr, scope: int, whole: Node) -> int:
        name = self.b.source.of(node)
        place = scope
        is_new = "declarator" in whole.type or "parameter" in whole.type or "for" in whole.type
        if not is_new:
            for index in self.b.facts.scopes(scope):
                if name in self.b.symbols[index].names:
                    place = index
                    break
        symbol = self.b.symbols[place]
        if place != scope:
            self.b.refer("write", node, whole, scope, ["n", name])
        symbol.bind(name, expr if place == scope else ["@", scope, expr])
        kind = "local" if symbol.kind in FUNCTIONS else "variable"
        known = self.b.known_variable(place, name)
        if known >= 0 or any(one[0] in ("d", "o") for one in symbol.names[name]):
            return known
        return self.b.variable(place, kind, name, node, whole)

    def _bind_member(self, node: Node, expr: Expr, scope: int, whole: Node) -> int:
        base, name_node = node.child_by_field_name("object"), node.child_by_field_name("property")
        if base is None or name_node is None:
            return -1
        name = self.b.source.of(name_node)
        base_expr = self.visit(base, scope)
        self.b.refer("write", name_node, whole, scope, ["a", base_expr, name])
        owner = self.owner_of(scope) if base_expr == ["this"] else -1
        if owner < 0:
            self.b.facts.assigns.append([scope, base_expr, name, expr])
            return -1
        self.b.symbols[owner].bind_attr(name, ["@", scope, expr])
        if self.b.symbols[owner].kind == "lambda" or expr[0] == "d":
            self.b.facts.assigns.append([scope, base_expr, name, expr])
            return -1
        return self.b.variable(owner, "field", name, name_node, whole)

    # --- other expressions ------------------------------------------------------------------

    def _literal(self, node: Node, scope: int) -> Expr:
        for child in node.named_children:
            if child.type == "template_substitution":
                self.visit(child, scope)
        return ["l", _LITERALS[node.type]]

    def _array(self, node: Node, scope: int) -> Expr:
        found: list[Expr] = []
        for one in node.named_children:
            expr = self.visit(one, scope)
            if expr not in found and one.type != "comment" and len(found) < MAX_PARTS:
                found.append(expr)
        return ["g", "list", found]

    def _ternary(self, node: Node, scope: int) -> Expr:
        parts = {
            name: node.child_by_field_name(name)
            for name in ("condition", "consequence", "alternative")
        }
        exprs = {key: self.visit(one, scope) for key, one in parts.items() if one is not None}
        return ["u", [exprs[key] for key in ("consequence", "alternative") if key in exprs]]

    def _binary(self, node: Node, scope: int) -> Expr:
        exprs = [self.visit(one, scope) for one in node.named_children]
        operator = node.child_by_field_name("operator")
        if operator is not None and operator.type in ("||", "??", "&&"):
            return ["u", exprs]
        return ["l", "Number"]

    def _last(self, node: Node, scope: int) -> Expr:
        exprs = [self.visit(one, scope) for one in node.named_children if one.type != "comment"]
        return exprs[-1] if exprs else NOTHING

    def _yield(self, node: Node, scope: int) -> Expr:
        function = self.b.enclosing(scope, FUNCTIONS)
        for one in node.named_children:
            expr = self.visit(one, scope)
            if function >= 0:
                self.b.symbols[function].yields.append(expr)
        return NOTHING

    def _as(self, node: Node, scope: int) -> Expr:
        parts = node.named_children
        if len(parts) < 2:
            return self.visit(parts[0], scope) if parts else NOTHING
        self.visit(parts[0], scope)
        self.use_types(parts[1], scope)
        return ["y", type_expr(parts[1], self.b.source)]

    def use_types(self, node: Node, scope: int) -> Expr:
        """Record names in a type as uses."""
        if node.type == "type_identifier":
            self.b.refer("use", node, node, scope, ["n", self.b.source.of(node)])
        else:
            for child in node.named_children:
                self.use_types(child, scope)
        return NOTHING
