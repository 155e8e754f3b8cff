"""Read the WordNet database: data.noun, data.verb, data.adj and data.adv.

A line is one synset: offset, file number, part of speech, words, pointers to other synsets, and
after " | " the gloss: definitions, then examples in quotes. Format: WordNet manual, wndb(5).
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from graphmert.errors import DataError, FormatError
from graphmert.kg.document import KGDocument
from graphmert.kg.types import KG, Entity, Triple
from graphmert.shards import Ledger

PARTS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
FILES = tuple(f"data.{name}" for name in PARTS.values())
POINTERS = {
    "!": "antonym",
    "@": "hypernym",
    "@i": "instance_hypernym",
    "~": "hyponym",
    "~i": "instance_hyponym",
    "#m": "member_holonym",
    "#s": "substance_holonym",
    "#p": "part_holonym",
    "%m": "member_meronym",
    "%s": "substance_meronym",
    "%p": "part_meronym",
    "=": "attribute",
    "+": "derivationally_related_form",
    ";c": "domain_topic",
    "-c": "member_of_domain_topic",
    ";r": "domain_region",
    "-r": "member_of_domain_region",
    ";u": "domain_usage",
    "-u": "member_of_domain_usage",
    "*": "entailment",
    ">": "cause",
    "^": "also_see",
    "$": "verb_group",
    "&": "similar_to",
    "<": "participle_of_verb",
    "\\": "pertainym",
}
_EXAMPLES = re.compile(r'[;:,]?\s*"')
_MARKER = re.compile(r"\((a|p|ip)\)$")


def is_wordnet(path: Path) -> bool:
    """Return whether a folder holds the database, or a file is an archive of one by its name."""
    if path.is_dir():
        return (path / FILES[0]).is_file()
    return path.name.endswith(".tar.gz")


def read_wordnet(path: Path | str) -> KGDocument:
    """Read synsets as entities, pointers as triples and glosses as definitions.

    An entity's id is offset and part of speech, `02084071-n`, its name the first word, its
    synonyms the others, its type the part of speech; `other_ids` has the bare offset, which
    synsets of different parts of speech may share. A pointer between words is taken as one
    between their synsets. Examples in a gloss are left out.

    Args:
        path: the folder with the four files, or a .tar.gz archive that holds them.

    Raises:
        FormatError: a file is missing or a line is not as documented; names file and line.
        DataError: no synset.
    """
    path = Path(path)
    ledger = Ledger("read_wordnet")
    entities: dict[str, Entity] = {}
    definitions: dict[str, str] = {}
    other_ids: dict[str, list[str]] = defaultdict(list)
    links: dict[Triple, None] = {}
    n_links = 0
    for name, text in _texts(path):
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip() or line.startswith("  "):
                continue
            entity, definition, pointers = _synset(line, f"{path}, {name}, line {number}")
            ledger.offered()
            ledger.keep()
            entities[entity.entity_id] = entity
            other_ids[entity.entity_id.partition("-")[0]].append(entity.entity_id)
            if definition:
                definitions[entity.entity_id] = definition
            n_links += len(pointers)
            links.update(dict.fromkeys(pointers))
    if not entities:
        raise DataError("the database holds no synset", where=str(path))
    kept = [link for link in links if link.tail_id in entities]
    ledger.offered(n_links)
    ledger.keep(len(kept))
    ledger.leave_out("triple repeated, by other words", n_links - len(links))
    ledger.leave_out("tail is not in the files", len(links) - len(kept))
    return KGDocument(
        kg=KG.build(entities.values(), kept),
        definitions=definitions,
        ledger=ledger.check(),
        source=path.name,
        other_ids={key: tuple(found) for key, found in sorted(other_ids.items())},
    )


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file, nouns first."""
    if path.is_dir():
        data = {name: (path / name).read_bytes() for name in FILES if (path / name).is_file()}
    else:
        data = {}
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = PurePosixPath(member.name).name
                    stream = archive.extractfile(member) if name in FILES else None
                    if stream is not None:
                        data[name] = stream.read()
        except FileNotFoundError as error:
            raise FormatError("file not found", where=str(path), fix="Check the path.") from error
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise FormatError("archive is broken", where=str(path), got=error) from error
    if missing := [name for name in FILES if name not in data]:
        raise FormatError(
            "not a WordNet database",
            where=str(path),
            got=f"no {missing[0]}",
            expected=", ".join(FILES),
        )
    for name in FILES:
        try:
            yield name, data[name].decode("utf-8")
        except UnicodeDecodeError as error:
            line = data[name].count(b"\n", 0, error.start) + 1
            raise FormatError("file is not UTF-8", where=f"{path}, {name}, line {line}") from error


def _synset(line: str, where: str) -> tuple[Entity, str, list[Triple]]:
    left, _, gloss = line.partition(" | ")
    fields = left.split()
    try:
        offset, part = fields[0], _part(fields[2])
        n_words = int(fields[3], 16)
        words = [_word(word) for word in fields[4 : 4 + 2 * n_words : 2]]
        at = 4 + 2 * n_words
        n_pointers = int(fields[at])
        found = [fields[at + 1 + 4 * k : at + 5 + 4 * k] for k in range(n_pointers)]
        entity_id = f"{offset}-{part}"
        pointers = [
            Triple(entity_id, POINTERS[symbol], f"{target}-{_part(kind)}")
            for symbol, target, kind, _ in found
        ]
        if not (offset.isdigit() and words and len(words) == n_words):
            raise ValueError("no offset or no word")
    except (IndexError, KeyError, ValueError) as error:
        raise FormatError(
            "a line is no synset",
            where=where,
            got=f"{type(error).__name__}: {error}",
            expected="offset, file number, part of speech, words, pointers | gloss",
        ) from error
    entity = Entity(entity_id, words[0], PARTS[part], tuple(dict.fromkeys(words[1:])))
    return entity, _definition(gloss), pointers


def _part(letter: str) -> str:
    """Satellites of an adjective are adjectives."""
    part = "a" if letter == "s" else letter
    if part not in PARTS:
        raise ValueError(f"part of speech {letter!r}")
    return part


def _word(text: str) -> str:
    return _MARKER.sub("", text).replace("_", " ")


def _definition(gloss: str) -> str:
    """The gloss up to its first example; the whole where it begins with one."""
    text = gloss.strip()
    found = _EXAMPLES.search(text)
    return (text[: found.start()] if found and found.start() else text).strip().strip(";").strip()
