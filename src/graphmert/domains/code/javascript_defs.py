"""Functions, classes and objects of JavaScript and TypeScript, and types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphmert.domains.code.builder import CLASSES
from graphmert.domains.code.facts import Expr
from graphmert.domains.code.syntax import Source

if TYPE_CHECKING:
    from tree_sitter import Node

    from graphmert.domains.code.javascript_exprs import ScriptExprs

NOTHING: Expr = ["l", "None"]
FUNCTION_NODES = (
    "function_expression",
    "function",
    "arrow_function",
    "generator_function",
)
MAX_PARTS = 12


def anonymous_function(x: ScriptExprs, node: Node, scope: int) -> Expr:
    """Add a function that is an expression; its own name is bound inside it."""
    name = node.child_by_field_name("name")
    index = function(x, node, scope, name_node=name, whole=node)
    if name is not None:
        x.b.symbols[index].bind(x.b.source.of(name), ["d", index])
    return ["d", index]


def function(
    x: ScriptExprs,
    node: Node,
    scope: int,
    *,
    name_node: Node | None,
    whole: Node,
    kind: str = "",
    owner: int = -1,
) -> int:
    """Add a function with its parameters and body; without a name it is a lambda."""
    name = x.b.source.of(name_node).strip("\"'") if name_node is not None else ""
    body = node.child_by_field_name("body")
    if not kind:
        kind = "method" if x.b.symbols[scope].kind in CLASSES else "function"
    kind = kind if name else "lambda"
    doc = x.doc_of(whole)
    index = x.b.add(kind, name, scope, whole, name_node=name_node, body=body, doc=doc)
    symbol = x.b.symbols[index]
    if owner >= 0:
        symbol.flags.append(f"owner={owner}")
        symbol.qualname = f"{x.b.symbols[owner].qualname}.{name}"
    if node.type == "arrow_function":
        symbol.flags.append("arrow")
    kinds = {one.type for one in node.children}
    symbol.flags += [one for one in ("async", "static") if one in kinds]
    symbol.flags += ["property"] if "get" in kinds else []
    symbol.flags += ["setter"] if "set" in kinds else []
    _parameters(x, node, index)
    result = node.child_by_field_name("return_type")
    if result is not None:
        symbol.annotation = type_expr(result, x.b.source)
        x.use_types(result, index)
        inner = inner_type(result)
        x.b.refer("returns", inner, inner, index, symbol.annotation, target=index)
    if body is not None and body.type == "statement_block":
        x.visit(body, index)
    elif body is not None:
        symbol.returns.append(x.visit(body, index))
    return index


def _parameters(x: ScriptExprs, node: Node, index: int) -> None:
    single = node.child_by_field_name("parameter")
    whole = node.child_by_field_name("parameters")
    parts = [single] if single is not None else whole.named_children if whole is not None else []
    for one in parts:
        if one.type in ("comment", "decorator"):
            continue
        pattern = one.child_by_field_name("pattern") or one
        mode, default = "", None
        if pattern.type == "assignment_pattern":
            right = pattern.child_by_field_name("right")
            default = x.visit(right, index) if right is not None else None
            pattern = pattern.child_by_field_name("left") or pattern
        value = one.child_by_field_name("value") if one.type != "assignment_pattern" else None
        if value is not None:
            default = x.visit(value, index)
        if pattern.type == "rest_pattern" and pattern.named_children:
            mode, pattern = "*", pattern.named_children[0]
        kind = one.child_by_field_name("type")
        annotation = None if kind is None else type_expr(kind, x.b.source)
        _parameter(x, pattern, one, index, annotation, default, mode, kind)


def _parameter(
    x: ScriptExprs,
    pattern: Node,
    whole: Node,
    index: int,
    annotation: Expr | None,
    default: Expr | None,
    mode: str,
    kind: Node | None,
) -> None:
    symbol = x.b.symbols[index]
    place: Expr = ["pa", index, len(symbol.params)]
    name, variable = "", -1
    if pattern.type in ("identifier", "this"):
        name = x.b.source.of(pattern)
        variable = x.b.variable(index, "parameter", name, pattern, whole)
    symbol.params.append([name, annotation, default, mode, variable])
    if name:
        symbol.bind(name, place)
    else:
        x.assign(pattern, place, index, whole)
    if kind is not None:
        x.use_types(kind, index)
        if variable >= 0 and annotation is not None:
            x.b.symbols[variable].annotation = annotation
            inner = inner_type(kind)
            x.b.refer("type", inner, inner, index, annotation, target=variable)
    if variable >= 0 and any("modifier" in one.type for one in whole.named_children):
        owner = symbol.parent
        x.b.symbols[owner].bind_attr(name, ["@", index, ["n", name]])


def class_like(
    x: ScriptExprs, node: Node, scope: int, *, name_node: Node | None, whole: Node
) -> Expr:
    """Add a class with its members."""
    body = node.child_by_field_name("body")
    name = x.b.source.of(name_node) if name_node is not None else ""
    doc = x.doc_of(whole)
    index = x.b.add("class", name, scope, whole, name_node=name_node, body=body, doc=doc)
    for one in node.named_children:
        if one.type == "decorator":
            x.visit(one, scope)
        elif one.type == "class_heritage":
            _heritage(x, one, index, scope)
    for one in body.named_children if body is not None else ():
        _class_member(x, one, index)
    return ["d", index]


def _heritage(x: ScriptExprs, node: Node, index: int, scope: int) -> None:
    for one in node.named_children:
        if one.type == "implements_clause":
            for base in one.named_children:
                base_type(x, base, index, scope, "implements")
            continue
        inner = one.child_by_field_name("value") if one.type == "extends_clause" else one
        if inner is None:
            continue
        expr = x.visit(inner, scope)
        x.b.symbols[index].bases.append(expr)
        x.b.refer("base", x.name_node(inner), one, scope, expr, target=index)
        for part in one.children_by_field_name("type_arguments"):
            x.use_types(part, scope)


def base_type(x: ScriptExprs, node: Node, index: int, scope: int, kind: str) -> None:
    """Add a base written as a type."""
    expr = type_expr(node, x.b.source)
    expr = expr[1] if expr[0] == "ta" else expr
    name = node.child_by_field_name("name") or node
    field = x.b.symbols[index].bases
    if kind == "implements":
        field = x.b.symbols[index].interfaces
    field.append(expr)
    x.b.refer(kind, name, node, scope, expr, target=index)


def _class_member(x: ScriptExprs, node: Node, index: int) -> None:
    name = node.child_by_field_name("name") or node.child_by_field_name("property")
    symbol = x.b.symbols[index]
    if node.type in ("method_definition", "abstract_method_signature", "method_signature"):
        if name is None:
            return
        method = function(x, node, index, name_node=name, whole=node, kind="method")
        if "setter" not in x.b.symbols[method].flags:
            symbol.bind(x.b.source.of(name), ["d", method])
    elif node.type in ("field_definition", "public_field_definition"):
        if name is not None:
            _class_field(x, node, name, index)
    elif node.type != "comment":
        x.visit(node, index)


def _class_field(x: ScriptExprs, node: Node, name: Node, index: int) -> None:
    symbol = x.b.symbols[index]
    value = node.child_by_field_name("value")
    text = x.b.source.of(name)
    if value is not None and value.type in FUNCTION_NODES:
        method = function(x, value, index, name_node=name, whole=node, kind="method")
        symbol.bind(text, ["d", method])
        return
    if value is not None:
        symbol.bind(text, x.visit(value, index))
    typed_variable(x, node, name, index, "field")


def typed_variable(x: ScriptExprs, node: Node, name: Node, scope: int, kind: str) -> int:
    """Add a variable with the type that is written beside it."""
    text = x.b.source.of(name)
    variable = x.b.variable(scope, kind, text, name, node)
    written = node.child_by_field_name("type")
    if written is not None:
        annotation = type_expr(written, x.b.source)
        x.b.symbols[variable].annotation = annotation
        x.b.symbols[scope].bind(text, ["y", annotation])
        x.use_types(written, scope)
        inner = inner_type(written)
        x.b.refer("type", inner, inner, scope, annotation, target=variable)
    return variable


def object_literal(
    x: ScriptExprs, node: Node, scope: int, name_node: Node | None, whole: Node
) -> Expr:
    """Add an object: its properties are looked up like members of a class."""
    name = x.b.source.of(name_node).strip("\"'") if name_node is not None else ""
    index = x.b.add("object", name, scope, whole, name_node=name_node, body=node)
    symbol = x.b.symbols[index]
    for one in node.named_children:
        if one.type == "pair":
            key, value = one.child_by_field_name("key"), one.child_by_field_name("value")
            if key is None or value is None:
                continue
            if key.type == "computed_property_name":
                x.visit(key, scope)
                x.visit(value, index)
                continue
            expr = x.named_value(value, index, key, one)
            symbol.bind(x.b.source.of(key).strip("\"'"), expr)
        elif one.type == "method_definition":
            key = one.child_by_field_name("name")
            if key is not None:
                method = function(x, one, index, name_node=key, whole=one, kind="method")
                symbol.bind(x.b.source.of(key).strip("\"'"), ["d", method])
        elif one.type == "shorthand_property_identifier":
            expr = x._identifier(one, scope)
            symbol.bind(x.b.source.of(one), ["@", scope, expr])
        elif one.type == "spread_element" and one.named_children:
            symbol.bases.append(x.visit(one.named_children[0], scope))
    return ["o", index]


def inner_type(node: Node) -> Node:
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
        return ["t", [type_expr(one, source) for one in parts[:MAX_PARTS]]]
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
