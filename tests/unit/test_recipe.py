"""Settings of training, learning rates and length buckets."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphmert.config import build, load_toml, to_toml
from graphmert.errors import ConfigError
from graphmert.recipe import (
    BucketSchedule,
    Plateau,
    TrainConfig,
    bucket_schedule,
    learning_rate_at,
)
from toy_training import toy_config


def test_settings_load_without_torch() -> None:
    code = "import sys, graphmert.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 2.0}, "exactly one"),
        ({"total_steps": None}, "exactly one"),
        ({"schedule": "time"}, "needs max_seconds"),
        ({"min_learning_rate": 1.0}, "above learning_rate"),
        ({"weights": {"a": -1.0}}, "not negative"),
        ({"betas": [0.9, 1.0]}, "betas"),
        ({"early_stopping_patience": 2}, "needs eval_every"),
        ({"weight_ramps": {"leaf": 0}}, "at least 1"),
        ({"length_curriculum": [[5, 128]]}, "begins at update 0"),
        ({"length_curriculum": [[0, 128], [0, 256]]}, "ascend"),
        ({"length_curriculum": [[0, 1]]}, "at least 2 roots"),
    ],
)
def test_contradicting_settings_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build({"total_steps": 6} | changes, TrainConfig)


def test_settings_survive_toml(tmp_path: Path) -> None:
    config = toy_config(weights={"mlm": 0.6}, eval_every=3)
    (tmp_path / "train.toml").write_text(to_toml(config))
    assert load_toml(tmp_path / "train.toml", TrainConfig) == config


def test_a_ramp_raises_a_weight_to_its_own() -> None:
    config = toy_config(weights={"mlm": 0.6, "leaf": 0.4}, weight_ramps={"leaf": 1000})
    assert [config.weight_at("leaf", step) for step in (0, 499, 999, 5000)] == pytest.approx(
        [0.0004, 0.2, 0.4, 0.4]
    )
    assert config.weight_at("mlm", 0) == 0.6
    assert toy_config().weight_at("anything", 3) == 1.0
    assert config.weight_at("leaf", math.inf) == 0.4, "validation always weighs in full"


def test_learning_rate_values() -> None:
    config = toy_config(learning_rate=1.0, min_learning_rate=0.1, warmup_steps=4)
    rates = [learning_rate_at(step, total_steps=12, config=config) for step in range(12)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[7] == pytest.approx(0.55)  # half way down
    assert rates[11] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in pairwise(rates[3:]))
    small = learning_rate_at(11, total_steps=12, config=config, peak=0.05)
    assert small == pytest.approx(0.05), "the floor is never above a group's own peak"


def test_time_schedule_follows_elapsed_time() -> None:
    config = toy_config(
        learning_rate=1.0, min_learning_rate=0.0, warmup_steps=0, schedule="time", max_seconds=10.0
    )
    rates = [
        learning_rate_at(0, total_steps=10**6, config=config, elapsed_s=second)
        for second in (0.0, 5.0, 10.0, 11.0)
    ]
    assert rates == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=1e-5)


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    batch_size=st.integers(1, 20),
    micro_batch_size=st.integers(1, 8),
    multiple_of=st.integers(1, 3),
    window=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_every_sample_comes_once_an_epoch(
    lengths: list[int],
    batch_size: int,
    micro_batch_size: int,
    multiple_of: int,
    window: int,
    seed: int,
) -> None:
    schedule = bucket_schedule(
        lengths,
        batch_size=batch_size,
        max_tokens_per_micro_batch=40,
        micro_batch_size=micro_batch_size,
        multiple_of=multiple_of,
        window=window,
        seed=seed,
    )
    n_steps = schedule.steps_per_epoch
    assert n_steps == math.ceil(len(lengths) / batch_size)
    for epoch in (0, 1):
        updates = [schedule[epoch * n_steps + step] for step in range(n_steps)]
        sizes = [sum(map(len, update)) for update in updates]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        assert sorted(np.concatenate([np.concatenate(u) for u in updates])) == list(
            range(len(lengths))
        )
        for update, size in zip(updates, sizes, strict=True):
            assert len(update) % multiple_of == 0 or len(update) == size
            for rows in update:
                assert 1 <= len(rows) <= micro_batch_size
                assert len(rows) * max(lengths[row] for row in rows) <= 40


def test_schedule_is_a_pure_function_of_seed_and_step() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 100)

    def made(seed: int, n_steps: int | None = None) -> BucketSchedule:
        return bucket_schedule(lengths, batch_size=16, seed=seed, n_steps=n_steps)

    forward = [np.concatenate(made(1)[step]).tolist() for step in range(20)]
    schedule = made(1)
    backward = [np.concatenate(schedule[step]).tolist() for step in reversed(range(20))]
    assert forward == backward[::-1]
    assert forward[0] != np.concatenate(made(2)[0]).tolist()
    assert forward[:7] != forward[7:14], "epochs differ"
    assert len(list(made(1, n_steps=9))) == len(made(1, n_steps=9)) == 9
    with pytest.raises(IndexError):
        made(1, n_steps=9)[9]


def test_buckets_save_padding() -> None:
    lengths = np.random.default_rng(0).integers(8, 128, 4096)

    def padding(window: int) -> float:
        schedule = bucket_schedule(
            lengths, batch_size=32, micro_batch_size=32, window=window, seed=0
        )
        parts = [rows for step in range(schedule.steps_per_epoch) for rows in schedule[step]]
        return 1 - lengths.sum() / sum(len(rows) * lengths[rows].max() for rows in parts)

    assert padding(16) < 0.1 < 0.4 < padding(1)


def test_sample_above_the_limit_is_named() -> None:
    with pytest.raises(ConfigError, match="sample 1") as caught:
        bucket_schedule([3, 50, 4], batch_size=2, max_tokens_per_micro_batch=40, seed=0)
    assert "50 or more" in str(caught.value)
    with pytest.raises(ConfigError, match="at least one sample"):
        bucket_schedule([], batch_size=2, seed=0)


# --- plateau --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_follows_pytorch(mode: str, patience: int) -> None:
    """The same factor after every value as torch.optim.lr_scheduler.ReduceLROnPlateau."""
    config = TrainConfig(
        total_steps=1, eval_every=1, schedule="plateau", best_mode=mode,
        plateau_patience=patience, warmup_steps=0, learning_rate=0.1, min_learning_rate=0.0,
    )  # fmt: skip
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.5, patience=patience
    )
    ours = Plateau()
    rng = np.random.default_rng(patience)
    seen = set()
    for value in np.concatenate([np.linspace(1, 1.00005, 6), 1 + 0.01 * rng.normal(size=18)]):
        theirs.step(value)
        ours = ours.after(float(value), config)
        rate = learning_rate_at(5, total_steps=9, config=config, factor=ours.factor)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        seen.add(rate)
    assert len(seen) > 3


def test_plateau_has_a_floor_and_a_warm_up() -> None:
    config = TrainConfig(
        total_steps=9, eval_every=1, schedule="plateau", warmup_steps=4, learning_rate=0.1,
        min_learning_rate=0.03,
    )  # fmt: skip
    rates = [learning_rate_at(i, total_steps=9, config=config, factor=0.5) for i in range(6)]
    assert rates == pytest.approx([0.0125, 0.025, 0.0375, 0.05, 0.05, 0.05])
    assert learning_rate_at(8, total_steps=9, config=config, factor=0.1) == pytest.approx(0.03)
    with pytest.raises(ValueError, match="needs eval_every"):
        TrainConfig(total_steps=9, schedule="plateau")
