"""Corpus phrases: recurring runs of term words, found by statistics, as entities that may be new.

Counting is by 64-bit hashes of word runs, so that memory holds numbers, not texts; only runs
that recur are spelled out in a second pass.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import Field

from graphmert.config import Settings
from graphmert.domains.text.words import is_term_word
from graphmert.shards import Ledger
from graphmert.store import make_table

_RUN_WORD = re.compile(r"\w+(?:[-'’.]\w+)*")
_GAP = re.compile(r"[ \t]+|[ \t]*(?:\r\n|\n|\r)[ \t]*")
_FACTOR, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


class PhraseSettings(Settings):
    """Which recurring phrases become candidate entities."""

    enabled: bool = Field(default=True, description="look for phrases beyond the KG's names")
    max_words: int = Field(default=5, ge=2, le=8, description="longest phrase")
    min_count: int = Field(default=5, ge=2, description="occurrences in the corpus")
    min_documents: int = Field(default=3, ge=1, description="documents it occurs in")
    min_npmi: float = Field(
        default=0.25, ge=-1, le=1, description="normalised pointwise mutual information"
    )
    min_c_value: float = Field(default=5.0, ge=0, description="C-value")
    max_phrases: int = Field(default=20_000, ge=0, description="the best by C-value are kept")


@dataclass(frozen=True)
class RunCounts:
    """How often runs of words occur.

    Attributes:
        key: uint64, ascending, hash of the run.
        n_words: uint8, its length.
        count: int64, occurrences.
        n_documents: int64, documents.
    """

    key: np.ndarray
    n_words: np.ndarray
    count: np.ndarray
    n_documents: np.ndarray


def term_runs(text: str) -> list[list[str]]:
    """Return the maximal runs of lower-case term words with nothing but blanks between them."""
    runs: list[list[str]] = []
    last_end = -1
    for match in _RUN_WORD.finditer(text):
        word = match[0].lower()
        joined = last_end >= 0 and _GAP.fullmatch(text, last_end, match.start()) is not None
        if not is_term_word(word):
            last_end = -1
            continue
        if joined:
            runs[-1].append(word)
        else:
            runs.append([word])
        last_end = match.end()
    return runs


class _Hasher:
    """Hash words once; combine hashes of neighbours into hashes of runs."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def words(self, words: Iterable[str]) -> np.ndarray:
        found = []
        for word in words:
            value = self.known.get(word)
            if value is None:
                digest = hashlib.blake2b(word.encode("utf-8"), digest_size=8).digest()
                value = self.known[word] = int.from_bytes(digest, "little")
            found.append(value)
        return np.array(found, dtype=np.uint64)


def _keys(word: np.ndarray, run: np.ndarray, max_words: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for lengths 1, 2, … the hashes of all runs of that length and where each starts."""
    found = []
    key, place = _mixed(word), np.arange(len(word))
    found.append((key, place))
    for n in range(2, max_words + 1):
        last = place + n - 1
        inside = last < len(word)
        inside[inside] = run[place[inside]] == run[last[inside]]
        key, place = key[inside], place[inside]
        key = _mixed(key * _FACTOR + word[place + n - 1])
        found.append((key, place))
    return found


def _mixed(key: np.ndarray) -> np.ndarray:
    key = (key ^ (key >> np.uint64(30))) * _MIX
    return key ^ (key >> np.uint64(31))


@dataclass(frozen=True)
class _Words:
    """The term words of several texts: hashes, run numbers, text numbers and the words."""

    word: np.ndarray
    run: np.ndarray
    text: np.ndarray
    spelled: list[str]


def _words_of(texts: Sequence[str]) -> _Words:
    spelled: list[str] = []
    lengths: list[int] = []
    owner: list[int] = []
    for number, text in enumerate(texts):
        for run in term_runs(text):
            spelled += run
            lengths.append(len(run))
            owner.append(number)
    run = np.repeat(np.arange(len(lengths)), lengths)
    text_of = np.repeat(np.array(owner, dtype=np.int64), lengths)
    return _Words(_Hasher().words(spelled), run, text_of, spelled)


def count_runs(texts: Sequence[str], *, max_words: int) -> RunCounts:
    """Count the runs of up to `max_words` term words in some texts, one a document."""
    words = _words_of(texts)
    keys, lengths, owners = [], [], []
    for n, (key, place) in enumerate(_keys(words.word, words.run, max_words), start=1):
        keys.append(key)
        lengths.append(np.full(len(key), n, np.uint8))
        owners.append(words.text[place])
    key, n_words, owner = (np.concatenate(one) for one in (keys, lengths, owners))
    distinct, first, count = np.unique(key, return_index=True, return_counts=True)
    order = np.lexsort((owner, key))
    key, owner = key[order], owner[order]
    new = np.r_[True, (key[1:] != key[:-1]) | (owner[1:] != owner[:-1])] if len(key) else []
    n_documents = np.unique(key[np.asarray(new, bool)], return_counts=True)[1]
    return RunCounts(distinct, n_words[first], count.astype(np.int64), n_documents.astype(np.int64))


def add_counts(parts: Sequence[RunCounts]) -> RunCounts:
    """Return the counts of several sets of documents together."""
    key = np.concatenate([one.key for one in parts])
    distinct, first, place = np.unique(key, return_index=True, return_inverse=True)
    n_words = np.concatenate([one.n_words for one in parts])[first]
    sums = []
    for name in ("count", "n_documents"):
        total = np.zeros(len(distinct), dtype=np.int64)
        np.add.at(total, place, np.concatenate([getattr(one, name) for one in parts]))
        sums.append(total)
    return RunCounts(distinct, n_words, *sums)


def recurring(counts: RunCounts, settings: PhraseSettings) -> np.ndarray:
    """Return the keys of runs of two words or more that recur often enough, ascending."""
    often = (counts.count >= settings.min_count) & (counts.n_documents >= settings.min_documents)
    return counts.key[often & (counts.n_words > 1)]


def spell_runs(texts: Sequence[str], keys: np.ndarray, *, max_words: int) -> dict[int, str]:
    """Return the words of the wanted runs that stand in the texts."""
    words = _words_of(texts)
    found: dict[int, str] = {}
    for n, (key, place) in enumerate(_keys(words.word, words.run, max_words), start=1):
        if not len(keys) or not len(key):
            continue
        at = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
        wanted = keys[at] == key
        distinct, first = np.unique(key[wanted], return_index=True)
        for one, start in zip(distinct.tolist(), place[wanted][first].tolist(), strict=True):
            found[one] = " ".join(words.spelled[start : start + n])
    return found


def choose_phrases(
    counts: RunCounts,
    spelled: dict[int, str],
    known: Collection[str],
    settings: PhraseSettings,
) -> tuple[pa.Table, Ledger]:
    """Choose candidate entities among recurring runs.

    C-value(a) = log2 |a| · (f(a) − mean f(b) over longer recurring b that hold a);
    NPMI(a) = ln(p(a) / Π p(w)) / ((|a| − 1) · −ln p(a)), p = f / number of term words.

    Args:
        counts: of the whole corpus.
        spelled: words of the recurring runs, by key.
        known: folded names of the KG, which are no candidates.
        settings: limits.

    Returns:
        Table corpus/phrases, best C-value first, and the ledger, which counts recurring runs.

    Source: C-value, Frantzi et al. 2000; NPMI, Bouma 2009. Differs: only recurring longer runs
    count; NPMI divides by |a| − 1. Checked by: tests/unit/domains/text/test_phrases.py
    """
    frequency = {
        key: (int(counts.count[row]), int(counts.n_documents[row]))
        for key, row in zip(spelled, np.searchsorted(counts.key, list(spelled)), strict=True)
    }
    n_total = int(counts.count[counts.n_words == 1].sum())
    words = sorted({word for one in spelled.values() for word in one.split()})
    count_of = dict(zip(words, _counts_of_words(counts, words), strict=True))
    longer = _longer_runs(spelled, frequency)
    ledger = Ledger("phrases")
    ledger.offered(len(spelled))
    rows = []
    for key, phrase in spelled.items():
        parts = phrase.split()
        count, n_documents = frequency[key]
        n_longer, sum_longer = longer.get(key, (0, 0))
        c_value = np.log2(len(parts)) * (count - (sum_longer / n_longer if n_longer else 0.0))
        npmi = _npmi(count, [count_of[word] for word in parts], n_total)
        reason = None
        if phrase in known:
            reason = "name of the KG"
        elif c_value < settings.min_c_value:
            reason = "C-value too low"
        elif npmi < settings.min_npmi:
            reason = "words that meet by chance (NPMI)"
        if reason is not None:
            ledger.leave_out(reason, example=phrase)
            continue
        rows.append((-float(c_value), phrase, len(parts), count, n_documents, npmi))
    rows.sort()
    for row in rows[settings.max_phrases :]:
        ledger.leave_out("beyond max_phrases", example=row[1])
    rows = rows[: settings.max_phrases]
    ledger.keep(len(rows))
    return _as_table(rows), ledger.check()


def _npmi(count: int, of_words: Sequence[int], n_total: int) -> float:
    p = np.log(count / n_total)
    apart = sum(np.log(one / n_total) for one in of_words)
    return float((p - apart) / (-p * (len(of_words) - 1))) if p < 0 else 1.0


def _as_table(rows: Sequence[tuple[float, str, int, int, int, float]]) -> pa.Table:
    names = ("phrase", "n_words", "n_occurrences", "n_documents", "c_value", "npmi")
    columns = [[row[place] for row in rows] for place in (1, 2, 3, 4)]
    columns += [[-row[0] for row in rows], [row[5] for row in rows]]
    return make_table("corpus/phrases", dict(zip(names, columns, strict=True)))


def _counts_of_words(counts: RunCounts, words: Sequence[str]) -> list[int]:
    keys = _mixed(_Hasher().words(words))
    return counts.count[np.searchsorted(counts.key, keys)].tolist() if len(words) else []


def _longer_runs(
    spelled: dict[int, str], frequency: dict[int, tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    """Return for runs that longer ones hold: how many hold it, and their summed counts."""
    key_of = {phrase: key for key, phrase in spelled.items()}
    found: dict[int, tuple[int, int]] = {}
    for key, phrase in spelled.items():
        parts = phrase.split()
        inner = {
            " ".join(parts[start : start + n])
            for n in range(2, len(parts))
            for start in range(len(parts) - n + 1)
        }
        for one in inner:
            if (held := key_of.get(one)) is not None:
                n_longer, total = found.get(held, (0, 0))
                found[held] = (n_longer + 1, total + frequency[key][0])
    return found
