"""Commands of the vector domain."""

from __future__ import annotations

from graphmert.cli import vectors_data, vectors_results, vectors_train
from graphmert.cli.terminal import group

app = group("Sequences of vectors: predict the next one.")
vectors_data.add_commands(app)
vectors_train.add_commands(app)
vectors_results.add_commands(app)
