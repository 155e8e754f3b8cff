"""The tree of errors.

    GraphMERTError            1
    ├── ConfigError           2   a setting, an option or a command is wrong
    ├── DataError             3   an input file does not hold what it should
    │   ├── FormatError           columns, encoding, syntax
    │   ├── SchemaError           a triple breaks the schema
    │   └── ProvenanceError       evidence does not equal the text it names
    ├── CheckpointError       3   a model folder is truncated, tampered or of another kind
    ├── CapabilityError       4   disk, memory, network or a package is missing
    └── JudgeError            4   an outside judge does not answer as agreed

The number is the exit code of the command line. A message says what failed, where, what was
found, what was expected and what to do; each part is also an attribute.
"""

from __future__ import annotations

from typing import Any


class GraphMERTError(Exception):
    """Fail with a message made of parts.

    Args:
        what: what failed, a clause without a full stop.
        where: path, line or key.
        got: what was found.
        expected: what should have been there.
        fix: what to do now, a sentence.
    """

    exit_code: int = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.got = got
        self.expected = expected
        self.fix = fix

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.what} ({self.where})"
        details = []
        if self.got is not None:
            details.append(f"got {self.got}")
        if self.expected is not None:
            details.append(f"expected {self.expected}")
        if details:
            text += ": " + ", ".join(details)
        if self.fix is not None:
            text += f". {self.fix}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep every part when the error crosses a process border."""
        return _rebuild, (type(self), self.what, self.to_dict())

    def to_dict(self) -> dict[str, str | None]:
        """Return the parts as JSON values, for `--json` output."""
        return {
            "what": self.what,
            "where": self.where,
            "got": None if self.got is None else str(self.got),
            "expected": None if self.expected is None else str(self.expected),
            "fix": self.fix,
        }


def _rebuild(cls: type[GraphMERTError], what: str, parts: dict[str, Any]) -> GraphMERTError:
    return cls(what, **{key: value for key, value in parts.items() if key != "what"})


class ConfigError(GraphMERTError):
    """A setting, an option or a command is wrong."""

    exit_code = 2


class DataError(GraphMERTError):
    """An input does not hold what it should."""

    exit_code = 3


class FormatError(DataError):
    """A file has the wrong columns, types, encoding or syntax."""


class SchemaError(DataError):
    """A triple breaks the schema, or the schema contradicts itself."""


class ProvenanceError(DataError):
    """Evidence does not equal the text at its offsets."""


class CheckpointError(GraphMERTError):
    """A model folder is truncated, tampered or of another kind."""

    exit_code = 3


class CapabilityError(GraphMERTError):
    """The machine lacks disk, memory, network or a package."""

    exit_code = 4


class JudgeError(GraphMERTError):
    """An outside judge is missing or does not answer as agreed."""

    exit_code = 4
