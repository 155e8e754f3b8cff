from __future__ import annotations

import pytest

from graphmert.domains.text import make_sequences, sentences
from graphmert.errors import ConfigError
from toy_text import byte_tokenizer, toy_documents, toy_tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "One here.| Two there.",
        "Is it?| Yes!| Well… no.",
        "Proteins, e.g. Actin and i.e. Myosin, bind.| They move.",
        "Muscle, bone, etc. Also called tissue.".replace("etc. Also", "etc.| Also"),
        "Muscle, bone, etc. in the body.",
        "By Dr. Smith and J. Doe et al. (2003) in Fig. 3.| It works.",
        "A value of 3.5 or .5 is 4. 5 is more.".replace("4. 5", "4.| 5"),
        "Caused by hepatitis B. The virus spreads.".replace("B. The", "B.| The"),
        'He said "stop."| Then he left.',
        "(See above.)| Next one.",
        "No end here",
        "Title line\n\n|Body of it\nwith a wrapped line.\r\n\r\n|More.",
        "E. coli grows.| S. aureus too.",
        "日本語です。|次の文。",
        "Found in vivo.lowercase is no end. nor is this",
        "Genes 🧬 fold. 🧬 too.".replace(". 🧬", ".| 🧬"),
    ],
)
def test_sentences(text: str) -> None:
    plain = text.replace("|", "")
    pieces = [plain[start:end] for start, end in sentences(plain)]
    assert pieces == [one.strip() for one in text.split("|")]


@pytest.mark.parametrize("text", ["", "  \r\n\t "])
def test_blank_text_has_no_sentence(text: str) -> None:
    assert sentences(text) == []


def cut(*texts: str, max_tokens: int) -> tuple[list[str], dict[str, int]]:
    documents = toy_documents(*texts)
    table, ledger = make_sequences(documents, toy_tokenizer(), max_tokens=max_tokens)
    found = [texts[int(row["doc_id"][1:])][row["start"] : row["end"]] for row in table.to_pylist()]
    return found, ledger.reasons


def test_short_documents_stay_whole_and_apart() -> None:
    assert cut("growth of a cell.", " membrane. ", max_tokens=20) == (
        ["growth of a cell.", "membrane."],
        {},
    )


def test_sentences_are_packed_while_they_fit() -> None:
    text = "a b c. A b c. A b c. A b c."
    assert cut(text, max_tokens=8) == (["a b c. A b c.", "A b c. A b c."], {})
    assert cut(text, max_tokens=7) == (["a b c."] + ["A b c."] * 3, {})


def test_a_long_sentence_is_cut_between_words() -> None:
    assert cut("a b c d e f g", max_tokens=3) == (["a b c", "d e f", "g"], {})


def test_a_long_word_is_cut_inside_and_said() -> None:
    pieces, reasons = cut("a qzqzqzqzqz b", max_tokens=4)
    assert "".join(pieces).replace(" ", "") == "aqzqzqzqzqzb"
    assert reasons == {"word longer than the budget, kept in pieces": 1}


def test_a_sequence_fits_on_its_own_not_only_within_its_document() -> None:
    tokenizer = byte_tokenizer()
    text = "the growth growth growth growth growth"
    whole = tokenizer.encode(text)
    table, _ = make_sequences(toy_documents(text), tokenizer, max_tokens=3)
    pieces = [text[row["start"] : row["end"]] for row in table.to_pylist()]
    assert " ".join(pieces) == text
    assert len(tokenizer.encode("growth growth growth")) > 3  # though it has 3 tokens inside
    assert all(len(tokenizer.encode(piece)) <= 3 for piece in pieces), whole


def test_a_character_over_the_budget_is_lost_and_said() -> None:
    table, ledger = make_sequences(toy_documents("the 🧬"), byte_tokenizer(), max_tokens=3)
    assert table.num_rows == 1
    assert ledger.reasons == {"word with a character over the budget": 1}


def test_a_document_without_text_is_in_the_ledger() -> None:
    assert cut("  ", "a", max_tokens=4) == (["a"], {"document without text": 1})


def test_sequence_ids_name_document_and_place() -> None:
    table, _ = make_sequences(toy_documents("a b c d", "e"), toy_tokenizer(), max_tokens=2)
    assert table["seq_id"].to_pylist() == ["d0#0", "d0#1", "d1#0"]


def test_a_budget_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        make_sequences(toy_documents("a"), toy_tokenizer(), max_tokens=0)
