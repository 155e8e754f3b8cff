"""Named shapes and their parameter counts."""

from __future__ import annotations

import math
import re

import pytest

from graphmert.errors import ConfigError
from graphmert.model import GraphMERT
from graphmert.presets import FORMS, PRESETS, parameter_report, preset_config


@pytest.mark.parametrize(
    ("n_relations", "n_parameters"), [(29, 78_623_356), (28, 78_360_188), (33, 79_676_028)]
)
def test_published_parameter_counts(n_relations: int, n_parameters: int) -> None:
    report = parameter_report("reference", n_relations=n_relations)
    assert report["n_parameters"] == n_parameters
    assert report["n_relations"] == n_relations
    assert (
        report["layout"] | {"nodes": 1024, "roots": 128, "leaves_per_root": 7} == report["layout"]
    )


def evaluate(arithmetic: str) -> int:
    """The value of "12 x (512 x 512)"."""
    return math.prod(int(number) for number in re.findall(r"\d+", arithmetic))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_arithmetic_adds_up(preset: str) -> None:
    report = parameter_report(preset)
    for part in report["parts"]:
        assert evaluate(part["arithmetic"]) == part["n"], part
    assert sum(part["n"] for part in report["parts"]) == report["n_parameters"]
    assert len({part["name"] for part in report["parts"]}) == len(report["parts"])


def test_the_report_counts_the_model() -> None:
    model = GraphMERT(preset_config("tiny", n_relations=5))
    report = parameter_report("tiny", n_relations=5)
    assert report["n_parameters"] == sum(p.numel() for p in model.parameters())


def test_layers_of_equal_shape_are_one_part() -> None:
    parts = {part["name"]: part for part in parameter_report("reference")["parts"]}
    assert parts["encoder.layers.qkv.weight"]["arithmetic"] == "12 x (1536 x 512)"
    assert parts["embed.hgat.matrix"]["arithmetic"] == "29 x 512 x 512"  # one row hides a relation
    assert parts["encoder.p"]["n"] == 8


def test_live_nodes_cost_less_than_all_slots() -> None:
    compact, dense = parameter_report("paper")["flops_per_sequence"].values()
    # by hand: 12 layers, D 512, FFN 2048, V 30522
    per_node = 12 * (4 * 512 * 512 + 2 * 512 * 2048)
    vocabulary = 512 * 512 + 512 * 30_522
    assert dense == 6 * (1024 * per_node + 12 * 2 * 1024**2 * 512 + 1024 * vocabulary)
    assert compact == 6 * (140 * per_node + 12 * 2 * 140**2 * 512 + 31 * vocabulary)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_preset_has_the_fields_of_its_form(name: str) -> None:
    config = preset_config(name).to_dict()
    assert {key: config[key] for key in FORMS[name]} == {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in FORMS[name].items()
    }


def test_changes_win_over_the_preset() -> None:
    config = preset_config("tiny", n_layers=1)
    assert (config.n_layers, config.hidden_size) == (1, PRESETS["tiny"]["hidden_size"])


@pytest.mark.parametrize(
    ("name", "nearest"), [("papr", "paper"), ("referense", "reference"), ("Default", "default")]
)
def test_unknown_preset_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parameter_report(name)
    assert nearest in str(caught.value.fix)
    assert caught.value.got == name
    assert all(preset in str(caught.value.expected) for preset in PRESETS)


def test_unknown_preset_with_nothing_near() -> None:
    with pytest.raises(ConfigError) as caught:
        preset_config("zzz")
    assert caught.value.fix is None
