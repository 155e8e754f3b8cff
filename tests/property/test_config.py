from __future__ import annotations

import tempfile
from pathlib import Path

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.config import Settings, config_hash, load_toml, to_toml
from graphmert.errors import ConfigError


class Inner(Settings):
    rate: float = 1e-4
    names: tuple[str, ...] = ()
    table: dict[str, int] = pydantic.Field(default_factory=dict)


class Outer(Settings):
    text: str = ""
    flag: bool = False
    count: int = 0
    inner: Inner = Inner()


texts = st.text(st.characters(codec="utf-8"), max_size=12)
settings_objects = st.builds(
    Outer,
    text=texts,
    flag=st.booleans(),
    count=st.integers(-(2**63), 2**63 - 1),
    inner=st.builds(
        Inner,
        rate=st.floats(allow_nan=False, allow_infinity=False),
        names=st.lists(texts, max_size=3).map(tuple),
        table=st.dictionaries(texts, st.integers(-5, 5), max_size=3),
    ),
)


def read(text: str, overrides: list[str] | None = None) -> Outer:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "RUN.toml")
        path.write_bytes(text.encode("utf-8"))
        return load_toml(path, Outer, overrides=overrides or [])


@given(value=settings_objects, comments=st.booleans())
def test_written_settings_read_back(value: Outer, comments: bool) -> None:
    again = read(to_toml(value, comments=comments))
    assert again == value
    assert config_hash(again) == config_hash(value)


@given(value=settings_objects)
def test_an_override_equals_the_same_key_in_the_file(value: Outer) -> None:
    lines = to_toml(value, comments=False).split("\n")
    section, overrides = "", []
    for line in lines:
        if line.startswith("["):
            section = line.strip("[]") + "."
        elif line:
            key, _, text = line.partition(" = ")
            overrides.append(f"{section}{key}={text}")
    assert read("", overrides) == value


@given(name=st.from_regex(r"[a-z_]{1,12}", fullmatch=True), inner=st.booleans())
def test_every_unknown_key_is_refused_with_a_known_one(name: str, inner: bool) -> None:
    known = Inner.model_fields if inner else Outer.model_fields
    if name in known:
        return
    with pytest.raises(ConfigError, match="unknown key") as caught:
        read(f"[inner]\n{name} = 1\n" if inner else f"{name} = 1\n")
    everything = {*Outer.model_fields, *(f"inner.{field}" for field in Inner.model_fields)}
    named = str(caught.value.fix).split("'")[1]
    assert named in everything | set(Inner.model_fields)
