from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.domains.vectors import VectorData, make_windows, open_vectors, write_vectors
from graphmert.domains.vectors.prepare import PrepareSettings, prepare
from graphmert.errors import ConfigError, DataError, FormatError, ProvenanceError
from tiny_vectors import walk, write_documents


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=6),
    st.integers(1, 6),
)
def test_windows_stay_inside_documents(lengths: list[int], length: int) -> None:
    ends = np.cumsum(lengths)
    starts = ends - lengths
    vectors = walk(max(int(ends[-1]), 1), 3)
    windows = make_windows(vectors, np.arange(len(lengths)), starts, ends, length=length)
    assert len(windows) == sum(max(n - length, 0) for n in lengths)
    for index in range(len(windows)):
        document = int(windows.doc[index])
        rows = [*windows.context_rows(index).tolist(), int(windows.target_rows(index))]
        assert rows == list(range(rows[0], rows[0] + length + 1))
        assert starts[document] <= rows[0]
        assert rows[-1] < ends[document]
    ledger = windows.ledger
    assert ledger.n_offered == sum(lengths)
    assert ledger.n_kept + ledger.n_left_out == ledger.n_offered


def test_contexts_and_targets_are_rows_of_the_vectors() -> None:
    vectors = walk(20, 4)
    windows = make_windows(
        vectors, np.array([3, 1]), np.array([10, 0]), np.array([20, 8]), length=5
    )
    assert windows.starts.tolist() == [10, 11, 12, 13, 14, 0, 1, 2]
    assert windows.doc.tolist() == [3] * 5 + [1] * 3
    contexts, targets = windows.contexts([0, 5]), windows.targets([0, 5])
    assert contexts.shape == (2, 5, 4)
    assert contexts.dtype == targets.dtype == np.float32
    assert np.array_equal(contexts[0], vectors[10:15])
    assert np.array_equal(contexts[1], vectors[0:5])
    assert np.array_equal(targets, vectors[[15, 5]])
    assert np.array_equal(windows.contexts(slice(0, 3))[2], vectors[12:17])


@pytest.fixture
def data(tmp_path: Path) -> VectorData:
    vectors = write_documents(tmp_path / "vectors", [9, 14, 4, 20, 11, 13, 8, 12])
    settings = PrepareSettings(sizes=(20, 40), valid_share=0.1, test_share=0.1)
    return prepare(vectors, tmp_path / "data", settings)


def test_smaller_training_sets_lie_inside_larger_ones(data: VectorData) -> None:
    def rows(size: int | None) -> set[int]:
        _, starts, ends = data.documents("train", size=size)
        return {row for a, b in zip(starts, ends, strict=True) for row in range(a, b)}

    assert len(rows(20)) == 20
    assert len(rows(40)) == 40
    assert rows(20) < rows(40) < rows(None)
    small, large = data.windows("train", size=20), data.windows("train", size=40)
    assert set(small.starts.tolist()) <= set(large.starts.tolist())


def test_validation_and_test_do_not_depend_on_the_size(data: VectorData) -> None:
    for part in ("valid", "test"):
        whole = data.windows(part)
        assert np.array_equal(data.windows(part, size=20).starts, whole.starts)
        assert data.fingerprint(part, 20) == data.fingerprint(part)


def test_windows_have_the_length_of_the_data_set(tmp_path: Path) -> None:
    vectors = write_documents(tmp_path / "vectors", [9, 14, 8, 20])
    data = prepare(vectors, tmp_path / "data", PrepareSettings(length=3))
    assert data.windows("train").length == 3
    assert data.windows("train", length=5).length == 5


def test_parts_share_no_row(data: VectorData) -> None:
    seen: set[int] = set()
    for part in ("train", "valid", "test"):
        _, starts, ends = data.documents(part)
        rows = {row for a, b in zip(starts, ends, strict=True) for row in range(a, b)}
        assert not rows & seen
        seen |= rows
    assert seen == set(range(len(data.vectors)))


def test_stored_fingerprints_are_those_of_the_vectors(data: VectorData) -> None:
    bare = VectorData(
        data.path,
        data.vectors,
        data.split,
        {**data.info, "fingerprints": {"train": {}, "valid": None, "test": None}},
    )
    assert bare.fingerprint("test") == data.fingerprint("test")
    assert bare.fingerprint("train", 20) == data.fingerprint("train", 20)
    assert bare.fingerprint("train") == data.info["fingerprints"]["train"]["all"]
    assert data.fingerprint("train", 20) != data.fingerprint("train", 40)
    assert len({data.fingerprint("train", 21), data.fingerprint("train", 22)}) == 2


def test_a_fingerprint_ignores_the_order_of_documents(tmp_path: Path) -> None:
    one = write_documents(tmp_path / "a", [9, 12])
    _, starts, ends = one.documents()
    forward = VectorDataPrint(one.vectors, starts, ends)
    backward = VectorDataPrint(one.vectors, starts[::-1], ends[::-1])
    assert forward == backward
    changed = np.array(one.vectors)
    changed[3, 0] += 1e-3
    assert VectorDataPrint(changed, starts, ends) != forward


def VectorDataPrint(vectors: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> str:  # noqa: N802
    from graphmert.domains.vectors.data import fingerprint_documents

    return fingerprint_documents(vectors, starts, ends, length=5)


@pytest.mark.parametrize("size", [0, 10_000])
def test_sizes_that_are_not_there(data: VectorData, size: int) -> None:
    with pytest.raises(ConfigError, match="does not have so many vectors"):
        data.windows("train", size=size)


def test_unknown_part(data: VectorData) -> None:
    with pytest.raises(ConfigError, match="no such part"):
        data.documents("dev")  # type: ignore[arg-type]


def test_changed_vectors_are_refused(data: VectorData) -> None:
    path = data.path.parent / "vectors" / "vectors.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ProvenanceError, match="changed"):
        VectorData.load(data.path)
    VectorData.load(data.path, verify=False)


def test_other_vectors_are_refused(data: VectorData, tmp_path: Path) -> None:
    write_documents(tmp_path / "vectors", [9, 14, 4, 20, 11, 13, 8, 12], seed=1)
    with pytest.raises(ProvenanceError, match="other vectors"):
        VectorData.load(data.path)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not found"):
        VectorData.load(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format": "other"}')
    with pytest.raises(FormatError, match="another format"):
        VectorData.load(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        VectorData.load(tmp_path)


def test_vectors_of_another_form_are_refused(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "v", [9])
    path = tmp_path / "v" / "vectors.npy"
    np.save(path, np.zeros((9, 8)))
    with pytest.raises(FormatError, match="float64"):
        open_vectors(table.path)
    np.save(path, np.array([{}, {}], object), allow_pickle=True)
    with pytest.raises(FormatError, match="not a readable array"):
        open_vectors(table.path)
    np.save(path, np.zeros((3, 8), np.float32))
    with pytest.raises(FormatError, match="not those of the manifest"):
        open_vectors(table.path)
    path.unlink()
    with pytest.raises(FormatError, match="vectors not found"):
        open_vectors(table.path)


def test_blocks_and_one_array_give_the_same_bytes(tmp_path: Path) -> None:
    vectors = walk(10, 4)
    rows = pa.table(
        {"doc_id": ["d"] * 10, "position": pa.array(range(10), pa.int32()), "text": ["t"] * 10}
    )
    one = write_vectors(tmp_path / "a", vectors, rows, {})
    two = write_vectors(tmp_path / "b", iter([vectors[:3], vectors[3:]]), rows, {})
    assert one.sha256 == two.sha256
    assert json.dumps(dict(one.manifest)) == json.dumps(dict(two.manifest))
    with pytest.raises(DataError, match="differ in number"):
        write_vectors(tmp_path / "c", vectors[:3], rows, {})
    assert not (tmp_path / "c" / "manifest.json").exists()
    with pytest.raises(DataError, match="channels"):
        write_vectors(tmp_path / "c", iter([vectors[:3], walk(7, 5)]), rows, {})


def test_rows_of_a_document_must_be_together(tmp_path: Path) -> None:
    names = ["d0", "d1", "d0"]
    table = write_documents(tmp_path / "v", [3, 3, 3], names=names)
    with pytest.raises(FormatError, match="not together"):
        table.documents()
