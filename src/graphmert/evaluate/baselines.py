"""Untrained baselines: what a system must beat before its numbers mean anything.

Each baseline scores all entities for a list of queries, a block at a time, and knows only entity
names, the query's own text and the training triples. The head itself is never proposed (-inf),
which only helps a baseline: no ontology relation here holds between a term and itself.

Shapes: Q queries, N entities, E relations, D vector width, V terms, P postings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import ahocorasick_rs
import numpy as np
from numpy.typing import NDArray

from graphmert.errors import DataError
from graphmert.evaluate.ranks import ScoreBlock

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Query:
    """One (text, head, relation) question whose tails are asked for.

    Attributes:
        head: index of the head among the entities, or -1 when it is none of them.
        head_name: the head's name.
        relation: index of the relation.
        text: the text the head is described in.
    """

    head: int
    head_name: str
    relation: int
    text: str


class Baseline(Protocol):
    """Anything that scores all entities for some queries."""

    @property
    def name(self) -> str:
        """The name under which it appears in metrics and reports."""
        ...

    def score(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Return scores, shape (Q, N); higher is better."""
        ...


def score_block(baseline: Baseline, queries: Sequence[Query]) -> ScoreBlock:
    """Return the block function that `rank_in_blocks` asks for."""
    return lambda start, stop: baseline.score(queries[start:stop])


class RelationFrequency:
    """Score a tail by how often it occurs under the query's relation in training.

    Args:
        relations: relation index per training triple.
        tails: tail index per training triple.
        n_relations: number of relations.
        n_entities: number of entities.
    """

    name = "relation_frequency"

    def __init__(
        self,
        relations: Sequence[int] | NDArray[np.integer],
        tails: Sequence[int] | NDArray[np.integer],
        *,
        n_relations: int,
        n_entities: int,
    ) -> None:
        counts = np.zeros((n_relations, n_entities), np.float32)
        np.add.at(counts, (np.asarray(relations, np.int64), np.asarray(tails, np.int64)), 1)
        self._counts_EN = counts

    def score(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Return training counts, shape (Q, N)."""
        scores_QN = self._counts_EN[[query.relation for query in queries]]
        return _exclude_heads(scores_QN, queries)


class LongestNameInText:
    """Score an entity by the length of its name where the text contains it as whole words.

    Case is folded. Entities whose name is not in the text, and those named like the head, get 0.

    Args:
        names: one name per entity.
    """

    name = "longest_name_in_text"

    def __init__(self, names: Sequence[str]) -> None:
        self._n_entities = len(names)
        owners: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            if folded := name.casefold().strip():
                owners.setdefault(folded, []).append(index)
        self._patterns = list(owners)
        self._owners = list(owners.values())
        self._automaton = ahocorasick_rs.AhoCorasick(self._patterns)

    def score(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Return name lengths in characters, shape (Q, N)."""
        scores_QN = np.zeros((len(queries), self._n_entities), np.float32)
        for row, query in enumerate(queries):
            text, head_name = query.text.casefold(), query.head_name.casefold().strip()
            for pattern, start, end in self._automaton.find_matches_as_indexes(
                text, overlapping=True
            ):
                name = self._patterns[pattern]
                if name != head_name and _is_whole(text, start, end):
                    scores_QN[row, self._owners[pattern]] = len(name)
        return _exclude_heads(scores_QN, queries)


class Bm25Names:
    """BM25 with the text as the query and entity names as the documents, over word unigrams.

    score(q, d) = Σ_{w in q} idf(w) · f(w,d)·(k1+1) / (f(w,d) + k1·(1 − b + b·|d|/mean|d|)),
    idf(w) = ln(1 + (N − n(w) + 0.5)/(n(w) + 0.5)); every distinct word of the text counts once.

    Args:
        names: one name per entity.
        k1: saturation of repeated words.
        b: strength of the length normalisation.
    """

    name = "bm25_names"

    def __init__(self, names: Sequence[str], *, k1: float = 1.2, b: float = 0.75) -> None:
        index = _InvertedIndex(names, _words)
        length_N = np.bincount(index.entity_P, weights=index.count_P, minlength=max(len(names), 1))
        n_V = np.diff(index.start_V)
        idf_V = np.log(1 + (len(names) - n_V + 0.5) / (n_V + 0.5))
        norm_N = k1 * (1 - b + b * length_N / max(float(length_N.mean()), 1e-9))
        saturated_P = index.count_P * (k1 + 1) / (index.count_P + norm_N[index.entity_P])
        index.weight_P = (saturated_P * np.repeat(idf_V, n_V)).astype(np.float32)
        self._index = index

    def score(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Return BM25 scores, shape (Q, N)."""
        return self._index.score(queries, _distinct)


class CharNgramNames:
    """Cosine between TF-IDF vectors of character 3-grams of the text and of the names.

    tf is the count, idf(g) = 1 + ln((1 + N)/(1 + n(g))); strings are case-folded and padded with
    one space at each end.

    Args:
        names: one name per entity.
        n: characters per n-gram.
    """

    name = "char_ngram"

    def __init__(self, names: Sequence[str], *, n: int = 3) -> None:
        def grams(text: str) -> list[str]:
            padded = f" {' '.join(text.casefold().split())} "
            return [padded[i : i + n] for i in range(len(padded) - n + 1)]

        index = _InvertedIndex(names, grams)
        n_V = np.diff(index.start_V)
        self._idf_V = 1 + np.log((1 + len(names)) / (1 + n_V))
        weight_P = index.count_P * np.repeat(self._idf_V, n_V)
        norm_N = np.sqrt(
            np.bincount(index.entity_P, weights=weight_P**2, minlength=max(len(names), 1))
        )
        index.weight_P = (weight_P / norm_N[index.entity_P]).astype(np.float32)
        self._index = index

    def score(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Return cosines, shape (Q, N)."""
        return self._index.score(queries, self._unit)

    def _unit(self, counts: Mapping[int, int]) -> dict[int, float]:
        weights = {term: count * float(self._idf_V[term]) for term, count in counts.items()}
        norm = sum(weight**2 for weight in weights.values()) ** 0.5
        return {term: weight / norm for term, weight in weights.items()}


class NearestName:
    """Cosine between a frozen embedding of the text and frozen embeddings of the names.

    Args:
        texts: the distinct texts that will be asked about.
        text_vectors: their embeddings, shape (texts, D).
        name_vectors: embeddings of the entity names, shape (N, D).
    """

    name = "nearest_name"

    def __init__(
        self,
        texts: Sequence[str],
        text_vectors: NDArray[np.floating],
        name_vectors: NDArray[np.floating],
    ) -> None:
        if len(texts) != len(text_vectors) or text_vectors.shape[1] != name_vectors.shape[1]:
            raise DataError(
                "embeddings do not fit their texts",
                got=(len(texts), text_vectors.shape, name_vectors.shape),
                expected="one text vector per text, all of one width",
            )
        self._row = {text: row for row, text in enumerate(texts)}
        self._texts = _unit_rows(text_vectors)
        self._names_DN = np.ascontiguousarray(_unit_rows(name_vectors).T)

    def score(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Return cosines, shape (Q, N)."""
        rows = []
        for query in queries:
            if query.text not in self._row:
                raise DataError("no embedding for a query's text", got=query.text[:80])
            rows.append(self._row[query.text])
        return _exclude_heads(self._texts[rows] @ self._names_DN, queries)


def untrained_baselines(
    names: Sequence[str],
    *,
    train_relations: Sequence[int] | NDArray[np.integer],
    train_tails: Sequence[int] | NDArray[np.integer],
    n_relations: int,
) -> list[Baseline]:
    """Return every untrained baseline that needs no embeddings, in reporting order.

    Args:
        names: one name per entity.
        train_relations: relation index per training triple.
        train_tails: tail index per training triple.
        n_relations: number of relations.
    """
    return [
        RelationFrequency(
            train_relations, train_tails, n_relations=n_relations, n_entities=len(names)
        ),
        LongestNameInText(names),
        Bm25Names(names),
        CharNgramNames(names),
    ]


class _InvertedIndex:
    """Postings of terms over names: term v owns postings start_V[v]..start_V[v+1]."""

    def __init__(self, names: Sequence[str], terms_of: Callable[[str], Iterable[str]]) -> None:
        self.terms_of = terms_of
        self.n_entities = len(names)
        self.term_ids: dict[str, int] = {}
        term, entity, count = [], [], []
        for index, name in enumerate(names):
            for word, n in Counter(terms_of(name)).items():
                term.append(self.term_ids.setdefault(word, len(self.term_ids)))
                entity.append(index)
                count.append(n)
        term_P = np.array(term, np.int64)
        order = np.argsort(term_P, kind="stable")
        self.entity_P = np.array(entity, np.int64)[order]
        self.count_P = np.array(count, np.float64)[order]
        self.start_V = np.searchsorted(term_P[order], np.arange(len(self.term_ids) + 1))
        self.weight_P = np.ones(term_P.size, np.float32)

    def score(
        self,
        queries: Sequence[Query],
        weigh: Callable[[Mapping[int, int]], Mapping[int, float]],
    ) -> NDArray[np.float32]:
        """Sum the weighted postings of each text's terms; equal texts are scored once."""
        scores_QN = np.zeros((len(queries), self.n_entities), np.float32)
        first: dict[str, int] = {}
        for row, query in enumerate(queries):
            if query.text in first:
                scores_QN[row] = scores_QN[first[query.text]]
                continue
            first[query.text] = row
            ids = self.term_ids
            counts = Counter(ids[word] for word in self.terms_of(query.text) if word in ids)
            for term, weight in weigh(counts).items():
                low, high = self.start_V[term], self.start_V[term + 1]
                # A term lists an entity once, so plain indexed addition loses nothing.
                scores_QN[row, self.entity_P[low:high]] += (
                    np.float32(weight) * (self.weight_P[low:high])
                )
        return _exclude_heads(scores_QN, queries)


def _distinct(counts: Mapping[int, int]) -> dict[int, float]:
    return dict.fromkeys(counts, 1.0)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether the match neither begins nor ends inside a word."""
    before = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    after = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not before and not after


def _exclude_heads(scores_QN: NDArray[np.float32], queries: Sequence[Query]) -> NDArray[np.float32]:
    for row, query in enumerate(queries):
        if query.head >= 0:
            scores_QN[row, query.head] = -np.inf
    return scores_QN


def _unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
