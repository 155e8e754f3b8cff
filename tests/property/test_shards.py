from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

import workers
from graphmert import shards
from graphmert.kept import KeptResults
from graphmert.shards import Ledger

events = st.lists(
    st.tuples(st.sampled_from(["keep", "short", "long"]), st.integers(0, 3)), max_size=40
)


def fill(ledger: Ledger, items: list[tuple[str, int]], *, start: int) -> Ledger:
    for number, (kind, count) in enumerate(items, start=start):
        ledger.offered(count)
        if kind == "keep":
            ledger.keep(count)
        else:
            ledger.leave_out(kind, count, example=f"item {number}")
    return ledger


@given(items=events, cut=st.integers(0, 40))
def test_merged_ledgers_equal_one_pass(items: list[tuple[str, int]], cut: int) -> None:
    whole = fill(Ledger("s"), items, start=0).check()
    merged = fill(Ledger("s"), items[:cut], start=0).check()
    merged.merge(fill(Ledger("s"), items[cut:], start=len(items[:cut])))
    assert merged.check() == whole
    assert Ledger.from_dict(merged.to_dict()) == merged


@given(items=events, lost=st.integers(1, 5))
def test_a_lost_item_is_noticed(items: list[tuple[str, int]], lost: int) -> None:
    ledger = fill(Ledger("s"), items, start=0)
    ledger.offered(lost)
    try:
        ledger.check()
    except shards.DataError:
        return
    raise AssertionError("the ledger balanced")


tables = st.integers(0, 30).flatmap(
    lambda n_rows: st.fixed_dictionaries(
        {
            "text": st.lists(st.none() | st.text(max_size=8), min_size=n_rows, max_size=n_rows),
            "number": st.lists(
                st.none() | st.integers(-(2**63), 2**63 - 1), min_size=n_rows, max_size=n_rows
            ),
            "list": st.lists(
                st.none() | st.lists(st.text(max_size=3), max_size=3),
                min_size=n_rows,
                max_size=n_rows,
            ),
        }
    )
)
SCHEMA = pa.schema([("text", pa.string()), ("number", pa.int64()), ("list", pa.list_(pa.string()))])


@given(columns=tables, cut=st.integers(0, 30))
def test_tables_round_trip_with_equal_bytes(columns: dict[str, list[object]], cut: int) -> None:
    table = pa.table(columns, schema=SCHEMA)
    cut = min(cut, table.num_rows)
    parts = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder, "one"), Path(folder, "two")
        shards.write_table(one, table)
        shards.write_table(two, parts)
        assert one.read_bytes() == two.read_bytes()
        assert shards.read_table(one).equals(table)


@given(content=st.lists(st.lists(st.integers(-100, 100), max_size=5), max_size=6))
def test_results_keep_shard_order_and_survive_resume(content: list[list[int]]) -> None:
    expected = [workers.total(shard) for shard in content]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            found = shards.map_shards(
                workers.total, content, keep=KeptResults(Path(folder), "t", "f")
            )
            assert found == expected
