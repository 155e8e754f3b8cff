"""JavaScript, TypeScript and Java: parser defects of the source systems, and resolution."""

from __future__ import annotations

from pathlib import Path

import pytest

from toy_code import call, index, references, short, triples

CALLS = ("calls", "invokes", "instantiates")


def inside(found: set[tuple[str, str, str]]) -> set[tuple[str, str, str]]:
    return {one for one in found if not one[2].startswith("ext:")}


def test_js_class_methods_are_methods_and_new_instantiates(tmp_path: Path) -> None:
    text = (
        "class A { m() { return this.n(); } n() {} static s() {} get g() { return new A(); } }\n"
        "function f() { const a = new A(); a.m(); A.s(); a.g.n(); }\n"
    )
    store = index(tmp_path, {"a.js": text})
    assert store.describe("p/a.js#A.m")["type"] == "Method"
    assert inside(triples(store, *CALLS)) == {
        ("a.js#A.m", "invokes", "a.js#A.n"),
        ("a.js#A.g", "instantiates", "a.js#A"),
        ("a.js#f", "instantiates", "a.js#A"),
        ("a.js#f", "invokes", "a.js#A.m"),
        ("a.js#f", "invokes", "a.js#A.s"),
        ("a.js#f", "invokes", "a.js#A.n"),
    }


@pytest.mark.parametrize(
    ("other", "use"),
    [
        ("export function f() {}", "import { f as g } from './b'; g();"),
        ("export default function f() {}", "import g from './b.js'; g();"),
        ("export function f() {}", "import * as b from './b'; b.f();"),
        ("export * from './c';", "import { f } from './b'; f();"),
        ("function f() {} module.exports = f;", "const g = require('./b'); g();"),
        ("exports.f = function f() {};", "const { f } = require('./b'); f();"),
        ("function f() {} module.exports = { f };", "require('./b').f();"),
        (
            "const o = module.exports = {}; o.f = function f() {};",
            "const b = require('./b'); b.f();",
        ),
        ("export const f = () => 1;", "import { f } from './b'; f();"),
    ],
)
def test_js_modules(tmp_path: Path, other: str, use: str) -> None:
    files = {"a.js": use, "b.js": other, "c.js": "export function f() {}"}
    found = inside(triples(index(tmp_path, files), *CALLS))
    home = "c.js" if "./c" in other else "b.js"
    assert {one[2] for one in found} == {f"{home}#f"} or {one[2] for one in found} == {
        f"{home}#module.f"
    }


def test_js_prototypes_and_objects(tmp_path: Path) -> None:
    text = (
        "function A() { this.b = new B(); }\n"
        "A.prototype.go = function() { this.b.stop(); };\n"
        "function B() {}\nB.prototype = { stop() {}, wait: function() { this.stop(); } };\n"
        "var o = { run: function() { this.walk(); }, walk() {} };\n"
        "new A().go(); o.run();\n"
    )
    store = index(tmp_path, {"a.js": text})
    assert short(call(store, "go")["target_id"]) == "a.js#A.go"
    assert short(call(store, "run")["target_id"]) == "a.js#o.run"
    assert short(call(store, "walk")["target_id"]) == "a.js#o.walk"
    stops = {short(one["target_id"]) for one in references(store) if one["text"] == "stop"}
    assert stops == {"a.js#prototype.stop"}


def test_typescript_types(tmp_path: Path) -> None:
    text = (
        "interface I { m(): B }\nclass B { n(): void {} }\n"
        "abstract class A implements I { constructor(private b: B) {} m(): B { return this.b; } }\n"
        "function f(a: I, bs: Array<B>) { a.m().n(); bs[0].n(); }\n"
    )
    store = index(tmp_path, {"a.ts": text})
    assert ("a.ts#A", "implements", "a.ts#I") in triples(store)
    rows = [one for one in references(store) if one["text"] == "n"]
    assert [short(one["target_id"]) for one in rows] == ["a.ts#B.n", "a.ts#B.n"]
    assert [short(one) for one in call(store, "m")["candidates"]] == ["a.ts#I.m", "a.ts#A.m"]


JAVA = {
    "com/x/I.java": (
        "package com.x;\npublic interface I { void go(); default int k() { return 1; } }\n"
    ),
    "com/x/A.java": (
        "package com.x;\nimport com.y.B;\nimport java.util.List;\n"
        "/** An A. */\npublic class A implements I {\n"
        "  private final List<B> bs;\n"
        "  public A(List<B> bs) { this.bs = bs; }\n"
        "  @Override public void go() { for (B b : bs) { b.run(1); } new B().run(); k(); }\n"
        "  static A make() { return new A(null); }\n"
        "}\n"
    ),
    "com/y/B.java": (
        "package com.y;\nimport com.x.*;\nimport static com.x.A.make;\n"
        "public class B extends Base {\n"
        "  public void run() { make().go(); }\n  public void run(int n) { super.run(n); }\n"
        "  class Inner { void deep() { run(); } }\n"
        "  enum E { P; void e() throws BadException { throw new BadException(); } }\n}\n"
    ),
    "com/y/Base.java": (
        "package com.y;\nclass Base { public void run(int n) { } }\n"
        "class BadException extends Exception { }\n"
    ),
}


def test_java_interfaces_constructors_new_and_overloads(tmp_path: Path) -> None:
    store = index(tmp_path, JAVA)
    found = triples(store)
    assert store.describe("p/com/x/I.java#I")["type"] == "Interface"
    assert ("com/x/A.java#A", "implements", "com/x/I.java#I") in found
    assert ("com/x/A.java#A", "declares", "com/x/A.java#A.A") in found
    assert ("com/x/A.java#A.go", "overrides", "com/x/I.java#I.go") in found
    assert ("com/x/A.java#A.go", "instantiates", "com/y/B.java#B") in found
    assert ("com/x/A.java#A.go", "invokes", "com/y/B.java#B.run~2") in found
    assert ("com/x/A.java#A.go", "invokes", "com/y/B.java#B.run") in found
    assert ("com/x/A.java#A.go", "invokes", "com/x/I.java#I.k") in found
    assert ("com/y/B.java#B.run", "invokes", "com/x/A.java#A.make") in found
    assert ("com/y/B.java#B.run", "invokes", "com/x/A.java#A.go") in found
    assert ("com/y/B.java#B.run~2", "invokes", "com/y/Base.java#Base.run") in found
    assert ("com/y/B.java#B.Inner.deep", "invokes", "com/y/B.java#B.run") in found
    assert ("com/y/B.java#B.E.e", "raises", "com/y/Base.java#BadException") in found
    assert ("com/x/A.java#A.go", "annotated_with", "ext:java:@java.lang.Override") in found
    assert ("java:p/com.x", "contains", "com/x/A.java") in found


def test_java_doc_comments_lie_before_the_definition(tmp_path: Path) -> None:
    store = index(tmp_path, JAVA)
    assert store.docstring("p/com/x/A.java#A") == "/** An A. */"
    symbol = store.symbols["p/com/x/A.java#A"]
    assert symbol["docstring_end"] <= symbol["start"]


def test_circles_of_objects_modules_and_types_end(tmp_path: Path) -> None:
    files = {
        "a.js": "const b = require('./b');\nconst o = { ...b, ...o, x() {} };\n"
        "module.exports = o; o.x(); o.missing();\n",
        "b.js": "const a = require('./a');\nmodule.exports = { ...a, y() {} };\n",
        "c.ts": "type J = string | J[] | { k: J };\nfunction f(j: J) { return f(j); }\n"
        "export * from './d';\n",
        "d.ts": "export * from './c';\nimport { gone } from './c';\ngone();\n",
        "e.js": "function A() {}\nA.prototype = B.prototype;\nfunction B() {}\n"
        "B.prototype = A.prototype;\nnew A().z();\n",
    }
    store = index(tmp_path, files)
    assert ("a.js", "invokes", "a.js#o.x") in triples(store)
    assert ("c.ts#f", "calls", "c.ts#f") in triples(store)


def test_what_is_here_comes_before_what_a_parent_outside_may_have(tmp_path: Path) -> None:
    files = {
        "p/A.java": "package p;\nimport x.Outer;\nclass A extends Outer {\n"
        "  void f() { Tool.run(); inherited(); }\n}\n",
        "p/Tool.java": "package p;\nclass Tool { static void run() { } }\n",
    }
    store = index(tmp_path, files)
    assert ("p/A.java#A.f", "invokes", "p/Tool.java#Tool.run") in triples(store)
    assert call(store, "inherited")["external"] == "x.Outer.inherited"
