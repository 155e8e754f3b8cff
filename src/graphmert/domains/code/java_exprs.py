"""Expressions and types of Java."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphmert.domains.code.builder import CLASSES, Builder
from graphmert.domains.code.facts import Expr
from graphmert.domains.code.syntax import Source

if TYPE_CHECKING:
    from tree_sitter import Node

NOTHING: Expr = ["l", "None"]
_LITERALS = {
    "string_literal": "String",
    "text_block": "String",
    "character_literal": "char",
    "decimal_integer_literal": "int",
    "hex_integer_literal": "int",
    "decimal_floating_point_literal": "double",
    "true": "boolean",
    "false": "boolean",
    "class_literal": "Class",
    "binary_integer_literal": "int",
    "octal_integer_literal": "int",
}
_PRIMITIVES = ("integral_type", "floating_point_type", "boolean_type")


class JavaExprs:
    """Turn nodes into expressions, once each, and record what they name."""

    def __init__(self, builder: Builder) -> None:
        self.b = builder
        self.handlers: dict[str, Callable[[Node, int], Expr]] = {
            "identifier": self._identifier,
            "this": lambda node, scope: ["this"],
            "super": lambda node, scope: ["sup"],
            "field_access": self._field,
            "method_invocation": self._call,
            "object_creation_expression": self._new,
            "explicit_constructor_invocation": self._constructor,
            "assignment_expression": self._assignment,
            "lambda_expression": self._lambda,
            "method_reference": self._reference,
            "cast_expression": self._cast,
            "ternary_expression": self._ternary,
            "parenthesized_expression": self._first,
            "binary_expression": self._binary,
            "instanceof_expression": self._instanceof,
            "array_access": self._element,
            "array_creation_expression": self._array,
            "switch_expression": self._switch,
            "update_expression": self._first,
            "unary_expression": self._first,
            "marker_annotation": lambda node, scope: NOTHING,
            "annotation": lambda node, scope: NOTHING,
            "modifiers": lambda node, scope: NOTHING,
            "labeled_statement": self._labeled,
            "break_statement": lambda node, scope: NOTHING,
            "continue_statement": lambda node, scope: NOTHING,
            "type_arguments": lambda node, scope: self.use_types(node, scope),
            "type_parameters": lambda node, scope: self.use_types(node, scope),
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

    def members(self, body: Node, index: int) -> None:
        """Visit what stands in the body of a type."""
        for child in body.named_children:
            if child.type == "enum_body_declarations":
                self.members(child, index)
            else:
                self.visit(child, index)

    def doc_of(self, node: Node) -> tuple[int, int] | None:
        """Return the span of the doc comment right before a definition."""
        before = node.prev_named_sibling
        if before is None or before.type != "block_comment":
            return None
        return self.b.source.span(before) if self.b.source.of(before).startswith("/**") else None

    # --- annotations and types --------------------------------------------------------------

    def modifiers(self, node: Node, index: int, scope: int) -> None:
        """Read modifiers: annotations and static."""
        for one in node.named_children:
            if one.type != "modifiers":
                continue
            for part in one.children:
                if part.type in ("static", "abstract"):
                    self.b.symbols[index].flags.append(part.type)
        self.annotate_symbol(node, index, scope)

    def annotate_symbol(self, node: Node, index: int, scope: int) -> None:
        """Record the annotations of a definition."""
        for one in node.named_children:
            for part in one.named_children if one.type == "modifiers" else ():
                if part.type not in ("marker_annotation", "annotation"):
                    continue
                name = part.child_by_field_name("name")
                if name is None:
                    continue
                text = self.b.source.of(name)
                if text == "Test":
                    self.b.symbols[index].flags.append("Test")
                last = name.child_by_field_name("name") or name
                expr = type_expr(name, self.b.source)
                self.b.symbols[index].decorators.append(expr)
                self.b.refer("decorator", last, part, scope, expr, target=index)
                arguments = part.child_by_field_name("arguments")
                if arguments is not None:
                    self.visit(arguments, scope)

    def type_name(self, node: Node) -> Node:
        """Return the node of a type's last name."""
        if node.type == "generic_type" and node.named_children:
            return self.type_name(node.named_children[0])
        if node.type == "scoped_type_identifier" and node.named_children:
            return node.named_children[-1]
        return node

    def use_types(self, node: Node, scope: int) -> Expr:
        """Record names in a type as uses."""
        if node.type == "type_identifier":
            self.b.refer("use", node, node, scope, ["n", self.b.source.of(node)])
        elif node.type == "scoped_type_identifier":
            self.b.refer("use", self.type_name(node), node, scope, type_expr(node, self.b.source))
        else:
            for child in node.named_children:
                self.use_types(child, scope)
        return NOTHING

    # --- names and calls --------------------------------------------------------------------

    def _identifier(self, node: Node, scope: int) -> Expr:
        expr: Expr = ["n", self.b.source.of(node)]
        self.b.refer("use", node, node, scope, expr)
        return expr

    def _field(self, node: Node, scope: int) -> Expr:
        base, name = node.child_by_field_name("object"), node.child_by_field_name("field")
        if base is None or name is None:
            return NOTHING
        held = self._object(base, scope)
        if name.type == "this":
            return ["y", held]
        expr: Expr = ["a", held, self.b.source.of(name)]
        self.b.refer("use", name, node, scope, expr)
        return expr

    def _object(self, node: Node, scope: int) -> Expr:
        """What stands before a dot: a variable, a type or a package."""
        if node.type in ("identifier", "type_identifier"):
            expr: Expr = ["n", self.b.source.of(node)]
            self.b.refer("use", node, node, scope, expr)
            return expr
        return self.visit(node, scope)

    def _arguments(self, node: Node | None, scope: int) -> list[Expr]:
        found = []
        for one in node.named_children if node is not None else ():
            if "comment" not in one.type:
                found.append(self.visit(one, scope))
        return found

    def _call(self, node: Node, scope: int) -> Expr:
        name, base = node.child_by_field_name("name"), node.child_by_field_name("object")
        if name is None:
            return NOTHING
        text = f"{self.b.source.of(name)}()"
        callee: Expr = ["n", text]
        if base is not None:
            held = self._object(base, scope)
            # Outer.super.m(): the interface's own method.
            if any(one.type == "super" for one in node.children) and base.type != "super":
                held = ["y", held]
            callee = ["a", held, text]
        args = self._arguments(node.child_by_field_name("arguments"), scope)
        expr: Expr = ["c", callee, args, []]
        self.b.refer("call", name, node, scope, expr)
        return expr

    def _new(self, node: Node, scope: int) -> Expr:
        kind = node.child_by_field_name("type")
        if kind is None:
            return NOTHING
        written = type_expr(kind, self.b.source)
        made = written[1] if written[0] == "ta" else written
        args = self._arguments(node.child_by_field_name("arguments"), scope)
        outer = node.child_by_field_name("object")
        if outer is not None:
            self.visit(outer, scope)
        site: Expr = ["nw", made, args]
        self.b.refer("new", self.type_name(kind), node, scope, site)
        for one in kind.named_children if kind.type == "generic_type" else ():
            if one.type == "type_arguments":
                self.use_types(one, scope)
        for one in node.named_children:
            if one.type == "class_body":
                index = self.b.add("class", "", scope, node, body=one)
                self.b.symbols[index].bases.append(made)
                self.members(one, index)
                return ["nw", ["d", index], args]
        return ["y", written] if written[0] == "ta" else site

    def _constructor(self, node: Node, scope: int) -> Expr:
        """`this(…)` and `super(…)` call a constructor of the class or of its parent."""
        made = node.child_by_field_name("constructor")
        args = self._arguments(node.child_by_field_name("arguments"), scope)
        if made is None:
            return NOTHING
        owner = self.b.enclosing(scope, CLASSES)
        expr: Expr = ["d", owner]
        if made.type == "super":
            bases = self.b.symbols[owner].bases if owner >= 0 else []
            expr = ["@", self.b.symbols[owner].parent, bases[0]] if bases else NOTHING
        self.b.refer("new", made, node, scope, ["nw", expr, args])
        return NOTHING

    def _reference(self, node: Node, scope: int) -> Expr:
        """`Type::method` names a method without calling it."""
        parts = [one for one in node.named_children if one.type != "type_arguments"]
        if len(parts) < 2:
            for one in parts:
                self.use_types(one, scope)
            return NOTHING
        held = self._object(parts[0], scope)
        expr: Expr = ["a", held, f"{self.b.source.of(parts[-1])}()"]
        self.b.refer("use", parts[-1], node, scope, expr)
        return expr

    # --- bindings ---------------------------------------------------------------------------

    def _assignment(self, node: Node, scope: int) -> Expr:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        expr = self.visit(right, scope) if right is not None else NOTHING
        if left is None:
            return expr
        target = self._target(left, scope)
        name = left.child_by_field_name("field") or left
        self.b.refer("write", name, node, scope, target)
        if target[0] == "n":
            variable = -1
            for index in self.b.facts.scopes(scope):
                variable = self.b.known_variable(index, target[1])
                if variable >= 0:
                    break
            self.flow(right, expr, node, scope, variable)
        return expr

    def _target(self, node: Node, scope: int) -> Expr:
        if node.type == "identifier":
            return ["n", self.b.source.of(node)]
        if node.type == "field_access":
            base, name = node.child_by_field_name("object"), node.child_by_field_name("field")
            if base is not None and name is not None:
                return ["a", self._object(base, scope), self.b.source.of(name)]
        return self.visit(node, scope)

    def flow(self, value: Node | None, expr: Expr, node: Node, scope: int, target: int) -> None:
        """Record that a variable is given another's value."""
        if value is not None and target >= 0 and expr[0] in ("n", "a"):
            name = value.child_by_field_name("field") or value
            self.b.refer("flow", name, node, scope, expr, target=target)

    def parameters(self, node: Node | None, index: int) -> None:
        """Add the parameters of a method or lambda."""
        symbol = self.b.symbols[index]
        for one in node.named_children if node is not None else ():
            if one.type not in ("formal_parameter", "spread_parameter"):
                continue
            is_spread = one.type == "spread_parameter"
            name, kind = one.child_by_field_name("name"), one.child_by_field_name("type")
            if is_spread:
                parts = [part for part in one.named_children if part.type != "modifiers"]
                kind = parts[0] if parts else None
                name = parts[-1].child_by_field_name("name") if parts else None
            if name is None or kind is None:
                continue
            text = self.b.source.of(name)
            annotation = type_expr(kind, self.b.source)
            variable = self.b.variable(index, "parameter", text, name, one)
            self.b.symbols[variable].annotation = annotation
            mode = "*" if is_spread else ""
            symbol.bind(text, ["pa", index, len(symbol.params)])
            symbol.params.append([text, annotation, None, mode, variable])
            self.use_types(kind, index)
            self.b.refer("type", kind, kind, index, annotation, target=variable)

    def _lambda(self, node: Node, scope: int) -> Expr:
        index = self.b.add("lambda", "", scope, node)
        symbol = self.b.symbols[index]
        parameters, body = node.child_by_field_name("parameters"), node.child_by_field_name("body")
        if parameters is not None and parameters.type == "formal_parameters":
            self.parameters(parameters, index)
        elif parameters is not None:
            named = [parameters] if parameters.type == "identifier" else parameters.named_children
            for one in named:
                text = self.b.source.of(one)
                variable = self.b.variable(index, "parameter", text, one, one)
                symbol.bind(text, ["pa", index, len(symbol.params)])
                symbol.params.append([text, None, None, "", variable])
        if body is not None:
            expr = self.visit(body, index)
            if body.type != "block":
                symbol.returns.append(expr)
        return ["d", index]

    # --- other expressions ------------------------------------------------------------------

    def _literal(self, node: Node, scope: int) -> Expr:
        for child in node.named_children:
            self.use_types(child, scope)
        return ["l", _LITERALS[node.type]]

    def _first(self, node: Node, scope: int) -> Expr:
        exprs = [self.visit(one, scope) for one in node.named_children]
        return exprs[0] if exprs else NOTHING

    def _labeled(self, node: Node, scope: int) -> Expr:
        for one in node.named_children[1:]:
            self.visit(one, scope)
        return NOTHING

    def _binary(self, node: Node, scope: int) -> Expr:
        exprs = [self.visit(one, scope) for one in node.named_children]
        is_text = ["l", "String"] in exprs and any(one.type == "+" for one in node.children)
        return ["l", "String"] if is_text else ["l", "int"]

    def _ternary(self, node: Node, scope: int) -> Expr:
        exprs = [self.visit(one, scope) for one in node.named_children]
        return ["u", exprs[1:]]

    def _cast(self, node: Node, scope: int) -> Expr:
        kind, value = node.child_by_field_name("type"), node.child_by_field_name("value")
        if value is not None:
            self.visit(value, scope)
        if kind is None:
            return NOTHING
        self.use_types(kind, scope)
        return ["y", type_expr(kind, self.b.source)]

    def _instanceof(self, node: Node, scope: int) -> Expr:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        name = node.child_by_field_name("name")
        if left is not None:
            self.visit(left, scope)
        if right is not None:
            self.use_types(right, scope)
            if name is not None:
                text = self.b.source.of(name)
                self.b.variable(scope, "local", text, name, node)
                self.b.symbols[scope].bind(text, ["y", type_expr(right, self.b.source)])
        return ["l", "boolean"]

    def _element(self, node: Node, scope: int) -> Expr:
        array, index = node.child_by_field_name("array"), node.child_by_field_name("index")
        if index is not None:
            self.visit(index, scope)
        return ["s", self.visit(array, scope), None] if array is not None else NOTHING

    def _array(self, node: Node, scope: int) -> Expr:
        kind = node.child_by_field_name("type")
        for one in node.named_children:
            if kind is None or one.id != kind.id:
                self.visit(one, scope)
        if kind is None:
            return NOTHING
        self.use_types(kind, scope)
        return ["y", ["ta", ["n", "List"], [type_expr(kind, self.b.source)]]]

    def _switch(self, node: Node, scope: int) -> Expr:
        for one in node.named_children:
            self.visit(one, scope)
        return NOTHING


def type_expr(node: Node, source: Source) -> Expr:
    """Return a Java type as an expression of types."""
    kind = node.type
    parts = [one for one in node.named_children if "annotation" not in one.type]
    if kind in ("type_identifier", "identifier"):
        return ["n", source.of(node)]
    if kind in _PRIMITIVES:
        return ["l", source.of(node)]
    if kind in ("scoped_type_identifier", "scoped_identifier") and len(parts) >= 2:
        return ["a", type_expr(parts[0], source), source.of(parts[-1])]
    if kind == "generic_type" and parts:
        args = parts[-1].named_children if parts[-1].type == "type_arguments" else []
        base = type_expr(parts[0], source)
        return ["ta", base, [type_expr(one, source) for one in args]] if args else base
    if kind == "array_type" and parts:
        return ["ta", ["n", "List"], [type_expr(parts[0], source)]]
    if kind in ("wildcard", "annotated_type", "catch_type") and parts:
        return type_expr(parts[-1], source)
    return NOTHING
