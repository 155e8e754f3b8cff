"""How a command talks: results on stdout, messages and progress on stderr, exit codes."""

from __future__ import annotations

import contextlib
import errno
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphmert.errors import CapabilityError, GraphMERTError

if TYPE_CHECKING:
    from graphmert.progress import Progress

INTERRUPTED = 130

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def group(text: str) -> typer.Typer:
    """Return an empty group of commands."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)


def finish(exit_code: int, summary: Mapping[str, Any], as_json: bool) -> None:
    """Print what a run yielded and leave with its exit code."""
    if not as_json and "text" in summary:
        typer.echo(summary["text"])
    else:
        print_result({**summary, "exit_code": exit_code} if as_json else summary, as_json)
    if exit_code:
        say("ran, but yielded less than asked (exit code 1)" if exit_code == 1 else "failed")
        raise typer.Exit(exit_code)


@contextlib.contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Turn errors into a message and an exit code."""
    try:
        yield
    except GraphMERTError as error:
        _fail(error, as_json)
    except KeyboardInterrupt:
        command = shlex.join(["graphmert", *sys.argv[1:]])
        say(f"interrupted; finished work is kept. To resume: {command}")
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
    say(f"error: {error}")
    raise typer.Exit(error.exit_code) from error


def say(text: str) -> None:
    """Print a message on stderr."""
    print(text, file=sys.stderr, flush=True)


def _print_json(value: Mapping[str, Any]) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_result(result: Mapping[str, Any], as_json: bool) -> None:
    """Print a result on stdout, as JSON or as plain lines."""
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
def progress_shown() -> Iterator[Progress]:
    """Yield a moving bar on a terminal, plain lines otherwise; both on stderr."""
    if sys.stderr.isatty():
        bars = Bars()
        try:
            yield bars
        finally:
            bars.close()
    else:
        yield PlainLines()


class Bars:
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
        """Say what begins."""
        self._task = self._bars.add_task(stage, total=total, unit=unit, note="")

    def update(self, n_done: int, *, total: int | None = None, note: str = "") -> None:
        """Say how much is done."""
        if self._task is not None:
            self._bars.update(self._task, completed=n_done, total=total, note=note)

    def end(self, note: str = "") -> None:
        """Say that it is done."""
        if self._task is not None:
            task = self._bars.tasks[self._task]
            total = task.total if task.total is not None else task.completed
            self._bars.update(self._task, completed=total, total=total, note=note)
            self._bars.stop_task(self._task)
            self._task = None

    def message(self, text: str) -> None:
        """Say something beside it."""
        self._bars.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the last bar as it is."""
        self._bars.stop()


class PlainLines:
    """Write a line when a stage begins, now and then while it runs, and when it ends."""

    def __init__(self, *, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._stage, self._unit = "", ""
        self._total: int | None = None
        self._begun = self._shown = time.monotonic()

    def begin(self, stage: str, *, total: int | None = None, unit: str = "items") -> None:
        """Say what begins."""
        self._stage, self._total, self._unit = stage, total, unit
        self._begun = self._shown = time.monotonic()
        say(f"{stage}: begins" if total is None else f"{stage}: {total} {unit}")

    def update(self, n_done: int, *, total: int | None = None, note: str = "") -> None:
        """Say how much is done."""
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
        say(f"{self._stage}: " + ", ".join([*parts, *([note] if note else [])]))

    def end(self, note: str = "") -> None:
        """Say that it is done."""
        took = f"done in {time.monotonic() - self._begun:.1f} s"
        say(f"{self._stage}: {took}" + (f", {note}" if note else ""))

    def message(self, text: str) -> None:
        """Say something beside it."""
        say(text)
