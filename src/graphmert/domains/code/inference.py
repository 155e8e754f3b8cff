"""What names and expressions stand for, over all files.

The analysis is flow-insensitive: a name stands for everything it is bound to in its scope. It
follows imports, scopes, inheritance, attributes, return values, containers and narrowing by
isinstance, and never guesses by name alone; `calls` does that where this finds nothing.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from graphmert.domains.code import containers, outside
from graphmert.domains.code.annotations import alias_rule, annotate
from graphmert.domains.code.arguments import given
from graphmert.domains.code.builder import CLASSES, FUNCTIONS
from graphmert.domains.code.entities import entity_ids
from graphmert.domains.code.facts import Expr, FileFacts, Symbol
from graphmert.domains.code.modules import Modules
from graphmert.domains.code.values import (
    EMPTY,
    TOP,
    Solver,
    Value,
    Values,
    container,
    join,
    tuple_of,
)

_BUILTINS = frozenset(dir(builtins))
_VAGUE = re.compile(r"^(_?[A-Z][A-Z0-9]?|_?T_?\w*|Self|Any|object|Object)$")
SCRIPTS = frozenset({"javascript", "typescript"})
_RULES: dict[str, Callable[[Inference, int, int, str], Values]] = {
    "given": lambda self, file, index, place: given(self, file, index, int(place)),
    "alias": alias_rule,
    "exported": lambda self, file, index, name: outside.exported_rule(self, file, name),
    "object": outside.object_rule,
    "made": outside.made_rule,
}


class Facts(Protocol):
    """Give the facts of a file by its number."""

    def __call__(self, file: int, /) -> FileFacts:
        """Return the facts."""
        ...


class Inference:
    """Values of expressions, over all files.

    Args:
        facts: facts by file number.
        modules: names to files.
    """

    def __init__(self, facts: Facts, modules: Modules) -> None:
        self._facts = facts
        self.modules = modules
        self.solver = Solver(self._rule)
        self._ancestors: dict[tuple, tuple[object, int]] = {}
        self._assigns: dict[int, dict[str, list[list[Any]]]] = {}
        self._ids: dict[int, list[str]] = {}
        self.sites: dict[int, dict[str, list[tuple[int, Expr]]]] = {}
        self._rules: dict[str, Callable[[int, int, Expr], Values]] = {
            "n": lambda f, s, e: self.lookup(f, s, e[1]),
            "a": lambda f, s, e: self.attribute(self.value(f, s, e[1]), e[2]),
            "c": self._call,
            "nw": self._new,
            "d": lambda f, s, e: frozenset({self._defined(f, e[1])}),
            "o": lambda f, s, e: frozenset({("O", f, e[1])}),
            "@": lambda f, s, e: self.value(f, e[1], e[2]),
            "l": lambda f, s, e: frozenset({("XI", self._literal(f, e[1]))}),
            "g": lambda f, s, e: frozenset({container(e[1], self._all(f, s, e[2]))}),
            "t": lambda f, s, e: frozenset({tuple_of(self.value(f, s, one) for one in e[1])}),
            "u": lambda f, s, e: self._all(f, s, e[1]),
            "i": lambda f, s, e: containers.iterate(self, self.value(f, s, e[1])),
            "s": lambda f, s, e: containers.subscript(self, f, s, e),
            "ti": lambda f, s, e: containers.part_of(self, f, s, e),
            "w": lambda f, s, e: containers.entered(self, f, s, e),
            "aw": lambda f, s, e: containers.awaited(self.value(f, s, e[1])),
            "y": lambda f, s, e: annotate(self, f, s, e[1]),
            "nr": lambda f, s, e: containers.narrowed(self, f, s, e),
            "ta": lambda f, s, e: self.value(f, s, e[1]),
            "sup": lambda f, s, e: self._super(f, s),
            "this": lambda f, s, e: self._this(f, s),
            "im": self._import,
            "if": self._import_from,
            "pa": self._parameter,
            "mg": lambda f, s, e: frozenset({("MG", f)}),
        }

    def facts(self, file: int) -> FileFacts:
        """Return the facts of a file and note that they were read."""
        self.solver.mask |= 1 << file
        return self._facts(file)

    def ids(self, file: int) -> list[str]:
        """Return the entity ids of a file's symbols, empty texts for what is no entity."""
        if file not in self._ids:
            doc_id = self.modules.files[file].doc_id
            self._ids[file] = entity_ids(self._facts(file), doc_id)
        self.solver.mask |= 1 << file
        return self._ids[file]

    def id_of(self, target: tuple[int, int]) -> str:
        """Return the id of a symbol; what is no entity goes by its place in the file."""
        file, index = target
        ids = self.ids(file)
        return ids[index] or f"{ids[0]}#{index}"

    def show(self, value: Value) -> list[Any]:
        """Return a value with entity ids in place of numbers of files and symbols."""
        kind = value[0]
        if kind == "G":
            return [kind, value[1], self.show_all(value[2])]
        if kind == "T":
            return [kind, [self.show_all(part) for part in value[1]]]
        if kind == "GM":
            return [kind, self.show(value[1]), value[2]]
        if kind in ("M", "MG"):
            return [kind, self.ids(value[1])[0]]
        if len(value) == 3:
            return [kind, self.id_of((value[1], value[2]))]
        return list(value)

    def show_all(self, values: Values) -> list[Any]:
        """Return values as `show` does, in the order of `ordered`."""
        return sorted((self.show(one) for one in values), key=repr)

    def ordered(self, values: Iterable[Value]) -> list[Value]:
        """Return values in an order that stays when definitions move and files come or go."""
        found = list(values)
        return found if len(found) < 2 else sorted(found, key=lambda one: repr(self.show(one)))

    def ordered_targets(self, targets: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return (file, symbol) pairs in the order of their entity ids."""
        found = list(targets)
        return found if len(found) < 2 else sorted(found, key=self.id_of)

    def symbol(self, value: Value) -> Symbol:
        """Return the symbol of a value that has one."""
        return self.facts(value[1]).symbols[value[2]]

    def language(self, file: int) -> str:
        """Return the language of a file."""
        return self.modules.files[file].language

    def value(self, file: int, scope: int, expr: Expr) -> Values:
        """Return what an expression seen from a scope may be."""
        rule = self._rules.get(expr[0])
        return EMPTY if rule is None else rule(file, scope, expr)

    def _all(self, file: int, scope: int, exprs: Iterable[Expr]) -> Values:
        return join(self.value(file, scope, one) for one in exprs)

    def _rule(self, key: tuple) -> Values:
        """Compute one key: names, attributes, returns, bases, parameters."""
        kind, file, index = key[:3]
        symbol = self.facts(file).symbols[index]
        if kind == "name":
            return self._all(file, index, symbol.names[key[3]])
        if kind == "attr":
            return self._all(file, index, symbol.attrs[key[3]])
        if kind == "return":
            return self._returned(file, index, symbol)
        if kind == "base":
            exprs = symbol.bases + symbol.interfaces
            return self.value(file, symbol.parent, exprs[key[3]])
        if kind == "called":
            found = self.member(file, index, "__call__") if symbol.kind in CLASSES else None
            return EMPTY if found is None else self.call(found)
        if kind == "iterated":
            return containers.iterated_rule(self, file, index)
        if kind in _RULES:
            return _RULES[kind](self, file, index, key[3])
        if kind == "export":
            return self._all(file, 0, self.facts(file).export_exprs[key[3]])
        assigned = self._assigned(file).get(key[3], [])
        found = []
        for scope, base, _, expr in assigned:
            # Read on only where the base may be this object at all.
            wanted = (key[4], file) if key[4] in ("M", "MG") else (key[4], file, index)
            if wanted in self.value(file, scope, base):
                found.append(self.value(file, scope, expr))
        return join(found)

    def _assigned(self, file: int) -> dict[str, list[list[Any]]]:
        if file not in self._assigns:
            by_name: dict[str, list[list[Any]]] = {}
            for one in self._facts(file).assigns:
                by_name.setdefault(one[2], []).append(one)
            self._assigns[file] = by_name
        self.solver.mask |= 1 << file
        return self._assigns[file]

    def assigned(self, value: Value, name: str) -> Values:
        """Return what assignments `value.name = …` in the value's own file put there."""
        kind, file, *rest = value
        if name not in self._assigned(file):
            return EMPTY
        return self.solver.solve(("assign", file, rest[0] if rest else 0, name, kind))

    def _defined(self, file: int, index: int) -> Value:
        kind = self.facts(file).symbols[index].kind
        return ("C" if kind in CLASSES else "F", file, index)

    def _literal(self, file: int, name: str) -> str:
        return f"builtins.{name}" if self.language(file) == "python" else name

    # --- names ------------------------------------------------------------------------------

    def lookup(self, file: int, scope: int, name: str) -> Values:
        """Return what a name stands for, by the scoping rules of the file's language."""
        facts = self.facts(file)
        language = facts.language
        inherited = EMPTY
        for index in facts.scopes(scope):
            symbol = facts.symbols[index]
            if name in symbol.globals:
                continue
            if language == "java" and symbol.kind in CLASSES:
                found = self.member(file, index, name)
                if found is not None and not all(one[0] == "X" for one in found):
                    return found
                # A parent outside the index may have it, but what is here comes first.
                inherited = inherited or found or EMPTY
                continue
            if symbol.kind in CLASSES and not _is_open(symbol, index == scope, language):
                continue
            if name in symbol.names:
                return self.solver.solve(("name", file, index, name))
        if language == "java":
            return outside.java_name(self, file, name) or inherited
        found = self._by_star(file, name)
        if found is not None:
            return found
        if language == "python":
            return frozenset({("X", f"builtins.{name}")}) if name in _BUILTINS else EMPTY
        return outside.script_name(self, file, name)

    def _by_star(self, file: int, name: str) -> Values | None:
        for expr in self.facts(file).symbols[0].names.get("*", ()):
            for module in self.ordered(self.value(file, 0, expr)):
                if module[0] == "M" and self.has_name(module[1], name, {file}):
                    exports = self.facts(module[1]).exports
                    if exports is None and name.startswith("_"):
                        continue
                    if exports is None or name in exports:
                        return self.of_module(module[1], name)
        return None

    def has_name(self, file: int, name: str, seen: set[int]) -> bool:
        """Return whether a module binds a name, its own star imports included."""
        if file in seen:
            return False
        seen = seen | {file}
        names = self.facts(file).symbols[0].names
        if name in names:
            return True
        for expr in names.get("*", ()):
            for module in self.ordered(self.value(file, 0, expr)):
                if module[0] == "M" and self.has_name(module[1], name, seen):
                    return True
        return False

    def of_module(self, file: int, name: str) -> Values:
        """Return a module's attribute."""
        facts = self.facts(file)
        if facts.language in SCRIPTS:
            return outside.script_export(self, file, name)
        symbol = facts.symbols[0]
        if name in symbol.names:
            return self.solver.solve(("name", file, 0, name))
        found = self._by_star(file, name)
        if found is not None:
            return found
        module = self.modules.submodule(file, name)
        if module is not None:
            return frozenset({_module_value(module)})
        if "__getattr__" in symbol.names:
            return self.call(self.solver.solve(("name", file, 0, "__getattr__")))
        return self.assigned(("M", file), name)

    # --- imports ----------------------------------------------------------------------------

    def _import(self, file: int, scope: int, expr: Expr) -> Values:
        _, module, level = expr
        if self.language(file) in SCRIPTS:
            return outside.script_module(self, file, module)
        found = self.modules.find_python(file, module, level)
        if found is None:
            return frozenset({("X", module)}) if not level else EMPTY
        return frozenset({_module_value(found)})

    def _import_from(self, file: int, scope: int, expr: Expr) -> Values:
        _, module, level, name = expr
        language = self.language(file)
        if language == "java":
            return outside.java_import(self, module, name)
        if language in SCRIPTS:
            return outside.script_import(self, file, module, name)
        found = self.modules.find_python(file, module, level)
        if found is None:
            return frozenset({("X", f"{module}.{name}")}) if not level else EMPTY
        if isinstance(found, str):
            inner = self.modules.find_python(file, f"{found}.{name}", 0)
            return frozenset({_module_value(inner)}) if inner is not None else EMPTY
        # `from . import x` in a package's front names the submodule, not the import itself.
        if found == file and self.modules.submodule(file, name) is not None:
            module_value = self.modules.submodule(file, name)
            assert module_value is not None
            return frozenset({_module_value(module_value)})
        return self.of_module(found, name)

    # --- classes ----------------------------------------------------------------------------

    def ancestors(self, file: int, index: int) -> tuple[Value, ...]:
        """Return a class and its ancestors in the order in which members are looked for."""
        made = self.solver.once(
            self._ancestors, (file, index), lambda: self._linearize(("C", file, index), frozenset())
        )
        assert isinstance(made, tuple)
        return made

    def _linearize(self, value: Value, seen: frozenset[Value]) -> tuple[Value, ...]:
        """Depth first, a class after all that inherit from it: equal to C3 where that exists."""
        if value[0] != "C" or value in seen:
            return (value,)
        lines: list[tuple[Value, ...]] = [(value,)]
        symbol = self.symbol(value)
        for place in range(len(symbol.bases) + len(symbol.interfaces)):
            found = self.solver.solve(("base", value[1], value[2], place))
            for one in self.ordered(found):
                if one[0] in ("C", "X"):
                    lines.append(self._linearize(one, seen | {value}))
                elif one[0] == "F":
                    lines.append((one,))
        merged: list[Value] = []
        for line in lines:
            for one in line:
                if one in merged and one[0] == "C" and one != value:
                    merged.remove(one)
                if one not in merged:
                    merged.append(one)
        return tuple(merged)

    def member(
        self, file: int, index: int, name: str, *, instance: bool = True, skip: int = 0
    ) -> Values | None:
        """Return a member of a class by the resolution order; None where no class has it.

        Args:
            file, index: the class.
            name: the member.
            instance: look at attributes of instances too.
            skip: leave out the first classes of the order, as `super` does.
        """
        external: Value | None = None
        loose: list[Values] = []
        # Overloads of a Java method may be spread over the ancestors.
        is_overloaded = name.endswith("()")
        for one in self.ancestors(file, index)[skip:]:
            if one[0] == "X":
                external = external or one
                continue
            symbol = self.symbol(one)
            parts = []
            if name in symbol.names and one[0] == "C":
                parts.append(self.solver.solve(("name", one[1], one[2], name)))
            if instance and name in symbol.attrs:
                parts.append(self.solver.solve(("attr", one[1], one[2], name)))
            if self.language(one[1]) in SCRIPTS:
                # What is set on a prototype does not end the search: it may be set elsewhere.
                loose.append(self.assigned(("PR", one[1], one[2]), name))
                loose.append(self.assigned(("I", one[1], one[2]), name))
            if parts and is_overloaded:
                loose.extend(parts)
            elif parts:
                return join([*parts, *loose])
        if any(loose):
            return join(loose)
        if external is not None:
            return frozenset({outside.longer(external[1], name)})
        return None

    def attribute(self, values: Values, name: str) -> Values:
        """Return what `value.name` may be."""
        return join(self._attribute(one, name) for one in values)

    def _attribute(self, value: Value, name: str) -> Values:
        kind = value[0]
        if kind == "I":
            return self._of_instance(value, name)
        if kind == "C":
            return self._of_class(value, name)
        if kind == "M":
            return self.of_module(value[1], name)
        if kind == "P":
            found = self.modules.find_python(0, f"{value[1]}.{name}", 0)
            return EMPTY if found is None else frozenset({_module_value(found)})
        if kind in ("X", "XI"):
            return frozenset({outside.longer(value[1], name)})
        if kind in ("G", "T"):
            return frozenset({("GM", value, name.removesuffix("()"))})
        if kind == "SUP":
            found = self.member(value[1], value[2], name, skip=1)
            return EMPTY if found is None else found
        if kind == "TOP":
            return TOP
        if kind == "JP":
            return outside.java_package(self, value[1], name)
        return outside.script_attribute(self, value, name)

    def _of_instance(self, value: Value, name: str) -> Values:
        symbol = self.symbol(value)
        if symbol.kind in FUNCTIONS:
            return outside.script_instance(self, value, name)
        found = self.member(value[1], value[2], name)
        if found is None:
            if name == "__class__":
                return frozenset({("C", value[1], value[2])})
            getter = self.member(value[1], value[2], "__getattr__", instance=False)
            return EMPTY if getter is None else self.call(getter)
        if not any(one[0] == "F" for one in found):
            return found
        return join(self._bound(one) for one in found)

    def _bound(self, value: Value) -> Values:
        """A property gives what its function returns; other members are themselves."""
        if value[0] == "F" and "property" in self.symbol(value).flags:
            return self.call(frozenset({value}))
        return frozenset({value})

    def _of_class(self, value: Value, name: str) -> Values:
        if self.language(value[1]) in SCRIPTS and name == "prototype":
            return frozenset({("PR", value[1], value[2])})
        found = self.member(value[1], value[2], name, instance=self.language(value[1]) == "java")
        extra = self.assigned(value, name)
        if found is None:
            # Members that assignments elsewhere give instances are not of the class.
            return extra
        if self._is_enum(value):
            own = self.symbol(value).names.get(name)
            if own is not None and not any(one[0] == "d" for one in own):
                return frozenset({("I", value[1], value[2])})
        return join((found, extra))

    def _is_enum(self, value: Value) -> bool:
        return any(
            one[0] == "X" and one[1].rpartition(".")[2] in ("Enum", "IntEnum", "StrEnum", "Flag")
            for one in self.ancestors(value[1], value[2])
        )

    def _super(self, file: int, scope: int) -> Values:
        for index in self.facts(file).scopes(scope):
            if self.facts(file).symbols[index].kind in CLASSES:
                return frozenset({("SUP", file, index)})
        return EMPTY

    def _this(self, file: int, scope: int) -> Values:
        facts = self.facts(file)
        for index in facts.scopes(scope):
            symbol = facts.symbols[index]
            if symbol.kind == "object":
                return frozenset({("O", file, index)})
            if symbol.kind in CLASSES:
                return frozenset({("I", file, index)})
            is_static = symbol.kind == "method" and "static" in symbol.flags
            if is_static and facts.language != "java":
                return frozenset({("C", file, symbol.parent)})
            if symbol.kind == "function" and facts.language in SCRIPTS:
                return outside.script_this(self, file, index)
        return EMPTY

    # --- calls ------------------------------------------------------------------------------

    def _call(self, file: int, scope: int, expr: Expr) -> Values:
        if expr[1][0] == "n" and expr[1][1] in outside.INTEROP and expr[2]:
            # What compilers put between CommonJS and ES modules changes no value.
            return self.value(file, scope, expr[2][0])
        callees = self.value(file, scope, expr[1])
        parts = []
        for one in callees:
            if one[0] in ("X", "GM"):
                parts.append(outside.call_outside(self, file, scope, one, expr))
            else:
                parts.append(self.call(frozenset({one})))
        return join(parts)

    def _new(self, file: int, scope: int, expr: Expr) -> Values:
        return join(
            frozenset({("I", one[1], one[2])})
            if one[0] in ("C", "F")
            else frozenset({("XI", one[1])})
            if one[0] == "X"
            else EMPTY
            for one in self.value(file, scope, expr[1])
        )

    def call(self, values: Values) -> Values:
        """Return what calling each value returns."""
        parts: list[Values] = []
        for value in values:
            kind = value[0]
            if kind == "F":
                parts.append(self.solver.solve(("return", value[1], value[2])))
            elif kind == "C":
                parts.append(frozenset({("I", value[1], value[2])}))
            elif kind in ("I", "O"):
                if kind == "I":
                    parts.append(self.solver.solve(("called", value[1], value[2])))
            elif kind == "G" and value[1] == "callable":
                parts.append(value[2])
            elif kind == "X":
                parts.append(frozenset({("XI", value[1])}))
            elif kind == "TOP":
                parts.append(TOP)
        return join(parts)

    def _returned(self, file: int, index: int, symbol: Symbol) -> Values:
        parts = []
        annotation = symbol.annotation
        if annotation is not None and not _is_vague(annotation):
            parts.append(annotate(self, file, symbol.parent, annotation))
        if annotation is None or _is_vague(annotation):
            if symbol.yields:
                held = self._all(file, index, symbol.yields)
                parts.append(frozenset({container("generator", held)}))
            parts.append(self._all(file, index, symbol.returns))
            if annotation is not None and annotation[-1] == "Self":
                parts.append(frozenset({("I", file, symbol.parent)}))
        return join(parts)

    def _parameter(self, file: int, scope: int, expr: Expr) -> Values:
        _, index, place = expr
        facts = self.facts(file)
        symbol = facts.symbols[index]
        _, annotation, default, mode, _ = symbol.params[place]
        if place == 0 and symbol.kind == "method" and facts.language == "python":
            if "classmethod" in symbol.flags:
                return frozenset({("C", file, symbol.parent)})
            if "staticmethod" not in symbol.flags:
                return frozenset({("I", file, symbol.parent)})
        parts = []
        if annotation is not None:
            parts.append(annotate(self, file, symbol.parent, annotation))
        if default is not None:
            parts.append(self.value(file, symbol.parent, default))
        if annotation is None and not mode.startswith("*"):
            parts.append(self.solver.solve(("given", file, index, place)))
        found = join(parts)
        if mode == "*":
            return frozenset({container("tuple", found)})
        return frozenset({container("dict", found)}) if mode == "**" else found


def _is_open(symbol: Symbol, is_innermost: bool, language: str) -> bool:
    """Return whether names in a class body are looked up plainly: not from its methods."""
    return is_innermost if language == "python" else "namespace" in symbol.flags


def _module_value(found: int | str) -> Value:
    return ("P", found) if isinstance(found, str) else ("M", found)


def _is_vague(annotation: Expr) -> bool:
    """Return whether a return type is a type variable, Self or Any, which says nothing."""
    if annotation[0] == "ta":
        # Which function a factory makes is more than that it can be called.
        return annotation[1][-1] == "Callable"
    last = annotation[-1] if annotation[0] in ("n", "a") else ""
    return isinstance(last, str) and bool(_VAGUE.match(last))
