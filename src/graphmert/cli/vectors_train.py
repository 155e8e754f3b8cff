"""Commands that train next-vector models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphmert.cli.terminal import AsJson, print_result, progress_shown, reporting, say

if TYPE_CHECKING:
    from graphmert.domains.vectors.training import VectorTraining
    from graphmert.progress import Progress

Data = Annotated[Path, typer.Option(help="The DATASET folder of `vectors prepare`.")]
Size = Annotated[
    int | None, typer.Option(min=1, help="Vectors of the training set, all when not given.")
]
Out = Annotated[Path, typer.Option(help="The run directory.")]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Of weights, order and dropout; 0 when not given.")
]
Config = Annotated[
    Path | None, typer.Option(help="TOML file of settings, instead of the model's own.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Change one setting; may be repeated."),
]
Epochs = Annotated[float | None, typer.Option(help="Passes over the training windows.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Windows per update and process.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Peak learning rate.")]
Precision = Annotated[str | None, typer.Option(help="bf16 or fp32.")]


def train(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="amn, lstm, gru, transformer, lvm-768d or lvm-leaves."
        ),
    ],
    data: Data,
    out: Out,
    links: Annotated[
        Path | None, typer.Option(help="The LINKS folder of `vectors link`, for lvm-leaves.")
    ] = None,
    size: Size = None,
    seed: Seed = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: Rate = None,
    precision: Precision = None,
    config: Config = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train a next-vector model; a killed run goes on with the same command.

    Under torchrun each process takes its part of every update.
    """
    with reporting(as_json):
        from graphmert.domains.vectors import VectorData
        from graphmert.domains.vectors.links import Leaves
        from graphmert.domains.vectors.training import train_vectors

        dataset = VectorData.load(data)
        given = _given(
            seed=seed, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
            precision=precision,
        )  # fmt: skip
        leaves = None if links is None else Leaves.load(links, dataset.table())
        if leaves is not None:
            given.append(f"network.n_relations={len(leaves.relations)}")
        settings = _settings(model, dataset, size, config, [*given, *(overrides or ())])
        with _progress() as progress:
            run = train_vectors(
                dataset, settings, out=out, size=size, leaves=leaves, name=model,
                progress=progress,
            )  # fmt: skip
        summary = {
            "path": str(out),
            "n_parameters": run.manifest["n_parameters"],
            "n_steps": run.manifest["n_steps"],
            "stop_reason": run.manifest["stop_reason"],
            "best": run.metrics["best"],
            "last": run.metrics["last"],
        }
        _print(summary, as_json)


def bench(
    data: Data,
    out: Out,
    model: Annotated[str, typer.Option(help="Preset of the model.")] = "lvm-768d",
    size: Annotated[int, typer.Option(min=1, help="Vectors of the training set.")] = 10_000,
    seed: Seed = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: Rate = None,
    precision: Annotated[str | None, typer.Option(help="fp32, or bf16, its default.")] = None,
    config: Config = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Time a short training and foretell a long one; writes benchmark_results.json.

    The same command runs on 1, 8 or 40 processes under torchrun, on one host or several.
    """
    with reporting(as_json):
        from graphmert.domains.vectors import VectorData
        from graphmert.domains.vectors.benchmark import extrapolation_text, run_benchmark

        if precision is None and config is None:
            precision = "bf16"
        dataset = VectorData.load(data)
        given = _given(
            seed=seed, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
            precision=precision,
        )  # fmt: skip
        settings = _settings(model, dataset, size, config, [*given, *(overrides or ())])
        with _progress() as progress:
            results = run_benchmark(
                dataset, settings, out=out, size=size, name=model, progress=progress
            )
        text = extrapolation_text(results)
        _print(results if as_json else results | {"summary": text}, as_json)


def sweep(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Preset that is varied.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the sweep; an earlier one goes on.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")] = 20,
    size: Size = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws and of each training.")] = 0,
    epochs: Epochs = None,
    precision: Precision = None,
    space: Annotated[
        Path | None, typer.Option(help="TOML file of the search space, instead of the default.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Search learning rate, batch, layers and width; --set fixes other settings of all trials."""
    with reporting(as_json):
        from graphmert.config import load_toml
        from graphmert.domains.vectors import VectorData
        from graphmert.domains.vectors.sweep import SweepSpace, run_sweep

        dataset = VectorData.load(data)
        given = _given(seed=seed, epochs=epochs, precision=precision)
        base = _settings(model, dataset, size, None, [*given, *(overrides or ())])
        with progress_shown() as progress:
            found = run_sweep(
                dataset,
                model,
                out=out,
                space=SweepSpace() if space is None else load_toml(space, SweepSpace),
                n_trials=trials,
                size=size,
                base=base.model_dump(mode="json"),
                seed=seed,
                progress=progress,
            )
        shown = {key: found[key] for key in ("model", "n_trials", "best")}
        print_result(found if as_json else shown | {"path": str(out / "sweep.json")}, as_json)
        if found["best"] is None:
            reasons = sorted({str(one.get("reason")) for one in found["trials"]})
            say(f"no trial has a score: {'; '.join(reasons[:3])}; change --space")
            raise typer.Exit(1)


def score_leaves(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="A run of `train lvm-leaves`.")],
    data: Data,
    links: Annotated[Path, typer.Option(help="The LINKS folder of `vectors link`.")],
    without: Annotated[
        Path | None,
        typer.Option(help="A run to compare the next vector with, trained without leaves."),
    ] = None,
    part: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Measure masked leaves and the next vector with and without them; writes RUN/leaves.json."""
    with reporting(as_json):
        from graphmert.domains.vectors import VectorData
        from graphmert.run.forecasting import score_leaves as score

        dataset = VectorData.load(data)
        with progress_shown() as progress:
            found = score(
                path, dataset, links, without=without,
                part=part,  # type: ignore[arg-type]
                progress=progress,
            )  # fmt: skip
        print_result(found, as_json)


def _settings(
    model: str, dataset: Any, size: int | None, config: Path | None, overrides: Sequence[str]
) -> VectorTraining:
    """Settings of a file or of the model, then the options, then --set."""
    from graphmert.config import apply_overrides, build, load_toml
    from graphmert.domains.vectors.training import VectorTraining, default_training

    n_vectors = len(dataset.vectors) if size is None else size
    values = default_training(model, n_vectors=n_vectors)
    if config is not None:
        settings = load_toml(config, VectorTraining, overrides=overrides)
        _check_kind(settings, values["network"]["kind"], config)
        return settings
    apply_overrides(values, overrides)
    return build(values, VectorTraining, source=f"settings of {model}", overrides=overrides)


def _check_kind(settings: VectorTraining, kind: str, config: Path) -> None:
    from graphmert.errors import ConfigError

    if settings.network.kind != kind:
        raise ConfigError(
            "the file holds the settings of another model",
            where=str(config),
            got=settings.network.kind,
            expected=kind,
        )


def _given(**options: object) -> list[str]:
    """Options that were given, as overrides."""
    return [f"{name}={value}" for name, value in options.items() if value is not None]


@contextmanager
def _progress() -> Iterator[Progress]:
    """Progress of the first process; the others are silent."""
    from graphmert.processes import is_main_process
    from graphmert.progress import Silent

    if is_main_process():
        with progress_shown() as progress:
            yield progress
    else:
        yield Silent()


def _print(result: dict[str, Any], as_json: bool) -> None:
    """Print on the first process; leave the process group, if there is one."""
    from graphmert.processes import is_main_process, leave_group

    if is_main_process():
        summary = result.pop("summary", None)
        print_result(result, as_json)
        if summary:
            say(summary)
    leave_group()


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this module into the group of vectors."""
    for command in (train, bench, sweep, score_leaves):
        app.command()(command)
