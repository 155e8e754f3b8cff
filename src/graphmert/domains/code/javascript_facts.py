"""Facts of a JavaScript or TypeScript file: definitions, modules and statements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphmert.domains.code.builder import CLASSES, FUNCTIONS, Builder
from graphmert.domains.code.facts import Expr, FileFacts
from graphmert.domains.code.javascript_defs import (
    NOTHING,
    base_type,
    class_like,
    function,
    type_expr,
    typed_variable,
)
from graphmert.domains.code.javascript_exprs import ScriptExprs
from graphmert.domains.code.syntax import Source

if TYPE_CHECKING:
    from tree_sitter import Node


def read_javascript(text: str, grammar: str = "javascript", *, is_test: bool = False) -> FileFacts:
    """Return the facts of a JavaScript or TypeScript text.

    Args:
        text: the source.
        grammar: javascript, typescript or tsx.
        is_test: whether it lies among tests.
    """
    language = "typescript" if grammar == "tsx" else grammar
    builder = Builder(Source(text, grammar), language, is_test=is_test)
    _Script(builder).visit(builder.source.root, 0)
    return builder.finish()


class _Script(ScriptExprs):
    """Walk definitions and statements; everything else is an expression."""

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder)
        self.handlers |= {
            "import_statement": self._import,
            "export_statement": self._export,
            "function_declaration": self._function_declaration,
            "generator_function_declaration": self._function_declaration,
            "function_signature": self._function_declaration,
            "class_declaration": self._class_declaration,
            "abstract_class_declaration": self._class_declaration,
            "interface_declaration": self._interface,
            "enum_declaration": self._enum,
            "type_alias_declaration": self._type_alias,
            "internal_module": self._namespace,
            "module": self._namespace,
            "variable_declarator": self._declarator,
            "for_in_statement": self._for,
            "catch_clause": self._catch,
            "throw_statement": self._throw,
            "return_statement": self._return,
            "comment": _ignore,
            "statement_identifier": _ignore,
        }

    # --- modules ----------------------------------------------------------------------------

    def _spec(self, node: Node | None) -> str:
        text = "" if node is None else self.b.source.of(node)
        return text[1:-1]

    def _import(self, node: Node, scope: int) -> Expr:
        source = node.child_by_field_name("source")
        spec = self._spec(source)
        if source is None:
            return NOTHING
        self.b.facts.imports.append([spec, 0])
        self.b.refer("from", source, node, scope, ["im", spec, 0])
        for clause in node.named_children:
            if clause.type != "import_clause":
                continue
            for one in clause.named_children:
                if one.type == "identifier":
                    self._bind_import(one, one, spec, "default", node, scope)
                elif one.type == "namespace_import" and one.named_children:
                    self._bind_import(
                        one.named_children[0], one.named_children[0], spec, "*", node, scope
                    )
                elif one.type == "named_imports":
                    for part in one.named_children:
                        name = part.child_by_field_name("name")
                        alias = part.child_by_field_name("alias") or name
                        if name is not None and alias is not None:
                            text = self.b.source.of(name).strip("\"'")
                            self._bind_import(name, alias, spec, text, node, scope)
        return NOTHING

    def _bind_import(
        self, name_node: Node, local: Node, spec: str, name: str, whole: Node, scope: int
    ) -> None:
        expr: Expr = ["if", spec, 0, name]
        self.b.symbols[scope].bind(self.b.source.of(local), expr)
        self.b.refer("import", name_node, whole, scope, expr)

    def _export(self, node: Node, scope: int) -> Expr:
        # What a namespace exports is a member of it.
        exports = self.b.facts.export_exprs if not scope else {}
        source = node.child_by_field_name("source")
        declaration = node.child_by_field_name("declaration")
        value = node.child_by_field_name("value")
        is_default = any(one.type == "default" for one in node.children)
        for one in node.named_children:
            if one.type == "decorator":
                self.visit(one, scope)
        if declaration is not None:
            names = set(self.b.symbols[scope].names)
            first = len(self.b.symbols)
            self.visit(declaration, scope)
            fresh = [one for one in self.b.symbols[scope].names if one not in names]
            defined = self.declared_name(declaration)
            if defined is not None and self.b.source.of(defined) not in fresh:
                fresh.append(self.b.source.of(defined))
            if is_default and not fresh and first < len(self.b.symbols):
                exports.setdefault("default", []).append(["d", first])
            for name in fresh:
                key = "default" if is_default else name
                exports.setdefault(key, []).append(["n", name])
            if defined is not None:
                name = self.b.source.of(defined)
                self.b.refer("export", defined, node, scope, ["n", name])
        elif value is not None:
            exports.setdefault("default", []).append(self.visit(value, scope))
            if value.type == "identifier":
                self.b.refer("export", value, node, scope, ["n", self.b.source.of(value)])
        else:
            self._export_names(node, source, scope)
        return NOTHING

    def _export_names(self, node: Node, source: Node | None, scope: int) -> None:
        exports = self.b.facts.export_exprs
        spec = self._spec(source)
        if source is not None:
            self.b.facts.imports.append([spec, 0])
            self.b.refer("from", source, node, scope, ["im", spec, 0])
        named = [one for one in node.named_children if one.type != "string"]
        if source is not None and not named:
            exports.setdefault("*", []).append(["im", spec, 0])
        for clause in named:
            if clause.type == "namespace_export" and clause.named_children:
                name = self.b.source.of(clause.named_children[0])
                exports.setdefault(name, []).append(["if", spec, 0, "*"])
            if clause.type != "export_clause":
                continue
            for one in clause.named_children:
                name_node = one.child_by_field_name("name")
                alias = one.child_by_field_name("alias") or name_node
                if name_node is None or alias is None:
                    continue
                name = self.b.source.of(name_node)
                expr: Expr = ["n", name] if source is None else ["if", spec, 0, name]
                exports.setdefault(self.b.source.of(alias), []).append(expr)
                self.b.refer("export", name_node, node, scope, expr)

    # --- definitions ------------------------------------------------------------------------

    def declared_name(self, node: Node) -> Node | None:
        """Return the name node of a declaration, for `const` that of the first variable."""
        name = node.child_by_field_name("name")
        if name is None and node.named_children:
            inner = node.named_children[0]
            if inner.type == "variable_declarator":
                name = inner.child_by_field_name("name")
        return name if name is not None and "pattern" not in name.type else None

    def _function_declaration(self, node: Node, scope: int) -> Expr:
        name = node.child_by_field_name("name")
        index = function(self, node, scope, name_node=name, whole=self.whole_of(node))
        if name is not None:
            self.b.symbols[scope].bind(self.b.source.of(name), ["d", index])
        return ["d", index]

    def _class_declaration(self, node: Node, scope: int) -> Expr:
        name = node.child_by_field_name("name")
        expr = class_like(self, node, scope, name_node=name, whole=self.whole_of(node))
        if name is not None:
            self.b.symbols[scope].bind(self.b.source.of(name), expr)
        return expr

    def _interface(self, node: Node, scope: int) -> Expr:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is None:
            return NOTHING
        whole = self.whole_of(node)
        index = self.b.add(
            "interface",
            self.b.source.of(name),
            scope,
            whole,
            name_node=name,
            body=body,
            doc=self.doc_of(whole),
        )
        self.b.symbols[scope].bind(self.b.source.of(name), ["d", index])
        for one in node.named_children:
            if one.type in ("extends_type_clause", "extends_clause"):
                for base in one.named_children:
                    base_type(self, base, index, scope, "base")
        for one in body.named_children if body is not None else ():
            self._member_signature(one, index)
        return ["d", index]

    def _member_signature(self, node: Node, index: int) -> None:
        name = node.child_by_field_name("name")
        if name is None:
            return
        text = self.b.source.of(name)
        if node.type in ("method_signature", "abstract_method_signature"):
            method = function(self, node, index, name_node=name, whole=node, kind="method")
            self.b.symbols[index].bind(text, ["d", method])
        elif node.type == "property_signature":
            typed_variable(self, node, name, index, "field")

    def _enum(self, node: Node, scope: int) -> Expr:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is None:
            return NOTHING
        whole = self.whole_of(node)
        text = self.b.source.of(name)
        index = self.b.add(
            "enum", text, scope, whole, name_node=name, body=body, doc=self.doc_of(whole)
        )
        self.b.symbols[scope].bind(text, ["d", index])
        for one in body.named_children if body is not None else ():
            member = one.child_by_field_name("name") or one
            if member.type == "property_identifier":
                key = self.b.source.of(member)
                self.b.symbols[index].bind(key, ["y", ["n", text]])
                self.b.variable(index, "field", key, member, one)
        return ["d", index]

    def _type_alias(self, node: Node, scope: int) -> Expr:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is not None and value is not None:
            self.b.symbols[scope].bind(self.b.source.of(name), type_expr(value, self.b.source))
            self.b.variable(scope, "variable", self.b.source.of(name), name, node)
            self.use_types(value, scope)
        return NOTHING

    def _namespace(self, node: Node, scope: int) -> Expr:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is None or body is None or name.type == "string":
            if body is not None:
                self.visit(body, scope)
            return NOTHING
        text = self.b.source.of(name)
        index = self.b.add("object", text, scope, self.whole_of(node), name_node=name, body=body)
        self.b.symbols[index].flags.append("namespace")
        self.b.symbols[scope].bind(text, ["o", index])
        self.visit(body, index)
        return ["o", index]

    # --- statements -------------------------------------------------------------------------

    def _declarator(self, node: Node, scope: int) -> Expr:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        kind = node.child_by_field_name("type")
        if name is None:
            return NOTHING
        if value is None:
            expr = NOTHING
        else:
            statement = node.parent if node.parent is not None else node
            only = statement.named_child_count == 1
            whole = self.whole_of(statement) if only else node
            expr = self.named_value(value, scope, name, whole)
        if kind is not None and name.type == "identifier":
            typed_variable(
                self, node, name, scope, "local" if self.in_function(scope) else "variable"
            )
        if expr[0] == "d" and self.b.symbols[expr[1]].name == self.b.source.of(name):
            self.b.symbols[scope].bind(self.b.source.of(name), expr)
        else:
            target = self.assign(name, expr, scope, node)
            self.flow(value, expr, node, scope, target)
        return expr

    def _for(self, node: Node, scope: int) -> Expr:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        is_of = any(one.type == "of" for one in node.children)
        if left is not None and right is not None:
            held = self.visit(right, scope)
            self.assign(left, ["i", held] if is_of else ["l", "string"], scope, node)
        body = node.child_by_field_name("body")
        if body is not None:
            self.visit(body, scope)
        return NOTHING

    def _catch(self, node: Node, scope: int) -> Expr:
        parameter, body = node.child_by_field_name("parameter"), node.child_by_field_name("body")
        if parameter is not None:
            self.assign(parameter, NOTHING, scope, node)
        if body is not None:
            self.visit(body, scope)
        return NOTHING

    def _throw(self, node: Node, scope: int) -> Expr:
        for one in node.named_children:
            expr = self.visit(one, scope)
            if expr[0] == "nw":
                made = one.child_by_field_name("constructor")
                self.b.refer("raise", self.name_node(made or one), one, scope, expr[1])
        return NOTHING

    def _return(self, node: Node, scope: int) -> Expr:
        function = self.b.enclosing(scope, FUNCTIONS)
        for one in node.named_children:
            expr = self.visit(one, scope)
            if function >= 0 and expr not in self.b.symbols[function].returns:
                self.b.symbols[function].returns.append(expr)
        return NOTHING

    def in_function(self, scope: int) -> bool:
        """Return whether variables of a scope are local."""
        return self.b.symbols[scope].kind in FUNCTIONS

    def is_class(self, scope: int) -> bool:
        """Return whether a scope is a class, an interface or an object."""
        return self.b.symbols[scope].kind in CLASSES


def _ignore(node: Node, scope: int) -> Expr:
    return NOTHING
