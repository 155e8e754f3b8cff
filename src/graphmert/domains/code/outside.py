"""What names, modules and calls outside the indexed files do, and the rules of JavaScript and
Java for their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphmert.domains.code.annotations import annotate
from graphmert.domains.code.containers import iterate
from graphmert.domains.code.facts import Expr
from graphmert.domains.code.ontology import known
from graphmert.domains.code.values import EMPTY, Value, Values, container, join, tuple_of

if TYPE_CHECKING:
    from graphmert.domains.code.inference import Inference

_SAME = known("returns_argument")
_LISTS = known("makes_list")
_FIRSTS = known("takes_element")
_ELEMENT_METHODS = known("element_methods")
_SAME_METHODS = known("same_methods")
_GLOBALS = known("javascript_globals")


INTEROP = known("interop")
_MAX_DOTS = 7


def longer(dotted: str, name: str) -> Value:
    """Return an attribute of a name outside; long chains of attributes are not followed."""
    name = name.removesuffix("()")
    return ("X", f"{dotted}.{name}" if dotted.count(".") < _MAX_DOTS else dotted)


# --- calls ------------------------------------------------------------------------------------


def call_outside(inference: Inference, file: int, scope: int, callee: Value, expr: Expr) -> Values:
    """Return what a call of something outside, or of a container's method, gives back."""
    if callee[0] == "GM":
        return _call_container(inference, file, scope, callee, expr)
    name = callee[1]
    args = expr[2]

    def arg(place: int) -> Values:
        return inference.value(file, scope, args[place]) if place < len(args) else EMPTY

    if name in _SAME:
        return arg(0)
    if name in _LISTS:
        held = join(iterate(inference, arg(place)) for place in range(len(args)))
        return frozenset({container("list", held)})
    if name in _FIRSTS:
        single = iterate(inference, arg(0))
        return join([single, *(arg(k) for k in range(len(args)))]) if len(args) > 1 else single
    if name == "builtins.enumerate":
        pair = tuple_of([frozenset({("XI", "builtins.int")}), iterate(inference, arg(0))])
        return frozenset({container("list", frozenset({pair}))})
    if name == "builtins.zip":
        parts = [iterate(inference, arg(place)) for place in range(len(args))]
        return frozenset({container("list", frozenset({tuple_of(parts)}))})
    if name == "builtins.map":
        return frozenset({container("list", inference.call(arg(0)))})
    if name == "builtins.filter":
        return frozenset({container("list", iterate(inference, arg(1)))})
    if name == "builtins.dict":
        return frozenset({container("dict", join(o[2] for o in arg(0) if o[0] == "G"))})
    if name == "collections.defaultdict":
        return frozenset({container("dict", inference.call(arg(0)))})
    if name == "builtins.type" and len(args) == 1:
        return join(frozenset({("C", *one[1:])}) for one in arg(0) if one[0] == "I")
    if name.endswith("typing.cast") and len(args) == 2:
        return annotate(inference, file, scope, args[0])
    if name in ("Object.create", "java.util.Optional.of", "java.util.Collections.singletonList"):
        held = arg(0)
        return join(frozenset({("I", *one[1:])}) if one[0] == "PR" else EMPTY for one in held)
    if name.startswith("dataclasses.field"):
        made = [inference.value(file, scope, e) for k, e in expr[3] if k == "default_factory"]
        return inference.call(join(made))
    return frozenset({("XI", name)})


def _call_container(
    inference: Inference, file: int, scope: int, callee: Value, expr: Expr
) -> Values:
    _, holder, name = callee
    held = join(holder[1]) if holder[0] == "T" else holder[2]
    if name in _ELEMENT_METHODS:
        default = [inference.value(file, scope, one) for one in expr[2][1:2]]
        return join([held, *default]) if name != "put" else held
    if name in ("values", "elements"):
        return frozenset({container("list", held)})
    if name in ("items", "entrySet"):
        pair = tuple_of([EMPTY, held])
        return frozenset({container("list", frozenset({pair}))})
    if name in ("map", "flatMap", "mapToObj"):
        made = inference.call(inference.value(file, scope, expr[2][0])) if expr[2] else EMPTY
        return frozenset({container("list", made)})
    if name in _SAME_METHODS:
        return frozenset({holder})
    return EMPTY


# --- JavaScript and TypeScript ----------------------------------------------------------------


def script_name(inference: Inference, file: int, name: str) -> Values:
    """Return a global of JavaScript; the objects of CommonJS are the module's own."""
    if name == "module":
        return frozenset({("MG", file)})
    if name == "exports":
        return script_attribute(inference, ("MG", file), "exports") | {("M", file)}
    return frozenset({("X", name)}) if name in _GLOBALS else EMPTY


def script_module(inference: Inference, file: int, spec: str) -> Values:
    """Return what `require(spec)` gives: what the module assigns to `module.exports`."""
    found = inference.modules.find_script(file, spec)
    if found is None:
        return EMPTY if spec.startswith(".") else frozenset({("X", spec)})
    return module_exports(inference, found)


def module_exports(inference: Inference, file: int) -> Values:
    """Return `module.exports` of a file, and the module itself for names it exports."""
    whole = inference.assigned(("MG", file), "exports")
    own = frozenset({("M", file)})
    return join((whole, own)) if whole else own


def script_import(inference: Inference, file: int, spec: str, name: str) -> Values:
    """Return an imported name; "*" is the module, "default" its default export."""
    found = inference.modules.find_script(file, spec)
    if found is None:
        if spec.startswith("."):
            return EMPTY
        return frozenset({("X", spec if name in ("*", "default") else f"{spec}.{name}")})
    if name == "*":
        return module_exports(inference, found)
    if name == "default" and "default" not in inference.facts(found).export_exprs:
        return module_exports(inference, found)
    return script_export(inference, found, name)


def script_export(inference: Inference, file: int, name: str) -> Values:
    """Return an exported name of a module: ESM, `export *`, or set on its exports object."""
    return inference.solver.solve(("exported", file, 0, name))


def exported_rule(inference: Inference, file: int, name: str) -> Values:
    """Compute `script_export` once."""
    facts = inference.facts(file)
    parts = []
    if name in facts.export_exprs:
        parts.append(inference.solver.solve(("export", file, 0, name)))
    else:
        for expr in facts.export_exprs.get("*", ()):
            for one in inference.value(file, 0, expr):
                if one[0] == "M" and one[1] != file and _exports(inference, one[1], name, {file}):
                    parts.append(script_export(inference, one[1], name))
    parts.append(inference.assigned(("M", file), name))
    for one in inference.assigned(("MG", file), "exports"):
        if one[0] in ("O", "C", "F", "I"):
            parts.append(inference.attribute(frozenset({one}), name))
    return join(parts)


def _exports(inference: Inference, file: int, name: str, seen: set[int]) -> bool:
    if file in seen:
        return False
    exprs = inference.facts(file).export_exprs
    if name in exprs:
        return True
    return any(
        one[0] == "M" and _exports(inference, one[1], name, seen | {file})
        for expr in exprs.get("*", ())
        for one in inference.value(file, 0, expr)
    )


def script_attribute(inference: Inference, value: Value, name: str) -> Values:
    """Return an attribute of an object literal, a function, a prototype or `module`."""
    kind = value[0]
    if kind == "MG":
        if name != "exports":
            return EMPTY
        return module_exports(inference, value[1])
    if kind == "O":
        return inference.solver.solve(("object", value[1], value[2], name))
    if kind == "F":
        if name == "prototype":
            return frozenset({("PR", value[1], value[2])})
        if name in ("call", "apply", "bind"):
            return frozenset({value})
        if name == "default":
            # `module.exports = f` seen as an ES module.
            return join((inference.assigned(value, name), frozenset({value})))
        return inference.assigned(value, name)
    if kind == "PR":
        return script_instance(inference, ("I", value[1], value[2]), name)
    return EMPTY


def object_rule(inference: Inference, file: int, index: int, name: str) -> Values:
    """Compute an attribute of an object literal once, what it spreads included."""
    symbol = inference.facts(file).symbols[index]
    parts = [inference.assigned(("O", file, index), name)]
    if name in symbol.names:
        parts.append(inference.solver.solve(("name", file, index, name)))
    for place in range(len(symbol.bases)):
        parent = inference.solver.solve(("base", file, index, place))
        parts.append(inference.attribute(parent, name))
    return join(parts)


def script_instance(inference: Inference, value: Value, name: str) -> Values:
    """Return an attribute of what `new F` makes."""
    return inference.solver.solve(("made", value[1], value[2], name))


def made_rule(inference: Inference, file: int, index: int, name: str) -> Values:
    """Compute `script_instance` once."""
    value = ("I", file, index)
    if name == "constructor":
        return frozenset({("F", file, index)})
    symbol = inference.symbol(value)
    parts = [
        inference.assigned(("PR", file, index), name),
        inference.assigned(("I", file, index), name),
    ]
    if name in symbol.attrs:
        parts.append(inference.solver.solve(("attr", file, index, name)))
    for one in inference.assigned(("F", file, index), "prototype"):
        if one[0] == "O" or (one[0] == "I" and one != value):
            parts.append(inference.attribute(frozenset({one}), name))
    return join(parts)


def script_this(inference: Inference, file: int, index: int) -> Values:
    """Return `this` in a function: the instance it makes, or the object it is set on."""
    facts = inference.facts(file)
    symbol = facts.symbols[index]
    owner = symbol.parent
    parts = [frozenset({("I", file, index)})] if symbol.attrs or symbol.name[:1].isupper() else []
    if owner >= 0 and facts.symbols[owner].kind == "object":
        parts.append(frozenset({("O", file, owner)}))
    for scope, base, _, expr in facts.assigns:
        if expr == ["d", index]:
            for one in inference.value(file, scope, base):
                if one[0] == "PR":
                    parts.append(frozenset({("I", one[1], one[2])}))
                elif one[0] in ("O", "C", "M", "F"):
                    parts.append(frozenset({one}))
    return join(parts)


# --- Java -------------------------------------------------------------------------------------


def java_name(inference: Inference, file: int, name: str) -> Values:
    """Return a type by its simple name: imports, same package, wildcard imports, java.lang."""
    facts = inference.facts(file)
    bound = facts.symbols[0].names
    if name in bound:
        return inference.solver.solve(("name", file, 0, name))
    own = inference.modules.java_packages.get(facts.package_name, {}).get(name)
    if own is not None:
        return frozenset({("C", *own)})
    plain = name.removesuffix("()")
    for expr in bound.get("*", ()):
        package = expr[1]
        found = inference.modules.java_packages.get(package, {}).get(name)
        if found is not None:
            return frozenset({("C", *found)})
        holder = inference.modules.java.get(package)
        if holder is not None:
            member = inference.member(*holder, name)
            if member is not None:
                return member
    if name.endswith("()"):
        static = [one[1] for one in bound.get("*", ()) if one[2] == 1]
        return frozenset({("X", f"{static[0]}.{plain}")}) if static else EMPTY
    if not name[:1].isupper():
        top = name.split(".")[0]
        return frozenset({("JP", name)}) if top in _java_tops(inference) else EMPTY
    wild = [one[1] for one in bound.get("*", ()) if one[2] == 0]
    wild = [one for one in wild if one not in inference.modules.java_packages]
    package = wild[0] if len(wild) == 1 else "java.lang"
    return frozenset({("X", f"{package}.{name}")})


def _java_tops(inference: Inference) -> set[str]:
    return {one.split(".")[0] for one in inference.modules.java_packages} | {"java", "javax"}


def java_package(inference: Inference, package: str, name: str) -> Values:
    """Return what a dotted name of a package goes on to: a type, or a longer package."""
    full = f"{package}.{name}"
    found = inference.modules.java.get(full)
    if found is not None:
        return frozenset({("C", *found)})
    return frozenset({("X", full) if name[:1].isupper() else ("JP", full)})


def java_import(inference: Inference, module: str, name: str) -> Values:
    """Return an imported type, or a static member."""
    full = f"{module}.{name}"
    found = inference.modules.java.get(full.removesuffix("()"))
    if found is not None and not name.endswith("()"):
        return frozenset({("C", *found)})
    holder = inference.modules.java.get(module)
    if holder is not None:
        member = inference.member(*holder, name)
        return EMPTY if member is None else member
    return frozenset({("X", full.removesuffix("()"))})
