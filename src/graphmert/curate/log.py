"""The log of edits: its lines, and which of them are in force."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pydantic
from pydantic import Field

from graphmert.config import Settings
from graphmert.errors import CapabilityError, ConfigError, FormatError
from graphmert.shards import atomic_write_text
from graphmert.store import RunDir

EditKind = Literal["accept", "reject", "relabel", "merge", "undo"]

_NEEDS: dict[str, tuple[str, ...]] = {
    "accept": ("head_id", "relation", "tail_id"),
    "reject": ("triple_id",),
    "relabel": ("triple_id", "relation"),
    "merge": ("entity_id", "merged_id"),
    "undo": ("edit",),
}
_PARTS = ("triple_id", "head_id", "relation", "tail_id", "entity_id", "merged_id", "edit")


class Edit(Settings):
    """One line of the log."""

    number: int = Field(default=0, ge=0, description="place in the log, from 1; 0: not in it yet")
    kind: EditKind = Field(description="what is done")
    triple_id: str | None = Field(default=None, description="reject, relabel: the triple")
    head_id: str | None = Field(default=None, description="accept: the head")
    relation: str | None = Field(default=None, description="accept, relabel: the relation")
    tail_id: str | None = Field(default=None, description="accept: the tail")
    entity_id: str | None = Field(default=None, description="merge: the entity that stays")
    merged_id: str | None = Field(default=None, description="merge: the entity that goes into it")
    edit: int | None = Field(default=None, description="undo: number of the edit")
    by: str = Field(default="", description="who edited")
    note: str = Field(default="", description="why")
    at: str = Field(default="", description="when, as the editor's clock says; changes nothing")

    @pydantic.model_validator(mode="after")
    def _has_its_parts(self) -> Edit:
        given = {name for name in _PARTS if getattr(self, name) is not None}
        if given != set(_NEEDS[self.kind]):
            needs = ", ".join(_NEEDS[self.kind])
            raise ValueError(f"{self.kind} takes {needs}, got {', '.join(sorted(given))}")
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without what is not set."""
        values = self.model_dump(mode="json")
        return {key: value for key, value in values.items() if value not in (None, "")}


def edits_path(run: RunDir) -> Path:
    """Path of `kg/edits.jsonl`."""
    return run.path / "kg" / "edits.jsonl"


def read_edits(run: RunDir) -> tuple[Edit, ...]:
    """Read the log; a graph without one has no edits.

    Raises:
        FormatError: a line is not an edit, or not numbered by its place; names the line.
    """
    path = edits_path(run)
    if not path.is_file():
        return ()
    edits: list[Edit] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            edit = Edit.model_validate_json(line)
        except pydantic.ValidationError as error:
            raise _bad_line(path, number, error.errors()[0]["msg"]) from error
        if edit.number != number:
            raise _bad_line(path, number, f"number {edit.number}")
        if edit.edit is not None and not 0 < edit.edit < number:
            raise _bad_line(path, number, f"undo of edit {edit.edit}, which is not before it")
        edits.append(edit)
    return tuple(edits)


def in_force(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """Return the edits that count, in order: those that no undo in force names.

    An undo only names earlier edits, so one pass from the last to the first decides.
    """
    undone: set[int] = set()
    counting: list[Edit] = []
    for edit in reversed(edits):
        if edit.number in undone:
            continue
        if edit.kind == "undo":
            undone.add(edit.edit or 0)
        else:
            counting.append(edit)
    return tuple(reversed(counting))


def write_edits(run: RunDir, edits: Sequence[Edit]) -> None:
    """Write the whole log, which is whole or as it was. Hold `locked` meanwhile."""
    lines = [json.dumps(edit.to_dict(), ensure_ascii=False) + "\n" for edit in edits]
    atomic_write_text(edits_path(run), "".join(lines))


@contextlib.contextmanager
def locked(run: RunDir) -> Iterator[None]:
    """Let one editor at a time read, check and write the log; a killed one lets go.

    Raises:
        ConfigError: the folder holds no graph.
        CapabilityError: the system has no file locks.
    """
    try:
        import fcntl
    except ImportError as error:
        raise CapabilityError("this system has no file locks, which editing needs") from error
    folder = run.path / "kg"
    if not folder.is_dir():
        raise ConfigError("the folder holds no graph to edit", where=str(run.path))
    with (folder / ".edits.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _bad_line(path: Path, number: int, got: str) -> FormatError:
    return FormatError(
        "the log of edits has a bad line",
        where=f"{path}, line {number}",
        got=got,
        expected=f"one JSON object for each edit, of kind {', '.join(get_args(EditKind))}, "
        "numbered from 1",
        fix="Restore the file; edits are added by `graphmert kg edit` alone.",
    )
