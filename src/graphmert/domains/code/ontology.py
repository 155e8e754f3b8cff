"""The ontology of code and its profiles, as data shipped with the package."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from graphmert.errors import ConfigError
from graphmert.kg.schema import Schema, read_schema

ONTOLOGY_PATH = Path(__file__).with_name("ontology.toml")
PROFILES_PATH = Path(__file__).with_name("profiles.toml")

DERIVED = ("defined_in", "tested_by")
"""Relations that are read from their inverse and never stored."""

TYPE_THRESHOLD = 0.98
ACYCLICITY_THRESHOLD = 0.995
PROVENANCE_THRESHOLD = 0.95


@lru_cache(maxsize=1)
def load_ontology() -> Schema:
    """Return entity types and relations of code with their domains and ranges."""
    return read_schema(ONTOLOGY_PATH)


@lru_cache(maxsize=1)
def _profiles() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads(PROFILES_PATH.read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _known() -> dict[str, list[str]]:
    return tomllib.loads(ONTOLOGY_PATH.with_name("outside.toml").read_text(encoding="utf-8"))


def known(name: str) -> frozenset[str]:
    """Return a list of names that the analysis knows without reading them, from outside.toml."""
    return frozenset(_known()[name])


def load_profile(name: str) -> dict[str, tuple[str, ...]]:
    """Return a profile: its relation names in order, each with the ontology's relations it takes.

    Args:
        name: "graphmer-se" (16 relations), "codebert" (12 names) or "all" (every stored one).

    Raises:
        ConfigError: there is no such profile.
    """
    if name == "all":
        stored = (one for one in load_ontology().relation_names if one not in DERIVED)
        return {one: (one,) for one in stored}
    profiles = _profiles()
    if name not in profiles:
        raise ConfigError(
            "no such profile of relations", got=repr(name), expected=["all", *sorted(profiles)]
        )
    return {key: tuple(values) for key, values in profiles[name].items()}


def rename_relation(profile: Mapping[str, tuple[str, ...]], relation: str) -> str | None:
    """Return the name of a relation in a profile, or None where the profile leaves it out."""
    return next((name for name, members in profile.items() if relation in members), None)
