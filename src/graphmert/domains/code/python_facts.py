"""Facts of a Python file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphmert.domains.code.builder import CLASSES, FUNCTIONS, Builder
from graphmert.domains.code.facts import Expr, FileFacts
from graphmert.domains.code.python_exprs import PythonExprs
from graphmert.domains.code.syntax import Source

if TYPE_CHECKING:
    from tree_sitter import Node

_PROPERTIES = ("property", "cached_property", "abstractproperty", "lazyproperty")


def read_python(text: str, *, is_test: bool = False) -> FileFacts:
    """Return the facts of a Python text; what does not parse is left out and named."""
    builder = Builder(Source(text, "python"), "python", is_test=is_test)
    reader = _Statements(builder)
    reader.read_file()
    return builder.finish()


class _Statements:
    """Walk statements; expressions are handed on."""

    def __init__(self, builder: Builder) -> None:
        self.b = builder
        self.x = PythonExprs(builder)
        self._handlers = {
            "import_statement": self._import,
            "import_from_statement": self._import_from,
            "future_import_statement": _ignore,
            "function_definition": self._function,
            "class_definition": self._class,
            "decorated_definition": self._decorated,
            "return_statement": self._return,
            "raise_statement": self._raise,
            "try_statement": self._try,
            "with_statement": self._with,
            "for_statement": self._for,
            "if_statement": self._if,
            "elif_clause": self._if,
            "while_statement": self._if,
            "assert_statement": self._assert,
            "global_statement": self._global,
            "nonlocal_statement": self._global,
            "case_clause": self._case,
            "type_alias_statement": self._type_alias,
            "comment": _ignore,
            "pass_statement": _ignore,
        }

    def read_file(self) -> None:
        root = self.b.source.root
        doc = self._docstring(root)
        if doc is not None:
            self.b.symbols[0].span[6:8] = doc
        self._block(root, 0)
        self._find_all()

    def _block(self, node: Node, scope: int) -> None:
        for child in node.named_children:
            self.statement(child, scope)

    def statement(self, node: Node, scope: int) -> None:
        handler = self._handlers.get(node.type)
        if handler is not None:
            handler(node, scope)
        elif node.type == "expression_statement":
            for child in node.named_children:
                self.x.visit(child, scope)
        elif node.type in self.x.handlers:
            self.x.visit(node, scope)
        else:
            # Blocks, clauses and whatever stands around an error.
            self._block(node, scope)

    # --- definitions ------------------------------------------------------------------------

    def _docstring(self, block: Node | None) -> tuple[int, int] | None:
        for child in block.named_children if block is not None else ():
            if child.type == "comment":
                continue
            inner = child.named_children
            is_text = len(inner) == 1 and inner[0].type in ("string", "concatenated_string")
            if child.type == "expression_statement" and is_text:
                return self.b.source.span(inner[0])
            return None
        return None

    def _decorated(self, node: Node, scope: int) -> None:
        definition = node.child_by_field_name("definition")
        decorators = [one for one in node.named_children if one.type == "decorator"]
        exprs: list[Expr] = []
        for one in decorators:
            inner = one.named_children[0] if one.named_children else None
            if inner is not None:
                expr = self.x.visit(inner, scope)
                exprs.append(expr)
                called = inner.child_by_field_name("function") if inner.type == "call" else None
                named = self.x.name_node(called or inner)
                target = expr[1] if inner.type == "call" else expr
                self.b.refer("decorator", named, inner, scope, target, target=len(self.b.symbols))
        if definition is None:
            return
        # The references above point at the symbol that is added next.
        if definition.type == "class_definition":
            self._class(definition, scope, whole=node, decorators=exprs)
        else:
            self._function(definition, scope, whole=node, decorators=exprs)

    def _function(
        self,
        node: Node,
        scope: int,
        *,
        whole: Node | None = None,
        decorators: list[Expr] | None = None,
    ) -> None:
        name_node = node.child_by_field_name("name")
        body = node.child_by_field_name("body")
        if name_node is None:
            self._block(node, scope)
            return
        name = self.b.source.of(name_node)
        kind = "method" if self.b.symbols[scope].kind == "class" else "function"
        doc = self._docstring(body)
        index = self.b.add(
            kind, name, scope, whole or node, name_node=name_node, body=body, doc=doc
        )
        symbol = self.b.symbols[index]
        symbol.decorators = decorators or []
        if any(one.type == "async" for one in node.children):
            symbol.flags.append("async")
        self._flag(index, scope)
        # Redefinitions under a decorator such as @x.setter do not hide the getter.
        if "setter" not in symbol.flags:
            self.b.symbols[scope].bind(name, ["d", index])
        self._parameters(node.child_by_field_name("parameters"), index, scope)
        annotation = node.child_by_field_name("return_type")
        if annotation is not None:
            symbol.annotation = self.x.annotation(annotation, scope)
            self.b.refer("returns", annotation, annotation, index, symbol.annotation, target=index)
        if body is not None:
            self._block(body, index)

    def _flag(self, index: int, scope: int) -> None:
        symbol = self.b.symbols[index]
        for expr in symbol.decorators:
            target = expr[1] if expr[0] == "c" else expr
            last = target[2] if target[0] == "a" else target[1] if target[0] == "n" else ""
            if isinstance(last, str):
                if last in _PROPERTIES or last.endswith("cached_property"):
                    symbol.flags.append("property")
                elif last in ("staticmethod", "classmethod", "abstractmethod", "overload"):
                    symbol.flags.append(last)
                elif last in ("setter", "deleter") and target[0] == "a":
                    symbol.flags.append("setter")
                elif last.endswith("contextmanager"):
                    symbol.flags.append("contextmanager")
        if symbol.name in ("__new__", "__init_subclass__", "__class_getitem__"):
            symbol.flags.append("classmethod")
        if self.b.is_test and symbol.name.startswith("test"):
            symbol.flags.append("test")

    def _parameters(self, node: Node | None, index: int, scope: int) -> None:
        after_star = False
        for one in node.named_children if node is not None else ():
            if one.type in ("keyword_separator", "positional_separator", "comment"):
                after_star = after_star or one.type == "keyword_separator"
                continue
            mode = "kw" if after_star else ""
            after_star = self.x.parameter(one, index, scope, mode) or after_star

    def _class(
        self,
        node: Node,
        scope: int,
        *,
        whole: Node | None = None,
        decorators: list[Expr] | None = None,
    ) -> None:
        name_node = node.child_by_field_name("name")
        body = node.child_by_field_name("body")
        if name_node is None:
            self._block(node, scope)
            return
        name = self.b.source.of(name_node)
        doc = self._docstring(body)
        index = self.b.add(
            "class", name, scope, whole or node, name_node=name_node, body=body, doc=doc
        )
        symbol = self.b.symbols[index]
        symbol.decorators = decorators or []
        if self.b.is_test and name.startswith("Test"):
            symbol.flags.append("test")
        self.b.symbols[scope].bind(name, ["d", index])
        bases = node.child_by_field_name("superclasses")
        for one in bases.named_children if bases is not None else ():
            if one.type == "keyword_argument":
                value = one.child_by_field_name("value")
                if value is not None:
                    self.x.visit(value, scope)
            elif one.type not in ("comment", "list_splat", "dictionary_splat"):
                expr = self.x.visit(one, scope)
                inner = one.child_by_field_name("value") if one.type == "subscript" else one
                base = self._without_arguments(expr)
                symbol.bases.append(base)
                self.b.refer("base", self.x.name_node(inner or one), one, scope, base, target=index)
        if body is not None:
            self._block(body, index)

    def _without_arguments(self, expr: Expr) -> Expr:
        """Return `Foo` of `Foo[T]`."""
        return expr[1] if expr[0] == "s" else expr

    # --- imports ----------------------------------------------------------------------------

    def _import(self, node: Node, scope: int) -> None:
        for one in node.children_by_field_name("name"):
            name_node = one.child_by_field_name("name") if one.type == "aliased_import" else one
            alias = one.child_by_field_name("alias") if one.type == "aliased_import" else None
            if name_node is None:
                continue
            module = self.b.source.of(name_node).replace(" ", "")
            expr: Expr = ["im", module, 0]
            self.b.facts.imports.append([module, 0])
            if alias is not None:
                self.b.symbols[scope].bind(self.b.source.of(alias), expr)
            else:
                first = module.split(".")[0]
                self.b.symbols[scope].bind(first, ["im", first, 0])
                self.b.facts.imports.append([first, 0])
            self.b.refer("import", name_node, node, scope, expr)

    def _import_from(self, node: Node, scope: int) -> None:
        module_node = node.child_by_field_name("module_name")
        if module_node is None:
            return
        text = self.b.source.of(module_node).replace(" ", "")
        module = text.lstrip(".")
        level = len(text) - len(module)
        self.b.facts.imports.append([module, level])
        self.b.refer("from", module_node, node, scope, ["im", module, level])
        if any(one.type == "wildcard_import" for one in node.named_children):
            self.b.symbols[scope].bind("*", ["im", module, level])
        for one in node.children_by_field_name("name"):
            name_node = one.child_by_field_name("name") if one.type == "aliased_import" else one
            alias = one.child_by_field_name("alias") if one.type == "aliased_import" else None
            if name_node is None:
                continue
            name = self.b.source.of(name_node)
            expr: Expr = ["if", module, level, name]
            self.b.symbols[scope].bind(self.b.source.of(alias or name_node), expr)
            self.b.facts.imports.append([f"{module}.{name}" if module else name, level])
            self.b.refer("import", name_node, node, scope, expr)

    def _find_all(self) -> None:
        """Read `__all__` where it is a list or tuple of texts, `+=` included."""
        names: list[str] = []
        found = False
        for node in self.b.source.root.named_children:
            inner = node.named_children[0] if node.named_children else None
            if inner is None or inner.type not in ("assignment", "augmented_assignment"):
                continue
            left = inner.child_by_field_name("left")
            right = inner.child_by_field_name("right")
            if left is None or right is None or self.b.source.of(left) != "__all__":
                continue
            found = True
            for one in right.named_children if right.type in ("list", "tuple") else ():
                content = [part for part in one.named_children if part.type == "string_content"]
                if one.type == "string" and content:
                    name = self.b.source.of(content[0])
                    names.append(name)
                    self.b.refer("export", content[0], one, 0, ["n", name])
        if found:
            self.b.facts.exports = names

    # --- statements -------------------------------------------------------------------------

    def _return(self, node: Node, scope: int) -> None:
        for one in node.named_children:
            expr = self.x.visit(one, scope)
            function = self.b.enclosing(scope, FUNCTIONS)
            if function >= 0 and expr not in self.b.symbols[function].returns:
                self.b.symbols[function].returns.append(expr)

    def _raise(self, node: Node, scope: int) -> None:
        for number, one in enumerate(node.named_children):
            expr = self.x.visit(one, scope)
            if number == 0:
                called = one.child_by_field_name("function") if one.type == "call" else None
                target = expr[1] if expr[0] == "c" else expr
                self.b.refer("raise", self.x.name_node(called or one), one, scope, target)

    def _try(self, node: Node, scope: int) -> None:
        for part in node.named_children:
            if part.type not in ("except_clause", "except_group_clause"):
                self.statement(part, scope)
                continue
            for one in part.named_children:
                if one.type == "block":
                    self._block(one, scope)
                elif one.type == "as_pattern":
                    self._caught(one, scope)
                elif one.type != "comment":
                    self._catch(one, scope)

    def _caught(self, node: Node, scope: int) -> None:
        exprs = self._catch(node.named_children[0], scope) if node.named_children else []
        alias = node.child_by_field_name("alias")
        if alias is not None:
            for expr in exprs:
                self.x.assign(alias, ["y", expr], scope, node)

    def _catch(self, node: Node, scope: int) -> list[Expr]:
        parts = node.named_children if node.type == "tuple" else [node]
        exprs = []
        for one in parts:
            expr = self.x.visit(one, scope)
            self.b.refer("catch", self.x.name_node(one), one, scope, expr)
            exprs.append(expr)
        return exprs

    def _with(self, node: Node, scope: int) -> None:
        for child in node.named_children:
            if child.type != "with_clause":
                self.statement(child, scope)
                continue
            for item in child.named_children:
                value = item.child_by_field_name("value") or item
                alias = None
                if value.type == "as_pattern":
                    alias = value.child_by_field_name("alias")
                    value = value.named_children[0]
                expr = self.x.visit(value, scope)
                if alias is not None:
                    self.x.assign(alias, ["w", expr], scope, item)

    def _for(self, node: Node, scope: int) -> None:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is not None and right is not None:
            self.x.assign(left, ["i", self.x.visit(right, scope)], scope, node)
        for field in ("body", "alternative"):
            for part in node.children_by_field_name(field):
                self.statement(part, scope)

    def _if(self, node: Node, scope: int) -> None:
        condition = node.child_by_field_name("condition")
        narrowed: list[tuple[str, Expr]] = []
        if condition is not None:
            self.x.visit(condition, scope)
            narrowed = self.x.narrowings(condition, scope)
        for child in node.named_children:
            if condition is not None and child.id == condition.id:
                continue
            if child.type == "block":
                with self.x.narrowing(narrowed):
                    self.statement(child, scope)
            else:
                self.statement(child, scope)

    def _assert(self, node: Node, scope: int) -> None:
        for one in node.named_children:
            self.x.visit(one, scope)
        function = self.b.enclosing(scope, FUNCTIONS)
        for key, expr in self.x.narrowings(node.named_children[0], scope):
            # From here on in this function, and nowhere else.
            self.x.asserted.setdefault(function, {})[key] = expr

    def _global(self, node: Node, scope: int) -> None:
        names = [self.b.source.of(one) for one in node.named_children]
        self.b.symbols[scope].globals.extend(names)

    def _case(self, node: Node, scope: int) -> None:
        for child in node.named_children:
            if child.type == "case_pattern":
                self._pattern(child, scope)
            else:
                self.statement(child, scope)

    def _pattern(self, node: Node, scope: int) -> None:
        if node.type == "class_pattern" and node.named_children:
            self.x.visit_dotted(node.named_children[0], scope)
        for child in node.named_children:
            self._pattern(child, scope)

    def _type_alias(self, node: Node, scope: int) -> None:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is not None and right is not None:
            name = self.b.source.of(left).split("[")[0].strip()
            self.b.symbols[scope].bind(name, self.x.annotation(right, scope))
            kind = "field" if self.b.symbols[scope].kind in CLASSES else "variable"
            self.b.variable(scope, kind, name, left, node)


def _ignore(node: Node, scope: int) -> None:
    """Comments and the like say nothing."""
