"""Commands on new documents with a trained model: extract, encode, freeze."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from graphmert.cli.runs import Overrides, Stage, execute_run
from graphmert.cli.terminal import AsJson, finish, print_result, progress_shown, reporting
from graphmert.errors import ConfigError


class Unit(enum.StrEnum):
    """What has a vector."""

    SEQUENCE = "sequence"
    DOCUMENT = "document"


Workers = Annotated[int, typer.Option(min=1, help="Processes; changes no result.")]
Texts = Annotated[list[Path], typer.Argument(metavar="DOCS...", help="Files and folders.")]
Trained = Annotated[Path, typer.Option(help="A trained run, or a copy by freeze.")]


def extract(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN.toml|DOCS...", help="A run configuration; with --model: documents."
        ),
    ],
    overrides: Overrides = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Extract from documents with this finished run, or a copy by freeze."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --model: the folder to write, or to update.")
    ] = None,
    workers: Workers = 1,
    min_accepted: Annotated[
        int, typer.Option(min=0, help="With --model: exit code 1 below so many triples.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Extract triples with evidence: of a run, or with --model of other documents.

    With --model only documents that are new or changed since the last time are read again.
    """
    if model is None:
        with reporting(as_json):
            if len(paths) != 1 or out is not None or workers != 1 or min_accepted != 1:
                raise ConfigError(
                    "documents, --out, --workers and --min-accepted go with --model",
                    where="graphmert extract",
                    expected="one RUN.toml, or --model DIR DOCS... --out DIR",
                )
        execute_run(paths[0], overrides, stage=Stage.EXTRACT, as_json=as_json)
        return
    with reporting(as_json):
        if out is None or overrides:
            raise ConfigError(
                "a finished run is used as it is",
                where="graphmert extract --model",
                got="--set" if overrides else "no --out",
                expected="--model DIR DOCS... --out DIR",
            )
        from graphmert.run.updating import extract_documents

        with progress_shown() as progress:
            result = extract_documents(
                model, paths, out, n_workers=workers, min_accepted=min_accepted, progress=progress
            )
        finish(result.exit_code, result.summary, as_json)


def encode(
    documents: Texts,
    model: Trained,
    out: Annotated[Path, typer.Option(help="The file to write: .npz or .parquet.")],
    unit: Annotated[Unit, typer.Option(help="What has a vector.")] = Unit.SEQUENCE,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Write vectors of documents by the encoder of a trained run."""
    with reporting(as_json):
        from graphmert.run.encoding import encode_documents

        with progress_shown() as progress:
            result = encode_documents(
                model, documents, out, unit=unit.value, n_workers=workers, progress=progress
            )
        finish(0, result, as_json)


def freeze(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    out: Annotated[Path, typer.Option(help="The folder to write; new or empty.")],
    as_json: AsJson = False,
) -> None:
    """Copy what extract --model and encode need from a run, and nothing else."""
    with reporting(as_json):
        from graphmert.run.frozen import copy_frozen

        print_result(copy_frozen(run, out), as_json)


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this module into the root."""
    for command in (extract, encode, freeze):
        app.command()(command)
