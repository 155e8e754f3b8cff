"""Where a reference leads: entities of the index, names outside it, or nothing.

First by values: scopes, imports, types, inheritance. A method that subclasses override may be any
of them. Only where nothing is known of the receiver, by the name alone among the methods of the
same package, and only if few are left.
"""

from __future__ import annotations

import builtins
import io
import re
from collections import defaultdict
from dataclasses import dataclass, field

from graphmert.domains.code.builder import CLASSES, FUNCTIONS
from graphmert.domains.code.facts import Expr, Ref, Symbol
from graphmert.domains.code.inference import SCRIPTS, Inference
from graphmert.domains.code.ontology import known
from graphmert.domains.code.values import Value, Values

MAX_GUESSES = 3
_MAX_CANDIDATES = 8
_SITES = ("call", "new")


def _builtin_methods() -> frozenset[str]:
    """Names that methods of Python's own types have: no guess is made from them."""
    kinds = [vars(builtins)[name] for name in dir(builtins) if name.islower()]
    kinds = [one for one in kinds if isinstance(one, type)]
    patterns = [type(re.compile("")), type(re.match("", "")), io.TextIOWrapper, io.BytesIO]
    return frozenset(name for kind in [*kinds, *patterns] for name in dir(kind))


_COMMON = {
    "python": _builtin_methods() | known("python_methods"),
    "javascript": known("javascript_methods"),
    "typescript": known("javascript_methods"),
    "java": known("java_methods"),
}

Target = tuple[int, int]
"""File and symbol."""


@dataclass(frozen=True)
class Resolution:
    """Where a reference leads.

    Attributes:
        targets: (file, symbol), best first; symbol 0 is the module.
        externals: dotted names outside the index.
        state: resolved, ambiguous, external or unresolved.
        resolver: resolved or syntactic.
        confidence: of each target.
        overriders: methods of subclasses that the call may reach instead.
        packages: packages without a file, such as a Java package.
    """

    targets: tuple[Target, ...] = ()
    externals: tuple[str, ...] = ()
    state: str = "unresolved"
    resolver: str = "resolved"
    confidence: float = 0.0
    overriders: tuple[Target, ...] = ()
    packages: tuple[str, ...] = field(default=())


class Resolver:
    """Resolve references.

    Args:
        inference: values of expressions.
    """

    def __init__(self, inference: Inference) -> None:
        self.inference = inference
        self._methods: dict[str, list[Target]] = defaultdict(list)
        for number, one in enumerate(inference.modules.files):
            for name, symbols in one.methods.items():
                self._methods[name].extend((number, symbol) for symbol in symbols)
        self.names_asked: set[str] = set()
        self._used: dict[tuple[int, int, str], set[str]] = {}
        self._used_of: int = -1

    def resolve(self, file: int, ref: Ref) -> Resolution:
        """Return where a reference leads."""
        is_site = ref.kind in _SITES
        expr = ref.expr[1] if is_site else ref.expr
        values = self.inference.value(file, ref.scope, expr)
        if is_site:
            values = self._callees(values, ref)
        # Functions without a name are no entities.
        targets = tuple(
            one for one in self._ordered(values) if not one[1] or self._symbol(one).kind != "lambda"
        )
        externals = tuple(sorted({_outside(one) for one in values if _outside(one)}))
        packages = tuple(sorted(one[1] for one in values if one[0] in ("P", "JP")))
        if not targets and not externals and not packages:
            return self._guess(file, ref, expr) if is_site else Resolution()
        if not targets:
            state = "external" if externals else "resolved"
            return Resolution((), externals, state, "resolved", 0.9, (), packages)
        if is_site and len(targets) > 1:
            targets = self._by_arity(self._implementations(targets), ref.expr)
        sure = 1.0 if expr[0] in ("n", "im", "if", "d", "this", "sup") else 0.9
        if len(targets) > 1:
            return Resolution(
                targets[:_MAX_CANDIDATES],
                externals,
                "ambiguous",
                "resolved",
                round(sure / len(targets), 4),
            )
        overriders = ()
        if is_site and targets:
            overriders = self._overriders(file, ref.scope, expr, targets[0])
        return Resolution(targets, externals, "resolved", "resolved", sure, overriders)

    def _ordered(self, values: Values) -> list[Target]:
        """Return the symbols of values, in the order of their ids."""
        found: set[Target] = set()
        for one in values:
            if one[0] in ("F", "C", "O"):
                found.add((one[1], one[2]))
            elif one[0] == "M":
                found.add((one[1], 0))
        if len(found) > 1 and any(index for _, index in found):
            # `require` gives the module and what it exports: the export is meant.
            found = {one for one in found if one[1]}
        return self.inference.ordered_targets(found)

    def _callees(self, values: Values, ref: Ref) -> Values:
        """Instances are called through `__call__`; a module beside its function is not meant."""
        found: set[Value] = set()
        for one in values:
            if one[0] == "I" and self.inference.symbol(one).kind in CLASSES:
                member = self.inference.member(one[1], one[2], "__call__", instance=False)
                found |= member or frozenset()
            elif one[0] in ("F", "C", "X", "XI", "GM"):
                found.add(one)
        return frozenset(found)

    def _implementations(self, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        """Leave out the stubs of typing.overload where the function itself is there."""
        kept = [one for one in targets if "overload" not in self._symbol(one).flags]
        return tuple(kept) or targets

    def _symbol(self, target: Target) -> Symbol:
        return self.inference.facts(target[0]).symbols[target[1]]

    def _by_arity(self, targets: tuple[Target, ...], expr: Expr) -> tuple[Target, ...]:
        """Keep Java overloads that take as many arguments as are given, where any do, and of
        these the ones that no other overrides."""
        n_args = len(expr[2])
        fitting = []
        for file, index in targets:
            facts = self.inference.facts(file)
            symbol = facts.symbols[index]
            if facts.language != "java" or symbol.kind not in FUNCTIONS:
                return targets
            spread = any(one[3] == "*" for one in symbol.params)
            n_params = len(symbol.params)
            if n_args == n_params or (spread and n_args >= n_params - 1):
                fitting.append((file, index))
        exact = [one for one in fitting if self._n_params(one) == n_args]
        return tuple(self._lowest(exact or fitting)) or targets

    def _n_params(self, target: Target) -> int:
        return len(self.inference.facts(target[0]).symbols[target[1]].params)

    def _types_written(self, target: Target) -> list[Expr | None]:
        """Return the parameter types as written, generic arguments left out."""
        symbol = self.inference.facts(target[0]).symbols[target[1]]
        return [one[1][1] if one[1] and one[1][0] == "ta" else one[1] for one in symbol.params]

    def _lowest(self, targets: list[Target]) -> list[Target]:
        """Leave out methods that another target overrides: same types, class further up."""
        kept = []
        for target in targets:
            owner = ("C", target[0], self._parent(target))
            hidden = any(
                other != target
                and self._types_written(other) == self._types_written(target)
                and owner in self.inference.ancestors(other[0], self._parent(other))[1:]
                for other in targets
            )
            if not hidden:
                kept.append(target)
        return kept

    def _parent(self, target: Target) -> int:
        return self.inference.facts(target[0]).symbols[target[1]].parent

    # --- overriding -------------------------------------------------------------------------

    def _overriders(self, file: int, scope: int, expr: Expr, target: Target) -> tuple[Target, ...]:
        """Return methods of subclasses of the receiver that override the target.

        The nearest come first: of the same package, outside tests, of the same file. With the
        target there are at most `MAX_GUESSES`; which subclass it is cannot be told.
        """
        if expr[0] == "nr":
            expr = expr[1]
        symbol = self.inference.facts(target[0]).symbols[target[1]]
        if symbol.kind != "method":
            return ()
        if expr[0] == "n":
            classes = {("C", target[0], symbol.parent)}
        elif expr[0] == "a" and expr[1][0] != "sup":
            bases = self.inference.value(file, scope, expr[1])
            classes = {("C", *one[1:]) for one in bases if one[0] in ("I", "C")}
        else:
            return ()
        files = self.inference.modules.files

        def rank(one: Target) -> tuple[bool, bool, bool, str]:
            there = files[one[0]]
            near = there.package != files[file].package, there.is_test, one[0] != target[0]
            return *near, self.inference.id_of(one)

        found = sorted(self._below(symbol.name, classes, target), key=rank)
        return tuple(found[: MAX_GUESSES - 1])

    def _below(self, name: str, classes: set[Value], target: Target) -> tuple[Target, ...]:
        self.names_asked.add(name)
        found = []
        group = _group(self.inference.language(target[0]))
        for other in self._methods.get(name, ()):
            if other == target or self.inference.language(other[0]) not in group:
                continue
            parent = self.inference.facts(other[0]).symbols[other[1]].parent
            ancestors = self.inference.ancestors(other[0], parent)
            if any(one in classes for one in ancestors[1:]):
                found.append(other)
        return tuple(found)

    # --- by name alone ----------------------------------------------------------------------

    def _guess(self, file: int, ref: Ref, expr: Expr) -> Resolution:
        """Return methods of that name in the same package that fit what else is known."""
        if expr[0] == "nr":
            expr = expr[1]
        if expr[0] != "a":
            return Resolution()
        name = expr[2].removesuffix("()")
        language = self.inference.language(file)
        if name in _COMMON[language] or name.startswith("__"):
            return Resolution()
        if self.inference.value(file, ref.scope, expr[1]):
            # Something is known of the receiver, and it has no such member.
            return Resolution()
        self.names_asked.add(name)
        here = self.inference.modules.files[file]
        group = _group(language)
        candidates = []
        for target in self._methods.get(name, ()):
            there = self.inference.modules.files[target[0]]
            same = there.package == here.package and there.language in group
            if same and (here.is_test or not there.is_test):
                candidates.append(target)
        # Examples and the like beside the sources come after the sources.
        top = here.path.partition("/")[0]
        near = [one for one in candidates if _top(self.inference, one) == top]
        candidates = self.inference.ordered_targets(near or candidates)
        candidates = self._through_properties(candidates)
        candidates = [one for one in candidates if self._takes(one, ref.expr)]
        candidates = self._having(candidates, file, ref.scope, expr[1])
        if len(candidates) > MAX_GUESSES:
            candidates = self._roots(candidates)
        if not candidates:
            return Resolution()
        share = round(0.5 / len(candidates), 4)
        if len(candidates) > MAX_GUESSES:
            kept = tuple(candidates[:_MAX_CANDIDATES])
            return Resolution((), (), "ambiguous", "syntactic", share, kept)
        state = "resolved" if len(candidates) == 1 else "ambiguous"
        return Resolution(tuple(candidates), (), state, "syntactic", share)

    def _through_properties(self, candidates: list[Target]) -> list[Target]:
        """Calling a property calls what it returns: an instance's `__call__`."""
        found: list[Target] = []
        for target in candidates:
            reached = [target]
            if "property" in self._symbol(target).flags:
                made = self.inference.call(frozenset({("F", *target)}))
                reached = []
                for one in self.inference.ordered(made):
                    if one[0] == "I" and self.inference.symbol(one).kind in CLASSES:
                        _, file, index = one
                        member = self.inference.member(file, index, "__call__", instance=False)
                        methods = ((f[1], f[2]) for f in member or () if f[0] == "F")
                        reached += self.inference.ordered_targets(methods)
            found += [one for one in reached if one not in found]
        return found

    def _takes(self, target: Target, expr: Expr) -> bool:
        """Return whether a method can take the arguments given."""
        symbol = self.inference.facts(target[0]).symbols[target[1]]
        modes = [one[3] for one in symbol.params]
        n_own = 1 if self.inference.language(target[0]) == "python" and modes else 0
        if "staticmethod" in symbol.flags:
            n_own = 0
        n_args = sum(one != ["l", "*"] for one in expr[2])
        if "*" not in modes and n_args > sum(one == "" for one in modes) - n_own:
            return self.inference.language(target[0]) in SCRIPTS
        named = {one[0] for one in symbol.params}
        given = {one[0] for one in expr[3]} if len(expr) > 3 else set()
        return "**" in modes or given <= named

    def _having(
        self, candidates: list[Target], file: int, scope: int, receiver: Expr
    ) -> list[Target]:
        """Keep methods of classes that have all attributes used of the receiver besides."""
        if receiver[0] != "n" or len(candidates) < 2:
            return candidates
        used = sorted(self._attributes_used(file, scope, receiver[1]))
        kept = []
        for target in candidates:
            parent = self.inference.facts(target[0]).symbols[target[1]].parent
            if all(self.inference.member(target[0], parent, one) is not None for one in used):
                kept.append(target)
        return kept or candidates

    def _attributes_used(self, file: int, scope: int, name: str) -> set[str]:
        if self._used_of != file:
            self._used.clear()
            self._used_of = file
            for ref in self.inference.facts(file).refs:
                expr = ref.expr[1] if ref.kind in _SITES else ref.expr
                if expr[0] == "a" and expr[1][0] == "n":
                    key = (file, ref.scope, expr[1][1])
                    self._used.setdefault(key, set()).add(expr[2])
        return self._used.get((file, scope, name), set())

    def _roots(self, candidates: list[Target]) -> list[Target]:
        """Leave out methods that override another candidate."""
        owners = {
            ("C", file, self.inference.facts(file).symbols[index].parent): (file, index)
            for file, index in candidates
        }
        return [
            target
            for owner, target in owners.items()
            if not any(one in owners for one in self.inference.ancestors(*owner[1:])[1:])
        ]


def _top(inference: Inference, target: Target) -> str:
    return inference.modules.files[target[0]].path.partition("/")[0]


def _group(language: str) -> frozenset[str]:
    """Return the languages whose files may know each other."""
    return SCRIPTS if language in SCRIPTS else frozenset({language})


def _outside(value: Value) -> str:
    """Return the dotted name of a value outside the index, or an empty text."""
    if value[0] in ("X", "XI"):
        return value[1]
    if value[0] == "GM":
        holder = value[1]
        kind = holder[1] if holder[0] == "G" else "tuple"
        return f"builtins.{kind}.{value[2]}"
    return ""
