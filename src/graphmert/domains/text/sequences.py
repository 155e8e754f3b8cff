"""Cut documents into sequences that fit the encoder, at sentence ends where possible."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from graphmert.errors import ConfigError
from graphmert.sentences import Span, sentences
from graphmert.shards import Ledger
from graphmert.store import check_table, make_table
from graphmert.tokens import Encoding, Tokenizer

_BATCH = 2_048
_WORD = re.compile(r"\S+")


def make_sequences(
    documents: pa.Table, tokenizer: Tokenizer, *, max_tokens: int = 126
) -> tuple[pa.Table, Ledger]:
    """Cut every document into sequences of at most `max_tokens` tokens.

    Sentences are packed while they fit; a sentence that does not fit alone is cut between
    words, and a word that does not fit alone is cut inside. The sequences of a document cover
    all of it but blanks, in order, without overlap.

    Args:
        documents: the documents table.
        tokenizer: counts the tokens of each sequence's own text.
        max_tokens: without the two tokens that the chain adds.

    Returns:
        The sequences table (seq_id is "DOC_ID#0", "DOC_ID#1", …), and the ledger, which counts
        words: kept whole, cut, or lost. A document without text counts as one.

    Raises:
        ConfigError: max_tokens below 1.
    """
    if max_tokens < 1:
        raise ConfigError("max_tokens is too small", got=max_tokens, expected="at least 1")
    check_table("corpus/documents", documents)
    ledger = Ledger("sequences")
    columns: dict[str, list[object]] = {"seq_id": [], "doc_id": [], "start": [], "end": []}
    for first in range(0, documents.num_rows, _BATCH):
        batch = documents.slice(first, _BATCH)
        texts: list[str] = batch["text"].to_pylist()
        encodings = tokenizer.encode_batch(texts)
        for doc_id, text, encoding in zip(
            batch["doc_id"].to_pylist(), texts, encodings, strict=True
        ):
            spans = _cut(text, encoding, tokenizer, max_tokens, ledger, doc_id)
            for index, (start, end) in enumerate(spans):
                columns["seq_id"].append(f"{doc_id}#{index}")
                columns["doc_id"].append(doc_id)
                columns["start"].append(start)
                columns["end"].append(end)
    return make_table("corpus/sequences", columns), ledger.check()


def _cut(
    text: str,
    encoding: Encoding,
    tokenizer: Tokenizer,
    max_tokens: int,
    ledger: Ledger,
    doc_id: str,
) -> list[Span]:
    stripped = text.strip()
    if not stripped:
        ledger.offered()
        ledger.leave_out("document without text", example=doc_id)
        return []
    n_words = len(text.split())
    ledger.offered(n_words)
    if len(encoding) <= max_tokens and len(stripped) == len(text):
        ledger.keep(n_words)
        return [(0, len(text))]
    spans = _pack_checked(text, encoding, tokenizer, max_tokens)
    # A span that starts or ends inside a word has cut it.
    words = np.array([match.span() for match in _WORD.finditer(text)], dtype=np.int64)
    word_start, word_end = words[:, 0], words[:, 1]
    steps = np.zeros(len(text) + 1, dtype=np.int64)
    np.add.at(steps, [start for start, _ in spans], 1)
    np.add.at(steps, [end for _, end in spans], -1)
    n_inside = np.concatenate([[0], np.cumsum(np.cumsum(steps)[:-1] > 0)])
    lost = n_inside[word_end] - n_inside[word_start] < word_end - word_start
    cuts = np.array(sorted({place for span in spans for place in span}), dtype=np.int64)
    n_cuts = np.searchsorted(cuts, word_end, "left") - np.searchsorted(cuts, word_start, "right")
    pieces = ~lost & (n_cuts > 0)
    ledger.keep(n_words - int(lost.sum()) - int(pieces.sum()))
    for reason, bad in (
        ("word with a character over the budget", lost),
        ("word longer than the budget, kept in pieces", pieces),
    ):
        for start, end in words[bad].tolist():
            ledger.leave_out(reason, example=f"{doc_id} [{start}, {end})")
    return spans


def _pack_checked(
    text: str, encoding: Encoding, tokenizer: Tokenizer, max_tokens: int
) -> list[Span]:
    """Pack by the document's own tokens, then cut again what has more tokens on its own."""
    token_starts = encoding.offsets[:, 0]

    def fits_estimate(start: int, end: int) -> bool:
        first, last = np.searchsorted(token_starts, (start, end))
        return bool(last - first <= max_tokens)

    def fits(start: int, end: int) -> bool:
        return len(tokenizer.encode(text[start:end])) <= max_tokens

    spans = _pack(text, sentences(text), fits_estimate)
    counts = [len(one) for one in tokenizer.encode_batch([text[a:b] for a, b in spans])]
    checked: list[Span] = []
    for (start, end), count in zip(spans, counts, strict=True):
        if count <= max_tokens:
            checked.append((start, end))
        else:
            again = _pack(text, [(start, end)], fits)
            checked.extend(span for span in again if fits(*span))
    return checked


def _pack(text: str, units: list[Span], fits: Callable[[int, int], bool]) -> list[Span]:
    """Join neighbouring sentences while they fit; cut those that do not fit alone."""

    def words(start: int, end: int) -> list[Span]:
        found = [match.span() for match in _WORD.finditer(text, start, end)]
        return _join(found, fits, lambda a, b: _cut_word(a, b, fits))

    return _join(units, fits, words)


def _join(
    units: list[Span],
    fits: Callable[[int, int], bool],
    finer: Callable[[int, int], list[Span]],
) -> list[Span]:
    joined: list[Span] = []
    for start, end in units:
        if joined and fits(joined[-1][0], end):
            joined[-1] = (joined[-1][0], end)
        elif fits(start, end):
            joined.append((start, end))
        else:
            joined.extend(finer(start, end))
    return joined


def _cut_word(start: int, end: int, fits: Callable[[int, int], bool]) -> list[Span]:
    """Cut a word into the longest pieces that fit, at least one character each."""
    pieces: list[Span] = []
    while start < end:
        low, high = start + 1, end
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(start, middle) else (low, middle - 1)
        pieces.append((start, low))
        start = low
    return pieces
