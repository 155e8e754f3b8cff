"""Commands about the relations of a trained model."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from graphmert.cli.terminal import AsJson, group, print_result, progress_shown, reporting

app = group("Change which relations a trained model knows.")


class Initial(enum.StrEnum):
    """What a new relation's parameters begin from."""

    NEAREST = "nearest"
    HIDDEN = "hidden"


Run = Annotated[Path, typer.Option(metavar="RUN", help="Run directory with a trained model.")]
Given = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Fit it on these: a KG of any form that is read."),
]
Heads = Annotated[
    list[str] | None, typer.Option(help="Type of its heads; may be repeated; default: any.")
]
Tails = Annotated[
    list[str] | None,
    typer.Option("--range", help="Type of its tails; may be repeated; default: any."),
]
Begin = Annotated[
    Initial, typer.Option(help="Begin from the nearest relations, or from none known.")
]
HeldApart = Annotated[
    float, typer.Option(help="Share of the heads to calibrate on instead; 0: none.")
]
MinCalibration = Annotated[
    int, typer.Option(min=1, help="Keep the run's calibration with fewer triples held apart.")
]


@app.callback()
def _relation() -> None:
    """Change which relations a trained model knows."""


@app.command()
def add(
    model: Run,
    name: Annotated[str, typer.Option(help="The relation, as triples write it.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Run directory to write.")],
    label: Annotated[str, typer.Option(help="Its words; default: the name with blanks.")] = "",
    description: Annotated[str, typer.Option(help="What it means, in a sentence.")] = "",
    triples: Given = None,
    domain: Heads = None,
    tail_types: Tails = None,
    initial: Begin = Initial.NEAREST,
    steps: Annotated[int, typer.Option(min=1, help="Updates of fitting.")] = 200,
    learning_rate: Annotated[float, typer.Option(help="Of fitting, at its peak.")] = 5e-3,
    min_triples: Annotated[int, typer.Option(min=1, help="Refuse to fit on fewer.")] = 50,
    held_apart: HeldApart = 0.25,
    min_calibration: MinCalibration = 30,
    as_json: AsJson = False,
) -> None:
    """Write a frozen run with one more relation: from its name, or fitted alone on triples.

    extract --model, encode and freeze take the folder.
    """
    with reporting(as_json):
        from graphmert.config import build
        from graphmert.kg import Relation
        from graphmert.run.new_relation import FitSettings, add_relation

        fit = {
            "steps": steps,
            "learning_rate": learning_rate,
            "min_triples": min_triples,
            "held_apart": held_apart,
            "min_calibration": min_calibration,
        }
        with progress_shown() as progress:
            added = add_relation(
                model,
                out,
                Relation(
                    name,
                    label=label,
                    domain=frozenset(domain or ()),
                    range=frozenset(tail_types or ()),
                    description=description,
                ),
                triples=triples or (),
                initial=initial.value,
                fit=build(fit, FitSettings, source="options"),
                progress=progress,
            )
        result = {
            "run": str(added.path),
            "relation": name,
            "index": added.relation,
            "nearest": dict(added.nearest),
            "n_triples": added.n_triples,
            "n_held_apart": added.n_held_apart,
            "calibration": added.calibration,
            "left_out": added.ledger.to_dict()["left_out"],
        }
        print_result(result, as_json)
