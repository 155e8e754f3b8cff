"""The run files of the main job that the repository keeps can be read and say what they promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphmert import run
from graphmert.model import GraphMERT
from graphmert.presets import FORMS, preset_config
from graphmert.run import datasets_of
from graphmert.run.settings import require_runnable
from graphmert.run.training import objectives

RUNS = Path(__file__).parents[2] / "runs"
FILES = sorted(path for path in RUNS.glob("*.toml") if not path.name.startswith("code_"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_kept_run_file_is_read_and_can_run(path: Path) -> None:
    require_runnable(run.load(path))


def test_the_paper_run_has_the_papers_numbers() -> None:
    config = run.load(RUNS / "paper.toml")
    head = (RUNS / "paper.toml").read_text(encoding="utf-8").split("out =")[0]
    assert all(name in head for name in datasets_of(config))
    inject, masking, train = config.inject, config.masking, config.train
    assert (inject.alpha, inject.sequences_per_triple, inject.triples_per_head) == (0.55, 1, 1)
    assert (inject.score_bucket, inject.relation_bucket) == (0.01, 100)
    assert inject.min_triples_per_relation == 100
    assert (config.link.top_k, config.link.min_jaccard, config.select.top_k) == (10, 0.5, 40)
    assert (masking.mlm_rate, masking.tail_rate, masking.span_p, masking.max_span) == (
        0.15, 0.15, 0.2, 7,
    )  # fmt: skip
    assert config.extract.corpus.beta == 0.67
    assert (train.epochs, train.batch_size, train.learning_rate) == (25, 128, 4e-4)
    assert (train.warmup_steps, train.min_learning_rate, train.weight_decay) == (500, 1e-5, 0.01)
    assert {"mlm", "sbo", "leaf"} <= set(objectives(config))
    changes = FORMS[config.model.form] | {"objectives": objectives(config)} | config.model.changes
    small = {"hidden_size": 16, "n_layers": 1, "n_attn_heads": 2, "ffn_size": 16, "vocab_size": 99}
    whole = preset_config(config.model.preset, **changes)
    assert (whole.hidden_size, whole.n_layers, whole.n_attn_heads) == (512, 12, 8)
    assert (whole.decay, whole.hgat, whole.decay_base) == ("weights", "full", 0.6)
    model = GraphMERT(preset_config(config.model.preset, **(changes | small)))
    assert model.entity_head is not None
