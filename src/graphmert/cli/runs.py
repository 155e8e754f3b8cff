"""Commands of the main job: one run file, five stages."""

from __future__ import annotations

import enum
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from graphmert.cli.terminal import AsJson, finish, print_result, progress_shown, reporting, say
from graphmert.errors import ConfigError


class Stage(enum.StrEnum):
    """The stages of a run, in order."""

    PREPARE = "prepare"
    TRAIN = "train"
    EXTRACT = "extract"
    EVALUATE = "evaluate"
    REPORT = "report"


RunFile = Annotated[Path, typer.Argument(metavar="RUN.toml", help="The run configuration.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Change one setting; may be repeated."),
]


def init(
    corpus: Annotated[str, typer.Option(help="Documents: a file, a folder or a data set's name.")],
    kg: Annotated[str, typer.Option(help="Seed knowledge graph: a file or a data set's name.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("RUN.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented run configuration."""
    with reporting(as_json):
        if out.exists() and not force:
            raise ConfigError(
                "file exists", where=str(out), fix="Give --force to replace it or --out another."
            )
        from graphmert import run as run_module
        from graphmert import shards

        text = run_module.init_toml(corpus, kg)
        shards.atomic_write_text(out, text)
        for line in _fetch_lines(text):
            say(f"first, if it is not there: {line}")
        say(f"edit it, then: graphmert run {shlex.quote(str(out))}")
        print_result({"path": str(out)}, as_json)


def _fetch_lines(text: str) -> list[str]:
    """The commands at the top of a run file that fetch what it names."""
    lines = (line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    return [line for line in lines if line.startswith("graphmert data fetch ")]


def run(
    path: RunFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Count the input and estimate the time of training; run nothing."
        ),
    ] = False,
    stage: Annotated[Stage | None, typer.Option(help="Stop after this stage.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run all stages; finished ones are not run again."""
    execute_run(path, overrides, stage=stage, dry_run=dry_run, as_json=as_json)


def prepare(path: RunFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Read corpus and seed, split, inject and write the chains."""
    execute_run(path, overrides, stage=Stage.PREPARE, as_json=as_json)


def train(path: RunFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train the encoder, after the stages before it."""
    execute_run(path, overrides, stage=Stage.TRAIN, as_json=as_json)


def evaluate(path: RunFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Score the held-out triples beside the baselines, after the stages before it."""
    execute_run(path, overrides, stage=Stage.EVALUATE, as_json=as_json)


def report(path: RunFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Write report.html and report.md, after the stages before it."""
    execute_run(path, overrides, stage=Stage.REPORT, as_json=as_json)


def demo(
    offline: Annotated[
        bool, typer.Option("--offline", help="Use the small sample inside the package.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The run directory.")] = Path("demo-run"),
    as_json: AsJson = False,
) -> None:
    """Run the main job on real data and compare it with untrained baselines."""
    with reporting(as_json):
        from graphmert import run as run_module

        with progress_shown() as progress:
            result = run_module.demo(offline=offline, out=out, progress=progress)
        finish(result.exit_code, result.summary, as_json)


def execute_run(
    path: Path,
    overrides: Sequence[str] | None,
    *,
    stage: Stage | None,
    as_json: bool,
    dry_run: bool = False,
) -> None:
    """Run a configuration up to a stage, and say what came out."""
    with reporting(as_json):
        from graphmert import run as run_module

        config = run_module.load(path, overrides or ())
        with progress_shown() as progress:
            result = run_module.execute(
                config,
                stage=None if stage is None else stage.value,
                dry_run=dry_run,
                progress=progress,
            )
        finish(result.exit_code, result.summary, as_json)


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this module into the root."""
    for command in (init, run, prepare, train, evaluate, report, demo):
        app.command()(command)
