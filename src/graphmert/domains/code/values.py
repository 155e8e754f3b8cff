"""Values that expressions may have, and the solver that finds them.

A value is a tuple: ("F", file, symbol) a function; ("C", …) a class; ("I", …) an instance of a
class, or of a function used as one; ("O", …) an object literal; ("PR", …) the prototype of a
JavaScript function; ("M", file) a module; ("P", name) a package without a file of its own;
("X", name) something outside; ("XI", name) an instance of something outside; ("G", kind, values)
a container; ("T", parts) a tuple; ("TOP",) too many to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Value = tuple[Any, ...]
Values = frozenset[Value]
EMPTY: Values = frozenset()
TOP: Values = frozenset({("TOP",)})
MAX_VALUES = 16
_MAX_DEPTH = 3
_UNTOUCHED = 1 << 60


def join(parts: Iterable[Values]) -> Values:
    """Return the union; more than `MAX_VALUES` values become TOP.

    Containers of one kind are joined into one that holds what all of them hold.
    """
    found: set[Value] = set()
    for part in parts:
        found |= part
    if len(found) > 1:
        found = _merge(found)
    return TOP if ("TOP",) in found or len(found) > MAX_VALUES else frozenset(found)


def _merge(found: set[Value]) -> set[Value]:
    by_kind: dict[str, list[Value]] = {}
    for value in found:
        if value[0] == "G":
            by_kind.setdefault(value[1], []).append(value)
    for kind, values in by_kind.items():
        if len(values) > 1:
            found = found.difference(values)
            found.add(container(kind, join(one[2] for one in values)))
    return found


def container(kind: str, held: Values) -> Value:
    """Return a container; what is nested too deep is left out."""
    return ("G", kind, _held(held))


def tuple_of(parts: Iterable[Values]) -> Value:
    """Return a tuple of these parts; what is nested too deep is left out."""
    return ("T", tuple(_held(part) for part in parts))


def _held(values: Values) -> Values:
    return frozenset(one for one in values if one[0] != "GM" and _depth(one) < _MAX_DEPTH)


def _depth(value: Value) -> int:
    if value[0] == "G":
        return 1 + max((_depth(one) for one in value[2]), default=0)
    if value[0] == "T":
        return 1 + max((_depth(one) for part in value[1] for one in part), default=0)
    return 0


@dataclass(slots=True)
class _Open:
    index: int
    value: Values = EMPTY
    is_recursive: bool = False


class Solver:
    """The least solution of equations `value(key) = rule(key)`, asked for one key at a time.

    Rules read other keys through `solve` and are monotone, so the solution is the same whichever
    key is asked for first. Keys that need each other are found as strongly connected components
    (Tarjan) and iterated together until nothing changes. With each solved key the set of files
    that were read for it is kept, as a bit mask; `mask` gathers them for whoever asks.

    Args:
        rule: computes the value of a key once.
    """

    def __init__(self, rule: Callable[[tuple], Values]) -> None:
        self._rule = rule
        self._done: dict[tuple, tuple[Values, int]] = {}
        self._open: dict[tuple, _Open] = {}
        self._stack: list[tuple] = []
        self._low = _UNTOUCHED
        self.mask = 0

    def solve(self, key: tuple) -> Values:
        """Return the value of a key."""
        done = self._done.get(key)
        if done is not None:
            self.mask |= done[1]
            return done[0]
        entry = self._open.get(key)
        if entry is not None:
            entry.is_recursive = True
            self._low = min(self._low, entry.index)
            return entry.value
        entry = _Open(len(self._stack))
        self._open[key] = entry
        self._stack.append(key)
        saved_low, saved_mask = self._low, self.mask
        self._low, self.mask = _UNTOUCHED, 0
        entry.value = self._rule(key)
        if self._low >= entry.index and entry.is_recursive:
            # Iterating may find that the component reaches further down the stack.
            self._iterate(entry.index)
        if self._low < entry.index:
            # Part of a component that a key below on the stack will finish.
            self._low = min(self._low, saved_low)
            self.mask |= saved_mask
            return entry.value
        value = entry.value
        for member in self._stack[entry.index :]:
            self._done[member] = (self._open.pop(member).value, self.mask)
        del self._stack[entry.index :]
        self._low = saved_low
        self.mask |= saved_mask
        return value

    def abandon(self) -> None:
        """Forget what was begun and not finished, after an error."""
        self._open.clear()
        self._stack.clear()
        self._low = _UNTOUCHED

    def _iterate(self, first: int) -> None:
        changed = True
        while changed:
            changed = False
            place = first
            # The component may grow while it is iterated.
            while place < len(self._stack):
                key = self._stack[place]
                entry = self._open[key]
                value = join((entry.value, self._rule(key)))
                if value != entry.value:
                    entry.value = value
                    changed = True
                place += 1

    def once(self, cache: dict[tuple, tuple[object, int]], key: tuple, make: Callable) -> object:
        """Return `make()`, kept in `cache` unless it rests on values not yet final."""
        known = cache.get(key)
        if known is not None:
            self.mask |= known[1]
            return known[0]
        saved_low, saved_mask = self._low, self.mask
        self._low, self.mask = _UNTOUCHED, 0
        result = make()
        if self._low == _UNTOUCHED:
            cache[key] = (result, self.mask)
        self._low = min(self._low, saved_low)
        self.mask |= saved_mask
        return result
