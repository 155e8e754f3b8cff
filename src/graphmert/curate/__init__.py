"""Edit an extracted graph by a log that is only ever added to.

The tables that extraction wrote are never changed. Edits are lines of `kg/edits.jsonl`; what a
reader sees is the tables with the edits in force replayed over them, in order. Undoing is one
more line, so it can be undone too, and no evidence is ever lost.
"""

from __future__ import annotations

from graphmert.curate.log import Edit, EditKind, in_force, read_edits
from graphmert.curate.replay import Curated, add_edits, read_curated, replay

__all__ = [
    "Curated",
    "Edit",
    "EditKind",
    "add_edits",
    "in_force",
    "read_curated",
    "read_edits",
    "replay",
]
