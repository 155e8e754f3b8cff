"""Types that are written down, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphmert.domains.code.facts import Expr
from graphmert.domains.code.ontology import known
from graphmert.domains.code.values import EMPTY, Value, Values, container, join, tuple_of

if TYPE_CHECKING:
    from graphmert.domains.code.inference import Inference

_TRANSPARENT = known("transparent_types")
_HOLD_FIRST = known("holds_first")
_HOLD_LAST = known("holds_last")
_PROMISES = known("promises")
_REFERENCES = known("references")


def annotate(inference: Inference, file: int, scope: int, expr: Expr) -> Values:
    """Return the instances that an annotation allows.

    Args:
        inference: looks names up.
        file, scope: where the annotation stands.
        expr: the annotation.
    """
    kind = expr[0]
    if kind == "u":
        return join(annotate(inference, file, scope, one) for one in expr[1])
    if kind == "ta":
        return _generic(inference, file, scope, expr)
    if kind == "t":
        return frozenset({tuple_of(annotate(inference, file, scope, one) for one in expr[1])})
    if kind == "g":
        held = join(annotate(inference, file, scope, one) for one in expr[2])
        return frozenset({container(expr[1], held)})
    if kind == "l":
        return EMPTY if expr[1] == "None" else inference.value(file, scope, expr)
    if kind in ("c", "s"):
        return EMPTY
    return _instances(inference, file, scope, expr)


def _instances(inference: Inference, file: int, scope: int, expr: Expr) -> Values:
    found: list[Values] = []
    for value in inference.value(file, scope, expr):
        if value[0] == "X" and value[1].rpartition(".")[2] in ("Any", "object", "TypeVar"):
            continue
        found.append(_instance(inference, value))
    alias = _alias(inference, file, scope, expr)
    if alias is not None:
        found.append(alias)
    return join(found)


def _instance(inference: Inference, value: Value) -> Values:
    if value[0] == "C" or (value[0] == "F" and inference.language(value[1]) != "python"):
        return frozenset({("I", value[1], value[2])})
    if value[0] == "X":
        name = value[1].rpartition(".")[2]
        if name in _HOLD_FIRST:
            return frozenset({container("list", EMPTY)})
        if name in _HOLD_LAST:
            return frozenset({container("dict", EMPTY)})
        return frozenset({("XI", value[1])})
    return EMPTY


def _alias(inference: Inference, file: int, scope: int, expr: Expr) -> Values | None:
    """Return the instances of a name such as `Alias = Union[A, B]`; None for no alias."""
    if expr[0] != "n":
        return None
    facts = inference.facts(file)
    for index in facts.scopes(scope):
        if expr[1] in facts.symbols[index].names:
            return inference.solver.solve(("alias", file, index, expr[1]))
    return None


def alias_rule(inference: Inference, file: int, index: int, name: str) -> Values:
    """Compute the instances of an alias once; an alias may name itself."""
    facts = inference.facts(file)
    found: list[Values] = []
    for bound in facts.symbols[index].names.get(name, ()):
        if bound[0] == "s" and len(bound) > 3:
            found.append(annotate(inference, file, index, ["ta", bound[1], bound[3]]))
        elif bound[0] in ("u", "ta") and facts.language != "java":
            found.append(annotate(inference, file, index, bound))
        elif bound[0] == "if" and facts.language == "python":
            home = inference.modules.find_python(file, bound[1], bound[2])
            if isinstance(home, int) and home != file:
                found.append(inference.solver.solve(("alias", home, 0, bound[3])))
    return join(found)


def _generic(inference: Inference, file: int, scope: int, expr: Expr) -> Values:
    _, base, args = expr
    name = base[-1] if base[0] in ("n", "a") else ""

    def of(one: Expr) -> Values:
        return annotate(inference, file, scope, one)

    if not isinstance(name, str) or not args:
        return of(base)
    # A class of the project of the same name comes first.
    own = frozenset(v for v in inference.value(file, scope, base) if v[0] == "C")
    if own:
        return join(_instance(inference, one) for one in own)
    if name == "Union":
        return join(of(one) for one in args)
    if name in _TRANSPARENT:
        return of(args[0])
    if name in ("Type", "type", "Class"):
        return join(frozenset({("C", *one[1:])}) for one in of(args[0]) if one[0] == "I")
    if name in ("Tuple", "tuple"):
        if len(args) == 2 and args[1] == ["l", "None"]:
            return frozenset({container("tuple", of(args[0]))})
        return frozenset({tuple_of(of(one) for one in args)})
    if name in ("Coroutine", "ContextManager", "AbstractContextManager", "AsyncContextManager"):
        return of(args[-1] if name == "Coroutine" else args[0])
    if name == "Callable":
        return frozenset({container("callable", of(args[-1]))})
    if name in _PROMISES or name in _REFERENCES:
        return frozenset({container("promise", of(args[0]))})
    if name in _HOLD_FIRST:
        return frozenset({container("list", of(args[0]))})
    if name in _HOLD_LAST:
        return frozenset({container("dict", of(args[-1]))})
    return of(base)
