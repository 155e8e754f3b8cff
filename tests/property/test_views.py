from __future__ import annotations

import re
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.domains.text import find_mentions, make_sequences
from graphmert.domains.text.mentions import NameIndex
from graphmert.domains.text.views import view_of
from strategies import texts
from toy_text import toy_documents, toy_entities, toy_tokenizer

# Letters that compose: Latin, Hangul, Devanagari, and singletons such as the Angstrom sign.
COMPOSING = (
    "ae\u0301\u0308\u0327o\u0302\u1100\u1161\u11a8\u0928\u093c\u212bÅé가\u00ad\u200b‑– \r\n\t🧬"
)
composing = st.text(alphabet=COMPOSING, max_size=40)
any_text = st.one_of(texts, composing)

NAMES = ["café au lait", "plasma membrane", "Sjögren-Larsson", "naïve", "각", "ångström unit"]
ENTITIES = toy_entities(**{f"E{place}": name for place, name in enumerate(NAMES)})


@given(any_text)
def test_every_character_of_a_view_stands_for_a_span(text: str) -> None:
    view = view_of(text)
    if view.start is None or view.end is None:
        assert view.text == text
        return
    assert len(view.start) == len(view.end) == len(view.text)
    assert (view.start < view.end).all()
    assert (view.start[1:] >= view.start[:-1]).all()
    assert (view.end[1:] >= view.end[:-1]).all()
    for place in range(len(view.text)):
        start, end = view.original(place, place + 1)
        # The view of what a character stands for holds the character.
        assert view.text[place] in view_of(text[start:end]).text


@given(any_text)
def test_a_view_is_composed_with_single_blanks(text: str) -> None:
    view = view_of(text).text
    assert unicodedata.is_normalized("NFC", view) or not unicodedata.is_normalized(
        "NFC", re.sub(r"[\u00ad\u200b\u2060\ufeff]", "", text)
    )
    assert not re.search(r"\s\s", view)
    if not re.search(r" \s|[^\S ]|[\u00ad\u200b\u2060\ufeff\u2010-\u2013\u2212’ʼ]", text):
        assert view == unicodedata.normalize("NFC", text)


@given(any_text, any_text, st.sampled_from(NAMES), st.sampled_from(["NFC", "NFD"]), st.data())
def test_names_are_found_however_they_are_written(
    before: str, after: str, name: str, form: str, data: st.DataObject
) -> None:
    blank = data.draw(st.sampled_from([" ", "  ", "\r\n", "\n", "\t", "\u00a0", "\u2009"]))
    hyphen = data.draw(st.sampled_from(["-", "‐", "‑", "–"]))
    written = unicodedata.normalize(form, name).replace(" ", blank).replace("-", hyphen)
    if data.draw(st.booleans()):
        written = written.upper() if name != "각" else written
    text = f"{before} . {written} . {after}"
    documents = toy_documents(text)
    sequences, _ = make_sequences(documents, toy_tokenizer(), max_tokens=10_000)
    mentions, ledger = find_mentions(sequences, documents, NameIndex(ENTITIES, normalise=True))
    ledger.check()
    start = len(before) + 3
    for row in mentions.to_pylist():
        assert text[row["start"] : row["end"]] == row["surface"]
        assert row["start"] < row["end"]
    spans = [(row["start"], row["end"]) for row in mentions.to_pylist()]
    assert (start, start + len(written)) in spans


@pytest.mark.parametrize(
    ("text", "n_found"),
    [
        ("A plasma\nmembrane.", 1),
        ("A plasma\r\n  membrane.", 1),
        ("plasma\n\nmembrane", 0),  # a paragraph ends between the words
        ("plas\u00adma mem\u200bbrane", 1),
        ("plasma membranes", 0),
        ("nai\u0308ve", 1),
        ("naive", 0),
        ("nai\u0308ve\u0301", 0),  # another letter than the name's
    ],
)
def test_names_over_line_ends(text: str, n_found: int) -> None:
    documents = toy_documents(text)
    sequences, _ = make_sequences(documents, toy_tokenizer(), max_tokens=10_000)
    mentions, _ = find_mentions(sequences, documents, NameIndex(ENTITIES, normalise=True))
    assert mentions.num_rows == n_found


@given(st.text(alphabet="abc -.", max_size=60))
def test_plain_texts_give_the_same_mentions_with_and_without_views(text: str) -> None:
    entities = toy_entities(A="ab", B="a b", C="bc-a", D=["c", "cab"])
    documents = toy_documents(re.sub(" +", " ", text))
    sequences, _ = make_sequences(documents, toy_tokenizer(), max_tokens=10_000)
    plain, _ = find_mentions(sequences, documents, entities)
    viewed, _ = find_mentions(sequences, documents, NameIndex(entities, normalise=True))
    assert isinstance(plain, pa.Table)
    assert plain == viewed
