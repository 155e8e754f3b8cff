"""A small mention tagger, trained from exact matches: a linear model over hashed features.

Each token is begin, inside or outside of a mention (B, I, O) by a softmax over the sum of the
weights of its features: the token, its prefix, suffixes and shape, and its neighbours. It names
spans that look and stand like entity names but are none of the KG's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from graphmert.config import Settings
from graphmert.domains.text.words import TOKEN
from graphmert.errors import DataError

Span = tuple[int, int]

N_BUCKETS = 1 << 18
OUTSIDE, BEGIN, INSIDE = 0, 1, 2

_N_WORD = 7
_N_FEATURES = 19
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class TaggerSettings(Settings):
    """The mention tagger."""

    enabled: bool = Field(default=True, description="train it from exact matches and use it")
    max_tokens: int = Field(
        default=400_000, ge=1_000, description="training tokens, from sequences spread evenly"
    )
    n_passes: int = Field(default=3, ge=1, description="passes over them")
    learning_rate: float = Field(default=0.2, gt=0, description="of AdaGrad")
    held_out_share: float = Field(
        default=0.1, gt=0, lt=1, description="share of names hidden in training, to measure it"
    )
    min_score: float = Field(
        default=0.2, gt=0, lt=1, description="least probability of each token to be in a mention"
    )
    seed: int = Field(default=0, ge=0, description="order of the batches")


@dataclass(frozen=True)
class Sentence:
    """A text with the spans of its mentions."""

    text: str
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class _Tokens:
    """Tokens of several texts, end to end, with two blank tokens between texts."""

    feature: np.ndarray
    text: np.ndarray
    start: np.ndarray
    end: np.ndarray


class MentionTagger:
    """Find spans that look like mentions.

    Args:
        weights: float32 (N_BUCKETS, 3), for O, B and I.
    """

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights

    @classmethod
    def train(cls, sentences: Sequence[Sentence], settings: TaggerSettings) -> MentionTagger:
        """Fit the weights by AdaGrad on the cross-entropy of the tags; averaged over updates.

        Raises:
            DataError: no sentence holds a mention.
        """
        tokens = _tokens_of([one.text for one in sentences])
        tags = _tags_of(tokens, sentences)
        if not (tags == BEGIN).any():
            raise DataError(
                "the mention tagger has nothing to learn from",
                got=f"{len(sentences)} sequences without a mention",
                fix="Check that corpus and KG fit together, or set candidates.tagger.enabled "
                "= false.",
            )
        live = np.flatnonzero(tokens.text >= 0)
        weights = np.zeros((N_BUCKETS, 3), np.float64)
        squares = np.full((N_BUCKETS, 3), 1e-6)
        total = np.zeros((N_BUCKETS, 3), np.float64)
        rng = np.random.default_rng(settings.seed)
        n_updates = 0
        for _ in range(settings.n_passes):
            order = rng.permutation(live)
            for first in range(0, len(order), 8_192):
                rows = order[first : first + 8_192]
                features = tokens.feature[rows]
                error = _softmax(weights[features].sum(1))
                error[np.arange(len(rows)), tags[rows]] -= 1.0
                error /= np.sqrt(len(rows))
                gradient = np.stack(
                    [
                        np.bincount(
                            features.ravel(),
                            weights=np.repeat(error[:, tag], _N_FEATURES),
                            minlength=N_BUCKETS,
                        )
                        for tag in range(3)
                    ],
                    axis=1,
                )
                squares += gradient**2
                weights -= settings.learning_rate * gradient / np.sqrt(squares)
                total += weights
                n_updates += 1
        return cls((total / n_updates).astype(np.float32))

    def spans(
        self, texts: Sequence[str], *, min_score: float
    ) -> list[list[tuple[int, int, float]]]:
        """Return for each text the spans (start, end, score) it finds, in order, apart.

        A span is a run of tokens with at least `min_score` to be in a mention; it begins anew
        where B is likelier than I. Its score is their mean.
        """
        tokens = _tokens_of(texts)
        p = _softmax(self.weights[tokens.feature].sum(1))
        confidence = np.where(tokens.text < 0, 0.0, 1.0 - p[:, OUTSIDE])
        inside = confidence >= min_score
        before = np.r_[False, inside[:-1]]
        begins = np.flatnonzero(inside & ((p[:, BEGIN] >= p[:, INSIDE]) | ~before))
        found: list[list[tuple[int, int, float]]] = [[] for _ in texts]
        for place, first in enumerate(begins.tolist()):
            limit = begins[place + 1] if place + 1 < len(begins) else len(inside)
            last = first + 1
            while last < limit and inside[last]:
                last += 1
            score = float(confidence[first:last].mean())
            start, end = int(tokens.start[first]), int(tokens.end[last - 1])
            if _is_name(texts[int(tokens.text[first])][start:end]):
                found[int(tokens.text[first])].append((start, end, score))
        return found

    @property
    def fingerprint(self) -> str:
        """Sha256 of the weights."""
        return hashlib.sha256(self.weights.tobytes()).hexdigest()


def is_held_out(name: str, share: float) -> bool:
    """Return whether a folded name is hidden from training, drawn by its hash."""
    digest = hashlib.sha256(f"tagger:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def measure_tagger(
    tagger: MentionTagger,
    sentences: Sequence[Sentence],
    held_out: Sequence[Sequence[Span]],
    *,
    min_score: float,
) -> dict[str, float | int]:
    """Compare the spans found with exact matches, span for span.

    Args:
        tagger: trained without the held-out names.
        sentences: texts with all matches.
        held_out: those of each text whose names were hidden in training.
        min_score: spans below it do not count.

    Returns:
        `recall_held_out` (share of hidden mentions found), `precision` (share of found spans
        that are matches; a true name that the KG lacks counts against it), and the counts.
    """
    found = tagger.spans([one.text for one in sentences], min_score=min_score)
    n_found = n_right = n_hidden = n_hidden_found = 0
    for sentence, hidden, spans in zip(sentences, held_out, found, strict=True):
        own = {(start, end) for start, end, _ in spans}
        n_found += len(own)
        n_right += len(own & set(sentence.spans))
        n_hidden += len(hidden)
        n_hidden_found += len(own & set(hidden))
    return {
        "recall_held_out": n_hidden_found / max(1, n_hidden),
        "precision": n_right / max(1, n_found),
        "n_held_out": n_hidden,
        "n_held_out_found": n_hidden_found,
        "n_found": n_found,
        "n_found_that_match": n_right,
        "n_sequences": len(sentences),
    }


def _is_name(surface: str) -> bool:
    return len(surface) > 2 and any(letter.isalpha() for letter in surface)


def _softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


# --- tokens and features --------------------------------------------------------------------


def _hash(kind: str, text: str) -> int:
    digest = hashlib.blake2b(f"{kind}:{text}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _word_features(word: str) -> tuple[int, ...]:
    """Return hashes of token, prefix, suffixes of two to four letters, shape, and a mark."""
    lower = word.lower()
    shape = "".join(
        "X" if one.isupper() else "x" if one.islower() else "9" if one.isdigit() else one
        for one in word
    )
    short = "".join(one for place, one in enumerate(shape) if shape[place - 1 : place] != one)
    return (
        _hash("w", lower),
        _hash("p3", lower[:3]),
        _hash("s2", lower[-2:]),
        _hash("s3", lower[-3:]),
        _hash("s4", lower[-4:]),
        _hash("shape", short),
        _hash("long", str(min(len(word), 12))),
    )


def _tokens_of(texts: Sequence[str]) -> _Tokens:
    row_of: dict[str, int] = {"": 0}
    rows: list[int] = []
    places: list[tuple[int, int, int]] = []
    for number, text in enumerate(texts):
        for match in TOKEN.finditer(text):
            rows.append(row_of.setdefault(match[0], len(row_of)))
            places.append((number, match.start(), match.end()))
        rows += [0, 0]
        places += [(-1, 0, 0), (-1, 0, 0)]
    table = np.array([_word_features(word) for word in row_of], dtype=np.uint64)
    word = table[np.array(rows, dtype=np.int64)] if rows else np.zeros((0, _N_WORD), np.uint64)
    place = np.array(places, dtype=np.int32).reshape(-1, 3)
    return _Tokens(_combine(word), place[:, 0], place[:, 1], place[:, 2])


def _combine(word: np.ndarray) -> np.ndarray:
    """Return (n, 19) feature buckets: a token's own, and its neighbours' token, suffix, shape."""
    n = len(word)
    columns = [word[:, place] for place in range(_N_WORD)]
    for offset in (-2, -1, 1, 2):
        near = np.zeros_like(word)
        if offset < 0:
            near[-offset:] = word[: n + offset]
        else:
            near[: n - offset] = word[offset:]
        mark = np.uint64((offset + 3) * int(_FACTOR) % 2**64)
        columns += [near[:, place] * _FACTOR ^ mark for place in (0, 3)]
        if abs(offset) == 1:
            columns.append(near[:, 5] * _FACTOR ^ mark)
            columns.append((near[:, 0] ^ mark) * _FACTOR + word[:, 0])
    mixed = np.stack(columns, axis=1) * _FACTOR
    return (mixed >> np.uint64(64 - 18)).astype(np.int64)


def _tags_of(tokens: _Tokens, sentences: Sequence[Sentence]) -> np.ndarray:
    tags = np.zeros(len(tokens.text), np.int64)
    ends_of_texts = np.flatnonzero(tokens.text < 0)[::2].tolist()
    first = 0
    for sentence, last in zip(sentences, ends_of_texts, strict=True):
        starts, ends = tokens.start[first:last], tokens.end[first:last]
        for start, end in sentence.spans:
            a = int(np.searchsorted(ends, start, "right"))
            b = int(np.searchsorted(starts, end, "left"))
            if a < b:
                tags[first + a] = BEGIN
                tags[first + a + 1 : first + b] = INSIDE
        first = last + 2
    return tags
