"""Facts of a Java file. A method `m` is bound as `m()`, apart from fields and types."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphmert.domains.code.builder import CLASSES, FUNCTIONS, Builder
from graphmert.domains.code.facts import Expr, FileFacts
from graphmert.domains.code.java_exprs import NOTHING, JavaExprs, type_expr
from graphmert.domains.code.syntax import Source

if TYPE_CHECKING:
    from tree_sitter import Node

_KINDS = {
    "class_declaration": "class",
    "record_declaration": "class",
    "interface_declaration": "interface",
    "enum_declaration": "enum",
    "annotation_type_declaration": "annotation",
}


def read_java(text: str, *, is_test: bool = False) -> FileFacts:
    """Return the facts of a Java text.

    Args:
        text: the source.
        is_test: whether it lies among tests.
    """
    builder = Builder(Source(text, "java"), "java", is_test=is_test)
    _Java(builder).visit(builder.source.root, 0)
    return builder.finish()


class _Java(JavaExprs):
    """Walk definitions and statements; everything else is an expression."""

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder)
        handlers: dict[str, Callable[[Node, int], Expr]] = {
            "package_declaration": self._package,
            "import_declaration": self._import,
            "method_declaration": self._method,
            "constructor_declaration": self._method,
            "compact_constructor_declaration": self._method,
            "annotation_type_element_declaration": self._method,
            "field_declaration": self._variables,
            "constant_declaration": self._variables,
            "local_variable_declaration": self._variables,
            "enum_constant": self._constant,
            "enhanced_for_statement": self._for,
            "catch_clause": self._catch,
            "resource": self._resource,
            "throw_statement": self._throw,
            "return_statement": self._return,
            "line_comment": lambda node, scope: NOTHING,
            "block_comment": lambda node, scope: NOTHING,
            **dict.fromkeys(_KINDS, self._type),
        }
        self.handlers |= handlers

    # --- package and imports ----------------------------------------------------------------

    def _package(self, node: Node, scope: int) -> Expr:
        for one in node.named_children:
            if one.type in ("scoped_identifier", "identifier"):
                self.b.facts.package_name = self.b.source.of(one).replace(" ", "")
        return NOTHING

    def _import(self, node: Node, scope: int) -> Expr:
        is_static = any(one.type == "static" for one in node.children)
        is_wild = any(one.type == "asterisk" for one in node.named_children)
        named = [one for one in node.named_children if "identifier" in one.type]
        if not named:
            return NOTHING
        text = self.b.source.of(named[0]).replace(" ", "")
        if is_wild:
            expr: Expr = ["im", text, int(is_static)]
            self.b.symbols[0].bind("*", expr)
            self.b.facts.imports.append([text, 0])
            self.b.refer("from", named[0], node, scope, expr)
            return NOTHING
        module, _, name = text.rpartition(".")
        last = named[0].child_by_field_name("name") or named[0]
        expr = ["if", module, 0, name]
        self.b.facts.imports.append([text, 0])
        self.b.symbols[0].bind(name, expr)
        if is_static:
            self.b.symbols[0].bind(f"{name}()", ["if", module, 0, f"{name}()"])
            self.b.refer("import", last, node, scope, ["u", [expr, ["if", module, 0, f"{name}()"]]])
        else:
            self.b.refer("import", last, node, scope, expr)
        return NOTHING

    # --- types ------------------------------------------------------------------------------

    def _type(self, node: Node, scope: int) -> Expr:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is None:
            return NOTHING
        text = self.b.source.of(name)
        kind = _KINDS[node.type]
        doc = self.doc_of(node)
        index = self.b.add(kind, text, scope, node, name_node=name, body=body, doc=doc)
        symbol = self.b.symbols[index]
        if self.b.is_test and text.endswith(("Test", "Tests")):
            symbol.flags.append("test")
        self.b.symbols[scope].bind(text, ["d", index])
        self.modifiers(node, index, scope)
        for one in node.named_children:
            if one.type == "superclass":
                self._bases(one, index, "base")
            elif one.type in ("super_interfaces", "extends_interfaces"):
                is_interface = kind == "interface"
                self._bases(one, index, "base" if is_interface else "implements")
        if node.type == "record_declaration":
            self._record(node, index)
        if body is not None:
            self.members(body, index)
        return ["d", index]

    def _bases(self, node: Node, index: int, kind: str) -> None:
        parts = node.named_children
        if parts and parts[0].type == "type_list":
            parts = parts[0].named_children
        symbol = self.b.symbols[index]
        for one in parts:
            expr = type_expr(one, self.b.source)
            base = expr[1] if expr[0] == "ta" else expr
            (symbol.bases if kind == "base" else symbol.interfaces).append(base)
            self.b.refer(kind, self.type_name(one), one, symbol.parent, base, target=index)
            if expr[0] == "ta":
                for part in one.named_children[1:]:
                    self.use_types(part, index)

    def _record(self, node: Node, index: int) -> None:
        parameters = node.child_by_field_name("parameters")
        for one in parameters.named_children if parameters is not None else ():
            name, kind = one.child_by_field_name("name"), one.child_by_field_name("type")
            if name is None or kind is None:
                continue
            text = self.b.source.of(name)
            annotation = type_expr(kind, self.b.source)
            variable = self.b.variable(index, "field", text, name, one)
            self.b.symbols[variable].annotation = annotation
            self.b.symbols[index].bind(text, ["y", annotation])
            self.b.refer("type", kind, kind, index, annotation, target=variable)

    def _constant(self, node: Node, scope: int) -> Expr:
        name = node.child_by_field_name("name")
        if name is None:
            return NOTHING
        text = self.b.source.of(name)
        enum = self.b.symbols[scope].name
        self.b.variable(scope, "field", text, name, node)
        self.b.symbols[scope].bind(text, ["y", ["n", enum]])
        for field in ("arguments", "body"):
            part = node.child_by_field_name(field)
            if part is not None and field == "body":
                index = self.b.add("class", "", scope, node, body=part)
                self.b.symbols[index].bases.append(["n", enum])
                self.members(part, index)
            elif part is not None:
                self.visit(part, scope)
        return NOTHING

    # --- methods and variables --------------------------------------------------------------

    def _method(self, node: Node, scope: int) -> Expr:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is None:
            return NOTHING
        text = self.b.source.of(name)
        doc = self.doc_of(node)
        index = self.b.add("method", text, scope, node, name_node=name, body=body, doc=doc)
        symbol = self.b.symbols[index]
        if "constructor" in node.type:
            symbol.flags.append("constructor")
        else:
            self.b.symbols[scope].bind(f"{text}()", ["d", index])
        self.modifiers(node, index, scope)
        if self.b.is_test and "Test" in symbol.flags:
            symbol.flags.append("test")
        self.parameters(node.child_by_field_name("parameters"), index)
        kind = node.child_by_field_name("type")
        if kind is not None:
            symbol.annotation = type_expr(kind, self.b.source)
            self.use_types(kind, index)
            if symbol.annotation != NOTHING:
                self.b.refer("returns", kind, kind, index, symbol.annotation, target=index)
        for one in node.named_children:
            if one.type == "throws":
                self.use_types(one, index)
        if body is not None:
            self.visit(body, index)
        return ["d", index]

    def _variables(self, node: Node, scope: int) -> Expr:
        kind = node.child_by_field_name("type")
        symbol = self.b.symbols[scope]
        if kind is None:
            return NOTHING
        is_field = symbol.kind in CLASSES
        written = type_expr(kind, self.b.source)
        is_var = self.b.source.of(kind) == "var"
        if not is_var:
            self.use_types(kind, scope)
        for one in node.children_by_field_name("declarator"):
            name, value = one.child_by_field_name("name"), one.child_by_field_name("value")
            if name is None:
                continue
            text = self.b.source.of(name)
            variable = self.b.variable(scope, "field" if is_field else "local", text, name, one)
            expr = self.visit(value, scope) if value is not None else NOTHING
            if is_var:
                symbol.bind(text, expr)
            else:
                array = one.child_by_field_name("dimensions") is not None
                annotation: Expr = ["ta", ["n", "List"], [written]] if array else written
                self.b.symbols[variable].annotation = annotation
                symbol.bind(text, ["y", annotation])
                self.b.refer("type", kind, one, scope, annotation, target=variable)
            self.flow(value, expr, one, scope, variable)
            if is_field:
                self.annotate_symbol(node, variable, scope)
        return NOTHING

    # --- statements -------------------------------------------------------------------------

    def _typed_local(self, node: Node, scope: int) -> None:
        name, kind = node.child_by_field_name("name"), node.child_by_field_name("type")
        value = node.child_by_field_name("value")
        expr = self.visit(value, scope) if value is not None else NOTHING
        if name is None or kind is None:
            return
        text = self.b.source.of(name)
        variable = self.b.variable(scope, "local", text, name, node)
        if self.b.source.of(kind) == "var":
            held: Expr = ["i", expr] if node.type == "enhanced_for_statement" else expr
            self.b.symbols[scope].bind(text, held)
            return
        annotation = type_expr(kind, self.b.source)
        self.use_types(kind, scope)
        self.b.symbols[variable].annotation = annotation
        self.b.symbols[scope].bind(text, ["y", annotation])
        self.b.refer("type", kind, kind, scope, annotation, target=variable)

    def _for(self, node: Node, scope: int) -> Expr:
        self._typed_local(node, scope)
        body = node.child_by_field_name("body")
        if body is not None:
            self.visit(body, scope)
        return NOTHING

    def _resource(self, node: Node, scope: int) -> Expr:
        if node.child_by_field_name("name") is None:
            for one in node.named_children:
                self.visit(one, scope)
        else:
            self._typed_local(node, scope)
        return NOTHING

    def _catch(self, node: Node, scope: int) -> Expr:
        for one in node.named_children:
            if one.type != "catch_formal_parameter":
                self.visit(one, scope)
                continue
            name = one.child_by_field_name("name")
            types = [part for part in one.named_children if part.type == "catch_type"]
            exprs: list[Expr] = []
            for kind in types[0].named_children if types else ():
                expr = type_expr(kind, self.b.source)
                exprs.append(expr)
                self.b.refer("catch", self.type_name(kind), kind, scope, expr)
            if name is not None:
                text = self.b.source.of(name)
                self.b.variable(scope, "local", text, name, one)
                self.b.symbols[scope].bind(text, ["y", ["u", exprs]])
        return NOTHING

    def _throw(self, node: Node, scope: int) -> Expr:
        for one in node.named_children:
            expr = self.visit(one, scope)
            kind = one.child_by_field_name("type")
            if expr[0] == "nw" and kind is not None:
                self.b.refer("raise", self.type_name(kind), one, scope, expr[1])
        return NOTHING

    def _return(self, node: Node, scope: int) -> Expr:
        function = self.b.enclosing(scope, FUNCTIONS)
        for one in node.named_children:
            expr = self.visit(one, scope)
            if function >= 0 and expr not in self.b.symbols[function].returns:
                self.b.symbols[function].returns.append(expr)
        return NOTHING
