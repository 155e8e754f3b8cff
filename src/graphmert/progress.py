"""How long work tells how far it is.

The library reports to a `Progress`; the command line decides how it looks. Stages are begun one
after another, not nested.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receive the progress of one stage after another."""

    def begin(self, stage: str, *, total: int | None = None, unit: str = "items") -> None:
        """Start a stage of `total` units; None when the number is not known."""
        ...

    def update(self, n_done: int, *, total: int | None = None, note: str = "") -> None:
        """Say how many units of the stage are done, with an optional short note."""
        ...

    def end(self, note: str = "") -> None:
        """Finish the stage."""
        ...

    def message(self, text: str) -> None:
        """Tell the user one line that belongs to no count."""
        ...


class Silent:
    """Say nothing; the default of the Python API."""

    def begin(self, stage: str, *, total: int | None = None, unit: str = "items") -> None:
        """Ignore the start of a stage."""

    def update(self, n_done: int, *, total: int | None = None, note: str = "") -> None:
        """Ignore the count."""

    def end(self, note: str = "") -> None:
        """Ignore the end of a stage."""

    def message(self, text: str) -> None:
        """Ignore the line."""
