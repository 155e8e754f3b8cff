"""Python: each parser defect of the source systems, and name resolution."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphmert.domains.code.python_facts import read_python
from toy_code import PYTHON, call, index, references, short, triples

CALLS = ("calls", "invokes", "instantiates")


def names(text: str) -> list[tuple[str, str]]:
    return [(one.kind, one.qualname) for one in read_python(text).symbols[1:]]


def targets(tmp_path: Path, text: str, **more: str) -> set[tuple[str, str, str]]:
    files = {"a.py": text, **{name.replace("__", "/") + ".py": body for name, body in more.items()}}
    found = triples(index(tmp_path, files), *CALLS)
    return {one for one in found if not one[2].startswith("ext:")}


def test_async_functions_are_functions() -> None:
    assert names("async def f():\n    await g()\n") == [("function", "f")]
    assert "async" in read_python("async def f(): pass\n").symbols[1].flags


def test_raise_of_a_call_names_the_exception_and_calls_it(tmp_path: Path) -> None:
    text = "class BadError(Exception): pass\ndef f():\n    raise BadError('x') from None\n"
    store = index(tmp_path, {"a.py": text})
    assert ("a.py#f", "raises", "a.py#BadError") in triples(store)
    assert ("a.py#f", "instantiates", "a.py#BadError") in triples(store)
    assert store.describe("p/a.py#BadError")["type"] == "ExceptionType"


def test_nested_functions_and_classes_have_their_own_names() -> None:
    text = "def f():\n    def g():\n        class C:\n            def m(self): pass\n"
    assert [one for one in names(text) if one[0] != "parameter"] == [
        ("function", "f"),
        ("function", "f.g"),
        ("class", "f.g.C"),
        ("method", "f.g.C.m"),
    ]


def test_equal_file_stems_are_different_modules(tmp_path: Path) -> None:
    files = {
        "one/__init__.py": "",
        "two/__init__.py": "",
        "one/tools.py": "def run(): pass\n",
        "two/tools.py": "def run(): pass\n",
        "main.py": "from two.tools import run\nrun()\n",
    }
    found = triples(index(tmp_path, files), "calls")
    assert found == {("main.py", "calls", "two/tools.py#run")}


def test_builtins_are_outside_unless_shadowed(tmp_path: Path) -> None:
    store = index(tmp_path, {"a.py": "def len(x): return 1\nlen('')\nprint('')\n"})
    assert ("a.py", "calls", "a.py#len") in triples(store)
    assert call(store, "print")["external"] == "builtins.print"


def test_calls_belong_to_the_innermost_function(tmp_path: Path) -> None:
    text = "def a(): pass\ndef b(): pass\ndef f():\n    a()\n    def g():\n        b()\nb()\n"
    assert targets(tmp_path, text) == {
        ("a.py#f", "calls", "a.py#a"),
        ("a.py#f.g", "calls", "a.py#b"),
        ("a.py", "calls", "a.py#b"),
    }


def test_bodies_are_walked_once() -> None:
    text = "class C:\n    @property\n    def m(self):\n        def inner():\n            h()\n"
    text += "        return [h() for _ in inner()]\n"
    refs = read_python(text).refs
    places = [(one.kind, one.start) for one in refs]
    assert len(places) == len(set(places))
    assert [one.kind for one in refs].count("call") == 3


def test_docstrings_lie_apart() -> None:
    text = 'def f():\n    """Say é."""\n    return 1\n\n\nclass C:\n    # note\n    "Doc."\n'
    symbols = read_python(text).symbols
    spans = [text[one.span[6] : one.span[7]] for one in symbols if one.span[6] >= 0]
    assert spans == ['"""Say é."""', '"Doc."']
    assert text[symbols[1].span[0] : symbols[1].span[1]].startswith("def f")
    assert text[symbols[1].span[2] : symbols[1].span[3]] == "f"


def test_offsets_count_characters_not_bytes(tmp_path: Path) -> None:
    store = index(tmp_path, {"a.py": "s = 'äöü→😀'\ndef größe(): pass\ngröße()\n"})
    row = call(store, "größe")
    text = store._texts[row["doc_id"]]
    assert text[row["start"] : row["end"]] == "größe"
    assert text[row["site_start"] : row["site_end"]] == "größe()"


# --- resolution -------------------------------------------------------------------------------


def test_attributes_of_self_parameters_and_elements(tmp_path: Path) -> None:
    store = index(tmp_path, PYTHON)
    found = triples(store)
    assert ("shop/cart.py#Cart.total", "invokes", "shop/items.py#Item.price") in found
    assert ("shop/cart.py#checkout", "invokes", "shop/cart.py#Cart.total") in found
    assert ("shop/cart.py#checkout", "calls", "shop/items.py#price_of") in found
    assert ("tests/test_cart.py#test_total", "tests", "shop/cart.py#Cart.total") in found
    assert ("shop/items.py#price_of", "raises", "ext:python:builtins.ValueError") in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import b\nb.f()", "b.py#f"),
        ("import b as c\nc.f()", "b.py#f"),
        ("from b import f as g\ng()", "b.py#f"),
        ("from b import *\nf()", "b.py#f"),
        ("from c import f\nf()", "b.py#f"),
        ("import d\nd.e.f()", "d/e.py#f"),
        ("from d import e\ne.f()", "d/e.py#f"),
        ("from d.e import again\nagain()", "b.py#f"),
        (
            "try:\n    from nowhere import f\nexcept ImportError:\n    from b import f\nf()",
            "b.py#f",
        ),
    ],
    ids=["import", "as", "from", "star", "through", "attribute", "package", "relative", "try"],
)
def test_imports(tmp_path: Path, text: str, expected: str) -> None:
    files = {
        "a.py": text + "\n",
        "b.py": "def f(): pass\ndef _hidden(): pass\n",
        "c.py": "from b import *\n",
        "d/__init__.py": "from . import e\n",
        "d/e.py": "from b import f as again\ndef f(): pass\n",
    }
    assert ("a.py", "calls", expected) in triples(index(tmp_path, files), "calls")


def test_star_import_keeps_to_all(tmp_path: Path) -> None:
    files = {
        "a.py": "from b import *\nf()\ng()\n",
        "b.py": "__all__ = ['f']\ndef f(): 0\ndef g(): 0\n",
    }
    found = triples(index(tmp_path, files), "calls")
    assert found == {("a.py", "calls", "b.py#f")}


CLASSES = (
    "class A:\n    def m(self): return self.n()\n    def n(self): return B()\n"
    "class B(A):\n    def n(self): return super().n()\n    @classmethod\n"
    "    def make(cls): return cls()\n    @property\n    def other(self) -> 'A': ...\n"
    "    def __enter__(self): return self\n    def __exit__(self, *a): ...\n"
    "    def __call__(self): ...\n    def __iter__(self): yield A()\n"
)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("B().m()", "m", "A.m"),
        ("B.make().m()", "m", "A.m"),
        ("B().other.m()", "m", "A.m"),
        ("A().n().other", "n", "A.n"),
        ("with B() as b:\n    b.make()", "make", "B.make"),
        ("for a in B():\n    a.m()", "m", "A.m"),
        ("b = B()\nb()", "b", "B.__call__"),
        ("def f(x):\n    if isinstance(x, B):\n        x.make()", "make", "B.make"),
        ("def f(x=B()):\n    x.make()", "make", "B.make"),
        ("def f(x):\n    x.make()\nf(B())", "make", "B.make"),
        ("xs = {}\nxs['a'] = B()\nxs['a'].make()", "make", "B.make"),
        ("def f(xs: 'list[B] | None'):\n    xs[0].make()", "make", "B.make"),
        ("x, y = A(), B()\ny.make()", "make", "B.make"),
        ("x = [B() for _ in ()]\nx.pop().make()", "make", "B.make"),
        ("async def f() -> B: ...\nasync def g():\n    (await f()).make()", "make", "B.make"),
        ("make = B.make\nmake()", "make", "B.make"),
    ],
)
def test_types_are_inferred(tmp_path: Path, text: str, name: str, expected: str) -> None:
    store = index(tmp_path, {"a.py": CLASSES + text + "\n"})
    line = CLASSES.count("\n")
    rows = [one for one in references(store) if one["text"] == name and one["line"] > line]
    rows = [one for one in rows if one["relation"] == "invokes"]
    assert [short(one["target_id"]) for one in rows] == [f"a.py#{expected}"]


def test_super_and_overriders(tmp_path: Path) -> None:
    store = index(tmp_path, {"a.py": CLASSES})
    rows = {one["line"]: one for one in references(store) if one["text"] == "n"}
    assert short(rows[5]["target_id"]) == "a.py#A.n"
    assert [short(one) for one in rows[2]["candidates"]] == ["a.py#A.n", "a.py#B.n"]
    assert ("a.py#B.n", "overrides", "a.py#A.n") in triples(store)


def test_unknown_receivers_are_guessed_only_by_rare_names(tmp_path: Path) -> None:
    text = "class A:\n    def frobnicate(self): ...\n    def get(self): ...\n"
    store = index(tmp_path, {"a.py": text + "def f(x):\n    x.frobnicate()\n    x.get()\n"})
    row = call(store, "frobnicate")
    assert (row["resolver"], row["state"]) == ("syntactic", "resolved")
    assert row["confidence"] == 0.5
    assert call(store, "get")["state"] == "unresolved"


def test_mutual_recursion_ends_and_does_not_depend_on_order(tmp_path: Path) -> None:
    text = (
        "class T:\n    def go(self): ...\n"
        "class S:\n    def __init__(self):\n        self.now = T()\n        self.all = iter([])\n"
        "    def look(self):\n        old = next(self)\n        back = self.now\n"
        "        self.now = old\n        return back\n"
        "    def __iter__(self): return It(self)\n"
        "    def __next__(self):\n        rv = self.now\n        self.now = next(self.all)\n"
        "        return rv\n"
        "class It:\n    def __init__(self, s): self.s = s\n"
        "    def __next__(self): return self.s.now\n"
        "S().look().go()\n"
    )
    assert short(call(index(tmp_path, {"a.py": text}), "go")["target_id"]) == "a.py#T.go"


def test_a_package_is_named_by_its_own_front_alone(tmp_path: Path) -> None:
    files = {
        "top/__init__.py": "from top.inner import f\n",
        "top/inner/__init__.py": "def f(): pass\n",
        "top/inner/deep/__init__.py": "",
        "top/inner/deep/user.py": "import top\ntop.f()\n",
        "top/open/folder.py": "from ..inner import f\nf()\n",
    }
    assert triples(index(tmp_path, files), "calls") == {
        ("top/inner/deep/user.py", "calls", "top/inner/__init__.py#f"),
        ("top/open/folder.py", "calls", "top/inner/__init__.py#f"),
    }
