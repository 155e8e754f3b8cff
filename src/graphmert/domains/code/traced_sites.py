"""Traced calls as the truth of call sites: which definition each place really called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from graphmert.domains.code.truth import _Index, _truth
from graphmert.errors import FormatError
from graphmert.shards import Ledger
from graphmert.store import RunDir

_CLASSES = frozenset({"Class", "ExceptionType", "Interface", "Test"})


def traced_sites(
    run: RunDir, package: str, trace: Path
) -> tuple[list[dict[str, str | int | None]], Ledger]:
    """The target of every call site of a package that ran and reached one thing.

    A constructor that was entered stands for its class where the site writes the class's name. A
    site that only reached something outside the package has no target.

    Args:
        run: the index.
        package: which package of it.
        trace: what `benchmarks/trace_calls.py` wrote.

    Returns: rows of doc_id, start and target_id, sorted, and the ledger of the sites that ran.

    Raises:
        FormatError: the trace is not one.
    """
    index = _Index(run, package)
    try:
        tree = json.loads(trace.read_text(encoding="utf-8"))
        chains, elsewhere = tree["chains"], tree["elsewhere"]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError("not a trace of calls", where=str(trace), got=error) from error
    reached = _truth(index, chains)
    ledger = Ledger(f"traced sites of {package}")
    rows: list[dict[str, str | int | None]] = []
    outside = {place for one in elsewhere if (place := index.place(one)) is not None}
    for place in sorted({*reached, *outside}):
        ledger.offered()
        site = index.sites.get(place)
        if site is None:
            ledger.leave_out("no reference of the index ends there")
            continue
        name = site["text"].rsplit(".", 1)[-1]
        targets = set(_named(index, reached.get(place, set()), name))
        if len(targets) > 1:
            ledger.leave_out("it reached several definitions")
            continue
        if reached.get(place) and not targets:
            ledger.leave_out("what it reached has another name")
            continue
        ledger.keep()
        target = targets.pop() if targets else None
        rows.append({"doc_id": site["doc_id"], "start": site["start"], "target_id": target})
    return rows, ledger.check()


def _named(index: _Index, reached: set[str], name: str) -> Iterator[str]:
    """Definitions of that name among what was reached; a class for its constructor."""
    for one in reached:
        symbol = index.symbols[one]
        if symbol["name"] == name:
            yield one
            continue
        parent = index.symbols.get(symbol["parent_id"])
        if parent is not None and parent["kind"] in _CLASSES and parent["name"] == name:
            yield parent["entity_id"]
