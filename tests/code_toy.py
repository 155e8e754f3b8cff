"""Three small Python packages and one in JavaScript, indexed, for tests of the code domain."""

from __future__ import annotations

from pathlib import Path

from graphmert.domains.code.chains import ChainBuilder, ChainSettings, Vocabulary
from graphmert.domains.code.index import build_index
from graphmert.domains.code.ontology import load_profile
from graphmert.domains.code.tables import CodeTables
from graphmert.tokens import Tokenizer

SHAPES = '''"""Shapes and their areas."""
import math
from {package}.core import Base, scale


class Circle(Base):
    """A round shape.

    Longer words about it.
    """

    def area(self, factor):
        """Return the area of this circle times a factor.

        Args:
            factor: what to multiply with.
        """
        radius = self.read(factor)
        return scale(math.pi * radius, factor)

    def reset(self):
        self.radius = 0
        raise ValueError("no radius")


def {name}_total(shapes):
    """Add up the areas of all the given shapes."""
    total = 0
    for shape in shapes:
        total += scale(shape, 2)
    return Circle(total)
'''
CORE = '''"""Core of it."""


class Base:
    """Everything derives from this."""

    def read(self, factor):
        """Read the radius of the shape from its store."""
        return factor

    def reset(self):
        return None


def scale(value, factor):
    """Multiply a value by the factor given to it."""
    return value * factor


def {name}_helper(values):
    """Scale every one of the values by {name} and list them."""
    return [scale(value, {number}) for value in values]
'''
SCRIPT = """/** Join the names of people with commas. */
function joinNames(names) {
  return names.map(clean).join(", ");
}

/* Remove blanks around a name. */
function clean(name) {
  return name.trim();
}
module.exports = { joinNames };
"""
PACKAGES = ("alpha", "beta", "gamma")


def write_packages(folder: Path) -> list[Path]:
    """Packages that differ in a word or two each, so that some functions are near-duplicates."""
    roots = []
    for number, name in enumerate(PACKAGES, start=3):
        root = folder / name
        (root / name).mkdir(parents=True)
        (root / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "1"\n')
        (root / name / "__init__.py").write_text("")
        values = {"package": name, "name": name, "number": number}
        (root / name / "shapes.py").write_text(SHAPES.format(**values))
        (root / name / "core.py").write_text(CORE.format(**values))
        extra = "\n".join(
            f"def {name}_{word}(a, b):\n"
            f'    """Compute the {word} of two numbers in {name}."""\n'
            f"    if a {sign} b:\n        return a {sign} {i}\n    return {name}_step{i}(b, {i})\n"
            f"\n\ndef {name}_step{i}(x, y):\n    return [x {sign} k for k in range(y + {i})]\n"
            for i, (word, sign) in enumerate([("sum", "+"), ("gap", "-"), ("ratio", "/")], number)
        )
        (root / name / "numbers.py").write_text(extra)
        roots.append(root)
    script = folder / "script"
    script.mkdir()
    (script / "package.json").write_text('{"name": "script", "version": "1.0.0"}')
    (script / "index.js").write_text(SCRIPT)
    return [*roots, script]


def make_index(folder: Path) -> Path:
    """Index the packages and return the folder of the index."""
    index = folder / "index"
    build_index(write_packages(folder / "src"), index)
    return index


def toy_builder(index: Path, *, profile: str = "graphmer-se", **limits: object) -> ChainBuilder:
    """Tables of the index with a byte-level tokenizer trained on them."""
    names = load_profile(profile)
    tables = CodeTables.load(index, names)
    tokenizer = Tokenizer.train_bytes(tables.texts.values(), vocab_size=400)
    vocabulary = Vocabulary.build(tables, names, {"gamma": "test"})
    settings = ChainSettings.model_validate({"max_roots": 200, **limits})
    return ChainBuilder(tables, vocabulary, tokenizer, settings)
