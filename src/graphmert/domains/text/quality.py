"""Tell sequences that say something from measurements and lists of numbers."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from graphmert.shards import Ledger

MIN_WORDS = 2
MIN_WORD_SHARE = 0.25
MIN_DISTINCT_SHARE = 0.15

_WORD = re.compile(r"[^\W\d_]{3,}|[\u2e80-\U0003134f]")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_UNITS = _words(
    """
    mmhg bpm cmh2o kcal mol mmol nmol umol µmol μmol pmol mosm khz mhz ghz kda mbp ppm ppb rpm
    min sec hrs msec wks yrs mos iqr std sem hct hgb wbc rbc plt mcv bun bmi vol total mean
    range years days weeks months hours minutes seconds grams
    """
)


def low_information(text: str) -> str | None:
    """Return why a text says too little to learn from, or None.

    A word is a run of three letters or more that is no unit; scripts without blanks count by
    character. Too little is: fewer than two words; under 25 % words among its tokens; or a long
    text that repeats itself, under 15 % of its words different.
    """
    tokens = text.split()
    words = [
        token.casefold()
        for token in tokens
        if (found := _WORD.search(token)) and found[0].casefold() not in _UNITS
    ]
    wide = sum(len(found) for found in re.findall(r"[\u2e80-\U0003134f]+", text))
    if len(words) + wide < MIN_WORDS:
        return "low information: fewer than two words"
    if len(words) < MIN_WORD_SHARE * len(tokens):
        return "low information: mostly numbers, units and symbols"
    if len(words) >= 30 and len(set(words)) < MIN_DISTINCT_SHARE * len(words):
        return "low information: the same words again and again"
    return None


def drop_low_information(
    sequences: pa.Table, documents: pa.Table, *, example_chars: int = 80
) -> tuple[pa.Table, Ledger]:
    """Return the sequences that say something, and the ledger of the others.

    Args:
        sequences: columns seq_id, doc_id, start, end.
        documents: their texts, columns doc_id and text.
        example_chars: so much of a sequence left out is shown in the ledger.
    """
    texts = dict(zip(documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True))
    ledger = Ledger("low information")
    ledger.offered(sequences.num_rows)
    keep = np.ones(sequences.num_rows, dtype=bool)
    columns = (sequences[name].to_pylist() for name in ("seq_id", "doc_id", "start", "end"))
    for row, (seq_id, doc_id, start, end) in enumerate(zip(*columns, strict=True)):
        text = texts[doc_id][start:end]
        reason = low_information(text)
        if reason is None:
            ledger.keep()
        else:
            keep[row] = False
            ledger.leave_out(reason, example=f"{seq_id}: {text[:example_chars]}")
    return sequences.filter(pa.array(keep)), ledger.check()
