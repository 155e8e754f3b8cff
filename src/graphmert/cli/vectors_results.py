"""Commands that evaluate, compare and use next-vector models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graphmert.cli.terminal import AsJson, print_result, progress_shown, reporting

Data = Annotated[Path, typer.Option(help="The DATASET folder of `vectors prepare`.")]
Latency = Annotated[bool, typer.Option(help="Measure how long predictions take.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(baselines)
    app.command()(evaluate)
    app.command()(compare)
    app.command()(predict)


def baselines(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for one folder of each baseline.")],
    size: Annotated[
        int | None, typer.Option(min=1, help="Vectors of the training set, all when not given.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Fit only this baseline; may be repeated.")
    ] = None,
    latency: Latency = True,
    as_json: AsJson = False,
) -> None:
    """Fit baselines on the training part and score them."""
    with reporting(as_json):
        from graphmert.domains.vectors import VectorData
        from graphmert.evaluate.forecast_baselines import BASELINES
        from graphmert.run.forecasting import run_baselines

        dataset = VectorData.load(data)
        with progress_shown() as progress:
            found = run_baselines(
                dataset, out, size=size, names=only or BASELINES, latency=latency,
                progress=progress,
            )  # fmt: skip
        print_result({"path": str(out), "baselines": [_line(one) for one in found]}, as_json)


def evaluate(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Runs of `vectors train` or baselines.")
    ],
    data: Data,
    links: Annotated[
        Path | None, typer.Option(help="LINKS folder, for a model with leaves.")
    ] = None,
    latency: Latency = True,
    as_json: AsJson = False,
) -> None:
    """Score models on the validation and test parts."""
    with reporting(as_json):
        from graphmert.domains.vectors import VectorData
        from graphmert.run.forecasting import evaluate_folder

        dataset = VectorData.load(data)
        found = []
        for run in runs:
            with progress_shown() as progress:
                one = evaluate_folder(run, dataset, links=links, latency=latency, progress=progress)
            found.append(_line(one) | {"path": str(run)})
        print_result({"runs": found}, as_json)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="Evaluated runs and baselines, or folders over them."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for comparison.json, .md and .html.")],
    min_seeds: Annotated[
        int, typer.Option(min=1, help="Trained models with fewer seeds are not ranked.")
    ] = 3,
    unranked: Annotated[
        list[str] | None, typer.Option(help="A model to show but not to rank; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank models that were scored on the same test windows."""
    with reporting(as_json):
        from graphmert.run.comparison import compare_runs

        comparison = compare_runs(runs, out, min_seeds=min_seeds, unranked=unranked or ())
        if as_json:
            print_result(comparison, as_json)
            return
        rows = [
            {
                "size": row["size"],
                "rank": row["rank"] or "unranked",
                "system": row["system"],
                "cosine": row["cosine"]["value"],
                "low": row["cosine"]["low"],
                "high": row["cosine"]["high"],
                "gain": row["gain"]["value"] if row["gain"] else None,
                "parameters": row["n_parameters"],
            }
            for one in comparison["sizes"]
            for row in one["systems"]
        ]
        reason = comparison["recommendation"]["reason"]
        print_result({"systems": rows, "recommendation": reason, "path": str(out)}, as_json)


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A run of `vectors train`, or a baseline.")
    ],
    vectors: Annotated[Path, typer.Option(help="The VECTORS folder to look texts up in.")],
    row: Annotated[
        int | None, typer.Option(min=0, help="First row of the context in VECTORS.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="A sentence of the context, in order; repeated once for each."),
    ] = None,
    embedder: Annotated[
        str | None, typer.Option(help="The model that VECTORS was embedded with, for --text.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="How many vectors to predict.")] = 1,
    nearest: Annotated[int, typer.Option(min=1, help="Texts for each vector.")] = 5,
    length: Annotated[
        int | None,
        typer.Option(min=1, help="Vectors of the context; only for a run that does not tell."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the predicted vectors to this npy file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict what follows a context and name the nearest texts."""
    with reporting(as_json):
        from graphmert.run.forecasting import predict_texts

        result = predict_texts(
            model, vectors, row=row, texts=text or (), embedder=embedder, n_steps=steps,
            n_nearest=nearest, length=length, out=out,
        )  # fmt: skip
        print_result(result, as_json)


def _line(evaluation: dict[str, Any]) -> dict[str, Any]:
    test = evaluation["parts"]["test"]
    return {
        "system": evaluation["system"],
        "size": evaluation["size"],
        "cosine": test["cosine"]["value"],
        "low": test["cosine"]["low"],
        "high": test["cosine"]["high"],
        "r@1": test["retrieval"]["global"]["r@1"]["value"],
        "mrr": test["retrieval"]["global"]["mrr"]["value"],
        "mrr_in_document": test["retrieval"]["document"]["mrr"]["value"],
        "valid_cosine": evaluation["parts"]["valid"]["cosine"]["value"],
    }
