from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from graphmert.domains.vectors import make_windows
from graphmert.domains.vectors.npz import export_npz, import_npz
from graphmert.domains.vectors.prepare import PrepareSettings, prepare
from graphmert.errors import ConfigError, DataError, FormatError
from tiny_vectors import walk, write_documents


def windows_of(vectors: np.ndarray, length: int = 5) -> tuple[np.ndarray, np.ndarray]:
    n = len(vectors) - length
    contexts = np.stack([vectors[i : i + length] for i in range(n)])
    return contexts, vectors[length:]


def test_export_holds_the_windows(tmp_path: Path) -> None:
    data = prepare(
        write_documents(tmp_path / "v", [9, 14, 7, 20]), tmp_path / "d", PrepareSettings()
    )
    windows = data.windows("train")
    export_npz(windows, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert found["context_sequences"].shape == (len(windows), 5, 8)
        assert found["context_sequences"].dtype == np.float32
        assert np.array_equal(found["context_sequences"], windows.contexts(slice(None)))
        assert np.array_equal(found["target_vectors"], windows.targets(slice(None)))
        assert int(found["context_length"]) == 5
        assert int(found["num_sequences"]) == len(windows)
        assert int(found["vector_dim"]) == 8
    first = (tmp_path / "x.npz").read_bytes()
    export_npz(windows, tmp_path / "x.npz")
    assert (tmp_path / "x.npz").read_bytes() == first


def test_import_gives_the_windows_back(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "v", [9, 14, 7, 20])
    numbers = np.arange(4)
    _, starts, ends = table.documents()
    windows = make_windows(table.vectors, numbers, starts, ends)
    export_npz(windows, tmp_path / "x.npz")
    back = import_npz(tmp_path / "x.npz", tmp_path / "back")
    assert np.array_equal(back.vectors, table.vectors)  # every vector once
    ids, starts_back, ends_back = back.documents()
    assert len(ids) == 4
    assert starts_back.tolist() == starts.tolist()
    again = make_windows(back.vectors, numbers, starts_back, ends_back)
    assert np.array_equal(again.contexts(slice(None)), windows.contexts(slice(None)))
    assert sorted(path.name for path in back.path.iterdir()) == [
        "manifest.json",
        "rows.parquet",
        "vectors.npy",
    ]


@pytest.mark.parametrize(
    "names", [("context_sequences", "target_vectors"), ("contexts", "targets")]
)
@pytest.mark.parametrize("compressed", [False, True])
def test_windows_across_articles_are_one_run(
    tmp_path: Path, names: tuple[str, str], compressed: bool
) -> None:
    vectors = walk(40, 6)
    contexts, targets = windows_of(vectors)
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "x.npz", **dict(zip(names, (contexts, targets), strict=True)))
    table = import_npz(tmp_path / "x.npz", tmp_path / "v")
    assert np.array_equal(table.vectors, vectors)
    assert table.documents()[0] == ["run-000000"]
    with pytest.raises(DataError, match="too few documents") as caught:
        prepare(table, tmp_path / "d", PrepareSettings())
    assert "--block-length" in str(caught.value.fix)
    cut = import_npz(tmp_path / "x.npz", tmp_path / "w", block_length=10)
    assert [b - a for a, b in zip(*cut.documents()[1:], strict=True)] == [10, 10, 10, 10]
    prepare(cut, tmp_path / "d", PrepareSettings())


def test_separate_windows_are_runs_of_their_own(tmp_path: Path) -> None:
    contexts, targets = windows_of(walk(30, 6))
    chosen = [3, 4, 5, 20, 11, 12]
    np.savez(tmp_path / "x.npz", contexts=contexts[chosen], targets=targets[chosen])
    table = import_npz(tmp_path / "x.npz", tmp_path / "v")
    assert [b - a for a, b in zip(*table.documents()[1:], strict=True)] == [8, 6, 7]


def test_pieces_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphmert.domains.vectors import npz

    contexts, targets = windows_of(walk(30, 6))
    np.savez(tmp_path / "x.npz", contexts=contexts, targets=targets)
    whole = import_npz(tmp_path / "x.npz", tmp_path / "v")
    monkeypatch.setattr(npz, "_CHUNK", 4)
    assert import_npz(tmp_path / "x.npz", tmp_path / "w").sha256 == whole.sha256


def test_half_and_double_precision_are_read(tmp_path: Path) -> None:
    contexts, targets = windows_of(walk(30, 6))
    for kind in (np.float16, np.float64):
        np.savez(tmp_path / "x.npz", contexts=contexts.astype(kind), targets=targets.astype(kind))
        table = import_npz(tmp_path / "x.npz", tmp_path / "v")
        assert table.vectors.dtype == np.float32
        assert np.allclose(table.vectors, walk(30, 6), atol=1e-3)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "exploded"),))

    contexts, targets = windows_of(walk(10, 6))
    bad = np.array([Bomb()] * len(contexts), object)
    np.savez(tmp_path / "x.npz", contexts=bad, targets=targets)
    with pytest.raises(FormatError, match="pickled Python objects"):
        import_npz(tmp_path / "x.npz", tmp_path / "v")
    np.savez(tmp_path / "x.npz", contexts=contexts, targets=targets, document_index=bad)
    with pytest.raises(FormatError, match="pickled Python objects"):
        import_npz(tmp_path / "x.npz", tmp_path / "v")
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "v" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("contexts", "targets"),
    [
        (np.zeros((4, 5, 6), np.float32), np.zeros((4, 7), np.float32)),
        (np.zeros((4, 5, 6), np.float32), np.zeros((3, 6), np.float32)),
        (np.zeros((4, 6), np.float32), np.zeros((4, 6), np.float32)),
        (np.zeros((0, 5, 6), np.float32), np.zeros((0, 6), np.float32)),
    ],
)
def test_other_shapes(tmp_path: Path, contexts: np.ndarray, targets: np.ndarray) -> None:
    np.savez(tmp_path / "x.npz", contexts=contexts, targets=targets)
    with pytest.raises(FormatError, match="another shape"):
        import_npz(tmp_path / "x.npz", tmp_path / "v")


def test_integers_are_no_vectors(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", contexts=np.zeros((4, 5, 6), int), targets=np.zeros((4, 6)))
    with pytest.raises(FormatError, match="not of floats"):
        import_npz(tmp_path / "x.npz", tmp_path / "v")


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not found"):
        import_npz(tmp_path / "none.npz", tmp_path / "v")
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    with pytest.raises(FormatError, match="not an npz"):
        import_npz(tmp_path / "x.npz", tmp_path / "v")
    np.savez(tmp_path / "x.npz", contexts=np.zeros((4, 5, 6)))
    with pytest.raises(FormatError, match="lacks an array"):
        import_npz(tmp_path / "x.npz", tmp_path / "v")


@pytest.mark.parametrize("shape", [(5,), (15,), (7, 2), (0,), ()])
def test_a_document_index_that_does_not_fit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    contexts, targets = windows_of(walk(12, 6))
    index = np.zeros(shape, np.int32)
    np.savez(tmp_path / "x.npz", contexts=contexts, targets=targets, document_index=index)
    with pytest.raises(FormatError, match="does not fit the windows"):
        import_npz(tmp_path / "x.npz", tmp_path / "v")


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    contexts, targets = windows_of(walk(12, 6))
    np.savez(tmp_path / "x.npz", contexts=contexts, targets=targets)
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("document_index", b"0")
        archive.writestr("README", b"windows")
    assert import_npz(tmp_path / "x.npz", tmp_path / "v").n_vectors == 12
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("contexts", b"0")
        archive.writestr("targets", b"0")
    with pytest.raises(FormatError, match="lacks an array"):
        import_npz(tmp_path / "y.npz", tmp_path / "w")


def test_an_array_that_ends_early(tmp_path: Path) -> None:
    contexts, targets = windows_of(walk(10, 6))
    np.savez(tmp_path / "whole.npz", contexts=contexts, targets=targets)
    with (
        zipfile.ZipFile(tmp_path / "whole.npz") as whole,
        zipfile.ZipFile(tmp_path / "x.npz", "w") as short,
    ):
        short.writestr("contexts.npy", whole.read("contexts.npy")[:-8])
        short.writestr("targets.npy", whole.read("targets.npy"))
    with pytest.raises(FormatError, match="not whole"):
        import_npz(tmp_path / "x.npz", tmp_path / "v")


def test_blocks_shorter_than_a_window(tmp_path: Path) -> None:
    contexts, targets = windows_of(walk(10, 6))
    np.savez(tmp_path / "x.npz", contexts=contexts, targets=targets)
    with pytest.raises(ConfigError, match="too short"):
        import_npz(tmp_path / "x.npz", tmp_path / "v", block_length=5)
