"""Hold resolved calls against what was seen when the code ran, or against labels.

The truth of a Python package is a trace of its own tests (`benchmarks/trace_calls.py`). A hit is
a site whose set of candidates has at most three members and holds the function reached. A class
stands for the constructors that it or its ancestors define. Where a function is reached through a
wrapper that a decorator of the package made, the function is what the site calls, not the wrapper.

- recall: pairs (site, function) that are hits, over all pairs. What the index did not see counts
  as missed: a call expression (by Python's own parser) that is no reference of the index, and a
  function that is no symbol of it. `recall_of_seen` is over the rest.
- precision: sites with a set of candidates that holds a function reached, over all sites that ran
  and have candidates; a site that only reached something outside the package counts as wrong,
  unless the candidate is decorated or makes no frame of its own, which a trace cannot tell.
"""

from __future__ import annotations

import ast
import bisect
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graphmert.domains.code.columns import rows_where
from graphmert.domains.code.walk import is_test_path
from graphmert.errors import FormatError
from graphmert.store import RunDir

MAX_CANDIDATES = 3
_MAX_EXAMPLES, _MAX_SHOWN = 200, 40
_CALLS = ("calls", "invokes", "instantiates")
_CONSTRUCTORS = ("__init__", "__new__", "__post_init__", "__call__")
_LINE_END = re.compile(r"\r\n|\r|\n")
"""Where a line ends for Python; a form feed, unlike for str.splitlines, ends none."""


class _Index:
    """What the tables say of one package."""

    def __init__(self, run: RunDir, package: str) -> None:
        symbols = rows_where(run.read("code/symbols"), "package", package).to_pylist()
        self.symbols = {one["entity_id"]: one for one in symbols}
        self._read_texts(run, package)
        self.at = {
            (one["path"], self._line(one["path"], one["start"]), one["name"]): one["entity_id"]
            for one in symbols
            if one["kind"] in ("Function", "Method", "Test")
        }
        self.children: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for one in symbols:
            self.children[one["parent_id"]].append(one)
        references = rows_where(run.read("code/references"), "package", package).to_pylist()
        self.sites: dict[tuple[str, int], dict[str, Any]] = {}
        self.decorators: set[str] = set()
        for one in references:
            if one["relation"] in _CALLS:
                self.sites[one["path"], one["site_end"]] = one
            elif one["relation"] == "annotated_with" and one["target_id"]:
                self.decorators.add(one["target_id"])
        wanted = rows_where(run.read("kg/triples"), "relation", "inherits_from")
        self.parents: dict[str, list[str]] = defaultdict(list)
        for head, tail in zip(
            wanted["head_id"].to_pylist(), wanted["tail_id"].to_pylist(), strict=True
        ):
            self.parents[head].append(tail)

    def _read_texts(self, run: RunDir, package: str) -> None:
        documents = run.read("corpus/documents")
        self.texts: dict[str, str] = {}
        self._starts: dict[str, list[int]] = {}
        self._calls: dict[str, set[tuple[int, int, int]]] = {}
        self.unparsed: set[str] = set()
        prefix = f"{package}/"
        for doc_id, text in zip(
            documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True
        ):
            if doc_id.startswith(prefix):
                path = doc_id[len(prefix) :]
                self.texts[path] = text
                self._starts[path] = [0, *(one.end() for one in _LINE_END.finditer(text))]

    def offset(self, path: str, end: list[int]) -> int:
        """Return the character offset of [line, byte column, …]."""
        line, column = end[:2]
        start = self._starts[path][line - 1]
        # A character has one byte at least.
        text = self.texts[path][start : start + column].encode("utf-8")[:column]
        return start + len(text.decode("utf-8", errors="replace"))

    def _is_call(self, path: str, end: list[int]) -> bool:
        """Return whether a call expression stands there, by Python's own parser."""
        if path not in self._calls:
            try:
                nodes = list(ast.walk(ast.parse(self.texts[path])))
            except (SyntaxError, ValueError, RecursionError):
                self.unparsed.add(path)
                nodes = []
            self._calls[path] = {
                (one.end_lineno or 0, one.end_col_offset or 0, one.col_offset)
                for one in nodes
                if isinstance(one, ast.Call)
            }
        return (end[0], end[1], end[2]) in self._calls[path]

    def place(self, site: Mapping[str, Any]) -> tuple[str, int] | None:
        """Return (path, end) of a site; None where no call expression stands there."""
        path = site["file"]
        if path not in self.texts or not self._is_call(path, site["end"]):
            return None
        return path, self.offset(path, site["end"])

    def _line(self, path: str, offset: int) -> int:
        """Return the line of an offset as Python counts lines."""
        return bisect.bisect_right(self._starts[path], offset) if path in self._starts else 0

    def function(self, path: str, line: int, name: str) -> str | None:
        """Return the entity of a function that ran."""
        return self.at.get((path, line, name.rpartition(".")[2]))

    def is_wrapper(self, entity_id: str) -> bool:
        """Return whether a function was made or is called by a decorator of the package."""
        parent = self.symbols[entity_id]["parent_id"]
        while parent in self.symbols:
            if parent in self.decorators:
                return True
            parent = self.symbols[parent]["parent_id"]
        return False

    def reaches(self, candidate: str) -> set[str]:
        """Return the functions that calling a candidate enters."""
        symbol = self.symbols.get(candidate)
        if symbol is None or symbol["kind"] not in ("Class", "ExceptionType", "Test", "Interface"):
            return {candidate}
        found, todo, seen = {candidate}, [candidate], set()
        while todo:
            one = todo.pop()
            if one in seen:
                continue
            seen.add(one)
            found |= {
                child["entity_id"] for child in self.children[one] if child["name"] in _CONSTRUCTORS
            }
            todo.extend(self.parents.get(one, ()))
        return found

    def is_unseen(self, candidate: str) -> bool:
        """Return whether a trace may not show that a candidate was reached."""
        symbol = self.symbols.get(candidate)
        if symbol is None:
            return True
        if symbol["kind"] in ("Class", "ExceptionType", "Interface"):
            return True
        return self.is_decorated(candidate)

    def shown(self, place: tuple[str, int]) -> str:
        """Return path, line and the end of the text of a site."""
        path, end = place
        text = self.texts[path][max(end - _MAX_SHOWN, 0) : end]
        return f"{path}:{self._line(path, end)} {text}"

    def only_wrappers(self, reached: set[str]) -> bool:
        """Return whether nothing but wrappers of decorators was reached."""
        return all(self.is_wrapper(one) for one in reached)

    def is_decorated(self, entity_id: str) -> bool:
        """Return whether a definition begins with a decorator."""
        symbol = self.symbols.get(entity_id)
        if symbol is None:
            return False
        return self.texts[symbol["path"]].startswith("@", symbol["start"])


def candidates_of(site: Mapping[str, Any]) -> list[str]:
    """Return what a reference may lead to, best first."""
    found = list(site["candidates"]) or ([site["target_id"]] if site["target_id"] else [])
    return found if site["target_id"] else []


def compare_trace(
    run: RunDir | Path | str, package: str, trace: Path | str, *, tests: bool = False
) -> dict[str, Any]:
    """Compare the calls of a package with a trace of its tests.

    Args:
        run: the index.
        package: which package of it.
        trace: what `benchmarks/trace_calls.py` wrote.
        tests: count sites in tests too.

    Raises:
        FormatError: the trace is not one.
    """
    index = _Index(run if isinstance(run, RunDir) else RunDir(run), package)
    try:
        tree = json.loads(Path(trace).read_text(encoding="utf-8"))
        chains, elsewhere = tree["chains"], tree["elsewhere"]
    except (KeyError, json.JSONDecodeError) as error:
        raise FormatError("not a trace of calls", where=str(trace), got=error) from error
    truth = _truth(index, chains)
    unknown = _unknown_callees(index, chains)
    outside = set()
    for one in elsewhere:
        place = index.place(one)
        if place is not None:
            outside.add(place)
    seen = {*truth, *unknown}
    result = _score(index, truth, unknown, outside - seen, tests=tests)
    firsts = [one["sites"][0] for one in chains if one["sites"]]
    away = {(one["file"], *one["end"]) for one in firsts if one["file"] not in index.texts}
    result["sites_not_in_index"] = sum(one not in index.sites for one in seen)
    result["sites_in_files_not_read"] = len(away)
    result["files_python_cannot_parse"] = sorted(index.unparsed)
    return result


def _truth(index: _Index, chains: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], set[str]]:
    """Return the functions that each site reached, wrappers looked through."""
    reached: dict[tuple[str, int], set[str]] = defaultdict(set)
    wrapped: set[tuple[tuple[str, int], str]] = set()
    for chain in chains:
        callee = chain["callee"]
        target = index.function(callee["file"], callee["line"], callee["name"])
        if target is None:
            continue
        through: list[str] = []
        for site in chain["sites"]:
            if through and not index.is_decorated(target):
                # The wrapper's own business, not what it wraps.
                break
            place = index.place(site)
            if place is None:
                break
            reached[place].add(target)
            wrapped |= {(place, one) for one in through}
            around = index.function(site["file"], site["line"], site["name"])
            if around is None or not index.is_wrapper(around):
                break
            through.append(around)
    for place, wrapper in wrapped:
        if len(reached[place]) > 1:
            reached[place].discard(wrapper)
    return reached


def _unknown_callees(
    index: _Index, chains: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, int], set[str]]:
    """Return, by the nearest site, functions that ran and are no symbol of the index."""
    found: dict[tuple[str, int], set[str]] = defaultdict(set)
    for chain in chains:
        callee = chain["callee"]
        path, line, name = callee["file"], callee["line"], callee["name"]
        if path in index.texts and index.function(path, line, name) is None:
            place = index.place(chain["sites"][0])
            if place is not None:
                found[place].add(f"{path}:{line} {name}")
    return found


def _wrong_outside(index: _Index, outside: Iterable[tuple[str, int]], *, tests: bool) -> list[str]:
    """Return sites that ran, only ever reached something outside, and have candidates."""
    wrong = []
    for place in sorted(outside):
        site = index.sites.get(place)
        if site is None or (not tests and is_test_path(place[0])):
            continue
        found = candidates_of(site)
        if found and not any(index.is_unseen(one) for one in found):
            wrong.append(f"{place[0]}:{site['line']} {site['text']} not {found[:3]}")
    return wrong


def _is_constructor(entity_id: str) -> bool:
    return entity_id.rpartition(".")[2].partition("~")[0] in _CONSTRUCTORS


def _score(
    index: _Index,
    truth: Mapping[tuple[str, int], set[str]],
    unknown: Mapping[tuple[str, int], set[str]],
    outside: Iterable[tuple[str, int]],
    *,
    tests: bool,
) -> dict[str, Any]:
    n: Counter[str] = Counter()
    misses: Counter[str] = Counter()
    examples: dict[str, list[str]] = defaultdict(list)

    def miss(reason: str, text: str) -> None:
        misses[reason] += 1
        if len(examples[reason]) < _MAX_EXAMPLES:
            examples[reason].append(text)

    for place in sorted({*truth, *unknown}):
        if not tests and is_test_path(place[0]):
            continue
        site = index.sites.get(place)
        reached, missing = _reached(index, truth, unknown, place, tests=tests)
        is_callback = site is not None and (site["external"] or "").startswith("builtins.")
        if is_callback and not any(_is_constructor(one) for one in reached):
            # `list(x)` does not call what iterating x runs.
            continue
        unseen = missing if site is not None else missing | reached
        n["unseen pairs"] += len(unseen)
        if unseen and (site is None or not reached):
            n["unseen sites"] += 1
            reason = "site not in index" if site is None else "function not in index"
            miss(reason, f"{index.shown(place)} -> {sorted(unseen)[0]}")
        if site is None or not reached:
            continue
        found = candidates_of(site)
        if index.only_wrappers(reached) and any(index.is_decorated(one) for one in found):
            # What a wrapper wraps leaves no trace when it is a generator.
            continue
        reach = set().union(*(index.reaches(one) for one in found)) if found else set()
        hits = reached & reach if len(found) <= MAX_CANDIDATES else set()
        n["sites"] += 1
        n["found"] += bool(hits)
        n["pairs"] += len(reached)
        n["hits"] += len(hits)
        n["predicted"] += bool(found)
        n["right"] += bool(found and hits)
        if not hits:
            reason = "wrong target" if found else f"{site['state']} {site['resolver']}"
            text = f"{place[0]}:{site['line']} {site['text']} -> {sorted(reached)[0]}"
            miss(reason, text + (f" not {found[:3]}" if found else ""))
    wrong = _wrong_outside(index, outside, tests=tests)
    examples["only outside"] = wrong[:_MAX_EXAMPLES]
    return {
        **_shares(n, len(wrong)),
        "misses": dict(misses.most_common()),
        "examples": {**examples},
    }


def _reached(
    index: _Index,
    truth: Mapping[tuple[str, int], set[str]],
    unknown: Mapping[tuple[str, int], set[str]],
    place: tuple[str, int],
    *,
    tests: bool,
) -> tuple[set[str], set[str]]:
    """Return what a site reached, known and unknown; what tests hand in is no part of the
    package."""
    known, missing = truth.get(place, set()), unknown.get(place, set())
    if tests:
        return set(known), set(missing)
    return (
        {one for one in known if not is_test_path(index.symbols[one]["path"])},
        {one for one in missing if not is_test_path(one.partition(":")[0])},
    )


def _shares(n: Mapping[str, int], n_wrong_outside: int) -> dict[str, Any]:
    n_pairs, n_sites = n["pairs"] + n["unseen pairs"], n["sites"] + n["unseen sites"]
    n_predicted = n["predicted"] + n_wrong_outside
    return {
        "pairs": n_pairs,
        "pairs_seen": n["pairs"],
        "recall": n["hits"] / max(n_pairs, 1),
        "recall_of_seen": n["hits"] / max(n["pairs"], 1),
        "sites": n_sites,
        "sites_seen": n["sites"],
        "site_recall": n["found"] / max(n_sites, 1),
        "site_recall_of_seen": n["found"] / max(n["sites"], 1),
        "predicted_sites": n_predicted,
        "precision": n["right"] / max(n_predicted, 1),
        "wrong_outside": n_wrong_outside,
    }


# --- labels -----------------------------------------------------------------------------------


def compare_labels(run: RunDir | Path | str, labels: Path | str) -> dict[str, Any]:
    """Compare calls with labels made by reading the source.

    A label is `outside` (no definition of the index), `dynamic` (a value handed in at run time),
    or a definition: `Class.method` for Java, `DOCUMENT#name` for JavaScript, `a|b` where either
    is right, `DOCUMENT#*` for whatever a module exports. Overloads are not told apart.

    - recall: sites labelled with a definition whose candidates, at most three, hold it. A site
      that is no reference of the index counts as missed; `recall_of_seen` is over the rest.
    - precision: sites with candidates whose candidates hold the label, over all sites with
      candidates; a candidate for a site labelled outside or dynamic is wrong.
    """
    tables = run if isinstance(run, RunDir) else RunDir(run)
    # Texts in the lines may hold characters that str.splitlines takes for ends of lines.
    lines = Path(labels).read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    wanted = {(one["doc_id"], one["start"]): one for one in rows}
    sites: dict[tuple[str, int], dict[str, Any]] = {}
    for one in tables.read("code/references").to_pylist():
        key = (one["doc_id"], one["start"])
        if key in wanted and one["relation"] in _CALLS and one["end"] == wanted[key]["end"]:
            sites[key] = one
    n_defined = n_hits = n_predicted = n_right = n_missing = n_unseen = 0
    misses: list[str] = []
    for key, row in wanted.items():
        site = sites.get(key)
        is_defined = row["label"] not in ("outside", "dynamic")
        if site is None:
            n_missing += 1
            n_unseen += is_defined
            misses.append(f"{key[0]}:{row['line']} {row['name']}: {row['label']}, not in index")
            continue
        found = candidates_of(site)
        is_hit = is_defined and any(_fits(row["label"], one) for one in found)
        n_defined += is_defined
        n_hits += is_hit and len(found) <= MAX_CANDIDATES
        n_predicted += bool(found)
        n_right += is_hit and len(found) <= MAX_CANDIDATES
        if (is_defined and not is_hit) or (found and not is_hit):
            misses.append(
                f"{key[0]}:{row['line']} {row['name']}: {row['label']}, found {found[:3]} "
                f"{site['state']}"
            )
    labels_seen = Counter(
        one["label"] if one["label"] in ("outside", "dynamic") else "defined" for one in rows
    )
    return {
        "sites": len(rows),
        "labels": dict(sorted(labels_seen.items())),
        "sites_not_in_index": n_missing,
        "recall": n_hits / max(n_defined + n_unseen, 1),
        "recall_of_seen": n_hits / max(n_defined, 1),
        "predicted_sites": n_predicted,
        "precision": n_right / max(n_predicted, 1),
        "misses": misses,
    }


def _fits(label: str, candidate: str) -> bool:
    document, _, qualified = candidate.partition("#")
    qualified = qualified.partition("~")[0]
    if "#" not in label:
        parts = qualified.split(".")
        wanted = label.split(".")
        # The constructor `A.A` stands for its class.
        return parts[-len(wanted) :] == wanted or (
            len(parts) > 1 and parts == [*wanted, wanted[-1]]
        )
    home, _, names = label.partition("#")
    last = qualified.rpartition(".")[2]
    return document == home and (names == "*" or last in names.split("|"))
