"""Commands on code encoders: train, evaluate, and search with a trained one."""

from __future__ import annotations

import enum
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from graphmert.cli.runs import Overrides, RunFile
from graphmert.cli.terminal import AsJson, finish, print_result, progress_shown, reporting

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say which stages are to do; run nothing.")]


class CodeStage(enum.StrEnum):
    """The stages of training, in order."""

    PREPARE = "prepare"
    TRAIN = "train"
    TUNE = "tune"


def code_train(
    path: RunFile,
    overrides: Overrides = None,
    stage: Annotated[CodeStage, typer.Option(help="Stop after this stage.")] = CodeStage.TUNE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train a code encoder on an index; goes on where it was stopped."""
    _execute(path, overrides, last=stage.value, dry_run=dry_run, as_json=as_json)


def code_evaluate(
    path: RunFile,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Measure a code encoder on held-out packages, beside baselines and targets.

    Exit code 1 when a target of the source system is measured and missed.
    """
    _execute(path, overrides, last="report", dry_run=dry_run, as_json=as_json)


def _execute(
    path: Path, overrides: list[str] | None, *, last: str, dry_run: bool, as_json: bool
) -> None:
    with reporting(as_json):
        from graphmert.processes import is_main_process
        from graphmert.progress import Silent
        from graphmert.run import code

        config = code.load_code(path, overrides or ())
        is_main = is_main_process()
        with progress_shown() if is_main else nullcontext(Silent()) as progress:
            result = code.execute_code(config, last=last, dry_run=dry_run, progress=progress)
        if not is_main:
            return
        finish(result.exit_code, result.summary, as_json)


def search_with_model(model: Path, text: str, *, limit: int, as_json: bool) -> None:
    """Print the functions that fit words best, by the encoder of a run."""
    with reporting(as_json):
        from graphmert.run.code.find import find_functions

        print_result({"functions": find_functions(model, text, limit=limit)}, as_json)


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this module into the group of commands on code."""
    app.command("train")(code_train)
    app.command("evaluate")(code_evaluate)
