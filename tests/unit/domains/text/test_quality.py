from __future__ import annotations

import pytest

from graphmert.domains.text import make_sequences
from graphmert.domains.text.quality import drop_low_information, low_information
from toy_text import toy_documents, toy_tokenizer

LOW = [
    "BP 120/80 mmHg, HR 72 bpm, T 36.6 °C, SpO2 98 %.",
    "1.2 3.4 5.6 7.8",
    "Group A 12 (34 %) 45 (67 %) 8 (9 %) p < 0.05",
    "30 min 75 % 2 % 240 °C 20 min 210 °C",
    "--- === ***",
    "Table 1.",
    "Group Alpha 12 (34 %) 45 (67 %) 8 (9 %) p < 0.05",
    "n = 24; 5.1 ± 0.3 vs. 4.9 ± 0.2 mmol/l; 95 % CI 1.1 to 2.3",
    "again and again " * 30,
]
FINE = [
    "A process that changes the rate of another process.",
    "Yeast turns sugar into carbon dioxide.",
    "Blood pressure was 120/80 mmHg in the patients and 110/70 mmHg in the controls.",
    "Glucose fell from 7.2 to 5.1 mmol/l within 2 h (p < 0.05).",
    "regulation of growth",
    "酵母将糖转化为二氧化碳。",
    "Дрожжи превращают сахар в углекислый газ.",
    "E. coli and S. aureus grew on it at 37 °C for 24 h.",
]


@pytest.mark.parametrize("text", LOW)
def test_measurements_and_lists_of_numbers_say_little(text: str) -> None:
    assert str(low_information(text)).startswith("low information: ")


@pytest.mark.parametrize("text", FINE)
def test_sentences_say_enough(text: str) -> None:
    assert low_information(text) is None


def test_what_is_left_out_has_a_reason_and_is_shown() -> None:
    documents = toy_documents(LOW[0], FINE[0], LOW[1])
    sequences, _ = make_sequences(documents, toy_tokenizer(), max_tokens=500)
    kept, ledger = drop_low_information(sequences, documents)
    assert kept["doc_id"].to_pylist() == ["d1"]
    assert (ledger.n_offered, ledger.n_kept) == (3, 1)
    assert any("BP 120/80" in one for shown in ledger.examples.values() for one in shown)
