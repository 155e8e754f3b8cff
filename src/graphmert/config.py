"""Strict settings from TOML.

A setting is a field of a frozen model that lives next to the code it configures. A file or an
override that names an unknown key is refused, with the nearest known key. Derived values are
properties; nothing changes a settings object after it is built.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from graphmert.errors import ConfigError, FormatError

SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(pydantic.BaseModel):
    """Hold settings: frozen, and with no key but the declared fields."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True
    )


def load_toml(
    path: Path | str, cls: type[SettingsT], *, overrides: Sequence[str] = ()
) -> SettingsT:
    """Read settings from a TOML file and apply `a.b=c` overrides.

    The value of an override is read as TOML; a bare word counts as a string.

    Args:
        path: the TOML file.
        cls: the settings model.
        overrides: texts `key.subkey=value`, applied in order.

    Returns:
        An instance of `cls`.

    Raises:
        ConfigError: missing file, bad syntax, unknown key (names the nearest) or bad value.
        FormatError: the file is not UTF-8.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            "configuration file not found",
            where=str(path),
            fix="Write one with `graphmert init` or check the path.",
        ) from error
    except UnicodeDecodeError as error:
        raise FormatError(
            "configuration file is not UTF-8",
            where=str(path),
            got=f"byte {error.object[error.start]:#04x} at offset {error.start}",
            expected="UTF-8 text",
            fix="Save the file as UTF-8.",
        ) from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("configuration is not valid TOML", where=str(path), got=error) from error
    apply_overrides(tree, overrides)
    return build(tree, cls, source=str(path), text=text, overrides=overrides)


def build(
    tree: Mapping[str, Any],
    cls: type[SettingsT],
    *,
    source: str = "settings",
    text: str = "",
    overrides: Sequence[str] = (),
) -> SettingsT:
    """Build settings from plain values, naming key and line of what is wrong.

    Args:
        tree: nested plain values.
        cls: the settings model.
        source: the file that error messages name.
        text: the TOML text, when there is one, to find line numbers in.
        overrides: texts already applied to `tree`, so that a message can name one.

    Returns:
        An instance of `cls`.

    Raises:
        ConfigError: an unknown key or a bad value.
    """
    try:
        # JSON mode lets a TOML string fill a Path or Enum and an array fill a tuple, while
        # "3" still does not pass for 3.
        return cls.model_validate_json(json.dumps(tree, default=str), strict=True)
    except pydantic.ValidationError as error:
        problems = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        where = _find_place(tuple(problems[0]["loc"]), source, text, overrides)
        raise _explain(problems[0], cls, where) from error


def config_hash(settings: pydantic.BaseModel) -> str:
    """Return the SHA-256 of the settings as canonical JSON, in hex.

    Settings hold tuples, not sets: the order of a set is not fixed.
    """
    values = settings.model_dump(mode="json")
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def to_toml(settings: pydantic.BaseModel, *, comments: bool = True) -> str:
    """Write settings as TOML, which `load_toml` reads back to an equal object.

    Args:
        settings: what to write. A field that is None is written as a comment.
        comments: write the description of each field above it.

    Returns:
        TOML text ending in a newline.
    """
    lines: list[str] = []
    _write_section(settings, prefix="", lines=lines, comments=comments)
    return "\n".join(lines).strip() + "\n"


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set values of a nested tree of plain values from texts `key.subkey=value`.

    Raises:
        ConfigError: a text is not of this form, or goes below a value.
    """
    for override in overrides:
        _apply_override(tree, override)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, value_text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ConfigError(
            "override is not of the form key=value",
            where="--set",
            got=repr(override),
            expected="a.b=c",
        )
    place = tree
    for part in parts[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ConfigError(
                "override goes below a key that holds a value",
                where=f"--set {override}",
                got=repr(part),
                expected="a table",
            )
    place[parts[-1]] = _parse_value(value_text.strip())


def _parse_value(text: str) -> Any:
    try:
        tree = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A text with a newline could smuggle in further keys; it is then a plain string.
    return tree["value"] if set(tree) == {"value"} else text


def _find_place(
    location: Sequence[int | str], source: str, text: str, overrides: Sequence[str]
) -> str:
    key = ".".join(str(part) for part in location)
    for override in reversed(overrides):
        if override.partition("=")[0].replace(" ", "") == key:
            return f"--set {override}"
    line = _find_line(text, location)
    return f"{source}, line {line}" if line is not None else source


def _explain(problem: Any, cls: type[pydantic.BaseModel], where: str) -> ConfigError:
    location = tuple(problem["loc"])
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(cls, location[:-1])
        nearest = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.0)
        elsewhere = _paths_of(cls, str(location[-1]))
        # The same name in another section is nearer than a like name in this one.
        nearest = elsewhere[:1] or nearest
        fix = f"The nearest known key is {nearest[0]!r}." if nearest else "Remove it."
        return ConfigError(
            f"unknown key {key!r}",
            where=where,
            expected="one of " + ", ".join(known) if known else "no key here",
            fix=fix,
        )
    if problem["type"] == "missing":
        return ConfigError(f"key {key!r} is missing", where=where, fix=f"Set {key}.")
    return ConfigError(
        f"bad value for {key!r}" if key else "bad settings",
        where=where,
        got=repr(problem["input"]),
        expected=str(problem["msg"]).removeprefix("Input should be "),
    )


def _find_line(text: str, location: Sequence[int | str]) -> int | None:
    """Return the 1-based line that sets a key, or None."""
    names = [str(part) for part in location if isinstance(part, str)]
    section: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?", line)
        if header:
            section = [part.strip().strip("\"'") for part in header.group(1).split(".")]
            if section == names:
                return number
            continue
        assignment = re.match(r"\s*([A-Za-z0-9_\-.\"' ]+?)\s*=", line)
        if assignment:
            parts = [part.strip().strip("\"'") for part in assignment.group(1).split(".")]
            if section + parts == names:
                return number
    return None


def _submodels(annotation: Any) -> list[type[pydantic.BaseModel]]:
    """Return the models inside an annotation, through unions, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    found: list[type[pydantic.BaseModel]] = []
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, list, tuple, dict, typing.Annotated):
        for argument in typing.get_args(annotation):
            found.extend(_submodels(argument))
    return found


def _known_keys(cls: type[pydantic.BaseModel], location: Sequence[int | str]) -> list[str]:
    models = [cls]
    for part in location:
        deeper = [
            sub
            for model in models
            if isinstance(part, str) and part in model.model_fields
            for sub in _submodels(model.model_fields[part].annotation)
        ]
        # An index into a list, a mapping's key or a union's tag stays at the same models.
        models = deeper or models
    return sorted({name for model in models for name in model.model_fields})


def _paths_of(cls: type[pydantic.BaseModel], name: str, prefix: str = "") -> list[str]:
    """Return the dotted paths of the fields with exactly this name, in any section."""
    found = [prefix + name] if name in cls.model_fields else []
    for field_name, field in cls.model_fields.items():
        for sub in _submodels(field.annotation):
            found.extend(_paths_of(sub, name, f"{prefix}{field_name}."))
    return found


def _write_section(
    settings: pydantic.BaseModel, *, prefix: str, lines: list[str], comments: bool
) -> None:
    tables: list[tuple[str, pydantic.BaseModel, str | None]] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, pydantic.BaseModel):
            tables.append((name, value, field.description))
            continue
        if comments and field.description:
            lines.extend(f"# {line}" for line in field.description.splitlines())
        if value is None:
            lines.append(f"# {name} =")
        else:
            plain = settings.model_dump(mode="json", include={name})[name]
            lines.append(f"{_toml_key(name)} = {_toml_value(plain)}")
    for name, value, description in tables:
        lines.append("")
        if comments and description:
            lines.extend(f"# {line}" for line in description.splitlines())
        lines.append(f"[{prefix}{_toml_key(name)}]")
        _write_section(value, prefix=f"{prefix}{name}.", lines=lines, comments=comments)


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml_string(name)


def _toml_string(text: str) -> str:
    # JSON escapes are TOML escapes; DEL, which JSON leaves bare, needs its own.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _toml_string(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = (
            f"{_toml_key(str(k))} = {_toml_value(v)}" for k, v in value.items() if v is not None
        )
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    raise TypeError(f"no TOML form for {type(value).__name__}")
