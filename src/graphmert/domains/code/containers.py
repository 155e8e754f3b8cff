"""What containers, tuples and context managers hold and give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphmert.domains.code.annotations import annotate
from graphmert.domains.code.builder import CLASSES
from graphmert.domains.code.facts import Expr
from graphmert.domains.code.values import EMPTY, TOP, Values, join

if TYPE_CHECKING:
    from graphmert.domains.code.inference import Inference


def iterate(inference: Inference, values: Values) -> Values:
    """Return what iterating yields."""
    parts: list[Values] = []
    rest: list[Any]
    for value in values:
        kind, *rest = value
        if kind == "G" and rest[0] != "dict":
            parts.append(rest[1])
        elif kind == "T":
            tuple_parts: Any = rest[0]
            parts.extend(tuple_parts)
        elif kind == "I" and inference.symbol(value).kind in CLASSES:
            parts.append(inference.solver.solve(("iterated", *rest)))
        elif kind == "TOP":
            parts.append(TOP)
    return join(parts)


def iterated_rule(inference: Inference, file: int, index: int) -> Values:
    """Return what iterating an instance of a class yields."""
    maker = inference.member(file, index, "__iter__", instance=False)
    made = inference.call(maker) if maker is not None else EMPTY
    stepper = inference.member(file, index, "__next__", instance=False)
    own = inference.call(stepper) if stepper is not None else EMPTY
    return join((own, iterate(inference, made - {("I", file, index)})))


def awaited(values: Values) -> Values:
    """Return what awaiting gives: promises and coroutines are what they hold."""
    return join(
        one[2] if one[0] == "G" and one[1] in ("promise", "generator") else frozenset({one})
        for one in values
    )


def subscript(inference: Inference, file: int, scope: int, expr: Expr) -> Values:
    """Return what a subscript gives."""
    parts: list[Values] = []
    for value in inference.value(file, scope, expr[1]):
        if value[0] == "G":
            parts.append(value[2])
        elif value[0] == "T":
            key = expr[2]
            if isinstance(key, str) and key.isdigit() and int(key) < len(value[1]):
                parts.append(value[1][int(key)])
            else:
                parts.extend(value[1])
        elif value[0] == "I" and inference.symbol(value).kind in CLASSES:
            getter = inference.member(value[1], value[2], "__getitem__", instance=False)
            parts.append(inference.call(getter) if getter is not None else EMPTY)
        elif value[0] == "C":
            parts.append(frozenset({value}))
        elif value[0] in ("O", "M") and isinstance(expr[2], str):
            parts.append(inference.attribute(frozenset({value}), expr[2]))
        elif value[0] == "TOP":
            parts.append(TOP)
    return join(parts)


def part_of(inference: Inference, file: int, scope: int, expr: Expr) -> Values:
    """Return the k-th part of what is taken apart."""
    parts: list[Values] = []
    for value in inference.value(file, scope, expr[1]):
        if value[0] == "T":
            if expr[2] < len(value[1]):
                parts.append(value[1][expr[2]])
        else:
            parts.append(iterate(inference, frozenset({value})))
    return join(parts)


def entered(inference: Inference, file: int, scope: int, expr: Expr) -> Values:
    """Return what `with` binds."""
    parts: list[Values] = []
    for value in inference.value(file, scope, expr[1]):
        entered = None
        if value[0] == "I" and inference.symbol(value).kind in CLASSES:
            for name in ("__enter__", "__aenter__"):
                if entered is None:
                    entered = inference.member(value[1], value[2], name, instance=False)
            parts.append(inference.call(entered) if entered is not None else frozenset({value}))
        elif value[0] == "G" and value[1] in ("generator", "list"):
            # A function under contextlib.contextmanager.
            parts.append(value[2])
        else:
            parts.append(frozenset({value}))
    return join(parts)


def narrowed(inference: Inference, file: int, scope: int, expr: Expr) -> Values:
    """Return what is left of a value after isinstance: instances of the types."""
    return annotate(inference, file, scope, expr[2])
