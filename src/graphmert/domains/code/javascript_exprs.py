"""Expressions, functions and classes of JavaScript and TypeScript."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphmert.domains.code.builder import CLASSES, FUNCTIONS, Builder
from graphmert.domains.code.facts import Expr
from graphmert.domains.code.syntax import Source

if TYPE_CHECKING:
    from tree_sitter import Node

NOTHING: Expr = ["l", "None"]
_LITERALS = {
    "string": "String",
    "template_string": "String",
    "number": "Number",
    "true": "Boolean",
    "false": "Boolean",
    "regex": "RegExp",
}
_FUNCTION_NODES = (
    "function_expression",
    "function",
    "arrow_function",
    "generator_function",
)
_MAX_PARTS = 12


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
            "object": lambda node, scope: self.object_literal(node, scope, None, node),
            "array": self._array,
            "class": lambda node, scope: self.class_like(
                node, scope, name_node=node.child_by_field_name("name"), whole=node
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
            **dict.fromkeys(_FUNCTION_NODES, self._anonymous),
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
        if node.type in ("parenthesized_expression", "non_null_expression"):
            return self.name_node(node.named_children[0]) if node.named_children else node
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
        if value.type in _FUNCTION_NODES:
            return ["d", self.function(value, scope, name_node=name, whole=whole)]
        if value.type == "class":
            return self.class_like(value, scope, name_node=name, whole=whole)
        if value.type == "object":
            return self.object_literal(value, scope, name, whole)
        if value.type == "assignment_expression":
            left, right = value.child_by_field_name("left"), value.child_by_field_name("right")
            if (
                left is not None
                and right is not None
                and right.type in (*_FUNCTION_NODES, "object")
            ):
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
            if name is not None and right.type in _FUNCTION_NODES:
                kind = "method" if owner >= 0 else "function"
                index = self.function(
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

    # --- functions --------------------------------------------------------------------------

    def _anonymous(self, node: Node, scope: int) -> Expr:
        name = node.child_by_field_name("name")
        index = self.function(node, scope, name_node=name, whole=node)
        if name is not None:
            self.b.symbols[index].bind(self.b.source.of(name), ["d", index])
        return ["d", index]

    def function(
        self,
        node: Node,
        scope: int,
        *,
        name_node: Node | None,
        whole: Node,
        kind: str = "",
        owner: int = -1,
    ) -> int:
        """Add a function with its parameters and body; without a name it is a lambda."""
        name = self.b.source.of(name_node).strip("\"'") if name_node is not None else ""
        body = node.child_by_field_name("body")
        if not kind:
            kind = "method" if self.b.symbols[scope].kind in CLASSES else "function"
        kind = kind if name else "lambda"
        doc = self.doc_of(whole)
        index = self.b.add(kind, name, scope, whole, name_node=name_node, body=body, doc=doc)
        symbol = self.b.symbols[index]
        if owner >= 0:
            symbol.flags.append(f"owner={owner}")
            symbol.qualname = f"{self.b.symbols[owner].qualname}.{name}"
        if node.type == "arrow_function":
            symbol.flags.append("arrow")
        kinds = {one.type for one in node.children}
        symbol.flags += [one for one in ("async", "static") if one in kinds]
        symbol.flags += ["property"] if "get" in kinds else []
        symbol.flags += ["setter"] if "set" in kinds else []
        self._parameters(node, index)
        result = node.child_by_field_name("return_type")
        if result is not None:
            symbol.annotation = type_expr(result, self.b.source)
            self.use_types(result, index)
            inner = _inner(result)
            self.b.refer("returns", inner, inner, index, symbol.annotation, target=index)
        if body is not None and body.type == "statement_block":
            self.visit(body, index)
        elif body is not None:
            symbol.returns.append(self.visit(body, index))
        return index

    def _parameters(self, node: Node, index: int) -> None:
        single = node.child_by_field_name("parameter")
        whole = node.child_by_field_name("parameters")
        parts = (
            [single] if single is not None else whole.named_children if whole is not None else []
        )
        for one in parts:
            if one.type in ("comment", "decorator"):
                continue
            pattern = one.child_by_field_name("pattern") or one
            mode, default = "", None
            if pattern.type == "assignment_pattern":
                right = pattern.child_by_field_name("right")
                default = self.visit(right, index) if right is not None else None
                pattern = pattern.child_by_field_name("left") or pattern
            value = one.child_by_field_name("value") if one.type != "assignment_pattern" else None
            if value is not None:
                default = self.visit(value, index)
            if pattern.type == "rest_pattern" and pattern.named_children:
                mode, pattern = "*", pattern.named_children[0]
            kind = one.child_by_field_name("type")
            annotation = None if kind is None else type_expr(kind, self.b.source)
            self._parameter(pattern, one, index, annotation, default, mode, kind)

    def _parameter(
        self,
        pattern: Node,
        whole: Node,
        index: int,
        annotation: Expr | None,
        default: Expr | None,
        mode: str,
        kind: Node | None,
    ) -> None:
        symbol = self.b.symbols[index]
        place: Expr = ["pa", index, len(symbol.params)]
        name, variable = "", -1
        if pattern.type in ("identifier", "this"):
            name = self.b.source.of(pattern)
            variable = self.b.variable(index, "parameter", name, pattern, whole)
        symbol.params.append([name, annotation, default, mode, variable])
        if name:
            symbol.bind(name, place)
        else:
            self.assign(pattern, place, index, whole)
        if kind is not None:
            self.use_types(kind, index)
            if variable >= 0 and annotation is not None:
                self.b.symbols[variable].annotation = annotation
                inner = _inner(kind)
                self.b.refer("type", inner, inner, index, annotation, target=variable)
        if variable >= 0 and any("modifier" in one.type for one in whole.named_children):
            owner = symbol.parent
            self.b.symbols[owner].bind_attr(name, ["@", index, ["n", name]])

    # --- classes and objects ----------------------------------------------------------------

    def class_like(self, node: Node, scope: int, *, name_node: Node | None, whole: Node) -> Expr:
        """Add a class with its members."""
        body = node.child_by_field_name("body")
        name = self.b.source.of(name_node) if name_node is not None else ""
        doc = self.doc_of(whole)
        index = self.b.add("class", name, scope, whole, name_node=name_node, body=body, doc=doc)
        for one in node.named_children:
            if one.type == "decorator":
                self.visit(one, scope)
            elif one.type == "class_heritage":
                self._heritage(one, index, scope)
        for one in body.named_children if body is not None else ():
            self._class_member(one, index)
        return ["d", index]

    def _heritage(self, node: Node, index: int, scope: int) -> None:
        for one in node.named_children:
            if one.type == "implements_clause":
                for base in one.named_children:
                    self.base_type(base, index, scope, "implements")
                continue
            inner = one.child_by_field_name("value") if one.type == "extends_clause" else one
            if inner is None:
                continue
            expr = self.visit(inner, scope)
            self.b.symbols[index].bases.append(expr)
            self.b.refer("base", self.name_node(inner), one, scope, expr, target=index)
            for part in one.children_by_field_name("type_arguments"):
                self.use_types(part, scope)

    def base_type(self, node: Node, index: int, scope: int, kind: str) -> None:
        """Add a base written as a type."""
        expr = type_expr(node, self.b.source)
        expr = expr[1] if expr[0] == "ta" else expr
        name = node.child_by_field_name("name") or node
        field = self.b.symbols[index].bases
        if kind == "implements":
            field = self.b.symbols[index].interfaces
        field.append(expr)
        self.b.refer(kind, name, node, scope, expr, target=index)

    def _class_member(self, node: Node, index: int) -> None:
        name = node.child_by_field_name("name") or node.child_by_field_name("property")
        symbol = self.b.symbols[index]
        if node.type in ("method_definition", "abstract_method_signature", "method_signature"):
            if name is None:
                return
            method = self.function(node, index, name_node=name, whole=node, kind="method")
            if "setter" not in self.b.symbols[method].flags:
                symbol.bind(self.b.source.of(name), ["d", method])
        elif node.type in ("field_definition", "public_field_definition"):
            if name is not None:
                self._class_field(node, name, index)
        elif node.type != "comment":
            self.visit(node, index)

    def _class_field(self, node: Node, name: Node, index: int) -> None:
        symbol = self.b.symbols[index]
        value = node.child_by_field_name("value")
        text = self.b.source.of(name)
        if value is not None and value.type in _FUNCTION_NODES:
            method = self.function(value, index, name_node=name, whole=node, kind="method")
            symbol.bind(text, ["d", method])
            return
        if value is not None:
            symbol.bind(text, self.visit(value, index))
        self.typed_variable(node, name, index, "field")

    def typed_variable(self, node: Node, name: Node, scope: int, kind: str) -> int:
        """Add a variable with the type that is written beside it."""
        text = self.b.source.of(name)
        variable = self.b.variable(scope, kind, text, name, node)
        written = node.child_by_field_name("type")
        if written is not None:
            annotation = type_expr(written, self.b.source)
            self.b.symbols[variable].annotation = annotation
            self.b.symbols[scope].bind(text, ["y", annotation])
            self.use_types(written, scope)
            inner = _inner(written)
            self.b.refer("type", inner, inner, scope, annotation, target=variable)
        return variable

    def object_literal(self, node: Node, scope: int, name_node: Node | None, whole: Node) -> Expr:
        """Add an object: its properties are looked up like members of a class."""
        name = self.b.source.of(name_node).strip("\"'") if name_node is not None else ""
        index = self.b.add("object", name, scope, whole, name_node=name_node, body=node)
        symbol = self.b.symbols[index]
        for one in node.named_children:
            if one.type == "pair":
                key, value = one.child_by_field_name("key"), one.child_by_field_name("value")
                if key is None or value is None:
                    continue
                if key.type == "computed_property_name":
                    self.visit(key, scope)
                    self.visit(value, index)
                    continue
                expr = self.named_value(value, index, key, one)
                symbol.bind(self.b.source.of(key).strip("\"'"), expr)
            elif one.type == "method_definition":
                key = one.child_by_field_name("name")
                if key is not None:
                    method = self.function(one, index, name_node=key, whole=one, kind="method")
                    symbol.bind(self.b.source.of(key).strip("\"'"), ["d", method])
            elif one.type == "shorthand_property_identifier":
                expr = self._identifier(one, scope)
                symbol.bind(self.b.source.of(one), ["@", scope, expr])
            elif one.type == "spread_element" and one.named_children:
                symbol.bases.append(self.visit(one.named_children[0], scope))
        return ["o", index]

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
            if expr not in found and one.type != "comment" and len(found) < _MAX_PARTS:
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


def _inner(node: Node) -> Node:
    """Return the type in `: type`."""
    return node.named_children[0] if node.type == "type_annotation" else node


def type_expr(node: Node, source: Source) -> Expr:
    """Return a TypeScript type as an expression of types."""
    parts = [one for one in node.named_children if one.type != "comment"]
    kind = node.type
    if kind in ("type_identifier", "identifier", "property_identifier"):
        return ["n", source.of(node)]
    if kind == "predefined_type":
        name = source.of(node)
        return NOTHING if name in ("void", "any", "unknown", "never") else ["l", name]
    if kind in ("nested_type_identifier", "member_expression", "nested_identifier") and parts:
        return ["a", type_expr(parts[0], source), source.of(parts[-1])]
    if kind == "generic_type" and parts:
        args = parts[1].named_children if len(parts) > 1 else []
        return ["ta", type_expr(parts[0], source), [type_expr(one, source) for one in args]]
    if kind in ("union_type", "intersection_type"):
        return ["u", [type_expr(one, source) for one in parts]]
    if kind == "array_type" and parts:
        return ["ta", ["n", "Array"], [type_expr(parts[0], source)]]
    if kind == "tuple_type":
        return ["t", [type_expr(one, source) for one in parts[:_MAX_PARTS]]]
    if kind == "function_type":
        result = node.child_by_field_name("return_type")
        return ["ta", ["n", "Callable"], [type_expr(result, source) if result else NOTHING]]
    if (
        kind in ("type_annotation", "parenthesized_type", "readonly_type", "optional_type")
        and parts
    ):
        return type_expr(parts[-1], source)
    if kind == "this_type":
        return ["this"]
    return NOTHING
