"""Answer words with functions: a run's tuned encoder over the vectors it left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from graphmert.batch import RelationNames
from graphmert.errors import ConfigError
from graphmert.run.code.search import QUERIES, encode_chains, words_chain
from graphmert.run.stages import load_model
from graphmert.shards import read_table
from graphmert.tokens import Tokenizer


def find_functions(run_dir: Path | str, words: str, *, limit: int = 10) -> list[dict[str, Any]]:
    """Rank the functions that a run encoded by how well they fit words.

    Args:
        run_dir: a code run whose tune stage is done.

    Raises:
        ConfigError: nothing was tuned for search there, or there are no words.
    """
    folder = Path(run_dir) / "search"
    if not (folder / "functions.parquet").is_file() or not (folder / QUERIES).is_file():
        raise ConfigError(
            "this run holds no encoder tuned for code search",
            where=str(run_dir),
            expected=f"search/functions.parquet and search/{QUERIES}",
            fix="Set tune.steps in the run file and run `graphmert code train` again.",
        )
    if not words.strip():
        raise ConfigError("no words to search for", expected="a description of a function")
    max_tokens = json.loads((folder / QUERIES).read_text(encoding="utf-8"))["max_query_tokens"]
    tokenizer = Tokenizer.load(folder)
    model = load_model(folder)
    chain = words_chain(tokenizer, words, max_tokens=max_tokens)
    query = encode_chains(model, [chain], words=RelationNames(), pad_id=tokenizer.pad_id)[0]
    table = read_table(folder / "functions.parquet")
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.reshape(table.num_rows, -1).astype(np.float32)
    scores = vectors @ query
    best = np.argsort(-scores, kind="stable")[:limit]
    ids, docs = table["entity_id"].to_pylist(), table["docstring"].to_pylist()
    return [
        {"score": round(float(scores[i]), 4), "entity_id": ids[i], "docstring": docs[i][:100]}
        for i in best
    ]
