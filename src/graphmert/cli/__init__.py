"""The command line.

Data go to stdout, messages to stderr. Every command takes `--json` and then prints one JSON
document on stdout, also when it fails. Exit codes: 0 done; 1 ran but yielded less than asked;
2 bad usage or configuration; 3 bad data; 4 missing capability; 130 interrupted.

Each module holds the commands of one area and is only put together here. Modules with heavy
imports are imported inside the commands, so that `--help` stays fast.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from graphmert import __version__
from graphmert.cli import (
    code,
    code_model,
    data,
    documents,
    kg,
    kg_samples,
    models,
    relations,
    runs,
    store,
    vectors,
)

app = typer.Typer(
    name="graphmert",
    help="Train a small encoder on leafy chain graphs and read a knowledge graph out of it.",
    epilog="Exit codes: 0 done; 1 ran but yielded less than asked; 2 bad usage or "
    "configuration; 3 bad data; 4 missing capability; 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
runs.add_commands(app)
documents.add_commands(app)
app.command()(models.info)
store.add_commands(app)
app.add_typer(data.app, name="data")
code_model.add_commands(code.app)
kg_samples.add_commands(kg.app)
app.add_typer(code.app, name="code")
app.add_typer(kg.app, name="kg")
app.add_typer(models.convert_app, name="convert")
app.add_typer(relations.app, name="relation")
app.add_typer(vectors.app, name="vectors")


def main() -> None:
    """Run the command line and exit with its code."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"graphmert {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log details to stderr.")] = False,
) -> None:
    logging.basicConfig(
        stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING
    )
    if verbose:
        logging.getLogger("graphmert").setLevel(logging.INFO)
