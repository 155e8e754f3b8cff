"""What parameters are given, by the calls in their own file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphmert.domains.code.facts import Expr
from graphmert.domains.code.values import EMPTY, Values, join

if TYPE_CHECKING:
    from graphmert.domains.code.inference import Inference

_CONSTRUCTORS = ("__init__", "constructor")


def given(inference: Inference, file: int, index: int, place: int) -> Values:
    """Return what calls in the same file give a parameter.

    Calls elsewhere are not asked: their file would have to be linked again with every change
    here. A call counts if what it calls may be the function, or the class it constructs.

    Args:
        inference: looks names up.
        file, index: the function.
        place: the parameter's place among its parameters.
    """
    symbol = inference.facts(file).symbols[index]
    name, wanted = symbol.name, ("F", file, index)
    skip = 0
    if symbol.kind == "method" and inference.language(file) == "python":
        skip = int("staticmethod" not in symbol.flags)
    if symbol.name in _CONSTRUCTORS and symbol.kind == "method":
        name = inference.facts(file).symbols[symbol.parent].name
        wanted = ("C", file, symbol.parent)
    found: list[Values] = []
    for scope, expr in _sites(inference, file).get(name, ()):
        argument = _argument(expr, place - skip, symbol.params[place][0])
        if argument is None or argument[0] == "l":
            continue
        if wanted in inference.value(file, scope, expr[1]):
            found.append(inference.value(file, scope, argument))
    return join(found) if found else EMPTY


def _argument(expr: Expr, place: int, name: str) -> Expr | None:
    args = expr[2]
    if ["l", "*"] in args:
        return None
    if 0 <= place < len(args):
        return args[place]
    for key, value in expr[3] if len(expr) > 3 else ():
        if key == name:
            return value
    return None


def _sites(inference: Inference, file: int) -> dict[str, list[tuple[int, Expr]]]:
    """Return the calls of a file by the last name of what they call."""
    known = inference.sites.get(file)
    if known is None:
        known = {}
        for ref in inference.facts(file).refs:
            if ref.kind in ("call", "new"):
                callee = ref.expr[1]
                last = callee[-1] if callee[0] in ("n", "a") else ""
                if isinstance(last, str) and last:
                    known.setdefault(last, []).append((ref.scope, ref.expr))
        inference.sites[file] = known
    return known
