"""Search by words, and again by a function given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphmert.domains.code.search import count_matches, search
from toy_code import index

FUNCTIONS = "".join(f"def read_{name}():\n    return 1\n\n\n" for name in ("page", "book", "map"))


def test_a_function_given_orders_the_best_by_words_again(tmp_path: Path) -> None:
    store = index(tmp_path, {"a.py": FUNCTIONS + "def write():\n    return 1\n"})
    asked: list[tuple[str, list[str]]] = []

    def rerank(text: str, ids: Sequence[str]) -> list[float]:
        asked.append((text, list(ids)))
        return [float(one.endswith("map")) for one in ids]

    found = search(store, "read book", limit=2, rerank=rerank)
    names = ["p/a.py#read_book", "p/a.py#read_map", "p/a.py#read_page"]
    assert asked == [("read book", names)]
    assert [(one["entity_id"], one["score"]) for one in found] == [(names[1], 1.0), (names[0], 0.0)]
    assert count_matches(store, "read book") == 3
    search(store, "read book", limit=1, rerank=rerank, n_rerank=2)
    assert asked[1] == ("read book", names[:2])
    assert search(store, "nothing", rerank=rerank) == []
    assert len(asked) == 2
