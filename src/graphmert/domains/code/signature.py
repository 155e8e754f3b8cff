"""What other files can see of a file, as values: when it stays, they need not be linked again."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from graphmert.domains.code.builder import CLASSES, FUNCTIONS
from graphmert.domains.code.values import Value, Values

if TYPE_CHECKING:
    from graphmert.domains.code.linker import Linker

_ALIASES = ("s", "u", "ta", "if")


def signature(linker: Linker, file: int) -> str:
    """Return a hash of a file's names, members, bases, returns and exports, each with its values.

    Values are written with entity ids, so that definitions may move. Two states of a file with
    one signature give every other file the same rows.

    Args:
        linker: knows values and ids.
        file: the file.
    """
    return _Signature(linker, file).digest()


class _Signature:
    def __init__(self, linker: Linker, file: int) -> None:
        self.l = linker
        self.inference = linker.inference
        self.file = file
        self.facts = linker.inference.facts(file)

    def digest(self) -> str:
        rows = [self._row(index) for index in range(len(self.facts.symbols))]
        solve = self.inference.solver.solve
        exports = [
            [name, self._show(solve(("export", self.file, 0, name)))]
            for name in sorted(self.facts.export_exprs)
        ]
        assigns = [
            [
                self._show(self.inference.value(self.file, scope, base)),
                name,
                self._show(self.inference.value(self.file, scope, expr)),
            ]
            for scope, base, name, expr in self.facts.assigns
        ]
        value = [rows, exports, assigns, self.facts.exports, self.facts.package_name]
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:24]

    def _row(self, index: int) -> list[Any]:
        symbol = self.facts.symbols[index]
        solve = self.inference.solver.solve
        params = [[one[0], one[3], one[1]] for one in symbol.params]
        row: list[Any] = [self._id(self.file, index), symbol.kind, symbol.flags, params]
        if symbol.kind in FUNCTIONS:
            row.append(self._show(solve(("return", self.file, index))))
        if symbol.kind in CLASSES or symbol.kind == "module":
            for name in sorted(symbol.names):
                row.append([name, self._show(solve(("name", self.file, index, name)))])
                if any(one[0] in _ALIASES for one in symbol.names[name]):
                    row.append(self._show(solve(("alias", self.file, index, name))))
                made = [one[1] for one in symbol.names[name] if one[0] == "d"]
                row.append([self._id(self.file, one) for one in made])
        for name in sorted(symbol.attrs):
            row.append([name, self._show(solve(("attr", self.file, index, name)))])
        for place in range(len(symbol.bases) + len(symbol.interfaces)):
            row.append(self._show(solve(("base", self.file, index, place))))
        return row

    def _id(self, file: int, index: int) -> str:
        found = self.l.ids(file)[index]
        return found or f"{self.l.ids(file)[0]}#{index}"

    def _show(self, values: Values) -> list[Any]:
        return sorted((self._value(one) for one in values), key=repr)

    def _value(self, value: Value) -> list[Any]:
        kind = value[0]
        if kind == "G":
            return [kind, value[1], self._show(value[2])]
        if kind == "T":
            return [kind, [self._show(part) for part in value[1]]]
        if kind == "GM":
            return [kind, self._value(value[1]), value[2]]
        if kind in ("M", "MG"):
            return [kind, self.l.ids(value[1])[0]]
        if len(value) == 3:
            return [kind, self._id(value[1], value[2])]
        return list(value)
