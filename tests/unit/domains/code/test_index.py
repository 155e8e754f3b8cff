"""The index: bad input, offsets, counts, workers, updates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import graphmert.domains.code.index as index_module
from graphmert.domains.code.entities import is_shared
from graphmert.domains.code.index import IndexSettings, build_index
from graphmert.domains.code.jsonl import export_jsonl
from graphmert.domains.code.ontology import load_ontology, load_profile, rename_relation
from graphmert.domains.code.queries import CodeStore
from graphmert.domains.code.report import index_report, report_text
from graphmert.domains.code.values import EMPTY, Solver
from graphmert.domains.code.walk import WalkSettings, find_files
from graphmert.errors import ConfigError, FormatError
from graphmert.kg import KG, Entity, Triple, validate
from graphmert.store import RunDir
from toy_code import PYTHON, index, references, tables, triples, write


def files(store: CodeStore) -> dict[str, dict]:
    return {one["path"]: one for one in store.run.read("code/files").to_pylist()}


# --- bad input --------------------------------------------------------------------------------

BAD: dict[str, str | bytes] = {
    "good.py": "def f(): pass\n",
    "broken.py": "def f(:\n    pass\n\ndef g():\n    f()\n",
    "binary.py": b"\x00\x01\x02" * 100,
    "huge.py": "x = 1\n" * 2_000,
    "minified.js": "var a=1;" * 2_000,
    "latin.py": "# -*- coding: latin-1 -*-\nname = 'é'\ndef f(): pass\n".encode("latin-1"),
    "not_utf8.py": b"name = '\xff\xfe'\ndef f(): pass\n",
    "marked.py": b"\xef\xbb\xbfdef f(): pass\n",
    "wide.py": "def f(): pass\n".encode("utf-16"),
    "empty.py": "",
    "deep.py": "x = " + "(" * 20_000 + ")" * 20_000 + "\n",
    "wrong.java": "public clas X { void f( { }\n",
    "wrong.ts": "export const = ;\nfunction f(",
}


def test_bad_files_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    settings = IndexSettings(walk=WalkSettings(max_file_mb=0.01 * 1.1, max_line_chars=5_000))
    write(tmp_path / "p", {name: text for name, text in BAD.items() if name != "deep.py"})
    (tmp_path / "p" / "loop").symlink_to(tmp_path / "p", target_is_directory=True)
    (tmp_path / "p" / "link.py").symlink_to(tmp_path / "p" / "good.py")
    build_index([tmp_path / "p"], tmp_path / "index", settings)
    store = CodeStore(tmp_path / "index")
    found = files(store)
    assert found["good.py"]["state"] == "parsed"
    assert found["broken.py"]["state"] == "partial"
    assert "line 1" in found["broken.py"]["reason"]
    assert ("broken.py#g", "defines") not in triples(store)
    assert any(one[2] == "broken.py#g" for one in triples(store, "defines"))
    assert (found["binary.py"]["state"], found["binary.py"]["reason"]) == ("skipped", "binary")
    assert found["huge.py"]["reason"].startswith("larger than")
    assert found["minified.js"]["state"] == "skipped"
    assert found["latin.py"]["state"] == "parsed"
    assert found["not_utf8.py"]["reason"] == "not UTF-8, read as Latin-1"
    assert found["marked.py"]["state"] == found["wide.py"]["state"] == "parsed"
    assert found["empty.py"]["state"] == "parsed"
    assert found["wrong.java"]["state"] == found["wrong.ts"]["state"] == "partial"
    ledger = json.loads(store.run.ledger.read_text())["files"]
    assert ledger["left_out"]["symbolic link"] == 2
    assert ledger["kept"] + sum(ledger["left_out"].values()) == ledger["offered"]


def test_nesting_too_deep_is_skipped_not_a_crash(tmp_path: Path) -> None:
    store = index(tmp_path, {"deep.py": BAD["deep.py"], "good.py": BAD["good.py"]})
    assert files(store)["deep.py"]["state"] in ("skipped", "partial")
    assert files(store)["good.py"]["state"] == "parsed"


def test_gitignore_is_kept_to(tmp_path: Path) -> None:
    store = index(
        tmp_path,
        {
            ".gitignore": "build/\n*.gen.py\n!kept.gen.py\n",
            "a.py": "",
            "build/b.py": "",
            "x.gen.py": "",
            "kept.gen.py": "",
            "sub/.gitignore": "/only.py\n",
            "sub/only.py": "",
            "sub/deeper/only.py": "",
            "node_modules/m.js": "",
        },
    )
    assert set(files(store)) == {"a.py", "kept.gen.py", "sub/deeper/only.py"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", "project = 3\n"),
        ("pyproject.toml", "tool = 3\n"),
        ("pyproject.toml", "[tool]\npoetry = 3\n"),
        ("pyproject.toml", '[[project]]\nname = "x"\n'),
        ("pyproject.toml", "[project\n"),
        ("package.json", "[" * 100_000),
        ("package.json", "[]"),
    ],
)
def test_a_bad_package_file_is_named_and_passed_over(tmp_path: Path, name: str, text: str) -> None:
    store = index(tmp_path, {name: text, "setup.cfg": "[metadata]\nname = kept\n", "a.py": ""})
    assert [one["doc_id"] for one in store.run.read("code/files").to_pylist()] == ["kept/a.py"]
    ledger = json.loads(store.run.ledger.read_text())["files"]
    assert ledger["left_out"] == {"package file not understood": 1}
    assert ledger["examples"]["package file not understood"] == [str(tmp_path / "p" / name)]


def test_package_and_ignore_files_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_of = {".gitignore": "a.py\n", "setup.cfg": "", "a.py": "", "sub/.gitignore": "*.py\n!\n"}
    write(tmp_path / "p", {**files_of, "sub/b.py": ""})
    read = Path.read_text

    def read_text(path: Path, *args: str, **options: str) -> str:
        if path in (tmp_path / "p/.gitignore", tmp_path / "p/setup.cfg"):
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    walk = find_files([tmp_path / "p"], WalkSettings())
    assert [one.path for one in walk.files] == ["a.py"]
    assert [(Path(one).name, reason) for one, reason in walk.skipped] == [
        (".gitignore", "ignore file not readable: Permission denied"),
        ("setup.cfg", "package file not readable: Permission denied"),
        (".gitignore", "ignore file has a wrong pattern"),
    ]


def test_equal_module_names_are_reported(tmp_path: Path) -> None:
    store = index(tmp_path, {"a/tool.py": "", "b/tool.py": ""})
    ledger = json.loads(store.run.ledger.read_text())
    assert ledger["duplicate_modules"] == {"tool": ["p/a/tool.py", "p/b/tool.py"]}


def test_packages_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    project = '{"name": "same", "version": "1.0", "license": "MIT"}'
    store = index(
        tmp_path,
        {"a/package.json": project, "a/x.js": "", "b/package.json": project, "b/x.js": ""},
    )
    ids = {one["doc_id"] for one in store.run.read("code/files").to_pylist()}
    assert ids == {"same/x.js", "same~2/x.js"}


def test_nothing_to_read_gives_an_empty_index_that_answers(tmp_path: Path) -> None:
    store = index(tmp_path, {"README.md": "nothing"})
    assert store.triples.num_rows == 0
    with pytest.raises(ConfigError, match="no entity named"):
        store.callers("f")


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="path not found"):
        build_index([tmp_path / "nowhere"], tmp_path / "index")


def test_an_index_of_an_older_version_is_refused_and_rebuilt(tmp_path: Path) -> None:
    store = index(tmp_path, PYTHON)
    before = tables(store.run)
    manifest = json.loads(store.run.manifest.read_text())
    store.run.manifest.write_text(json.dumps({**manifest, "format": 0}))
    state = tmp_path / "index" / "code" / "cache" / "state.json"
    state.write_text(json.dumps({"format": 0, "files": {"x": 1}}))
    with pytest.raises(FormatError, match="another version"):
        CodeStore(tmp_path / "index")
    result = build_index([tmp_path / "p"], tmp_path / "index")
    assert "another version" in result.message
    assert tables(CodeStore(tmp_path / "index").run) == before


def test_a_damaged_state_is_built_anew_with_a_word(tmp_path: Path) -> None:
    index(tmp_path, PYTHON)
    (tmp_path / "index" / "code" / "cache" / "state.json").write_text("{")
    assert "damaged" in build_index([tmp_path / "p"], tmp_path / "index").message


def test_no_index_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no index here"):
        CodeStore(tmp_path)


# --- what is written --------------------------------------------------------------------------


def test_every_offset_is_true(tmp_path: Path) -> None:
    store = index(tmp_path, PYTHON)
    texts = store._texts
    for row in store.run.read("kg/evidence").to_pylist():
        text = texts[row["doc_id"]]
        assert text[row["sent_start"] : row["sent_end"]] == row["sentence"]
        assert text[row["head_start"] : row["head_end"]] == row["head_surface"]
        if row["tail_surface"] is not None:
            assert text[row["tail_start"] : row["tail_end"]] == row["tail_surface"]
        locator = json.loads(row["locator"])
        assert text.splitlines()[locator["start_line"] - 1] or row["tail_surface"] is None
        assert (locator["version"], locator["licence"]) == ("1.2", "MIT")
    for row in store.run.read("code/references").to_pylist():
        assert texts[row["doc_id"]][row["start"] : row["end"]] == row["text"]
        assert row["site_start"] <= row["start"] < row["end"] <= row["site_end"]
    for symbol in store.symbols.values():
        assert texts[symbol["doc_id"]][symbol["start"] : symbol["end"]] is not None


def test_the_graph_keeps_its_ontology_and_stores_no_inverse(tmp_path: Path) -> None:
    store = index(tmp_path, PYTHON)
    rows = store.run.read("kg/entities").to_pylist()
    assert len({one["entity_id"] for one in rows}) == len(rows)
    graph = KG.build(
        [Entity(one["entity_id"], one["name"], one["type"]) for one in rows],
        [Triple(o["head_id"], o["relation"], o["tail_id"]) for o in store.triples.to_pylist()],
    )
    assert validate(graph, load_ontology()) == []
    assert {"defined_in", "tested_by"} & set(graph.relations) == set()
    assert store.manifest["validation"]["passed"] == {
        "type": True,
        "acyclicity": True,
        "provenance": True,
    }


def test_profiles_have_their_relations() -> None:
    assert len(load_ontology().types) == 15
    assert len(load_ontology().relations) >= 24
    assert len(load_profile("graphmer-se")) == 16
    assert len(load_profile("codebert")) == 12
    known = set(load_ontology().relations)
    for name in ("graphmer-se", "codebert", "all"):
        assert {one for members in load_profile(name).values() for one in members} <= known
    assert rename_relation(load_profile("codebert"), "inherits_from") == "inherits"
    assert rename_relation(load_profile("codebert"), "raises") is None
    with pytest.raises(ConfigError, match="no such profile"):
        load_profile("nonsense")


def test_report_adds_up(tmp_path: Path) -> None:
    store = index(tmp_path, PYTHON)
    report = index_report(tmp_path / "index")
    assert report["files"] == {"parsed": 4}
    by_relation = report["triples_by_relation"]
    assert sum(sum(one.values()) for one in by_relation.values()) == store.triples.num_rows
    shares = report["calls"]["all"]
    states = ("resolved", "ambiguous", "external", "unresolved")
    assert sum(shares[state] for state in states) == pytest.approx(1, abs=1e-3)
    assert 0 < report["strict"]["triples"] < report["triples"]
    assert "calls" in report_text(report)


def test_export_has_qualifiers_and_renamed_relations(tmp_path: Path) -> None:
    index(tmp_path, PYTHON)
    export_jsonl(tmp_path / "index", tmp_path / "out", profile="codebert")
    lines = (tmp_path / "out" / "triples.jsonl").read_text().splitlines()
    rows = [json.loads(one) for one in lines]
    assert {one["relation"] for one in rows} <= set(load_profile("codebert"))
    wanted = {"language", "file", "start_line", "package", "version", "licence", "resolver"}
    assert all(wanted <= set(one["qualifiers"]) for one in rows)
    entities = [
        json.loads(o) for o in (tmp_path / "out" / "entities.jsonl").read_text().splitlines()
    ]
    ids = {one["id"] for one in entities}
    assert all(one["head"] in ids and one["tail"] in ids for one in rows)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"] == {"triples": len(rows), "entities": len(entities)}


def test_workers_and_runs_give_the_same_bytes(tmp_path: Path) -> None:
    many = {f"m{number}.py": f"def f{number}(): pass\nf{number}()\n" for number in range(40)}
    write(tmp_path / "p", {**many, **PYTHON})
    for name, n_workers in (("one", 1), ("two", 2)):
        build_index([tmp_path / "p"], tmp_path / name, n_workers=n_workers)
    for path in sorted((tmp_path / "one").rglob("*")):
        if path.is_file() and path.name != "timings.json":
            other = tmp_path / "two" / path.relative_to(tmp_path / "one")
            assert path.read_bytes() == other.read_bytes(), path


# --- updates ----------------------------------------------------------------------------------


def test_an_unresolved_name_is_linked_when_its_target_appears(tmp_path: Path) -> None:
    store = index(tmp_path, {"a.py": "from b import f\nf()\n"})
    assert triples(store, "calls") == {("a.py", "calls", "ext:python:b.f")}
    write(tmp_path / "p", {"b.py": "def f(): pass\n"})
    result = build_index([tmp_path / "p"], tmp_path / "index")
    assert result.n_read == 1
    assert ("a.py", "calls", "b.py#f") in triples(CodeStore(tmp_path / "index"), "calls")


def test_an_edit_leaves_references_from_other_files(tmp_path: Path) -> None:
    index(tmp_path, PYTHON)
    path = tmp_path / "p" / "shop" / "items.py"
    path.write_text("# moved\n\n" + path.read_text())
    result = build_index([tmp_path / "p"], tmp_path / "index")
    # Only positions changed: no other file has to be linked again.
    assert (result.n_read, result.n_linked) == (1, 1)
    found = triples(CodeStore(tmp_path / "index"), "calls")
    assert ("shop/cart.py#checkout", "calls", "shop/items.py#price_of") in found


def test_a_changed_type_is_seen_by_those_who_read_it(tmp_path: Path) -> None:
    store = index(
        tmp_path,
        {
            "a.py": "from b import make\nmake().go()\n",
            "b.py": "from c import A, B\ndef make():\n    return A()\n",
            "c.py": "class A:\n    def go(self): ...\nclass B:\n    def go(self): ...\n",
        },
    )
    assert ("a.py", "invokes", "c.py#A.go") in triples(store)
    write(tmp_path / "p", {"b.py": "from c import A, B\ndef make():\n    return B()\n"})
    result = build_index([tmp_path / "p"], tmp_path / "index")
    assert (result.n_read, result.n_linked) == (1, 2)
    assert ("a.py", "invokes", "c.py#B.go") in triples(CodeStore(tmp_path / "index"))


def test_an_unchanged_project_is_not_read_again(tmp_path: Path) -> None:
    store = index(tmp_path, PYTHON)
    before = {path: path.read_bytes() for path in store.run.path.rglob("*.parquet")}
    result = build_index([tmp_path / "p"], tmp_path / "index")
    assert (result.n_read, result.n_linked) == (0, 0)
    assert {path: path.read_bytes() for path in store.run.path.rglob("*.parquet")} == before


def test_a_broken_update_is_followed_by_a_full_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = index(tmp_path, PYTHON)
    before = tables(store.run)
    path = tmp_path / "p" / "shop" / "items.py"
    text = path.read_text()
    path.write_text("def price_of(): pass\n")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            build_index([tmp_path / "p"], tmp_path / "index")
    path.write_text(text)
    build_index([tmp_path / "p"], tmp_path / "index")
    assert tables(CodeStore(tmp_path / "index").run) == before


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "ledger.json",
        "kg/triples.parquet",
        "corpus/documents.parquet",
        "code/left_out.json",
        "code/cache/*.parquet",
    ],
)
@pytest.mark.parametrize("is_edited", [False, True])
def test_a_lost_file_is_made_again_with_a_word(tmp_path: Path, name: str, is_edited: bool) -> None:
    index(tmp_path, {"a.py": "def f(): pass\nf()\n"})
    (path,) = (tmp_path / "index").glob(name)
    if name.startswith("kg/"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    else:
        path.unlink()
    if is_edited:
        write(tmp_path / "p", {"a.py": "f()\n"})
    message = build_index([tmp_path / "p"], tmp_path / "index").message
    found = path.relative_to(tmp_path / "index").as_posix()
    assert message == f"{found} of the earlier index is missing or changed: built anew"
    build_index([tmp_path / "p"], tmp_path / "full", full=True)
    assert tables(CodeStore(tmp_path / "index").run) == tables(RunDir(tmp_path / "full"))
    assert build_index([tmp_path / "p"], tmp_path / "index").message == ""


@pytest.mark.parametrize("step", ["assemble", "_write_manifest", "_save_state"])
@pytest.mark.parametrize("is_first", [False, True])
def test_a_killed_build_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_first: bool
) -> None:
    write(tmp_path / "p", {"a.py": "def f(): pass\n"})
    if not is_first:
        build_index([tmp_path / "p"], tmp_path / "index")
    write(tmp_path / "p", {"a.py": "def f(): pass\n\n\nf()\n"})

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(index_module if step == "assemble" else index_module._Build, step, stop)
        with pytest.raises(KeyboardInterrupt):
            build_index([tmp_path / "p"], tmp_path / "index")
    if step != "_save_state":
        with pytest.raises(FormatError, match="no index here"):
            CodeStore(tmp_path / "index")
    assert "unfinished" in build_index([tmp_path / "p"], tmp_path / "index").message
    build_index([tmp_path / "p"], tmp_path / "full", full=True)
    assert tables(CodeStore(tmp_path / "index").run) == tables(RunDir(tmp_path / "full"))
    manifests = [RunDir(tmp_path / one).manifest.read_text() for one in ("index", "full")]
    assert manifests[0] == manifests[1]


def test_a_moved_repository_has_its_new_sources(tmp_path: Path) -> None:
    package = '[project]\nname = "p"\nversion = "1"\n'
    index(tmp_path, {"pyproject.toml": package, "a.py": "def f(): pass\n"})
    (tmp_path / "p").rename(tmp_path / "p2")
    build_index([tmp_path / "p2"], tmp_path / "index")
    build_index([tmp_path / "p2"], tmp_path / "full", full=True)
    updated, full = RunDir(tmp_path / "index"), RunDir(tmp_path / "full")
    assert updated.read("corpus/documents")["source"].to_pylist() == [str(tmp_path / "p2/a.py")]
    assert updated.documents.read_bytes() == full.documents.read_bytes()
    assert updated.manifest.read_bytes() == full.manifest.read_bytes()


def test_a_skipped_file_is_linked_again_with_its_group(tmp_path: Path) -> None:
    index(tmp_path, {"a.py": "def f(): pass\n", "bin.py": b"x = 1\0", "huge.js": "a;" * 9_000})
    write(tmp_path / "p", {"new.py": "from a import f\nf()\n", "new.js": "f();\n"})
    build_index([tmp_path / "p"], tmp_path / "index")
    build_index([tmp_path / "p"], tmp_path / "full", full=True)
    assert tables(RunDir(tmp_path / "index")) == tables(RunDir(tmp_path / "full"))
    assert files(CodeStore(tmp_path / "index"))["bin.py"]["state"] == "skipped"


CLASS = "class {name}:\n    def frob(self):\n        return self\n"
NAMED = "def {name}():\n    return 1\n"
PICK = "def pick(x):\n    return f if x else g\n"
EITHER = "class R(P if 1 else Q):\n    pass\n"
FROB = "    R().frob()\n"


def joined(*blocks: str) -> str:
    return "\n\n".join(blocks)


def classes(*names: str) -> list[str]:
    return [CLASS.format(name=one) for one in names]


def functions(*names: str) -> list[str]:
    return [NAMED.format(name=one) for one in names]


MOVES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "methods guessed by name": (
        {"a.py": joined(*classes("X", "Y")), "b.py": "def k(c):\n    c.frob()\n"},
        {"a.py": joined(*classes("Y", "X"))},
    ),
    "several values": (
        {
            "a.py": joined(*functions("f", "g"), PICK),
            "b.py": "from a import pick\n\n\ndef k(x):\n    pick(x)()\n",
        },
        {"a.py": joined(*functions("g", "f"), PICK)},
    ),
    "bases of one place": (
        {
            "a.py": joined(*functions("one", "two", "three", "four"), *classes("P", "Q"), EITHER),
            "b.py": f"from a import R\n\n\ndef k():\n{FROB}",
        },
        {
            "a.py": joined(
                *functions("one", "two", "five", "six", "three", "four"), *classes("P", "Q"), EITHER
            )
        },
    ),
    "more than ten files": (
        {
            "b.py": "",
            "m.py": CLASS.format(name="P"),
            "n.py": CLASS.format(name="Q"),
            "r.py": f"from m import P\nfrom n import Q\n\n\n{EITHER}\n\ndef k():\n{FROB}",
        },
        {f"a{number}.js": "" for number in range(8)},
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_an_update_does_not_depend_on_where_definitions_stood(tmp_path: Path, name: str) -> None:
    before, after = MOVES[name]
    index(tmp_path, before)
    write(tmp_path / "p", after)
    build_index([tmp_path / "p"], tmp_path / "index")
    build_index([tmp_path / "p"], tmp_path / "full", full=True)
    updated, full = RunDir(tmp_path / "index"), RunDir(tmp_path / "full")
    assert tables(updated) == tables(full)
    found = [one for one in references(CodeStore(full.path)) if one["target_id"]]
    assert found


def test_shared_entities_go_when_nothing_names_them(tmp_path: Path) -> None:
    index(tmp_path, {"a.py": "import json\njson.dumps(1)\n"})
    write(tmp_path / "p", {"a.py": "x = 1\n"})
    build_index([tmp_path / "p"], tmp_path / "index")
    rows = RunDir(tmp_path / "index").read("kg/entities").to_pylist()
    assert [one["entity_id"] for one in rows if is_shared(one["entity_id"])] == ["repo:p"]
    shutil.rmtree(tmp_path / "p")
    write(tmp_path / "p", {"b.py": ""})
    build_index([tmp_path / "p"], tmp_path / "index")
    assert set(files(CodeStore(tmp_path / "index"))) == {"b.py"}


# --- names outside ----------------------------------------------------------------------------


def test_the_type_of_a_name_outside_never_unsettles_another_triple(tmp_path: Path) -> None:
    store = index(
        tmp_path,
        {
            "a.py": "import lib\n\n\ndef f():\n    raise lib.make_it()\n",
            "b.py": "import lib, zlib\n\n\ndef g():\n    lib.make_it()\n    raise lib.Stop(1)\n",
            "c.py": "import lib, zlib\n\n\n@lib.Stop\ndef h(): ...\n\n\n"
            "def k():\n    try:\n        g()\n    except zlib.error:\n        lib.Stop()\n",
        },
    )
    kinds = {one["entity_id"]: one["type"] for one in store.run.read("kg/entities").to_pylist()}
    assert kinds["ext:python:lib.make_it"] == "API"
    assert kinds["ext:python:lib.Stop"] == kinds["ext:python:zlib.error"] == "ExceptionType"
    assert store.manifest["validation"]["type_stored"] == 1.0
    assert ("b.py#g", "calls", "ext:python:lib.make_it") in triples(store)
    assert ("b.py#g", "raises", "ext:python:lib.Stop") in triples(store)
    assert ("c.py#k", "catches", "ext:python:zlib.error") in triples(store)
    left_out = json.loads(store.run.ledger.read_text())["triples"]["left_out"]
    assert left_out["outside domain or range"] == 1


def test_an_exception_is_allowed_wherever_a_type_is() -> None:
    for name, rule in load_ontology().relations.items():
        assert "Type" not in rule.range or "ExceptionType" in rule.range, name


# --- the solver -------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["a", "b", "c", "d"])
def test_the_solution_does_not_depend_on_what_is_asked_first(first: str) -> None:
    """Rules whose dependencies appear only with values, over a cycle."""

    def rule(key: tuple) -> frozenset:
        name = key[0]
        if name == "a":
            return frozenset({("I", 1)}) | solver.solve(("b",))
        if name == "b":
            found = solver.solve(("c",))
            return found | (solver.solve(("a",)) if ("I", 2) in found else EMPTY)
        if name == "c":
            return solver.solve(("d",)) | frozenset({("I", 2)})
        found = solver.solve(("b",))
        return found | (frozenset({("I", 3)}) if ("I", 1) in found else EMPTY)

    solver = Solver(rule)
    solver.solve((first,))
    everything = frozenset({("I", 1), ("I", 2), ("I", 3)})
    assert {name: solver.solve((name,)) for name in "abcd"} == dict.fromkeys("abcd", everything)
