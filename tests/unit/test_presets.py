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


def test_graphmer_se_has_the_layers_of_its_source() -> None:
    report = parameter_report("graphmer-se")
    assert report["groups"]["layers"] == 85_054_848
    assert report["groups"]["token embedding"] == 8_000 * 768
    parts = {part["name"]: part["arithmetic"] for part in report["parts"]}
    assert parts["encoder.layers.relation_bias"] == "12 x (16 x 2)"
    # 85,054,848 + 6,144,000 + positions, types, slots, relations and H-GAT; the source, with
    # other parts beside its layers, states 95.1 million
    embeddings = sum(p["n"] for p in report["parts"] if p["name"].startswith("embed."))
    assert report["groups"]["layers"] + embeddings == 92_670_336


def test_codebert_has_the_parts_of_its_source() -> None:
    report = parameter_report("codebert")
    groups = report["groups"]
    assert groups["relation head"] == 768 * 12 + 12 == 9_228
    assert groups["slot vectors of the relation head"] == 7 * 768
    assert groups["token embedding"] == 50_265 * 768
    assert report["layout"]["nodes"] == 1024
    parts = {part["name"]: part["arithmetic"] for part in report["parts"]}
    assert parts["embed.position.weight"] == "1026 x 768"
    assert parts["embed.node_type.weight"] == "2 x 768"
    assert parts["embed.relation.weight"] == "13 x 768"  # one row hides a relation
    # The source's network: the same body, with a pooler (768 x 768 + 768), an H-GAT of four
    # projections (4 x (768 x 768 + 768)), 12 relation vectors and the relation head.
    body = groups["token embedding"] + 1026 * 768 + 2 * 768 + 2 * 768 + 85_054_464
    projection = 768 * 768 + 768
    source = body + 5 * projection + 12 * 768 + 9_228
    assert round(source / 1e6, 1) == 127.4
    assert groups["layers"] == 85_054_464


def test_groups_count_every_part_once() -> None:
    for preset in PRESETS:
        report = parameter_report(preset)
        assert sum(report["groups"].values()) == report["n_parameters"]
