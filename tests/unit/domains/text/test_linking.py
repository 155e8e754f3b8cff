from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphmert.domains.text.embedding import LexicalEmbedder
from graphmert.domains.text.linking import (
    LetterIndex,
    LinkSettings,
    jaccard,
    link_surfaces,
    trigrams,
)
from graphmert.progress import Progress
from toy_text import toy_entities

names = st.lists(st.text(alphabet="abc ", min_size=1, max_size=9), min_size=1, max_size=12)


@given(names, st.text(alphabet="abcx ", max_size=9), st.sampled_from([0.0, 0.3, 0.5, 0.8]))
def test_the_letter_index_finds_all_and_only(found: list[str], text: str, limit: float) -> None:
    expected = [
        (row, jaccard(trigrams(text), trigrams(name)))
        for row, name in enumerate(found)
        if jaccard(trigrams(text), trigrams(name)) > limit
    ]
    assert LetterIndex(found).alike(text, limit) == expected


def test_trigrams_and_jaccard_by_hand() -> None:
    assert trigrams("abcd") == {"abc", "bcd"}
    assert trigrams("ab") == {"ab"}
    assert trigrams("") == frozenset()
    assert jaccard(trigrams("abcd"), trigrams("abce")) == 1 / 3
    assert jaccard(frozenset(), frozenset()) == 0.0


class Table:
    """An embedder with given vectors."""

    fingerprint = "table"

    def __init__(self, **vectors: Sequence[float]) -> None:
        self.vectors = {name.replace("_", " "): vector for name, vector in vectors.items()}

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        return np.array([self.vectors[text] for text in texts], np.float32)


ENTITIES = toy_entities(
    A=["heart attack", "myocardial infarct"], B="heart attacker", C="liver failure"
)
VECTORS = {
    "heart_attack": [1.0, 0.0, 0.0],
    "myocardial_infarct": [0.9, 0.1, 0.0],
    "heart_attacker": [0.0, 1.0, 0.0],
    "liver_failure": [0.0, 0.0, 1.0],
    "heart_attacks": [0.8, 0.6, 0.0],
    "kidney_stone": [0.5, 0.5, 0.0],
}


def test_a_link_is_near_in_meaning_and_alike_in_letters() -> None:
    surfaces = ["heart attacks", "kidney stone"]
    links, ledger = link_surfaces(
        surfaces, ENTITIES, Table(**VECTORS), LinkSettings(min_cosine=0.0)
    )
    link = links["heart attacks"]
    assert (link.entity_id, link.name) == ("A", "heart attack")
    assert abs(link.cosine - 0.8) < 1e-6
    assert link.jaccard == 10 / 11
    assert ledger.reasons == {"no name with more than 0.5 of its 3-letter pieces": 1}
    assert (ledger.n_offered, ledger.n_kept) == (2, 1)


def test_a_part_of_a_name_is_not_near_enough() -> None:
    for min_cosine, n_links in ((0.79, 1), (0.81, 0)):
        links, ledger = link_surfaces(
            ["heart attacks"], ENTITIES, Table(**VECTORS), LinkSettings(min_cosine=min_cosine)
        )
        assert len(links) == n_links == ledger.check().n_kept
    assert ledger.examples == {
        "nearest such name below cosine 0.81": ["heart attacks -> heart attack"]
    }


def test_only_the_nearest_names_count() -> None:
    vectors = VECTORS | {"heart_attacks": [0.0, 0.1, 0.995]}
    for top_k, expected in ((1, {}), (2, {"heart attacks": "B"}), (10, {"heart attacks": "B"})):
        links, ledger = link_surfaces(
            ["heart attacks"], ENTITIES, Table(**vectors), LinkSettings(top_k=top_k, min_cosine=0.0)
        )
        assert {surface: link.entity_id for surface, link in links.items()} == expected
        assert ledger.check().n_kept == len(expected)


def test_spelling_variants_link_lexically() -> None:
    entities = toy_entities(A="starch gelatinisation", B="gluten development", C="salt")
    links, _ = link_surfaces(
        ["starch gelatinization", "Starch  gelatinisations", "pepper"],
        entities,
        LexicalEmbedder(),
        LinkSettings(min_cosine=0.5),
    )
    assert {one: link.entity_id for one, link in links.items()} == {
        "starch gelatinization": "A",
        "Starch  gelatinisations": "A",
    }
