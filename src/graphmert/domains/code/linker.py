"""From facts and resolved references of a file to its rows."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import replace

from graphmert.domains.code.builder import CLASSES, VARIABLES
from graphmert.domains.code.calls import Resolution, Resolver, Target
from graphmert.domains.code.entities import (
    End,
    EntityTypes,
    java_package_id,
    library_id,
    outside_id,
    repository_id,
)
from graphmert.domains.code.facts import FileFacts, Ref
from graphmert.domains.code.flows import add_argument_flows, add_flow
from graphmert.domains.code.inference import SCRIPTS, Inference
from graphmert.domains.code.ontology import load_ontology
from graphmert.domains.code.rows import Document, FileRows
from graphmert.domains.code.signature import signature
from graphmert.domains.code.structure import add_structure, add_symbols

_INFERRED_SCORE = 0.8
_KEPT = ("call", "new", "import", "from", "base", "implements", "decorator", "raise", "catch")
_RELATIONS = {
    "call": "calls",
    "new": "instantiates",
    "import": "imports",
    "from": "imported_from",
    "base": "inherits_from",
    "implements": "implements",
    "decorator": "annotated_with",
    "raise": "raises",
    "catch": "catches",
    "returns": "returns",
    "type": "has_type",
    "use": "uses",
    "write": "writes_to",
    "export": "exports",
    "alias": "alias_of",
    "flow": "flows_to",
}


class Linker:
    """Make the rows of files.

    Args:
        inference: values of expressions.
        document: gives the document of a file.
    """

    def __init__(self, inference: Inference, document: Callable[[int], Document]) -> None:
        self.inference = inference
        self.resolver = Resolver(inference)
        self.types = EntityTypes(inference)
        self._document = document
        self._ontology = load_ontology().relations

    def ids(self, file: int) -> list[str]:
        """Return the entity ids of a file's symbols."""
        return self.inference.ids(file)

    def link(self, file: int) -> FileRows:
        """Return the rows of a file; only what it defines where its types lead too deep."""
        try:
            return FileLinker(self, file, self._document(file)).link()
        except RecursionError:
            self.inference.solver.abandon()
            made = FileLinker(self, file, self._document(file))
            made.facts = replace(made.facts, refs=[])
            rows = made.link()
            rows.n_offered += 1
            rows.leave_out("types lead too deep, references of the file", self.ids(file)[0])
            return rows

    def signature(self, file: int) -> dict[str, str]:
        """Return what other files can see of a file; nothing where it is too deep to say."""
        try:
            return signature(self, file)
        except RecursionError:
            self.inference.solver.abandon()
            return {}

    def entity(self, target: Target) -> End:
        """Return a symbol as an end of triples; lambdas are what stands around them."""
        file, index = target
        facts = self.inference.facts(file)
        while not self.ids(file)[index]:
            index = facts.symbols[index].parent
        return End(
            self.ids(file)[index],
            self.name_of(file, index),
            self.types.of(file, index),
            (file, index),
        )

    def name_of(self, file: int, index: int) -> str:
        """Return the name of a symbol, for a file its module name."""
        name = self.inference.facts(file).symbols[index].name
        if index:
            return name
        modules = self.inference.modules
        path = modules.files[file].path
        return modules.dotted.get(file) or posixpath.splitext(path)[0]

    def allows(self, relation: str, head: str, tail: str) -> bool:
        """Return whether the ontology lets a relation hold between two types."""
        rule = self._ontology[relation]
        return head in rule.domain and tail in rule.range


class FileLinker:
    """Rows of one file."""

    def __init__(self, linker: Linker, file: int, document: Document) -> None:
        self.l = linker
        self.file = file
        self.facts: FileFacts = linker.inference.facts(file)
        self.ids = linker.ids(file)
        self.rows = FileRows(document)
        self.language = document.language
        self.locals: set[int] = set()

    def link(self) -> FileRows:
        """Return all rows of the file."""
        add_structure(self)
        for ref in self.facts.refs:
            self._reference(ref)
        self._inferred_types()
        add_symbols(self)
        return self.rows

    # --- helpers ----------------------------------------------------------------------------

    def name_span(self, index: int) -> tuple[int, int]:
        """Return where a symbol's name stands in its definition."""
        span = self.facts.symbols[index].span
        return span[2], span[3]

    def own(self, scope: int) -> int:
        """Return the entity around a scope: lambdas count as what is around them."""
        while scope > 0 and not self.ids[scope]:
            scope = self.facts.symbols[scope].parent
        return scope

    def add(
        self,
        head: int,
        relation: str,
        tail: End,
        *,
        tail_span: tuple[int, int] | None,
        site: tuple[int, int],
        resolver: str = "resolved",
        score: float = 1.0,
    ) -> None:
        """Add a triple whose head is a symbol of this file, if the ontology lets it hold."""
        entity = self.l.entity((self.file, head))
        self.rows.n_offered += 1
        if not self.l.allows(relation, entity.type, tail.type):
            kinds = f"{entity.type} {relation} {tail.type}"
            self.rows.leave_out("outside domain or range", kinds)
            return
        if entity.entity_id == tail.entity_id and relation not in ("calls", "invokes"):
            self.rows.leave_out("head is tail", f"{relation} {entity.entity_id}")
            return
        for index in (head, *self._own_local(tail)):
            if self.facts.symbols[index].kind == "local":
                self.locals.add(index)
        self.rows.add_triple(
            (entity.entity_id, entity.name),
            relation,
            (tail.entity_id, tail.name),
            head_span=self.name_span(head),
            tail_span=tail_span,
            site=site,
            resolver=resolver,
            score=score,
        )

    def _own_local(self, tail: End) -> list[int]:
        return [tail.home[1]] if tail.home[0] == self.file else []

    # --- references -------------------------------------------------------------------------

    def _reference(self, ref: Ref) -> None:
        found = self.l.resolver.resolve(self.file, ref)
        if ref.kind in ("use", "write", "flow", "alias"):
            self._plain(ref, found)
            return
        relation = _RELATIONS[ref.kind]
        if ref.kind in ("returns", "type"):
            self._typed(ref, relation)
            return
        self._row(ref, relation, found)
        if ref.kind == "import" or (ref.kind == "from" and found.state != "unresolved"):
            self._depend(ref, found)
        head = self.own(ref.scope) if ref.target < 0 else ref.target
        if ref.kind in ("import", "from", "export"):
            head = 0
        if not self.ids[head]:
            return
        for target in found.targets:
            entity = self.l.entity(target)
            name = self._call_relation(target) if ref.kind in ("call", "new") else relation
            self.targeted(ref, head, name, entity, found)
            if ref.kind in ("call", "new") and self._is_test_of(head, entity):
                self.targeted(ref, head, "tests", entity, found)
        if ref.kind in ("call", "new") and found.state != "unresolved":
            add_argument_flows(self, ref, found)
        if not found.targets:
            self._external(ref, head, relation, found)

    def targeted(self, ref: Ref, head: int, relation: str, entity: End, found: Resolution) -> None:
        """Add a triple whose tail a reference names."""
        self.add(
            head,
            relation,
            entity,
            tail_span=(ref.start, ref.end),
            site=(ref.start, ref.end),
            resolver=found.resolver,
            score=found.confidence,
        )

    def _call_relation(self, target: Target) -> str:
        kind = self.l.inference.facts(target[0]).symbols[target[1]].kind
        if kind in CLASSES:
            return "instantiates"
        return "invokes" if kind == "method" else "calls"

    def _is_test_of(self, head: int, entity: End) -> bool:
        if self.l.types.of(self.file, head) != "Test" or entity.type == "Test":
            return False
        files = self.l.inference.modules.files
        return entity.home[0] >= 0 and not files[entity.home[0]].is_test

    def _row(self, ref: Ref, relation: str, found: Resolution) -> None:
        document = self.rows.document
        targets = [self.l.entity(one).entity_id for one in (*found.targets, *found.overriders)]
        if ref.kind in ("call", "new") and found.targets:
            relation = self._call_relation(found.targets[0])
        self.rows.columns["code/references"].append(
            (
                document.doc_id,
                document.package,
                document.path,
                document.language,
                relation,
                document.text[ref.start : ref.end],
                ref.start,
                ref.end,
                ref.site_start,
                ref.site_end,
                ref.line,
                self.ids[self.own(ref.scope)],
                targets[0] if found.targets else None,
                targets if len(targets) > 1 or (targets and not found.targets) else [],
                found.externals[0] if found.externals and not found.targets else None,
                found.state,
                found.resolver,
                found.confidence,
            )
        )

    def _external(self, ref: Ref, head: int, relation: str, found: Resolution) -> None:
        """Names outside are ends of triples too."""
        for package in found.packages:
            entity = End(java_package_id(self.rows.document.package, package), package, "Module")
            if self.language == "java" and ref.kind in ("import", "from"):
                self.targeted(ref, head, relation, entity, found)
        for name in found.externals[:1]:
            entity = self._outside(ref, name)
            if ref.kind in ("call", "new"):
                is_type = ref.kind == "new" or entity.type != "API"
                relation = "instantiates" if is_type else "calls"
            self.targeted(ref, head, relation, entity, found)

    def _outside(self, ref: Ref, name: str) -> End:
        from graphmert.domains.code.entities import shared_entity

        if ref.kind == "from" or (ref.kind == "import" and ref.expr[0] == "im"):
            library = self._library(ref.expr[1])
            return End(library_id(self.language, library), library, "Library")
        if ref.kind == "decorator" and self.language == "java":
            name = f"@{name}"
        entity_id = outside_id(self.language, name)
        uses = [_RELATIONS[ref.kind]] if ref.kind in ("raise", "catch") else []
        shown, kind = shared_entity(entity_id, uses)
        return End(entity_id, shown, kind)

    def _library(self, module: str) -> str:
        if self.language in SCRIPTS:
            parts = module.removeprefix("node:").split("/")
            return "/".join(parts[:2]) if module.startswith("@") else parts[0]
        return module if self.language == "java" else module.split(".")[0]

    def _depend(self, ref: Ref, found: Resolution) -> None:
        """A package depends on the packages and libraries that its files import."""
        document = self.rows.document
        head = repository_id(document.package)
        packages = {self.l.inference.modules.files[file].package for file, _ in found.targets}
        tails = [(repository_id(one), one) for one in sorted(packages - {document.package})]
        if not found.targets and found.externals and ref.expr[0] in ("im", "if"):
            library = self._library(ref.expr[1])
            tails.append((library_id(self.language, library), library))
        for tail in tails:
            self.rows.n_offered += 1
            self.rows.depends_on.add(tail[0])
            self.rows.add_triple(
                (head, document.package),
                "depends_on",
                tail,
                head_span=(0, 0),
                tail_span=(ref.start, ref.end),
                site=(ref.start, ref.end),
                resolver=found.resolver,
                score=1.0,
            )

    def _plain(self, ref: Ref, found: Resolution) -> None:
        """Reads, writes, uses, aliases and flows: kept where they lead into the index."""
        if found.state != "resolved" or len(found.targets) != 1:
            if ref.kind in ("use", "write"):
                self._attribute_use(ref)
            return
        head = self.own(ref.scope)
        entity = self.l.entity(found.targets[0])
        if ref.kind == "alias":
            self.targeted(ref, ref.target, "alias_of", entity, found)
            return
        if ref.kind != "use" or entity.type in ("Module", "Variable", "File"):
            if ref.kind == "flow":
                add_flow(self, ref)
            elif ref.kind in ("use", "write"):
                self._attribute_use(ref)
            return
        self._row(ref, "uses", found)
        self.targeted(ref, head, "uses", entity, found)

    def _attribute_use(self, ref: Ref) -> None:
        """A name or attribute that is a variable of the index is read or written."""
        variable = self.variable_of(self.file, ref.scope, ref.expr)
        if variable is None:
            return
        kind = self.l.inference.facts(variable[0]).symbols[variable[1]].kind
        if kind in ("local", "parameter"):
            return
        relation = "reads_from" if ref.kind == "use" else "writes_to"
        found = Resolution((variable,), (), "resolved", "resolved", 0.9)
        self._row(ref, relation, found)
        self.targeted(ref, self.own(ref.scope), relation, self.l.entity(variable), found)

    def variable_of(self, file: int, scope: int, expr: list) -> Target | None:
        """Return the variable that a name or an attribute is, not what it holds."""
        while expr[0] == "nr":
            expr = expr[1]
        inference = self.l.inference
        facts = inference.facts(file)
        if expr[0] == "n":
            for index in facts.scopes(scope):
                symbol = facts.symbols[index]
                if expr[1] in symbol.names and not (symbol.kind in CLASSES and index != scope):
                    return self._symbol_named(file, index, expr[1])
                if facts.language == "java" and symbol.kind in CLASSES:
                    found = self._member_variable(file, index, expr[1])
                    if found is not None:
                        return found
            return None
        if expr[0] != "a":
            return None
        for value in inference.ordered(inference.value(file, scope, expr[1])):
            if value[0] in ("I", "C") and inference.symbol(value).kind in CLASSES:
                return self._member_variable(value[1], value[2], expr[2])
            if value[0] in ("M", "O"):
                return self._symbol_named(value[1], value[2] if value[0] == "O" else 0, expr[2])
        return None

    def _member_variable(self, file: int, index: int, name: str) -> Target | None:
        for one in self.l.inference.ancestors(file, index):
            if one[0] == "C":
                found = self._symbol_named(one[1], one[2], name)
                if found is not None:
                    return found
        return None

    def _symbol_named(self, file: int, parent: int, name: str) -> Target | None:
        for index in self._children(file).get((parent, name), ()):
            if self.l.inference.facts(file).symbols[index].kind in VARIABLES:
                return file, index
        return None

    def _children(self, file: int) -> dict[tuple[int, str], list[int]]:
        tables = self.l.__dict__.setdefault("_children_of", {})
        if file not in tables:
            table: dict[tuple[int, str], list[int]] = {}
            for index, symbol in enumerate(self.l.inference.facts(file).symbols):
                table.setdefault((symbol.parent, symbol.name), []).append(index)
            tables[file] = table
        self.l.inference.facts(file)
        return tables[file]

    # --- types ------------------------------------------------------------------------------

    def _typed(self, ref: Ref, relation: str) -> None:
        """Each type that an annotation allows is a triple."""
        from graphmert.domains.code.annotations import annotate

        values = annotate(self.l.inference, self.file, ref.scope, ref.expr)
        typed = ((one[1], one[2]) for one in values if one[0] == "I")
        targets = tuple(self.l.inference.ordered_targets(typed))
        externals = tuple(sorted(one[1] for one in values if one[0] == "XI"))
        state = "resolved" if targets else "external" if externals else "unresolved"
        if state == "unresolved":
            self.rows.n_offered += 1
            self.rows.leave_out(f"{relation}: type not known", self.ids[self.own(ref.scope)])
            return
        score = round(1.0 / max(len(targets) + len(externals), 1), 4)
        found = Resolution(targets, externals, state, "resolved", score)
        self._row(ref, relation, found)
        if ref.target < 0 or not self.ids[ref.target]:
            return
        for target in targets:
            self.targeted(ref, ref.target, relation, self.l.entity(target), found)
        for name in externals:
            self.targeted(ref, ref.target, relation, self._outside(ref, name), found)

    def _inferred_types(self) -> None:
        """Types of variables and functions that no annotation gives."""
        inference = self.l.inference
        for index, symbol in enumerate(self.facts.symbols):
            if not index or not self.ids[index] or symbol.annotation is not None:
                continue
            relation = "has_type"
            if symbol.kind in VARIABLES:
                owner = self.facts.symbols[symbol.parent]
                if symbol.kind == "field" and symbol.name in owner.attrs:
                    key = ("attr", self.file, symbol.parent, symbol.name)
                elif symbol.name in owner.names:
                    key = ("name", self.file, symbol.parent, symbol.name)
                else:
                    continue
                if symbol.kind == "parameter" and symbol.name in ("self", "cls"):
                    continue
                values = inference.solver.solve(key)
            elif symbol.kind in ("function", "method") and symbol.returns:
                relation = "returns"
                values = inference.solver.solve(("return", self.file, index))
            else:
                continue
            span = self.name_span(index)
            found = inference.ordered(one for one in values if one[0] == "I")
            for one in found:
                tail = self.l.entity((one[1], one[2]))
                score = round(_INFERRED_SCORE / len(found), 4)
                self.add(index, relation, tail, tail_span=None, site=span, score=score)
