"""A WordNet of a few dozen synsets in the format of the real one, and a benchmark made from it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

KINDS = ("bird", "fish", "tree", "tool", "stone", "cloth")
COLOURS = ("red", "blue", "grey", "small", "tall")
LICENCE = "  1 This is a licence, in lines that begin with two blanks.  \n"


class Synset:
    """One line of a data file; its offset is known once all lines are."""

    def __init__(self, part: str, words: tuple[str, ...], gloss: str) -> None:
        self.part = part
        self.words = words
        self.gloss = gloss
        self.pointers: list[tuple[str, Synset, str]] = []
        self.offset = 0

    def line(self) -> str:
        words = " ".join(f"{word.replace(' ', '_')} 0" for word in self.words)
        pointers = "".join(
            f" {symbol} {target.offset:08d} {target.part} {words_at}"
            for symbol, target, words_at in self.pointers
        )
        frames = " 01 + 08 00" if self.part == "v" else ""
        count = f"{len(self.words):02x} {words} {len(self.pointers):03d}"
        return f"{self.offset:08d} 03 {self.part} {count}{pointers}{frames} | {self.gloss}  \n"


def synsets() -> dict[str, Synset]:
    """Nouns under kinds, verbs derived from them, an adjective and its satellite."""
    found: dict[str, Synset] = {}

    def add(key: str, part: str, words: tuple[str, ...], gloss: str) -> Synset:
        found[key] = Synset(part, words, gloss)
        return found[key]

    thing = add("thing", "n", ("thing",), "something that is there")
    add("be", "v", ("be", "exist"), "be there; have being")
    for kind in KINDS:
        add(kind, "n", (kind,), f'any {kind} that one can see; "look at that {kind}"')
        found[kind].pointers.append(("@", thing, "0000"))
        verb = add(f"use {kind}", "v", (f"{kind} up",), f"make use of a {kind}")
        verb.pointers += [("+", found[kind], "0101"), ("@", found["be"], "0000")]
        found[kind].pointers += [("+", verb, "0101"), ("+", verb, "0102")]
        for colour in COLOURS:
            key = f"{colour} {kind}"
            one = add(key, "n", (f"{colour} {kind}", f"{kind}let"), f"a {kind} that is {colour}")
            one.pointers.append(("@", found[kind], "0000"))
    good = add("good", "a", ("good(p)",), "of use")
    useful = add("useful", "s", ("useful",), '"a useful thing"')
    useful.pointers.append(("&", good, "0000"))
    add("well", "r", ("well",), "in a good way")
    return found


def place(found: dict[str, Synset]) -> dict[str, list[Synset]]:
    """Give every synset its offset: the byte where its line begins, from 1,000 in every file."""
    files: dict[str, list[Synset]] = {"noun": [], "verb": [], "adj": [], "adv": []}
    for one in found.values():
        files[{"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}[one.part]].append(one)
    for lines in files.values():
        at = 1000
        for one in lines:
            one.offset = at
            at += len(one.line().encode())
    return files


def write_database(folder: Path) -> dict[str, Synset]:
    """Write the four files; return the synsets with their offsets."""
    found = synsets()
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in place(found).items():
        text = LICENCE + "".join(one.line() for one in lines)
        (folder / f"data.{name}").write_text(text, encoding="utf-8")
    return found


def write_archive(path: Path, folder: Path) -> None:
    """Pack the files of a folder as the published archive is packed."""
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(folder.iterdir()):
            data = file.read_bytes()
            info = tarfile.TarInfo(f"dict/{file.name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_benchmark(folder: Path, database: Path) -> dict[str, list[tuple[str, str, str]]]:
    """Write train.txt, valid.txt and test.txt over bare offsets; return their triples.

    Two triples of seven are held out; of the derived forms, which are there both ways, the mirror
    stays in training.
    """
    found = write_database(database)
    names = {"@": "_hypernym", "+": "_derived", "&": "_similar_to"}
    rows: dict[tuple[str, str, str], None] = {}
    for one in found.values():
        for symbol, target, _ in one.pointers:
            rows[f"{one.offset:08d}", names[symbol], f"{target.offset:08d}"] = None
    parts: dict[str, list[tuple[str, str, str]]] = {"train": [], "valid": [], "test": []}
    for index, row in enumerate(rows):
        part = {2: "valid", 5: "test"}.get(index % 7, "train")
        parts[part].append(row)
    folder.mkdir(parents=True, exist_ok=True)
    for part, triples in parts.items():
        text = "".join("\t".join(row) + "\n" for row in triples)
        (folder / f"{part}.txt").write_text(text, encoding="utf-8")
    return parts


def settings(**changes: Any) -> dict[str, Any]:
    """A run configuration as plain values; `changes` are merged section by section."""
    tree: dict[str, Any] = {
        "out": "run",
        "data": {"kg": "lists/train.txt"},
        "text": {"max_tokens": 24},
        "model": {
            "preset": "tiny",
            "vocab_size": 200,
            "changes": {
                "hidden_size": 16,
                "n_layers": 1,
                "n_attn_heads": 2,
                "ffn_size": 16,
                "dropout": 0.0,
                "decay": "none",
                "hgat": "none",
                "relation_names": False,
            },
        },
        "complete": {
            "valid": "lists/valid.txt",
            "test": "lists/test.txt",
            "entities": "wordnet",
            "max_leaf_tokens": 3,
            "walks": {"walk_length": 2, "n_random": 4, "max_shown": 3, "pair_rate": 0.5},
        },
        "train": {
            "total_steps": 30,
            "batch_size": 24,
            "learning_rate": 1e-2,
            "warmup_steps": 2,
            "checkpoint_every": 10,
            "log_every": 5,
            "final_weights": "last",
            "n_threads": 1,
        },
        "evaluate": {"n_resamples": 20},
    }
    for name, section in changes.items():
        is_section = isinstance(section, dict)
        tree[name] = tree.get(name, {}) | section if is_section else section
    return tree
