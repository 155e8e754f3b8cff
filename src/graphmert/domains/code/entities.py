"""Entities of the code graph: their ids and types."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphmert.domains.code.builder import CLASSES
from graphmert.domains.code.facts import FileFacts
from graphmert.domains.code.ontology import known

if TYPE_CHECKING:
    from graphmert.domains.code.inference import Inference

_EXCEPTION_ENDS = ("Error", "Exception", "Warning", "Throwable", "Interrupt", "Exit", "Fault")
_BUILTIN_TYPES = frozenset(
    {"str", "int", "float", "bool", "bytes", "list", "dict", "set", "tuple", "object", "frozenset"}
    | {"type", "complex", "bytearray", "range", "memoryview", "slice", "property", "None"}
    | {"byte", "short", "long", "char", "double", "boolean", "void", "string", "number", "any"}
    | {"unknown", "never", "bigint", "symbol", "undefined"}
)

_PLAIN_EXCEPTIONS = known("plain_exceptions")


@dataclass(frozen=True)
class End:
    """One end of a triple: an entity, and the symbol (file, index) where it has one."""

    entity_id: str
    name: str
    type: str
    home: tuple[int, int] = (-1, -1)


def entity_ids(facts: FileFacts, doc_id: str) -> list[str]:
    """Return the id of each symbol; an empty text for scopes that are no entity.

    A qualified name that comes again in the file gets `~2`, `~3` and so on.
    """
    ids = [doc_id]
    seen: dict[str, int] = {}
    for symbol in facts.symbols[1:]:
        if symbol.kind == "lambda" or not symbol.name:
            ids.append("")
            continue
        n = seen.get(symbol.qualname, 0) + 1
        seen[symbol.qualname] = n
        ids.append(f"{doc_id}#{symbol.qualname}" + (f"~{n}" if n > 1 else ""))
    return ids


def is_exception_name(name: str) -> bool:
    """Return whether a type is an exception by its name."""
    return name.endswith(_EXCEPTION_ENDS) or name in ("StopIteration", "StopAsyncIteration")


class EntityTypes:
    """Types of the ontology for symbols.

    Args:
        inference: knows the ancestors of classes.
    """

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def of(self, file: int, index: int) -> str:
        """Return the entity type of a symbol; an empty text for what is no entity."""
        symbol = self._inference.facts(file).symbols[index]
        kind = symbol.kind
        if kind == "module":
            return "File" if self._inference.language(file) == "java" else "Module"
        if kind == "lambda":
            return ""
        if "test" in symbol.flags:
            return "Test"
        if kind in ("function", "method"):
            return kind.capitalize()
        if kind == "interface":
            return "Interface"
        if kind == "annotation":
            return "Annotation"
        if kind in CLASSES and kind != "object":
            return "ExceptionType" if self._is_exception(file, index) else "Class"
        return "Variable"

    def _is_exception(self, file: int, index: int) -> bool:
        for one in self._inference.ancestors(file, index):
            if one[0] == "C":
                name = self._inference.symbol(one).name
            elif one[0] == "X":
                name = one[1].rpartition(".")[2]
            else:
                continue
            if is_exception_name(name):
                return True
        return False


def outside_id(language: str, dotted: str) -> str:
    """Return the id of a name outside the index."""
    return f"ext:{language}:{dotted}"


def library_id(language: str, name: str) -> str:
    """Return the id of a library outside the index."""
    return f"lib:{language}:{name}"


def repository_id(package: str) -> str:
    """Return the id of a repository."""
    return f"repo:{package}"


def java_package_id(package: str, dotted: str) -> str:
    """Return the id of a Java package."""
    return f"java:{package}/{dotted}"


def is_shared(entity_id: str) -> bool:
    """Return whether an entity belongs to no single file."""
    return entity_id.startswith(("ext:", "lib:", "repo:", "java:"))


def shared_entity(entity_id: str, relations: Iterable[str]) -> tuple[str, str]:
    """Return name and type of an entity that belongs to no file, from its id and its use.

    The use only tells which types are exceptions: the ontology takes an ExceptionType wherever it
    takes a Type, so that what one file says of a name never unsettles a triple of another. A name
    that may be a function's is one however it is used.

    Args:
        entity_id: the id.
        relations: the relations it is the tail of.
    """
    kind, _, rest = entity_id.partition(":")
    if kind == "repo":
        return rest, "Repository"
    if kind == "java":
        return rest.rpartition("/")[2], "Module"
    name = rest.partition(":")[2]
    if kind == "lib":
        return name, "Library"
    if name.startswith("@"):
        return name[1:], "Annotation"
    last = name.rpartition(".")[2]
    if is_exception_name(last) or name in _PLAIN_EXCEPTIONS:
        return name, "ExceptionType"
    if last[:1].isupper() or last in _BUILTIN_TYPES:
        return name, "ExceptionType" if {"raises", "catches"} & set(relations) else "Type"
    return name, "API"
