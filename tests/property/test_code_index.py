"""An index updated after any edits equals one built anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from graphmert.domains.code.index import build_index
from graphmert.store import RunDir
from toy_code import tables

PYTHON_BODIES = [
    "def f():\n    return A()\n\n\nclass A:\n    def go(self):\n        return self\n",
    "from {other} import f, A\n\n\ndef g(x=A()):\n    x.go()\n    return f().go()\n",
    "from {other} import *\n\n\nclass B(A):\n    def go(self):\n        return super().go()\n",
    "import {other} as m\n\n\ndef h():\n    for one in [m.f()]:\n        one.go()\n    m.no()\n",
    "class C:\n    def frobnicate(self): ...\n\n\ndef k(c):\n    c.frobnicate()\n",
    "class X:\n    def go(self): ...\n\n\nclass Y:\n    def go(self): ...\n\n\nX().go()\n",
    "class D:\n    def frobnicate(self): ...\n\n\nclass E:\n    def frobnicate(self): ...\n",
    "def f(): ...\n\n\ndef g(): ...\n\n\ndef pick(x):\n    return f if x else g\n",
    "from {other} import *\n\n\nclass R(X if 1 else Y):\n    pass\n\n\nR().go()\npick(1)()\n",
    "def f(:\n    pass\n",
    "from {other} import g as f\nA = f\n__all__ = ['f']\n",
    "x = 1\0\n",
    "",
]
SCRIPT_BODIES = [
    "export class A {{ go() {{ return this; }} }}\nexport function f() {{ return new A(); }}\n",
    "import {{ f }} from './{other}.js';\nexport const g = () => f().go();\n",
    "const m = require('./{other}.js');\nmodule.exports = {{ f: () => m.f() }};\nm.f();\n",
    "export * from './{other}.js';\n",
]
JAVA_BODIES = [
    "package p;\npublic class {name} {{ public {name} go() {{ return this; }} }}\n",
    "package p;\nclass {name} extends {other} {{ void run() {{ go(); new {other}(); }} }}\n",
    "package q;\nimport p.*;\nclass {name} {{ void run({other} o) {{ o.go(); }} }}\n",
]
STEMS = ("a", "b", "c")


@st.composite
def file_contents(draw: st.DrawFn) -> tuple[str, str]:
    """A path and a content; the content may name another file."""
    ending = draw(st.sampled_from([".py", ".py", ".js", ".java"]))
    stem = draw(st.sampled_from(STEMS))
    other = draw(st.sampled_from(STEMS))
    bodies = {".py": PYTHON_BODIES, ".js": SCRIPT_BODIES, ".java": JAVA_BODIES}[ending]
    body = draw(st.sampled_from(bodies))
    name = stem.upper() if ending == ".java" else stem
    text = body.format(other=other.upper() if ending == ".java" else other, name=name)
    if draw(st.booleans()):
        text = ("// moved\n" if ending != ".py" else "# moved\n") + text
    folder = draw(st.sampled_from(["", "inner/"]))
    return f"{folder}{name}{ending}", text


EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), file_contents()),
        st.tuples(st.just("delete"), st.integers(0, 20)),
        st.tuples(st.just("rename"), st.integers(0, 20)),
        st.tuples(st.just("reverse"), st.integers(0, 20)),
        st.tuples(st.just("push down"), st.integers(0, 20)),
        st.tuples(st.just("many"), st.sampled_from([".py", ".js"])),
    ),
    min_size=1,
    max_size=3,
)


def apply(folder: Path, edits: list) -> None:
    for kind, what in edits:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if kind == "write":
            path = folder / what[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(what[1], encoding="utf-8")
        elif kind == "many":
            for number in range(9):
                (folder / f"a{number}{what}").write_text("", encoding="utf-8")
        elif files:
            path = files[what % len(files)]
            text = path.read_text(encoding="utf-8")
            if kind == "delete":
                path.unlink()
            elif kind == "rename":
                path.rename(path.with_name("z" + path.name))
            elif kind == "reverse":
                path.write_text("\n\n\n".join(text.split("\n\n\n")[::-1]), encoding="utf-8")
            elif path.suffix == ".py":
                above = "".join(f"def above{number}(): ...\n\n\n" for number in range(9))
                path.write_text(above + text, encoding="utf-8")


@settings(max_examples=14, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(st.lists(file_contents(), min_size=2, max_size=7), st.lists(EDITS, min_size=1, max_size=3))
@example(
    [
        ("a.py", "class D:\n    def no(self): ...\n\n\nclass E:\n    def no(self): ...\n"),
        ("b.py", "def k(c):\n    c.no()\n"),
    ],
    [[("reverse", 0)]],
)
@example([("a.py", "x = 1\0\n"), ("b.py", "")], [[("write", ("c.py", ""))]])
def test_an_updated_index_equals_a_full_one(first: list, rounds: list) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = folder / "project"
        project.mkdir()
        apply(project, [("write", one) for one in first])
        build_index([project], folder / "updated")
        for edits in rounds:
            apply(project, edits)
            build_index([project], folder / "updated")
        build_index([project], folder / "full", full=True)
        assert tables(RunDir(folder / "updated")) == tables(RunDir(folder / "full"))
        for other in ("ledger.json", "seed/schema.toml"):
            assert (folder / "updated" / other).read_bytes() == (
                folder / "full" / other
            ).read_bytes()
