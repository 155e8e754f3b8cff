"""Trace the tests of a package and write which call sites reached which functions.

    python benchmarks/trace_calls.py --root SRC --out calls.json [--seconds N] -- PYTEST-ARGUMENTS
    python benchmarks/trace_calls.py --root SRC --out calls.json --modules PACKAGE.MODULE …

With --modules the demonstrations that modules hold for `python -m` run in place of tests.
Runs in the interpreter that has the package's test requirements; it needs nothing of graphmert.
A site is a call expression, known by its file and where it ends; what it reached is
the first Python function entered from it. Left out: calls that a function written in C makes back
(callbacks of sorted, len and so on), implicit calls (operators, properties, iteration, with),
bodies of classes, comprehensions, generators and coroutines (they are entered only when iterated).

Sites that reached something else only (a function in C or of another package) are written too.
A frame between a site and a function is kept in the chain, so that whoever reads the file can
look through wrappers made by decorators. Generated code (no file) is looked through here.
"""

from __future__ import annotations

import argparse
import dis
import json
import sys
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_CALLS = {dis.opmap[name] for name in ("CALL", "CALL_FUNCTION_EX", "CALL_KW") if name in dis.opmap}
_CACHE = dis.opmap.get("CACHE", 0)
_LAZY = 0x20 | 0x80 | 0x200  # generator, coroutine, asynchronous generator
_OPTIMIZED = 0x1
_MAX_CHAIN = 4


class Tracer:
    """Collect chains of (site, function)."""

    def __init__(self, root: Path) -> None:
        self.root = str(root.resolve()) + "/"
        self.codes: dict[int, CodeType] = {}
        self.kinds: dict[int, int] = {}
        self.chains: set[tuple[int, ...]] = set()
        self.in_c: dict[int, int] = {}
        self.others: set[tuple[int, int]] = set()

    def kind(self, code: CodeType) -> int:
        """Return 2 for functions of the package, 1 for generated code, 0 for the rest."""
        known = self.kinds.get(id(code))
        if known is None:
            name = code.co_filename
            known = 2 if name.startswith(self.root) else 1 if name.startswith("<") else 0
            if known == 1 and name.startswith(("<frozen", "<string>")):
                known = 0
            self.kinds[id(code)] = known
            self.codes[id(code)] = code
        return known

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """Take one event of the interpreter."""
        if event == "c_call":
            if self.kind(frame.f_code):
                self.in_c[id(frame)] = frame.f_lasti
                self.others.add((id(frame.f_code), frame.f_lasti))
            return
        if event in ("c_return", "c_exception"):
            self.in_c.pop(id(frame), None)
            return
        if event != "call":
            return
        code = frame.f_code
        kind = self.kind(code)
        if not kind and frame.f_back is not None:
            back = frame.f_back
            if self.kind(back.f_code) == 2 and self.in_c.get(id(back)) != back.f_lasti:
                self.others.add((id(back.f_code), back.f_lasti))
        if kind != 2 or not code.co_flags & _OPTIMIZED or code.co_flags & _LAZY:
            return
        if code.co_name.startswith("<"):
            return
        chain = [id(code)]
        back = frame.f_back
        while back is not None and len(chain) < 1 + 2 * _MAX_CHAIN:
            kind = self.kind(back.f_code)
            if not kind or self.in_c.get(id(back)) == back.f_lasti:
                break
            chain += [id(back.f_code), back.f_lasti]
            back = back.f_back
        if len(chain) > 1:
            self.chains.add(tuple(chain))

    # --- what was seen, in places of files --------------------------------------------------

    def _function(self, key: int) -> dict[str, Any] | None:
        code = self.codes[key]
        if not code.co_filename.startswith(self.root):
            return None
        return {
            "file": code.co_filename[len(self.root) :],
            "line": code.co_firstlineno,
            "name": code.co_qualname,
        }

    def _site(self, key: int, at: int) -> list[int] | None:
        """Return [line, column] where the call at an instruction ends, and the column where it
        starts; None for no call."""
        code = self.codes[key]
        # A call of a Python function leaves the place at the caches behind the instruction.
        while at > 0 and code.co_code[at] == _CACHE:
            at -= 2
        if at < 0 or code.co_code[at] not in _CALLS:
            return None
        _, end_line, column, end_column = list(code.co_positions())[at // 2]
        if end_line is None or end_column is None or column is None:
            return None
        return [end_line, end_column, column]

    def result(self) -> list[dict[str, Any]]:
        """Return chains: the function reached, and the sites from it outwards."""
        found = set()
        for function, *steps in self.chains:
            reached = self._function(function)
            links = []
            for at in range(0, len(steps), 2):
                caller = self._function(steps[at])
                if caller is None:
                    continue
                site = self._site(steps[at], steps[at + 1])
                if site is None:
                    break
                links.append({**caller, "end": site})
            if reached is not None and links:
                found.add(json.dumps({"callee": reached, "sites": links[:_MAX_CHAIN]}))
        return [json.loads(one) for one in sorted(found)]

    def elsewhere(self) -> list[dict[str, Any]]:
        """Return sites from which something outside the package was called."""
        found = set()
        for key, at in self.others:
            caller = self._function(key)
            site = self._site(key, at) if caller is not None else None
            if caller is not None and site is not None:
                found.add(json.dumps({**caller, "end": site}))
        return [json.loads(one) for one in sorted(found)]


def _run_modules(names: list[str]) -> int:
    """Run modules as scripts; how they end does not matter."""
    import contextlib
    import io
    import runpy

    for name in names:
        sys.argv = [name]
        with contextlib.suppress(BaseException), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_module(name, run_name="__main__")
    return 0


def main() -> None:
    """Run pytest under the tracer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the package's files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=900.0, help="stop tracing after this")
    parser.add_argument("--modules", nargs="+", default=[])
    parser.add_argument("pytest", nargs="*")
    given = parser.parse_args()
    import pytest

    tracer = Tracer(given.root)
    begun = time.monotonic()

    def stop_late(frame: FrameType, event: str, arg: Any) -> None:
        tracer(frame, event, arg)

    class Limit:
        def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
            if time.monotonic() - begun > given.seconds:
                pytest.exit("time is up", returncode=0)

    threading.setprofile(stop_late)
    sys.setprofile(stop_late)
    try:
        if given.modules:
            code = _run_modules(given.modules)
        else:
            code = pytest.main([*given.pytest, "-p", "no:cacheprovider"], plugins=[Limit()])
    finally:
        sys.setprofile(None)
    result = {"exit": int(code), "chains": tracer.result(), "elsewhere": tracer.elsewhere()}
    given.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
