"""Read files and their facts, shard by shard."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphmert.domains.code.builder import CLASSES
from graphmert.domains.code.facts import FACTS_VERSION, FileFacts
from graphmert.domains.code.modules import Summary
from graphmert.domains.code.walk import SourceFile, WalkSettings

FILES_PER_SHARD = 32
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_BINARY_PROBE = 8_192


@dataclass(frozen=True)
class Decoded:
    """A file's text, or why there is none.

    Attributes:
        text: decoded; empty when skipped.
        sha256: of the bytes.
        n_bytes: size.
        state: parsed, partial or skipped.
        reason: why not parsed.
    """

    text: str
    sha256: str
    n_bytes: int
    state: str
    reason: str


@dataclass(frozen=True)
class Extracted:
    """What one file gave: its text and its facts as JSON (empty when skipped)."""

    decoded: Decoded
    facts: str
    summary: Summary


def decode(data: bytes, *, is_python: bool, settings: WalkSettings) -> Decoded:
    """Decode the bytes of a source file.

    UTF-8, with or without a mark; UTF-16 and UTF-32 with a mark; the encoding that a Python file
    names; else Latin-1, which is said in `reason`.
    """
    sha256 = hashlib.sha256(data).hexdigest()

    def skipped(reason: str) -> Decoded:
        return Decoded("", sha256, len(data), "skipped", reason)

    if len(data) > settings.max_file_mb * 1e6:
        return skipped(f"larger than {settings.max_file_mb:g} MB")
    text, reason = None, ""
    for mark, name in _MARKS:
        if data.startswith(mark):
            text = _try(data, name)
            if text is None:
                return skipped(f"not valid {name}")
            break
    if text is None and b"\0" in data[:_BINARY_PROBE]:
        return skipped("binary")
    if text is None:
        text = _try(data, "utf-8")
    if text is None and is_python:
        for line in data.split(b"\n", 2)[:2]:
            cookie = _COOKIE.match(line)
            if cookie is not None:
                text = _try(data, cookie.group(1).decode("ascii"))
    if text is None:
        text, reason = data.decode("latin-1"), "not UTF-8, read as Latin-1"
    if len(text) > settings.max_line_chars * (text.count("\n") + 1):
        return skipped("generated: very long lines")
    return Decoded(text, sha256, len(data), "partial" if reason else "parsed", reason)


_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def _try(data: bytes, name: str) -> str | None:
    try:
        return data.decode(name)
    except (UnicodeDecodeError, LookupError):
        return None


def read_facts(text: str, grammar: str, *, is_test: bool) -> FileFacts:
    """Return the facts of a text."""
    if grammar == "python":
        from graphmert.domains.code.python_facts import read_python

        return read_python(text, is_test=is_test)
    if grammar == "java":
        from graphmert.domains.code.java_facts import read_java

        return read_java(text, is_test=is_test)
    from graphmert.domains.code.javascript_facts import read_javascript

    return read_javascript(text, grammar, is_test=is_test)


def extract_shard(shard: tuple[Sequence[SourceFile], WalkSettings]) -> list[Extracted]:
    """Read the files of a shard."""
    files, settings = shard
    return [extract_file(one, settings) for one in files]


def extract_file(source: SourceFile, settings: WalkSettings) -> Extracted:
    """Read one file: decode it, parse it and take its facts."""
    try:
        data = Path(source.location).read_bytes()
    except OSError as error:
        reason = f"not readable: {error.strerror}"
        return _nothing(source, Decoded("", "", 0, "skipped", reason))
    decoded = decode(data, is_python=source.grammar == "python", settings=settings)
    if decoded.state == "skipped":
        return _nothing(source, decoded)
    try:
        facts = read_facts(decoded.text, source.grammar, is_test=source.is_test)
    except RecursionError:
        return _nothing(source, _skip(decoded, "nested too deep"))
    if facts.problems:
        reason = "; ".join([*([decoded.reason] if decoded.reason else []), *facts.problems])
        decoded = Decoded(decoded.text, decoded.sha256, decoded.n_bytes, "partial", reason)
    return Extracted(decoded, facts.to_json(), summarize(source, facts))


def _skip(decoded: Decoded, reason: str) -> Decoded:
    return Decoded("", decoded.sha256, decoded.n_bytes, "skipped", reason)


def _nothing(source: SourceFile, decoded: Decoded) -> Extracted:
    return Extracted(decoded, "", summarize(source, FileFacts(source.language)))


def summarize(source: SourceFile, facts: FileFacts) -> Summary:
    """Return what the linker must know of every file."""
    methods: dict[str, list[int]] = {}
    types: dict[str, int] = {}
    for index, symbol in enumerate(facts.symbols):
        if symbol.kind == "method":
            methods.setdefault(symbol.name, []).append(index)
        elif facts.language == "java" and symbol.kind in CLASSES:
            types.setdefault(symbol.qualname, index)
    return Summary(
        source.doc_id,
        source.package,
        source.path,
        source.language,
        facts.package_name,
        types,
        methods,
        source.is_test,
    )


def facts_key(doc_id: str, sha256: str) -> str:
    """Return the name under which the facts of a file are kept."""
    text = f"{FACTS_VERSION}\n{doc_id}\n{sha256}"
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]
