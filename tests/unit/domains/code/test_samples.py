"""Samples hold code and no docstring; splits keep packages apart and near-duplicates out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.domains.code.duplicates import find_duplicates, jaccard, shingles
from graphmert.domains.code.ontology import load_profile
from graphmert.domains.code.samples import CodeSample, clean_docstring, make_samples, subtract
from graphmert.domains.code.splits import split_packages, split_samples
from graphmert.domains.code.tables import CodeTables
from graphmert.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def tables(index: Path) -> CodeTables:
    return CodeTables.load(index, load_profile("graphmer-se"))


@pytest.fixture(scope="module")
def samples(tables: CodeTables) -> dict[str, CodeSample]:
    return {sample.entity_id: sample for sample in make_samples(tables)[0]}


AREA = "alpha/alpha/shapes.py#Circle.area"


def test_a_function_is_its_definition_without_its_docstring(samples: dict[str, CodeSample]) -> None:
    area = samples[AREA]
    assert area.kind == "function"
    assert area.text.startswith("def area(self, factor):")
    assert "Return the area" not in area.text
    assert "radius = self.read(factor)" in area.text
    assert area.docstring == "Return the area of this circle times a factor."


def test_a_class_shows_its_members_without_their_bodies(samples: dict[str, CodeSample]) -> None:
    circle = samples["alpha/alpha/shapes.py#Circle"]
    assert circle.kind == "class"
    assert "class Circle(Base):" in circle.text
    assert "def area(self, factor):" in circle.text
    assert "radius" not in circle.text
    assert circle.docstring == "A round shape."


def test_a_module_is_its_path_and_what_stands_at_the_top(samples: dict[str, CodeSample]) -> None:
    module = samples["alpha/alpha/shapes.py"]
    assert module.text.startswith("alpha/shapes.py\n")
    assert "from alpha.core import Base, scale" in module.text
    assert "total" in module.text  # the name of a function
    assert "math.pi" not in module.text


def test_no_docstring_is_in_any_text(samples: dict[str, CodeSample]) -> None:
    described = [s for s in samples.values() if len(s.docstring.split()) > 2]
    assert len(described) > 20
    for sample in samples.values():
        for other in described:
            if other.doc_id == sample.doc_id:
                assert other.docstring not in sample.text, (sample.entity_id, other.entity_id)


def test_documentation_outside_a_function_is_found(samples: dict[str, CodeSample]) -> None:
    joined = samples["script/index.js#joinNames"]
    assert joined.docstring == "Join the names of people with commas."
    assert joined.text.startswith("function joinNames")
    assert "/**" not in joined.text


def test_places_lead_back_to_the_document(
    tables: CodeTables, samples: dict[str, CodeSample]
) -> None:
    for sample in samples.values():
        text = tables.texts[sample.doc_id]
        for symbol in tables.symbols_in[sample.doc_id]:
            if symbol.name_start == symbol.name_end:
                continue
            place = sample.place(symbol.name_start, symbol.name_end)
            if place is not None:
                assert sample.text[slice(*place)] == text[symbol.name_start : symbol.name_end]
    area = samples[AREA]
    start = tables.texts[area.doc_id].index("Return the area")
    assert area.place(start, start + 5) is None


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ('"""One line."""', "One line."),
        ("'''Two\n    lines.\n\n    More.'''", "Two lines."),
        ('r"""Raw."""', "Raw."),
        ("/** Java <p>text</p> {@link Foo}.\n * @param x y\n */", "Java text Foo."),
        ("/**\n * Starred\n * lines.\n */", "Starred lines."),
        ("// one\n// two", "one two"),
        ('"""Do it.\n\nArgs:\n  x: y"""', "Do it."),
        ('""""""', ""),
    ],
)
def test_docstrings_become_plain_words(raw: str, clean: str) -> None:
    assert clean_docstring(raw) == clean


@given(
    cuts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=6),
    span=st.tuples(st.integers(0, 20), st.integers(20, 45)),
)
def test_subtract_equals_sets(cuts: list[tuple[int, int]], span: tuple[int, int]) -> None:
    pairs = [(start, start + size) for start, size in cuts]
    left = subtract(span, pairs)
    wanted = set(range(*span)) - {i for start, end in pairs for i in range(start, end)}
    assert {i for start, end in left for i in range(start, end)} == wanted
    assert all(a < b for a, b in left)
    assert list(left) == sorted(left)


# --- near-duplicates ------------------------------------------------------------------------


def test_jaccard_of_shingles() -> None:
    a, b = shingles("a b c d e f"), shingles("a b c d e g")
    assert jaccard(a, b) == pytest.approx(1 / 3)
    assert jaccard(a, a) == 1.0
    assert len(shingles("too few")) == 1


def test_near_copies_are_left_out_in_the_order_given() -> None:
    base = " ".join(f"w{i} = f({i})" for i in range(30))
    near = base.replace("w3 ", "v3 ")
    other = " ".join(f"x{i} + {i}" for i in range(30))
    texts = [near, other, base]
    assert find_duplicates(texts, [2, 0, 1]).twin == {0: 2}
    assert find_duplicates(texts, [0, 1, 2]).twin == {2: 0}
    assert find_duplicates(texts, [0, 1, 2], threshold=1.0).twin == {}
    kept = find_duplicates(texts, [0, 1, 2]).kept
    assert kept.tolist() == [0, 1]


def test_every_pair_above_the_threshold_is_found() -> None:
    """MinHash only proposes; over many texts none of clear duplicates is missed."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(40):
        words = rng.integers(0, 500, size=60)
        texts.append(" ".join(f"t{w}" for w in words))
        words[rng.integers(60)] = 999
        texts.append(" ".join(f"t{w}" for w in words))
    found = find_duplicates(texts, range(len(texts)), threshold=0.7)
    assert found.twin == {i + 1: i for i in range(0, 80, 2)}


# --- splits ---------------------------------------------------------------------------------


def test_packages_never_straddle_parts(tables: CodeTables) -> None:
    every, _ = make_samples(tables)
    split = split_samples(every, valid=["beta"], test=["gamma"])
    assert split.part_of == {
        "alpha": "train", "beta": "valid", "gamma": "test", "script": "train",
    }  # fmt: skip
    for part, chosen in split.parts.items():
        assert {split.part_of[s.package] for s in chosen} == {part}
    # `scale`, `read` and `reset` are the same in all three: only the test part keeps them
    names = Counter(s.entity_id.split("#")[-1] for part in split.parts.values() for s in part)
    assert names["scale"] == 1
    kept = {s.entity_id for s in split.parts["test"]}
    assert "gamma/gamma/core.py#scale" in kept
    ledger = split.ledger.to_dict()
    assert ledger["offered"] == len(every) == ledger["kept"] + sum(ledger["left_out"].values())
    assert ledger["left_out"]["near-duplicate, train of test"] > 0


def test_unnamed_splits_hold_out_one_package_of_each_language() -> None:
    sizes = {
        **{f"p{i}": Counter(python=10 * i) for i in range(1, 6)},
        **{f"j{i}": Counter(java=i) for i in range(1, 3)},
    }
    part_of = split_packages(sizes)
    assert Counter(part_of.values()) == {"train": 5, "valid": 1, "test": 1}
    assert part_of["p3"] == "test"
    assert part_of["p2"] == "valid"
    assert split_packages(sizes) == part_of


def test_wrong_splits_are_named() -> None:
    sizes = {"a": Counter(python=1), "b": Counter(python=1)}
    with pytest.raises(ConfigError, match="no such package"):
        split_packages(sizes, valid=["c"])
    with pytest.raises(ConfigError, match="in valid and test"):
        split_packages(sizes, valid=["a"], test=["a"])
    with pytest.raises(ConfigError, match="held out"):
        split_packages(sizes, valid=["a"], test=["b"])
    with pytest.raises(DataError, match="no function"):
        split_samples([])
