"""Search settings of a next-vector model: one folder of runs and one journal of trials.

OUT holds::

    journal.log        every trial, in Optuna's journal format; a sweep that was killed goes on
    sweep.json         the search space, the best trial, all trials with their settings and values
    trials/HASH/       a run of `vectors train` for each set of settings

A trial is scored by the best validation cosine. The draws of trial n depend on the seed, n and the
values of the trials before it, so a resumed sweep asks for the same settings as one that ran
through. Settings whose network falls outside the range of sizes are recorded as pruned, and so are
those that diverge or collapse; any other error ends the sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from graphmert.config import Settings, build, config_hash
from graphmert.domains.vectors.data import VectorData
from graphmert.domains.vectors.training import (
    WITH_LEAVES,
    VectorTraining,
    default_training,
    train_vectors,
)
from graphmert.domains.vectors.watch import CollapseError
from graphmert.errors import CapabilityError, ConfigError, DataError
from graphmert.forecast import LeafSettings, count_parameters
from graphmert.progress import Progress, Silent
from graphmert.shards import atomic_write_json

if TYPE_CHECKING:
    import optuna

SWEEP_FORMAT = "graphmert-vector-sweep-1"
_MARK = "format"
"""The fact that is written last, when all others are in the journal."""
_DIVERGED = "training diverged"
"""How `graphmert.train` begins to say that a loss is not finite."""


class SweepSpace(Settings):
    """What is searched; a list of one value fixes it."""

    learning_rate: tuple[float, float] = Field(
        default=(2e-5, 2e-3), description="Least and most, drawn on a logarithmic scale."
    )
    batch_size: tuple[int, ...] = Field(default=(16, 32, 64, 128), description="Choices.")
    n_layers: tuple[int, ...] = Field(
        default=(6, 8, 12), description="Choices, for networks with layers."
    )
    width: tuple[int, ...] = Field(
        default=(320, 384, 448, 512, 576), description="Choices, for networks with a width."
    )
    ffn_factor: int = Field(
        default=3, ge=1, description="Width of feed-forward networks, in widths of the layers."
    )
    n_parameters: tuple[int, int] = Field(
        default=(10_000_000, 30_000_000), description="Least and most parameters of a network."
    )

    @model_validator(mode="after")
    def _ordered(self) -> SweepSpace:
        if not 0 < self.learning_rate[0] <= self.learning_rate[1]:
            raise ValueError("learning_rate is [least, most], above 0")
        if self.n_parameters[0] > self.n_parameters[1]:
            raise ValueError("n_parameters is [least, most]")
        return self


def run_sweep(
    data: VectorData,
    model: str,
    *,
    out: Path | str,
    space: SweepSpace,
    n_trials: int,
    size: int | None = None,
    base: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train trials until there are `n_trials`, and return the content of sweep.json.

    Args:
        data: the data set.
        model: preset whose settings the trials change.
        out: folder of the sweep; an earlier one of the same space is gone on with.
        space: what is searched.
        n_trials: trials in all, pruned ones counted.
        size: training vectors.
        base: settings that hold for every trial, such as epochs; the model's own otherwise.
        seed: of the draws.
        progress: told the updates of each trial.

    Raises:
        CapabilityError: Optuna is not installed.
        ConfigError: the folder holds a sweep of another space, data or model, or the model has
            leaves.
        DataError: there is no window to train or validate on.
    """
    out, progress = Path(out), progress or Silent()
    if model == WITH_LEAVES:
        raise ConfigError(
            "a model with leaves cannot be swept", got=model,
            expected="a model of vectors alone", fix="Sweep lvm-768d, or train it by hand.",
        )  # fmt: skip
    _check_windows(data, size)
    n_vectors = len(data.vectors) if size is None else size
    plain = dict(base or default_training(model, n_vectors=n_vectors))
    facts = {
        "format": SWEEP_FORMAT,
        "model": model,
        "space": space.model_dump(mode="json"),
        "base": plain,
        "size": size,
        "seed": seed,
        "fingerprints": {part: data.fingerprint(part, size) for part in ("train", "valid")},
    }
    study = _open_study(out, facts)
    _repeat_broken(study)
    while (n_done := _n_finished(study)) < n_trials:
        progress.message(f"trial {n_done + 1} of {n_trials}")
        study.sampler = _sampler(seed, len(study.trials))
        _run_trial(study, data, plain, space, model=model, out=out, size=size, progress=progress)
        _record(out, study, facts)
    return _record(out, study, facts)


def _check_windows(data: VectorData, size: int | None) -> None:
    for part in ("train", "valid"):
        if not len(data.windows(part, size=size)):
            raise DataError(
                "there is no window", where=f"{data.path}, {part}", got=f"size {size}",
                expected=f"more than {data.info['length']} vectors of a document",
                fix="Give a larger --size, or prepare longer documents.",
            )  # fmt: skip


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise CapabilityError(
            "a sweep needs Optuna", fix="Run `pip install 'graphmert[sweep]'`."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open_study(out: Path, facts: Mapping[str, Any]) -> optuna.Study:
    optuna = _optuna()
    out.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(out / "journal.log"))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="sweep",
        direction="maximize",
        load_if_exists=True,
    )
    old = study.user_attrs
    if _MARK not in old:  # new, or cut off before its facts were written
        for key in sorted(facts, key=lambda one: one == _MARK):
            study.set_user_attr(key, facts[key])
        return study
    for key, value in facts.items():
        if old.get(key) != _as_json(value):
            raise ConfigError(
                "the folder holds another sweep",
                where=f"{out}, {key}",
                got=old.get(key),
                expected=value,
                fix="Sweep into a new folder.",
            )
    return study


def _as_json(value: Any) -> Any:
    """A value as it comes back from the journal."""
    if isinstance(value, Mapping):
        return {key: _as_json(one) for key, one in value.items()}
    return [_as_json(one) for one in value] if isinstance(value, list | tuple) else value


def _repeat_broken(study: optuna.Study) -> None:
    """Ask again for trials that a kill cut off; their runs go on from their checkpoints."""
    states = _optuna().trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        if trial.params:
            study.enqueue_trial(trial.params, skip_if_exists=False)
        study.tell(trial.number, state=states.FAIL)


def _n_finished(study: optuna.Study) -> int:
    states = _optuna().trial.TrialState
    return len(study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED)))


def _sampler(seed: int, n_trials: int) -> optuna.samplers.BaseSampler:
    """A sampler whose draws do not depend on what this process drew before."""
    return _optuna().samplers.TPESampler(seed=(seed * 1_000_003 + n_trials) % 2**32)


def _run_trial(
    study: optuna.Study,
    data: VectorData,
    base: Mapping[str, Any],
    space: SweepSpace,
    *,
    model: str,
    out: Path,
    size: int | None,
    progress: Progress,
) -> None:
    states = _optuna().trial.TrialState
    trial = study.ask()
    config = trial_settings(trial, base, space)
    network = config.network
    assert not isinstance(network, LeafSettings)
    n_parameters = count_parameters(network)
    folder = f"trials/{config_hash(config)[:16]}"
    trial.set_user_attr("n_parameters", n_parameters)
    least, most = space.n_parameters
    if not least <= n_parameters <= most:
        trial.set_user_attr("reason", f"{n_parameters} parameters, not {least} to {most}")
        study.tell(trial, state=states.PRUNED)
        return
    trial.set_user_attr("run", folder)
    try:
        run = train_vectors(
            data, config, out=out / folder, size=size, name=model, progress=progress
        )
    except DataError as error:
        if not (isinstance(error, CollapseError) or error.what.startswith(_DIVERGED)):
            raise
        # an answer about these settings, too
        trial.set_user_attr("reason", error.what)
        study.tell(trial, state=states.PRUNED)
        return
    trial.set_user_attr("best_epoch", run.metrics["best"]["epoch"])
    study.tell(trial, run.metrics["best"]["val_cosine"])


def trial_settings(
    trial: optuna.trial.BaseTrial, base: Mapping[str, Any], space: SweepSpace
) -> VectorTraining:
    """Return the settings of a trial: what is drawn, over those of all trials."""
    network = dict(base["network"])
    drawn: dict[str, Any] = {
        "learning_rate": trial.suggest_float("learning_rate", *space.learning_rate, log=True),
        "batch_size": trial.suggest_categorical("batch_size", space.batch_size),
    }
    if "n_layers" in network:
        network["n_layers"] = trial.suggest_categorical("n_layers", space.n_layers)
    if "width" in network:
        network["width"] = trial.suggest_categorical("width", space.width)
        if "ffn_width" in network:
            network["ffn_width"] = space.ffn_factor * network["width"]
    return build({**base, **drawn, "network": network}, VectorTraining, source="trial")


def _record(out: Path, study: optuna.Study, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write and return sweep.json."""
    states = _optuna().trial.TrialState
    kept = (states.COMPLETE, states.PRUNED)
    trials = [
        {
            "params": trial.params,
            "val_cosine": trial.value,
            "state": trial.state.name.lower(),
            **trial.user_attrs,
        }
        for trial in study.get_trials(deepcopy=False, states=kept)
    ]
    scored = [trial for trial in trials if trial["val_cosine"] is not None]
    best = max(scored, key=lambda trial: trial["val_cosine"], default=None)
    found = {**facts, "n_trials": len(trials), "best": best, "trials": trials}
    atomic_write_json(out / "sweep.json", found)
    return found
