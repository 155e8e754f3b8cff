"""Read ontologies in the OBO flat file format (1.2 and 1.4), plain or gzipped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graphmert.errors import DataError, FormatError
from graphmert.kg.document import DEFAULT_TYPE, KGDocument, Typedef, read_text
from graphmert.kg.types import KG, Entity, Triple
from graphmert.shards import Ledger

_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*(.*)$', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "W": " ", "t": "\t"}
# An id ends at a blank; what follows is a modifier in braces or a comment after "!".
_ID = re.compile(r"(?:[^\s\\]|\\.)+", re.DOTALL)
_MODIFIER = re.compile(r"(?<!\\)\{[^{}]*\}\s*$")
_FLAGS = {
    "is_transitive": "transitive",
    "is_symmetric": "symmetric",
    "is_anti_symmetric": "antisymmetric",
    "is_asymmetric": "antisymmetric",
}


@dataclass
class _Stanza:
    kind: str
    line: int
    tags: list[tuple[str, str, int]]

    def first(self, tag: str) -> str | None:
        return next((value for name, value, _ in self.tags if name == tag), None)

    def every(self, tag: str) -> list[tuple[str, int]]:
        return [(value, line) for name, value, line in self.tags if name == tag]


@dataclass(frozen=True)
class _Term:
    entity: Entity
    definition: str
    links: tuple[tuple[str, str], ...]
    alt_ids: tuple[str, ...]
    n_other_synonyms: int
    n_repeated_synonyms: int


def read_obo(path: Path | str) -> KGDocument:
    """Read terms, EXACT synonyms, definitions and triples of an OBO file.

    A term's namespace is its type. Obsolete terms, synonyms of other scopes, and links to ids
    that are no live term are left out and counted in the ledger.

    Args:
        path: an `.obo` file, plain or gzipped.

    Raises:
        FormatError: not UTF-8, a broken gzip file or broken syntax; names file and line.
        DataError: the file holds no live term.
    """
    path = Path(path)
    text = read_text(path)
    ledger = Ledger("read_obo")
    terms, dead, typedefs, version = _read_stanzas(text, path, ledger)
    if not terms:
        raise DataError(
            "ontology holds no live term",
            where=str(path),
            expected="at least one [Term] with a name that is not obsolete",
            fix="Check that the file is an OBO file and is whole.",
        )
    triples = _triples(terms, dead, ledger)
    return KGDocument(
        kg=KG.build((term.entity for term in terms), triples),
        definitions={
            term.entity.entity_id: term.definition
            for term in sorted(terms, key=lambda one: one.entity.entity_id)
            if term.definition
        },
        ledger=ledger.check(),
        typedefs=dict(sorted(typedefs.items())),
        source=path.name,
        version=version,
    )


def _read_stanzas(
    text: str, path: Path, ledger: Ledger
) -> tuple[list[_Term], set[str], dict[str, Typedef], str]:
    """Return live terms, the ids of the others, relation declarations and the data version."""
    header: dict[str, str] = {}
    terms: list[_Term] = []
    dead: set[str] = set()
    lines_of: dict[str, int] = {}
    typedefs: dict[str, Typedef] = {}
    for stanza in _stanzas(text, path):
        if stanza.kind == "header":
            header = {name: value for name, value, _ in stanza.tags}
        elif stanza.kind == "Typedef":
            typedef = _typedef(stanza, path)
            typedefs[typedef.relation] = typedef
        elif stanza.kind == "Term":
            ledger.offered()
            term_id = _required_id(stanza, path)
            if term_id in lines_of:
                raise _bad_line(
                    path, stanza.line, "term is defined twice", f"{term_id} again",
                    f"one stanza for it (first at line {lines_of[term_id]})",
                )  # fmt: skip
            lines_of[term_id] = stanza.line
            if (stanza.first("is_obsolete") or "").startswith("true"):
                dead.add(term_id)
                ledger.leave_out("obsolete term", example=term_id)
            elif not (stanza.first("name") or "").strip():
                dead.add(term_id)
                ledger.leave_out("term without a name", example=term_id)
            else:
                ledger.keep()
                terms.append(_term(stanza, term_id, header.get("default-namespace", ""), path))
    for term in terms:
        n_synonyms = len(term.entity.synonyms)
        ledger.offered(n_synonyms + term.n_other_synonyms + term.n_repeated_synonyms)
        ledger.keep(n_synonyms)
        ledger.leave_out("synonym not EXACT", term.n_other_synonyms, term.entity.entity_id)
        ledger.leave_out("synonym repeated", term.n_repeated_synonyms, term.entity.entity_id)
    return terms, dead, typedefs, header.get("data-version", "")


def _triples(terms: list[_Term], dead: set[str], ledger: Ledger) -> list[Triple]:
    alive = {term.entity.entity_id for term in terms}
    # An alternative id stands for the term that took it over.
    primary = {alt: term.entity.entity_id for term in terms for alt in term.alt_ids}
    seen: set[Triple] = set()
    triples: list[Triple] = []
    for term in terms:
        for relation, target in term.links:
            ledger.offered()
            tail_id = target if target in alive else primary.get(target, target)
            triple = Triple(term.entity.entity_id, relation, tail_id)
            if tail_id in alive and triple not in seen:
                seen.add(triple)
                triples.append(triple)
                ledger.keep()
                continue
            if tail_id in alive:
                reason = "triple repeated"
            else:
                reason = "tail is a term left out" if tail_id in dead else "tail is not in the file"
            ledger.leave_out(reason, example=" ".join(triple))
    return triples


def _stanzas(text: str, path: Path) -> Iterator[_Stanza]:
    """Yield the header and then every stanza, with line numbers counted from 1."""
    stanza = _Stanza("header", 1, [])
    for number, line in _logical_lines(text):
        stripped = line.strip()
        if not stripped or stripped.startswith("!"):
            continue
        if stripped.startswith("["):
            kind, bracket, rest = stripped[1:].partition("]")
            if not bracket or not kind or (rest.strip() and not rest.strip().startswith("!")):
                raise _bad_line(path, number, "stanza header", stripped, "[Term] or the like")
            yield stanza
            stanza = _Stanza(kind, number, [])
            continue
        tag, colon, value = stripped.partition(":")
        if not colon or not tag or " " in tag:
            raise _bad_line(path, number, "line", stripped, "tag: value")
        stanza.tags.append((tag, value.strip(), number))
    yield stanza


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join lines that end in a lone backslash with the next one."""
    pending, first = "", 0
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        n_backslashes = len(line) - len(line.rstrip("\\"))
        if n_backslashes % 2:
            pending, first = pending + line[:-1], first or number
            continue
        yield first or number, pending + line
        pending, first = "", 0
    if pending:
        yield first, pending


def _term(stanza: _Stanza, term_id: str, default_namespace: str, path: Path) -> _Term:
    name = _plain(stanza.first("name") or "")
    kept: list[str] = []
    n_other = n_repeated = 0
    for value, line in stanza.every("synonym"):
        synonym, rest = _quoted(value, path, line)
        if rest.split(" ", 1)[0] != "EXACT":
            n_other += 1
        elif synonym and synonym != name and synonym not in kept:
            kept.append(synonym)
        else:
            n_repeated += 1
    links = [("is_a", _ids(value, 1, path, line)[0]) for value, line in stanza.every("is_a")]
    for value, line in stanza.every("relationship"):
        relation, target = _ids(value, 2, path, line)
        links.append((relation, target))
    namespace = stanza.first("namespace")
    return _Term(
        entity=Entity(
            term_id,
            name,
            (_plain(namespace) if namespace else default_namespace) or DEFAULT_TYPE,
            tuple(kept),
        ),
        definition=_definition(stanza, path),
        links=tuple(links),
        alt_ids=tuple(_ids(value, 1, path, line)[0] for value, line in stanza.every("alt_id")),
        n_other_synonyms=n_other,
        n_repeated_synonyms=n_repeated,
    )


def _typedef(stanza: _Stanza, path: Path) -> Typedef:
    relation = _required_id(stanza, path)
    inverse = [_ids(value, 1, path, line)[0] for value, line in stanza.every("inverse_of")]
    flags = {
        name: True for tag, name in _FLAGS.items() if (stanza.first(tag) or "").startswith("true")
    }
    parents = (_ids(value, 1, path, line)[0] for value, line in stanza.every("is_a"))
    return Typedef(
        relation=relation,
        label=_plain(stanza.first("name") or relation).replace("_", " "),
        sub_relation_of=tuple(parents),
        inverse=inverse[0] if inverse else None,
        description=_definition(stanza, path),
        **flags,
    )


def _definition(stanza: _Stanza, path: Path) -> str:
    """Return the text of the last `def:`, or ""."""
    texts = [_quoted(value, path, line)[0] for value, line in stanza.every("def")]
    return texts[-1] if texts else ""


def _required_id(stanza: _Stanza, path: Path) -> str:
    for value, line in stanza.every("id"):
        return _ids(value, 1, path, line)[0]
    raise _bad_line(path, stanza.line, "stanza", f"[{stanza.kind}] without an id", "an id: line")


def _ids(value: str, n_ids: int, path: Path, line: int) -> list[str]:
    found = _ID.findall(value)[:n_ids]
    if len(found) < n_ids or any(one.startswith(("!", "{")) for one in found):
        raise _bad_line(path, line, "value", repr(value), f"{n_ids} id(s)")
    return [_unescape(one) for one in found]


def _quoted(value: str, path: Path, line: int) -> tuple[str, str]:
    """Return the quoted text and what follows it (scope, cross references, modifiers)."""
    match = _QUOTED.match(value)
    if match is None:
        raise _bad_line(path, line, "value", repr(value[:60]), "a text in double quotes")
    return _unescape(match[1]).strip(), match[2]


def _plain(value: str) -> str:
    """Return an unquoted text without its trailing modifiers."""
    return _unescape(_MODIFIER.sub("", value)).strip()


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), text)


def _bad_line(path: Path, line: int, what: str, got: str, expected: str) -> FormatError:
    return FormatError(
        f"OBO {what}" if not what.startswith("term") else what,
        where=f"{path}, line {line}",
        got=got,
        expected=expected,
        fix="Correct the line or export the ontology again.",
    )
