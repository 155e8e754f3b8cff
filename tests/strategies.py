"""Hypothesis strategies for graphs, schemas and texts."""

from __future__ import annotations

from hypothesis import strategies as st

from graphmert.kg import KG, Entity, Relation, Schema, Triple

TYPES = ("process", "part", "fünction")
RELATIONS = ("is_a", "part_of", "has_part", "touches", "regulates")
# Letters, digits and marks; characters whose case folding changes length; emoji of several
# code points; combining marks; line ends of every kind.
ALPHABET = "abAB19_-.,;:!? \t\r\n()\"'\\éßẞİıſΣς\u0301\u0308\u200d\ufe0f🧬👩‍🔬中。\0"

any_text = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=80)
hard_text = st.text(alphabet=ALPHABET, max_size=120)
sentence_text = st.lists(
    st.sampled_from(
        ["growth", "Cell", "e.g.", "i.e.", "3.5", "membrane.", "The", "Dr.", "end!", "(see", "a)",
         "etc.", "x" * 40, "🧬", "e\u0301tat", "\r\n", "\n\n", "\t", "plasma", "is", "C."]
    ),
    max_size=60,
).map(" ".join)  # fmt: skip
texts = st.one_of(hard_text, sentence_text, any_text)

entity_ids = st.integers(0, 7).map(lambda number: f"E:{number}")
entities = st.builds(
    lambda number, synonyms: Entity(f"E:{number}", f"name {number}", TYPES[number % 3], synonyms),
    st.integers(0, 7),
    st.lists(st.sampled_from(["one", "two", "drei", "name 1"]), max_size=3).map(tuple),
)
triples = st.builds(Triple, entity_ids, st.sampled_from(RELATIONS), entity_ids)


@st.composite
def kgs(draw: st.DrawFn) -> KG:
    """Return a small graph without dangling ids."""
    found = draw(st.lists(triples, max_size=25))
    named = {end for triple in found for end in (triple.head_id, triple.tail_id)}
    numbers = sorted(int(one[2:]) for one in named)
    own = [Entity(f"E:{i}", f"name {i}", TYPES[i % 3]) for i in numbers]
    return KG.build([*own, *draw(st.lists(entities, max_size=4))], found)


_flags = st.booleans()
_label = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Return a schema over RELATIONS that does not contradict itself."""
    pair = draw(st.booleans())
    relations: dict[str, Relation] = {}
    for place, name in enumerate(RELATIONS):
        symmetric = draw(_flags)
        inverse = {"part_of": "has_part", "has_part": "part_of"}.get(name) if pair else None
        # Only later relations may be parents, so that there is no circle.
        parents = st.lists(st.sampled_from(RELATIONS[place + 1 :] or (name,)), unique=True)
        relations[name] = Relation(
            name,
            label=draw(_label),
            domain=frozenset(draw(st.sets(st.sampled_from(TYPES)))),
            range=frozenset(draw(st.sets(st.sampled_from(TYPES)))),
            inverse=inverse,
            sub_relation_of=tuple(sorted(set(draw(parents)) - {name})),
            symmetric=symmetric,
            antisymmetric=not symmetric and draw(_flags),
            transitive=draw(_flags),
            acyclic=not symmetric and draw(_flags),
            cardinality=draw(st.none() | st.integers(1, 5)),
            aliases=tuple(sorted(draw(st.sets(_label, max_size=2)))),
        )
    return Schema(tuple(sorted(TYPES)), relations)
