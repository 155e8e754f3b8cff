"""What is where in a file: containment, members, overriding, and the rows of symbols."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphmert.domains.code.builder import CLASSES, FUNCTIONS
from graphmert.domains.code.entities import End, java_package_id, repository_id
from graphmert.domains.code.facts import Symbol
from graphmert.domains.code.values import Value

if TYPE_CHECKING:
    from graphmert.domains.code.linker import FileLinker


def add_structure(own: FileLinker) -> None:
    """Add what the file, its classes and its functions contain and declare."""
    document = own.rows.document
    package = End(repository_id(document.package), document.package, "Repository")
    _contain(own, package, 0, (0, 0))
    if own.facts.package_name:
        name = own.facts.package_name
        found = document.text.find(name)
        span = (found, found + len(name)) if found >= 0 else (0, 0)
        java = End(java_package_id(document.package, name), name, "Module")
        _contain(own, java, 0, span)
    for index, symbol in enumerate(own.facts.symbols):
        if index and own.ids[index]:
            _define(own, index, symbol)
    _contain_submodules(own)


def _contain(own: FileLinker, head: End, index: int, span: tuple[int, int]) -> None:
    tail = own.l.entity((own.file, index))
    own.rows.n_offered += 1
    own.rows.add_triple(
        (head.entity_id, head.name),
        "contains",
        (tail.entity_id, tail.name),
        head_span=span,
        tail_span=None,
        site=span,
        resolver="resolved",
        score=1.0,
    )


def _contain_submodules(own: FileLinker) -> None:
    """A package's front contains the modules beside it; the module itown says so."""
    modules = own.l.inference.modules
    dotted = modules.dotted.get(own.file, "")
    parent = dotted.rpartition(".")[0]
    front = modules.find_python(own.file, parent, 0) if parent else None
    if isinstance(front, int) and front != own.file:
        _contain(own, own.l.entity((front, 0)), 0, (0, 0))


def _define(own: FileLinker, index: int, symbol: Symbol) -> None:
    parent = own.own(symbol.parent)
    around = own.facts.symbols[symbol.parent].kind
    kind = symbol.kind
    owner = [one for one in symbol.flags if one.startswith("owner=")]
    if owner:
        parent = int(owner[0][6:])
        around = "class"
    if kind == "local":
        return
    if kind == "parameter":
        relation = "has_parameter"
        if around == "method" and symbol.name in ("self", "cls"):
            return
    elif kind == "field":
        relation = "has_field"
    elif kind in FUNCTIONS and around in CLASSES:
        relation = "declares"
    elif not parent:
        relation = "defines"
    else:
        relation = "contains"
    span = own.name_span(index)
    tail = own.l.entity((own.file, index))
    own.add(parent, relation, tail, tail_span=span, site=span)
    if kind == "method":
        _override(own, index, symbol)


def _override(own: FileLinker, index: int, symbol: Symbol) -> None:
    if symbol.name in ("__init__", "constructor") or "constructor" in symbol.flags:
        return
    inference = own.l.inference
    key = symbol.name + ("()" if own.language == "java" else "")
    for one in inference.ancestors(own.file, symbol.parent)[1:]:
        if one[0] != "C":
            continue
        for bound in inference.symbol(one).names.get(key, ()):
            if bound[0] == "d" and _same_arity(own, symbol, one, bound[1]):
                span = own.name_span(index)
                tail = own.l.entity((one[1], bound[1]))
                own.add(index, "overrides", tail, tail_span=span, site=span, score=0.9)
                return


def _same_arity(own: FileLinker, symbol: Symbol, owner: Value, index: int) -> bool:
    other = own.l.inference.facts(owner[1]).symbols[index]
    if other.kind != "method":
        return False
    return own.language != "java" or len(other.params) == len(symbol.params)


def add_symbols(own: FileLinker) -> None:
    """Add the rows of symbols; locals only where a triple speaks of them."""
    document = own.rows.document
    for index, symbol in enumerate(own.facts.symbols):
        if not own.ids[index] or (symbol.kind == "local" and index not in own.locals):
            continue
        entity = own.l.entity((own.file, index))
        qualified = symbol.qualname if index else entity.name
        synonyms = [qualified] if qualified != entity.name else []
        own.rows.columns["kg/entities"].append(
            (entity.entity_id, entity.name, entity.type, synonyms, [])
        )
        start, end, name_start, name_end, body_start, body_end, *rest = symbol.span
        doc_start, doc_end, first, last = rest
        bound = symbol.params[:1] if own.language == "python" else []
        is_bound = symbol.kind == "method" and bound and "staticmethod" not in symbol.flags
        own.rows.columns["code/symbols"].append(
            (
                entity.entity_id,
                entity.type,
                entity.name,
                qualified,
                document.language,
                document.package,
                document.path,
                document.doc_id,
                start,
                end,
                name_start,
                name_end,
                body_start,
                body_end,
                doc_start if doc_start >= 0 else None,
                doc_end if doc_start >= 0 else None,
                first,
                last,
                own.ids[own.own(symbol.parent)] if index else None,
                document.is_test or "test" in symbol.flags,
                symbol.kind == "local",
                len(symbol.params) - int(bool(is_bound)),
            )
        )
