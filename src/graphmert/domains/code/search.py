"""Search by words: BM25 over the parts of identifiers and the words of docstrings."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphmert.domains.code.queries import CodeStore

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*|[0-9]+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_K1, _B = 1.2, 0.75
_NAME_WEIGHT = 3
_MAX_DOCSTRING = 1_000
KINDS = ("Class", "ExceptionType", "Function", "Interface", "Method")

Rerank = Callable[[str, Sequence[str]], Sequence[float]]
"""Score candidates (entity ids) against a query; an encoder can take this place."""


def subtokens(text: str) -> list[str]:
    """Return the lower-case parts of words and identifiers: `parseHTTPUrl` gives three.

    Plurals lose their s, so that `edges` meets `edge`.
    """
    found = []
    for word in _WORD.findall(text):
        for part in _PART.findall(word):
            low = part.lower()
            found.append(low[:-1] if len(low) > 3 and low[-1] == "s" and low[-2] != "s" else low)
    return found


class Bm25:
    """Okapi BM25 over lists of tokens.

    score(q, d) = Σ_t idf(t) · tf (k1 + 1) / (tf + k1 (1 − b + b |d| / mean))

    Args:
        documents: tokens of each document.
    """

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        self._postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        lengths = []
        for number, tokens in enumerate(documents):
            lengths.append(len(tokens))
            for token, count in Counter(tokens).items():
                self._postings[token].append((number, count))
        mean = sum(lengths) / max(len(lengths), 1) or 1.0
        self._norms = [_K1 * (1 - _B + _B * length / mean) for length in lengths]
        self._n = len(lengths)

    def scores(self, query: Sequence[str]) -> dict[int, float]:
        """Return the score of every document that shares a token with the query."""
        found: dict[int, float] = defaultdict(float)
        for token in query:
            postings = self._postings.get(token, ())
            idf = math.log(1 + (self._n - len(postings) + 0.5) / (len(postings) + 0.5))
            for number, count in postings:
                found[number] += idf * count * (_K1 + 1) / (count + self._norms[number])
        return found


def search(
    store: CodeStore,
    text: str,
    *,
    limit: int = 10,
    kinds: Sequence[str] = KINDS,
    rerank: Rerank | None = None,
    n_rerank: int = 100,
) -> list[dict[str, Any]]:
    """Return the definitions that fit a text best.

    Args:
        store: the index.
        text: words or identifiers.
        limit: how many.
        kinds: entity types to search.
        rerank: scores the best by words again; they are ordered by it.
        n_rerank: how many of them.
    """
    ids, index = _index_of(store, tuple(kinds))
    scored = index.scores(subtokens(text))
    order = sorted(scored.items(), key=lambda pair: (-pair[1], ids[pair[0]]))
    best = [(ids[number], score) for number, score in order[: max(limit, n_rerank)]]
    if rerank is not None and best:
        again = rerank(text, [entity_id for entity_id, _ in best])
        pairs = zip((one for one, _ in best), again, strict=True)
        best = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    rows = []
    for entity_id, score in best[:limit]:
        rows.append({"score": round(float(score), 4), **store.describe(entity_id)})
    return rows


def count_matches(store: CodeStore, text: str, *, kinds: Sequence[str] = KINDS) -> int:
    """Return how many definitions share a word with a text."""
    return len(_index_of(store, tuple(kinds))[1].scores(subtokens(text)))


def _index_of(store: CodeStore, kinds: tuple[str, ...]) -> tuple[list[str], Bm25]:
    cache = store.__dict__.setdefault("_bm25", {})
    if kinds not in cache:
        ids, documents = [], []
        for entity_id, symbol in store.symbols.items():
            if symbol["kind"] not in kinds:
                continue
            words = subtokens(symbol["qualified_name"])
            name = subtokens(symbol["name"]) * _NAME_WEIGHT
            doc = subtokens(store.docstring(entity_id)[:_MAX_DOCSTRING])
            ids.append(entity_id)
            documents.append([*name, *words, *subtokens(symbol["path"]), *doc])
        cache[kinds] = (ids, Bm25(documents))
    return cache[kinds]
