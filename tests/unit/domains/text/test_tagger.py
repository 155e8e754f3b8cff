from __future__ import annotations

import numpy as np
import pytest

from graphmert.domains.text.tagger import (
    MentionTagger,
    Sentence,
    TaggerSettings,
    is_held_out,
    measure_tagger,
)
from graphmert.errors import DataError

STEMS = ["alpha", "beta", "gamma", "delta", "kappa", "lambda", "sigma", "omega", "theta", "zeta"]
FRAMES = [
    "Patients were given {} twice a day.",
    "The level of {} rose in all groups, and nothing else changed.",
    "We saw no {} in the second group 🧬 of 12.",
    "{} was found in the water.",
]
NAMES = [f"{stem}{end}" for stem in STEMS for end in ("ase", "inol", " kinase", "-2 receptor")]


def sentences(names: list[str]) -> list[Sentence]:
    found = []
    for place, name in enumerate(names):
        frame = FRAMES[place % len(FRAMES)]
        start = frame.index("{}")
        found.append(Sentence(frame.format(name), ((start, start + len(name)),)))
    return found


TRAIN, HIDDEN = sentences(NAMES[:32] * 3), sentences(NAMES[32:])
SETTINGS = TaggerSettings(n_passes=20, min_score=0.5)


@pytest.fixture(scope="module")
def tagger() -> MentionTagger:
    return MentionTagger.train(TRAIN, SETTINGS)


def test_names_never_seen_are_found_by_form_and_place(tagger: MentionTagger) -> None:
    hidden = [one.spans for one in HIDDEN]
    found = measure_tagger(tagger, HIDDEN, hidden, min_score=0.5)
    assert found["n_held_out"] == 8
    assert found["recall_held_out"] >= 0.75
    assert found["precision"] >= 0.75
    assert found["n_found"] >= found["n_held_out_found"]


def test_spans_are_in_order_apart_and_equal_tokens(tagger: MentionTagger) -> None:
    texts = [one.text for one in TRAIN[:8]] + ["", "alphaase and betainol, gammaase"]
    for text, spans in zip(texts, tagger.spans(texts, min_score=0.1), strict=True):
        last = 0
        for start, end, score in spans:
            assert last <= start < end <= len(text)
            assert 0.1 <= score <= 1.0
            assert text[start:end].strip() == text[start:end]
            last = end


def test_a_text_is_tagged_the_same_alone_and_among_others(tagger: MentionTagger) -> None:
    texts = [one.text for one in HIDDEN]
    together = tagger.spans(texts, min_score=0.3)
    alone = [tagger.spans([text], min_score=0.3)[0] for text in texts]
    assert [[span[:2] for span in one] for one in together] == [
        [span[:2] for span in one] for one in alone
    ]


def test_training_gives_the_same_weights_twice(tagger: MentionTagger) -> None:
    assert MentionTagger.train(TRAIN, SETTINGS).fingerprint == tagger.fingerprint
    assert tagger.weights.dtype == np.float32


def test_measuring_counts_spans_exactly() -> None:
    class Fixed(MentionTagger):
        def spans(self, texts, *, min_score):
            return [[(0, 3, 0.9), (4, 6, 0.9)], []]

    known = [Sentence("abc de", ((0, 3),)), Sentence("xyz", ((0, 3),))]
    found = measure_tagger(Fixed(np.zeros((1, 3))), known, [((0, 3),), ((0, 3),)], min_score=0.5)
    assert (found["recall_held_out"], found["precision"]) == (0.5, 0.5)


def test_without_a_mention_there_is_nothing_to_learn() -> None:
    with pytest.raises(DataError, match="nothing to learn"):
        MentionTagger.train([Sentence("No name here.")], SETTINGS)


def test_hidden_names_are_drawn_by_hash() -> None:
    share = sum(is_held_out(f"name {i}", 0.25) for i in range(2_000)) / 2_000
    assert 0.2 < share < 0.3
    assert is_held_out("x", 0.999999) or not is_held_out("x", 0.000001)
