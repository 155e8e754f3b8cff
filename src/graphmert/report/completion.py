"""The report of a run that completed a graph: ranks of both ends beside published results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphmert.report.blocks import Block, Paragraph, Section, Table
from graphmert.report.graph import share

DASH = "–"
GRAPHS = {
    "none": "nothing but texts",
    "train": "the triples trained on",
    "given": "all training triples as given",
}
_HITS = ("hits@1", "hits@3", "hits@10")


def completion_sections(section: Mapping[str, Any]) -> tuple[Section, ...]:
    """Return the sections on `metrics.json`, section completion."""
    return (
        Section("Link prediction", tuple(_main_blocks(section))),
        Section("Head and tail", (_side_table(section),)),
        Section("By relation", (_relation_table(section),)),
        Section("What entities already have", (_have_table(section),)),
        Section("What training chains show", tuple(_leak_blocks(section))),
    )


def completion_lead(section: Mapping[str, Any]) -> str:
    """Return the first sentence of the report."""
    found = _result(section, _widest(section), "test")
    return (
        f"Both ends of {found['both']['n']:,} held-out triples, ranked among "
        f"{section['n_entities']:,} entities: filtered MRR {share(found['both']['mrr'])} with "
        f"{GRAPHS[found['graph']]} in sight."
    )


def completion_facts(section: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the numbers beside the title."""
    facts = [
        (
            f"test MRR, {GRAPHS[name]}",
            _number(_result(section, name, "test")["both"]["mrr"]["value"]),
        )
        for name in _graphs(section)
    ]
    return (*facts, ("entities", f"{section['n_entities']:,}"))


def _main_blocks(section: Mapping[str, Any]) -> list[Block]:
    rows = []
    for name in _graphs(section):
        for part in ("test", "valid"):
            both = _result(section, name, part)["both"]
            hits = (share(both[one]) for one in _HITS)
            rows.append((f"graphmert, in sight: {GRAPHS[name]}", part, share(both["mrr"]), *hits))
    ours = Table(
        columns=("system", "split", "MRR", "Hits@1", "Hits@3", "Hits@10"),
        rows=tuple(rows),
        n_text=2,
        note="Filtered ranks among all entities with realistic ties, means over head and tail "
        "prediction. Brackets: 95 % bootstrap interval, heads resampled; one training.",
    )
    found: list[Block] = [ours]
    if section["published"]:
        theirs = Table(
            columns=("published", "MRR", "Hits@1", "Hits@3", "Hits@10", "compute", "source"),
            rows=tuple(
                (
                    one["name"],
                    _number(one["mrr"]),
                    *(_number(one[name]) for name in ("hits_1", "hits_3", "hits_10")),
                    one["compute"],
                    one["source"],
                )
                for one in section["published"]
            ),
            note="On the same split. Published systems train on all training triples as given.",
        )
        found.append(theirs)
    return found


def _side_table(section: Mapping[str, Any]) -> Table:
    kinds = {
        "tail": "tail asked",
        "head": "head asked",
        "with_mirror": "mirror among the given training triples",
        "without_mirror": "no mirror there",
    }
    rows = tuple(
        (GRAPHS[name], words, f"{cell['n']:,}", *(_number(cell[one]) for one in ("mrr", *_HITS)))
        for name in _graphs(section)
        for kind, words in kinds.items()
        for cell in [_result(section, name, "test")[kind]]
    )
    return Table(
        columns=("in sight", "test triples", "n", "MRR", "Hits@1", "Hits@3", "Hits@10"),
        rows=rows,
        n_text=2,
        note="A triple's mirror says the same from its other end. Where all training triples are "
        "in sight, a mirror gives the answer away; the last two rows of each part both ends.",
    )


def _relation_table(section: Mapping[str, Any]) -> Table:
    graphs = _graphs(section)
    results = [_result(section, name, "test")["per_relation"] for name in graphs]
    order = sorted(results[0], key=lambda name: (-results[0][name]["both"]["n"], name))
    rows = tuple(
        (
            relation,
            f"{results[0][relation]['both']['n']:,}",
            *(
                _number(one[relation][side]["mrr"])
                for one in results
                for side in ("tail", "head", "both")
            ),
        )
        for relation in order
    )
    columns = (f"{side}, {GRAPHS[name]}" for name in graphs for side in ("tail", "head", "both"))
    return Table(columns=("MRR", "n", *columns), rows=rows, note="Test triples.")


def _have_table(section: Mapping[str, Any]) -> Table:
    found = section["already_have"]
    keys = ("entities_as_head", "held_out_heads", "entities_as_tail", "held_out_tails")
    return Table(
        columns=("relation", "entities, as head", "test heads", "entities, as tail", "test tails"),
        rows=tuple(
            (name, *(_number(shares[key]) for key in keys)) for name, shares in found.items()
        ),
        note="Shares that have a triple of the relation in training. Where most entities do and "
        "test heads do not, lacking one points to the answer.",
    )


def _leak_blocks(section: Mapping[str, Any]) -> list[Block]:
    counts, leaks = section["n_triples"], section["leaks"]
    text = (
        f"{counts['train']:,} triples were trained on; {counts['mirrors']:,} training triples that "
        "say a held-out one from its other end were left out. Counted in the stored training "
        f"chains: {leaks['held_out_triples']:,} held-out triples, "
        f"{leaks['mirrors_of_held_out']:,} mirrors of one."
    )
    return [Paragraph(text)]


def _graphs(section: Mapping[str, Any]) -> list[str]:
    """The graphs ranked under, the one with most in sight first."""
    found = {one["graph"] for one in section["results"]}
    return [name for name in reversed(GRAPHS) if name in found]


def _widest(section: Mapping[str, Any]) -> str:
    return _graphs(section)[0]


def _result(section: Mapping[str, Any], graph: str, part: str) -> Mapping[str, Any]:
    return next(one for one in section["results"] if (one["graph"], one["split"]) == (graph, part))


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"
