"""A synthetic ontology and a whole run on it that takes seconds."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

OBJECTS = ("wall", "root", "leaf", "stem", "seed", "vein", "bark", "bud")
ACTIVITIES = {
    "growth": "gets larger",
    "repair": "is mended after damage",
    "decay": "breaks down — slowly",
}
# Its definition is longer than a sequence, and the name longer than MAX_TAIL_TOKENS.
LONG_NAME = "slow and very careful mending of the whole outer wall by small steps"
MAX_TAIL_TOKENS = 10
TYPEDEFS = """
[Typedef]
id: part_of
name: part of
inverse_of: has_part
is_transitive: true

[Typedef]
id: has_part
name: has part
is_transitive: true

[Typedef]
id: regulates
name: regulates

[Typedef]
id: positively_regulates
name: positively regulates
is_a: regulates
"""


def ontology() -> str:
    """OBO text of about 70 terms: things, what they do, and what regulates that.

    It also holds what goes to ledgers: an obsolete term, a dangling link, other synonyms, a name
    that is too long and a definition that does not fit one sequence.
    """
    terms: dict[str, list[str]] = {}

    def add(name: str, definition: str, *links: str, space: str = "process") -> None:
        lines = [f"name: {name}", f"namespace: {space}"]
        if definition:
            lines.append(f'def: "{definition}" [T:1]')
        terms[name] = [*lines, *links]

    ids = _Ids(terms)
    add("process", "Anything that happens.")
    add("thing", "Anything that is there.", space="thing")
    add("plant", "A green thing that grows.", "is_a: @thing", space="thing")
    for name in OBJECTS:
        links = ["is_a: @thing", "relationship: part_of @plant"]
        add(name, f"A thing. It is a part of a plant, the {name} itself.", *links, space="thing")
    for name in OBJECTS[:3]:
        terms["plant"].append(f"relationship: has_part @{name}")
    for name, does in ACTIVITIES.items():
        add(name, f"A process by which something {does}.", "is_a: @process")
        for place in OBJECTS:
            full = f"{place} {name}"
            text = f"Any {name} of a {place}, naïvely the process by which the {place} {does}. 🌱"
            add(full, text, f"is_a: @{name}", f"relationship: part_of @{place}")
            terms[full].append(f'synonym: "{name} of the {place}" EXACT []')
            terms[full].append(f'synonym: "{name} around the {place}" RELATED []')
    add("regulation", "A process that changes the rate of another process.", "is_a: @process")
    for name in ACTIVITIES:
        for place in OBJECTS:
            goal = f"{place} {name}"
            text = f"A regulation. It changes the rate of {goal} in a plant."
            links = ("is_a: @regulation", f"relationship: regulates @{goal}")
            add(f"regulation of {goal}", text, *links)
            # Said from this end only: that the regulation is part of it follows.
            terms[name].append(f"relationship: has_part @regulation of {goal}")
    for place in OBJECTS:
        text = f"A regulation of {place} growth. It makes {place} growth faster."
        links = (f"is_a: @regulation of {place} growth",)
        add(f"fast {place} growth control", text, *links)
        terms[f"fast {place} growth control"].append(
            f"relationship: positively_regulates @{place} growth"
        )
    long = "A repair of a wall. " + "It takes many small steps, one after the other. " * 9
    add(LONG_NAME, long.strip(), "is_a: @wall repair")
    add("hasty mending", "A mending done too fast.", f"is_a: @{LONG_NAME}", "is_a: @repair")
    add("unnamed need", "", "is_a: @process", "relationship: regulates T:9999")
    terms["unnamed need"].append("relationship: part_of @gone")
    add("gone", "Nothing any more.", "is_obsolete: true")
    stanzas = [f"[Term]\nid: {ids[name]}\n" + "\n".join(ids.fill(terms[name])) for name in terms]
    return "format-version: 1.2\n\n" + "\n\n".join(stanzas) + "\n" + TYPEDEFS


class _Ids:
    """Ids by place; `@name` in a link stands for the id of the name."""

    def __init__(self, terms: Mapping[str, list[str]]) -> None:
        self.terms = terms

    def __getitem__(self, name: str) -> str:
        return f"T:{list(self.terms).index(name) + 1:04d}"

    def fill(self, lines: list[str]) -> list[str]:
        filled = []
        for line in lines:
            before, mark, name = line.partition("@")
            filled.append(before + self[name] if mark else line)
        return filled


def settings(**changes: Mapping[str, Any]) -> dict[str, Any]:
    """A run configuration as plain values; `changes` are merged section by section."""
    tree: dict[str, Any] = {
        "out": "run",
        "data": {"kg": "tiny.obo"},
        "split": {"n_valid_heads": 8, "n_test_heads": 12},
        "text": {"max_tokens": 48, "max_tail_tokens": MAX_TAIL_TOKENS, "inject": "all"},
        "model": {
            "preset": "tiny",
            "vocab_size": 300,
            "changes": {
                "hidden_size": 32,
                "n_layers": 1,
                "n_attn_heads": 2,
                "ffn_size": 32,
                "dropout": 0.0,
            },
        },
        "feed": {"n_negatives": 16},
        "train": {
            "total_steps": 40,
            "batch_size": 16,
            "learning_rate": 5e-3,
            "warmup_steps": 4,
            "checkpoint_every": 10,
            "log_every": 4,
            "final_weights": "last",
            "n_threads": 1,
        },
        "extract": {"n_formed": 4},
        "evaluate": {"n_resamples": 20},
    }
    for name, section in changes.items():
        is_section = isinstance(section, Mapping)
        tree[name] = tree.get(name, {}) | section if is_section else section
    return tree


def write_inputs(folder: Path, **changes: Mapping[str, Any]) -> Path:
    """Write tiny.obo and RUN.toml into the folder; return the path of RUN.toml."""
    from graphmert.config import build, to_toml
    from graphmert.run import RunConfig

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.obo").write_text(ontology(), encoding="utf-8")
    config = build(settings(**changes), RunConfig)
    (folder / "RUN.toml").write_text(to_toml(config, comments=False), encoding="utf-8")
    return folder / "RUN.toml"


def execute(folder: Path, *overrides: str, stage: str | None = None) -> Any:
    """Run RUN.toml of a folder, from within it: paths are then the same for every folder."""
    from graphmert import run

    with working_in(folder):
        return run.execute(run.load("RUN.toml", overrides), stage=stage)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Change the working directory, and one thread, for a while."""
    import torch

    former, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(former)
        torch.set_num_threads(threads)


def copy(folder: Path, target: Path) -> Path:
    """Copy a folder with its run, to change the copy."""
    return Path(shutil.copytree(folder, target))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder but timings.json, hidden ones included."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timings.json"
    }


STAGES = ("prepare", "train", "extract", "evaluate", "report")


def rewind(folder: Path, stage: str) -> Path:
    """Undo a stage of a finished run and those after it; return the folder."""
    run = folder / "run"
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    for name in STAGES[STAGES.index(stage) :]:
        for output in manifest["stages"].pop(name)["outputs"]:
            (run / output).unlink()
    if stage in ("prepare", "train"):
        shutil.rmtree(run / "model")
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
