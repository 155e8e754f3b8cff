"""Train, tune and measure code encoders: stages, manifest, resume.

Stages: prepare (split, tokenizer), train, tune (for code search), evaluate, report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphmert.config import load_toml, to_toml
from graphmert.errors import ConfigError
from graphmert.hub import hash_pretrained
from graphmert.progress import Progress, Silent
from graphmert.run.code.settings import CodeRunConfig
from graphmert.run.manifest import PACKAGE, Manifest, StageOutput, fingerprint
from graphmert.shards import atomic_write_text, sha256_file

if TYPE_CHECKING:
    from graphmert.run.code.together import Together

STAGES = ("prepare", "train", "tune", "evaluate", "report")
TOGETHER = ("prepare", "train", "tune")
"""The stages that processes of a launcher go through together; after them the first is alone."""
LOOPS = ("train", "tune")
"""Those whose work is shared."""
SECTIONS: dict[str, tuple[str, ...]] = {
    "prepare": ("data", "split", "chains"),
    "train": ("model", "masking", "feed", "train", "seed", "checkpoint_epochs", "room"),
    "tune": ("tune",),
    "evaluate": ("evaluate",),
    "report": ("out",),
}
"""Settings that each stage reads, besides those of the stages before it."""
INDEX_FILES = (
    "corpus/documents.parquet",
    "code/symbols.parquet",
    "code/references.parquet",
    "kg/entities.parquet",
    "kg/triples.parquet",
)

__all__ = ["STAGES", "CodeResult", "CodeRunConfig", "execute_code", "load_code"]


@dataclass(frozen=True)
class CodeResult:
    """How a run ended: exit code (1 if a target was measured and missed) and a summary."""

    exit_code: int
    summary: dict[str, Any] = field(default_factory=dict)


def load_code(path: Path | str, overrides: Sequence[str] = ()) -> CodeRunConfig:
    """Read a run file of the code domain."""
    return load_toml(path, CodeRunConfig, overrides=overrides)


def execute_code(
    config: CodeRunConfig,
    *,
    last: str = "report",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> CodeResult:
    """Run all stages up to and including `last`; finished ones are not done again.

    Under a launcher every process calls this: they train together, the first does all else.

    Raises:
        ConfigError: the index is not there, or a setting names something unknown.
        CapabilityError: the processes of a launcher do not find each other.
    """
    from graphmert.run.code.training import check_settings

    progress = progress or Silent()
    check_settings(config)
    plan = _Plan(config)
    wanted = STAGES[: STAGES.index(last) + 1]
    if dry_run:
        return CodeResult(0, plan.describe(wanted))
    from graphmert.run.code.together import Together

    summary: dict[str, Any] = {"run": str(plan.run_dir), "stages": {}}
    with Together(on_cpu=config.train.device == "cpu") as together:
        if together.is_main:
            plan.run_dir.mkdir(parents=True, exist_ok=True)
            _write_config(config, plan.run_dir / "run.toml")
        for name in wanted[: len(TOGETHER)]:
            summary["stages"][name] = plan.advance(name, together, progress)
    if not together.is_main:
        return CodeResult(0, summary)
    for name in wanted[len(TOGETHER) :]:
        summary["stages"][name] = plan.advance(name, together, progress)
    for name in wanted:
        if counts := plan.manifest.stages.get(name, {}).get("counts"):
            summary[name] = counts
    if last == "report":
        from graphmert.run.code.measuring import read_metrics

        rows = summary["compliance"] = read_metrics(plan.run_dir)["compliance"]
        return CodeResult(int(any(row["passes"] is False for row in rows)), summary)
    return CodeResult(0, summary)


def _write_config(config: CodeRunConfig, path: Path) -> None:
    """Keep the resolved configuration beside the results; a file that says it is left alone."""
    text = to_toml(config, comments=False)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic_write_text(path, text)


class _Plan:
    """Which stage depends on what, and how each is done."""

    def __init__(self, config: CodeRunConfig) -> None:
        from graphmert.run.settings import body_path

        self.config = config
        self.run_dir = Path(config.out)
        self.body = body_path(config.data.body)
        index = Path(config.data.index)
        for name in INDEX_FILES:
            if not (index / name).is_file():
                raise ConfigError(
                    "no index of code here",
                    where="data.index",
                    got=str(index),
                    expected=f"a folder with {name}",
                    fix="run: graphmert code index PATH --out DIR",
                )
        self.inputs = {name: sha256_file(index / name) for name in INDEX_FILES}
        if self.body is not None:
            self.inputs["body"] = hash_pretrained(self.body, what="pretrained body")
        if config.evaluate.truth:
            self.inputs["truth"] = sha256_file(config.evaluate.truth)
        dumped = config.model_dump(mode="json", exclude={"out"})
        header = {
            "domain": "code",
            "config": dumped,
            "config_hash": fingerprint(dumped),
            "inputs": self.inputs,
            "seed": config.seed,
        }
        self.manifest = Manifest(self.run_dir, header, STAGES)

    def advance(self, stage: str, together: Together, progress: Progress) -> str:
        """Do a stage if it is not done, and record it in the first process."""

        def state() -> tuple[str, bool]:
            mark = self.fingerprint(stage)
            return mark, self.manifest.is_done(stage, mark)

        mark, done = together.agree(state)
        if done:
            progress.message(f"{stage}: already done")
            return "already done"
        if together.is_main:
            self.manifest.run(stage, mark, self.work(stage, mark, progress))
        elif stage in LOOPS:
            self.work(stage, mark, progress)()
        return "done"

    def fingerprint(self, stage: str) -> str:
        """What the stage's result depends on: its settings and those before it, inputs, files.

        Every stage builds the chains again from the index, so what makes chains is a part of all.
        """
        config = self.config.model_dump(mode="json")
        config["data"].pop("index")  # its content counts, not its place
        config["train"] = self.config.train.lasting()  # a checkpoint outlives the other settings
        config["room"] = config["tune"]["max_roots"]  # of the positions that are trained
        reached = STAGES[: STAGES.index(stage) + 1]
        own = {name: config[name] for one in reached for name in SECTIONS[one]}
        inputs = dict(self.inputs)
        if "evaluate" not in reached:
            inputs.pop("truth", None)
        before = [self.manifest.outputs(name) for name in reached[:-1]]
        return fingerprint("code", version(PACKAGE), stage, own, inputs, before)

    def work(self, stage: str, mark: str, progress: Progress) -> Callable[[], StageOutput]:
        """The function that does a stage."""
        from graphmert.run.code import stages

        return {
            "prepare": lambda: stages.prepare(self.config, self.run_dir, self.body),
            "train": lambda: stages.train(self.config, self.run_dir, self.body, mark, progress),
            "tune": lambda: stages.tune(self.config, self.run_dir, mark, progress),
            "evaluate": lambda: stages.evaluate(self.config, self.run_dir, progress),
            "report": lambda: stages.report(self.config, self.run_dir),
        }[stage]

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """What would be done."""
        state: dict[str, str] = {}
        fresh = False
        for name in names:
            done = not fresh and self.manifest.is_done(name, self.fingerprint(name))
            fresh = fresh or not done
            state[name] = "done" if done else "to do"
        return {"run": str(self.run_dir), "stages": state}
