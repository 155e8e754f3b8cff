from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from graphmert.config import Settings, build, config_hash, load_toml, to_toml
from graphmert.errors import ConfigError, FormatError


class TrainSettings(Settings):
    learning_rate: float = pydantic.Field(4e-4, gt=0, description="Peak learning rate.")
    n_steps: int = 100
    """Optimiser steps."""
    betas: tuple[float, float] = (0.9, 0.98)


class Rule(Settings):
    pattern: str
    weight: float = 1.0


class RunSettings(Settings):
    corpus: Path
    name: str = "a run"
    seed: int | None = None
    train: TrainSettings = pydantic.Field(TrainSettings(), description="The optimiser.")
    rules: tuple[Rule, ...] = ()


TEXT = """\
corpus = "docs"

[train]
learning_rate = 4e-4
n_steps = 7
"""


@pytest.fixture
def toml_path(tmp_path: Path) -> Path:
    path = tmp_path / "RUN.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_values_are_read(toml_path: Path) -> None:
    settings = load_toml(toml_path, RunSettings)
    assert settings.corpus == Path("docs")
    assert settings.train.learning_rate == 4e-4
    assert settings.train.n_steps == 7


def test_settings_are_frozen(toml_path: Path) -> None:
    settings = load_toml(toml_path, RunSettings)
    with pytest.raises(pydantic.ValidationError):
        settings.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.n_steps=3", ("train", "n_steps"), 3),
        ("train.learning_rate = 1e-3", ("train", "learning_rate"), 1e-3),
        ("train.learning_rate=1", ("train", "learning_rate"), 1.0),
        ("train.betas=[0.5, 0.6]", ("train", "betas"), (0.5, 0.6)),
        ("name=bare words", ("name",), "bare words"),
        ('name="quoted = sign"', ("name",), "quoted = sign"),
        ("name=a=b", ("name",), "a=b"),
        ("name='a'\nseed = 3", ("name",), "'a'\nseed = 3"),
        ("seed=11", ("seed",), 11),
    ],
    ids=lambda value: str(value).replace("\n", "|"),
)
def test_override(toml_path: Path, override: str, path: tuple[str, ...], value: object) -> None:
    found: object = load_toml(toml_path, RunSettings, overrides=[override])
    for part in path:
        found = getattr(found, part)
    assert found == value


def test_later_override_wins(toml_path: Path) -> None:
    settings = load_toml(toml_path, RunSettings, overrides=["seed=1", "seed=2"])
    assert settings.seed == 2


def test_override_makes_missing_tables(tmp_path: Path) -> None:
    path = tmp_path / "RUN.toml"
    path.write_text('corpus = "docs"\n', encoding="utf-8")
    assert load_toml(path, RunSettings, overrides=["train.n_steps=5"]).train.n_steps == 5


@pytest.mark.parametrize("override", ["seed", "=3", "train.=3", ".seed=3"])
def test_malformed_override(toml_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        load_toml(toml_path, RunSettings, overrides=[override])


def test_override_below_a_value(toml_path: Path) -> None:
    with pytest.raises(ConfigError, match="'n_steps'"):
        load_toml(toml_path, RunSettings, overrides=["train.n_steps.deep=1"])


def test_unknown_key_names_line_and_nearest(toml_path: Path) -> None:
    toml_path.write_text(TEXT + "lerning_rate = 1.0\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_toml(toml_path, RunSettings)
    assert "'train.lerning_rate'" in caught.value.what
    assert caught.value.where == f"{toml_path}, line 6"
    assert caught.value.fix == "The nearest known key is 'learning_rate'."
    assert caught.value.exit_code == 2


def test_unknown_key_finds_its_section(toml_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nearest known key is 'train\.n_steps'"):
        load_toml(toml_path, RunSettings, overrides=["n_steps=3"])


def test_unknown_key_of_an_override_names_the_override(toml_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_toml(toml_path, RunSettings, overrides=["train.n_stps=3"])
    assert caught.value.where == "--set train.n_stps=3"
    assert "'n_steps'" in str(caught.value.fix)


def test_unknown_table(toml_path: Path) -> None:
    toml_path.write_text(TEXT + "[trian]\nn_steps = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="nearest known key is 'train'") as caught:
        load_toml(toml_path, RunSettings)
    assert str(caught.value.where).endswith("line 6")


def test_unknown_key_in_a_list_of_tables() -> None:
    tree = {"corpus": "docs", "rules": [{"pattern": "a", "wieght": 2.0}]}
    with pytest.raises(ConfigError, match="nearest known key is 'weight'"):
        build(tree, RunSettings)


@pytest.mark.parametrize(
    "override", ["train.n_steps='3'", "train.n_steps=1.5", "train.n_steps=true", "seed=[1]"]
)
def test_wrong_type_is_refused(toml_path: Path, override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_toml(toml_path, RunSettings, overrides=[override])
    assert "bad value" in caught.value.what
    assert caught.value.where == f"--set {override}"


def test_value_out_of_range_names_the_line(toml_path: Path) -> None:
    toml_path.write_text(TEXT.replace("4e-4", "-1.0"), encoding="utf-8")
    with pytest.raises(ConfigError, match="greater than 0") as caught:
        load_toml(toml_path, RunSettings)
    assert caught.value.where == f"{toml_path}, line 4"
    assert caught.value.got == "-1.0"


def test_missing_key(tmp_path: Path) -> None:
    path = tmp_path / "RUN.toml"
    path.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="'corpus' is missing"):
        load_toml(path, RunSettings)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not found"):
        load_toml(tmp_path / "none.toml", RunSettings)


def test_bad_syntax_names_the_line(toml_path: Path) -> None:
    toml_path.write_text("corpus = \n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1"):
        load_toml(toml_path, RunSettings)


def test_not_utf8(toml_path: Path) -> None:
    toml_path.write_bytes(b'corpus = "\xff"\n')
    with pytest.raises(FormatError, match=r"0xff at offset 10"):
        load_toml(toml_path, RunSettings)


def test_comments_come_from_descriptions() -> None:
    text = to_toml(RunSettings(corpus=Path("docs")))
    assert "# Peak learning rate.\nlearning_rate = 0.0004\n" in text
    assert "# Optimiser steps.\nn_steps = 100\n" in text
    assert "# The optimiser.\n[train]\n" in text
    assert "# seed =\n" in text
    bare = to_toml(RunSettings(corpus=Path("docs")), comments=False)
    assert "Peak" not in bare
    assert "optimiser" not in bare


def test_written_settings_read_back(tmp_path: Path) -> None:
    settings = RunSettings(
        corpus=Path("a b"),
        name='quote " backslash \\ tab \t del \x7f emoji 🧬',
        rules=(Rule(pattern="x"), Rule(pattern="y", weight=0.5)),
    )
    path = tmp_path / "RUN.toml"
    path.write_text(to_toml(settings), encoding="utf-8")
    assert load_toml(path, RunSettings) == settings


def test_hash_depends_on_values_only(toml_path: Path) -> None:
    one = load_toml(toml_path, RunSettings)
    two = build({"train": {"n_steps": 7}, "corpus": "docs"}, RunSettings)
    assert config_hash(one) == config_hash(two)
    other = load_toml(toml_path, RunSettings, overrides=["train.n_steps=8"])
    assert config_hash(one) != config_hash(other)
