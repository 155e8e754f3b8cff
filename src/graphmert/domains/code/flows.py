"""What flows where: assignments, and arguments to the parameters of what is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphmert.domains.code.builder import CLASSES, FUNCTIONS
from graphmert.domains.code.calls import Resolution, Target
from graphmert.domains.code.facts import Ref

if TYPE_CHECKING:
    from graphmert.domains.code.linker import FileLinker


def add_flow(own: FileLinker, ref: Ref) -> None:
    """Add that a variable flows to the one it is assigned to."""
    source = own.variable_of(own.file, ref.scope, ref.expr)
    if source is not None and source[0] == own.file and own.ids[ref.target]:
        _flows(own, source[1], (own.file, ref.target), (ref.start, ref.end), 1.0)


def _flows(
    own: FileLinker, source: int, target: Target, span: tuple[int, int], score: float
) -> None:
    if not own.ids[source]:
        return
    entity = own.l.entity(target)
    # The text names what flows; where it flows to is inferred.
    own.add(source, "flows_to", entity, tail_span=None, site=span, score=score)


def add_argument_flows(own: FileLinker, ref: Ref, found: Resolution) -> None:
    """A variable given as an argument flows to the parameter of the function called."""
    if found.state != "resolved" or len(found.targets) != 1:
        return
    file, index = found.targets[0]
    facts = own.l.inference.facts(file)
    symbol = facts.symbols[index]
    if symbol.kind in CLASSES:
        maker = own.l.inference.member(file, index, "__init__", instance=False)
        inference = own.l.inference
        inner = inference.ordered(one for one in maker or () if one[0] == "F")
        if not inner:
            return
        file, index = inner[0][1:]
        symbol = own.l.inference.facts(file).symbols[index]
    if symbol.kind not in FUNCTIONS:
        return
    skip = int(symbol.kind == "method" and facts.language == "python")
    skip -= "staticmethod" in symbol.flags
    places = [one for one in symbol.params if one[3] in ("", "pos")][max(skip, 0) :]
    pairs = list(zip(ref.expr[2], places, strict=False))
    named = {one[0]: one for one in symbol.params}
    for name, expr in ref.expr[3] if len(ref.expr) > 3 else ():
        if name in named:
            pairs.append((expr, named[name]))
    for expr, parameter in pairs:
        source = own.variable_of(own.file, ref.scope, expr) if expr[0] in "na" else None
        if source is not None and source[0] == own.file and parameter[4] >= 0:
            _flows(own, source[1], (file, parameter[4]), (ref.start, ref.end), 0.9)
