from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphmert.domains.text.phrases import (
    PhraseSettings,
    add_counts,
    choose_phrases,
    count_runs,
    recurring,
    spell_runs,
    term_runs,
)

words = st.sampled_from(["heart", "muscle", "cell", "the", "rapidly", "12", "in", ",", "growth"])
corpora = st.lists(st.lists(words, max_size=12).map(" ".join), min_size=1, max_size=8)


def plain_counts(texts: list[str], max_words: int) -> tuple[Counter[str], Counter[str]]:
    """Count every run by its words, slowly."""
    count: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    for text in texts:
        own: Counter[str] = Counter()
        for run in term_runs(text):
            for n in range(1, max_words + 1):
                own.update(" ".join(run[i : i + n]) for i in range(len(run) - n + 1))
        count += own
        documents.update(own.keys())
    return count, documents


def test_runs_end_at_stop_words_numbers_adverbs_and_marks() -> None:
    text = "The heart muscle\ncell rapidly shows Growth-factor 3, beta cell (heart) in mice."
    assert term_runs(text) == [
        ["heart", "muscle", "cell"], ["growth-factor"], ["beta", "cell"], ["heart"], ["mice"],
    ]  # fmt: skip
    assert term_runs("heart\n\nmuscle") == [["heart"], ["muscle"]]


@given(corpora, st.integers(2, 4), st.integers(1, 3))
def test_counts_equal_those_of_plain_counting(
    texts: list[str], max_words: int, n_parts: int
) -> None:
    count, documents = plain_counts(texts, max_words)
    parts = [count_runs(texts[i::n_parts], max_words=max_words) for i in range(n_parts)]
    total = add_counts(parts)
    assert (np.diff(total.key.astype(object)) > 0).all()
    spelled = spell_runs(texts, total.key, max_words=max_words)
    assert sorted(spelled.values()) == sorted(count)
    for row, key in enumerate(total.key.tolist()):
        phrase = spelled[key]
        assert total.count[row] == count[phrase]
        assert total.n_documents[row] == documents[phrase]
        assert total.n_words[row] == len(phrase.split())


SETTINGS = PhraseSettings(min_count=2, min_documents=2, min_c_value=0.0, min_npmi=-1.0)


@given(corpora)
def test_c_value_and_npmi_follow_their_formulas(texts: list[str]) -> None:
    counts = count_runs(texts, max_words=5)
    keys = recurring(counts, SETTINGS)
    spelled = spell_runs(texts, keys, max_words=5)
    table, ledger = choose_phrases(counts, spelled, set(), SETTINGS)
    ledger.check()
    count, documents = plain_counts(texts, 5)
    often = {one for one, n in count.items() if n >= 2 and documents[one] >= 2 and " " in one}
    assert set(spelled.values()) == often
    total = sum(n for one, n in count.items() if " " not in one)
    for row in table.to_pylist():
        phrase = row["phrase"]
        parts = phrase.split()
        longer = [one for one in often if one != phrase and f" {phrase} " in f" {one} "]
        mean = sum(count[one] for one in longer) / len(longer) if longer else 0.0
        assert math.isclose(
            row["c_value"], math.log2(len(parts)) * (count[phrase] - mean), rel_tol=1e-5
        )
        p = count[phrase] / total
        apart = sum(math.log(count[word] / total) for word in parts)
        expected = (math.log(p) - apart) / (-math.log(p) * (len(parts) - 1)) if p < 1 else 1.0
        assert math.isclose(row["npmi"], expected, rel_tol=1e-4, abs_tol=1e-5)
    assert table["c_value"].to_pylist() == sorted(table["c_value"].to_pylist(), reverse=True)


def test_names_of_the_kg_and_weak_phrases_are_left_out_with_a_reason() -> None:
    texts = ["heart muscle cell grows", "heart muscle cell dies"] * 4 + ["small heart muscle"] * 2
    settings = PhraseSettings(
        min_count=2, min_documents=2, min_c_value=5.0, min_npmi=0.1, max_phrases=2
    )
    counts = count_runs(texts, max_words=3)
    spelled = spell_runs(texts, recurring(counts, settings), max_words=3)
    table, ledger = choose_phrases(counts, spelled, {"heart muscle cell"}, settings)
    assert ledger.n_offered == len(spelled)
    assert ledger.reasons["name of the KG"] == 1
    assert ledger.reasons["C-value too low"] >= 1
    assert "heart muscle cell" not in table["phrase"].to_pylist()
    assert table.num_rows + ledger.n_left_out == ledger.n_offered
    assert table.num_rows <= 2
