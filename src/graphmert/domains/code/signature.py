"""What other files can see of a file, as values: when it stays, they need not be linked again."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from graphmert.domains.code.builder import CLASSES, FUNCTIONS

if TYPE_CHECKING:
    from graphmert.domains.code.linker import Linker

_ALIASES = ("s", "u", "ta", "if")
_NAME = re.compile(r"[\s.#]")
_IMPLICIT = frozenset({"*", "constructor", "prototype", "default", "exports"})


def _hash(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:10]


def signature(linker: Linker, file: int) -> dict[str, str]:
    """Return hashes of what others can see of a file: one for each name, with its values.

    Keys are entity ids and names in scopes, classes and exports. Values are written with entity
    ids, so that definitions may move. Two states of a file with one signature give every other
    file the same rows.

    Args:
        linker: knows values and ids.
        file: the file.
    """
    return _Signature(linker, file).entries()


def affected(before: dict[str, str], after: dict[str, str]) -> set[str] | None:
    """Return which names came, when nothing else changed; None when something else did.

    A file that reads this one is affected by a name that came only if it writes that name.
    Python looks names with two underscores up by itself, so these count as something else.
    """
    if any(after.get(key) != value for key, value in before.items()):
        return None
    came = {_NAME.split(key)[-1].partition("~")[0] for key in after.keys() - before.keys()}
    return None if any(one.startswith("__") or one in _IMPLICIT for one in came) else came


class _Signature:
    def __init__(self, linker: Linker, file: int) -> None:
        self.inference = linker.inference
        self.file = file
        self.facts = linker.inference.facts(file)

    def entries(self) -> dict[str, str]:
        found: dict[str, list[Any]] = {}
        solve = self.inference.solver.solve
        for index in range(len(self.facts.symbols)):
            self._add(found, index)
        for name in sorted(self.facts.export_exprs):
            value = self.inference.show_all(solve(("export", self.file, 0, name)))
            found.setdefault(f"export {name}", []).append(value)
        for scope, base, name, expr in self.facts.assigns:
            held = self.inference.show_all(self.inference.value(self.file, scope, base))
            value = self.inference.show_all(self.inference.value(self.file, scope, expr))
            found.setdefault(f"assign {name}", []).append([held, value])
        listed = [self.facts.exports, self.facts.package_name]
        found["listed *"] = listed
        return {key: _hash(value) for key, value in sorted(found.items())}

    def _add(self, found: dict[str, list[Any]], index: int) -> None:
        symbol = self.facts.symbols[index]
        solve = self.inference.solver.solve
        own = self.inference.id_of((self.file, index))
        params = [[one[0], one[3], one[1]] for one in symbol.params]
        row: list[Any] = [symbol.kind, symbol.flags, params]
        if symbol.kind in FUNCTIONS:
            row.append(self.inference.show_all(solve(("return", self.file, index))))
        for place in range(len(symbol.bases) + len(symbol.interfaces)):
            row.append(self.inference.show_all(solve(("base", self.file, index, place))))
        found.setdefault(own, []).append(row)
        if symbol.kind in CLASSES or symbol.kind == "module":
            for name in sorted(symbol.names):
                value = [self.inference.show_all(solve(("name", self.file, index, name)))]
                if any(one[0] in _ALIASES for one in symbol.names[name]):
                    value.append(self.inference.show_all(solve(("alias", self.file, index, name))))
                made = [one[1] for one in symbol.names[name] if one[0] == "d"]
                value.append([self.inference.id_of((self.file, one)) for one in made])
                found.setdefault(f"{own} {name}", []).append(value)
        for name in sorted(symbol.attrs):
            value = self.inference.show_all(solve(("attr", self.file, index, name)))
            found.setdefault(f"{own} attr {name}", []).append([value])
