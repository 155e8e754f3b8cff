"""Run the main job: stages, manifest, resume, configuration, --dry-run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphmert.config import load_toml, to_toml
from graphmert.domains.text.embedding import LEXICAL
from graphmert.errors import ConfigError
from graphmert.hub import WEIGHTS, hash_pretrained
from graphmert.inject import InjectSettings
from graphmert.progress import Progress, Silent
from graphmert.run.manifest import PACKAGE, Manifest, StageOutput, fingerprint
from graphmert.run.settings import (
    DATASET,
    DEFINITIONS,
    CorpusExtractSettings,
    DataSettings,
    ExtractSettings,
    RunConfig,
    body_path,
    corpus_path,
    kg_paths,
    kg_source,
    require_runnable,
)
from graphmert.shards import atomic_write_text, sha256_file

STAGES = ("prepare", "train", "extract", "evaluate", "report")
CORPUS_SECTIONS = ("kg", "corpus", "candidates", "link", "embedding", "select", "inject")
OPTIONAL_EXTRACT = ("calibration", "sweep", "corpus")  # count only where they are not the default

__all__ = ["STAGES", "RunConfig", "RunResult", "demo", "execute", "init_toml", "load"]


@dataclass(frozen=True)
class RunResult:
    """How a run ended: exit code (0, or 1 if it yielded less than asked) and a summary."""

    exit_code: int
    summary: dict[str, Any] = field(default_factory=dict)


def load(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file.

    Args:
        overrides: "a.b=c" settings that replace those of the file.
    """
    return load_toml(path, RunConfig, overrides=overrides)


def init_toml(corpus: str | Path | None, kg: str | Path) -> str:
    """A commented run file for a KG and documents, or for a KG whose definitions are the corpus.

    With documents it asks wherever they name an entity, so that the graph is one of the corpus.

    Raises:
        ConfigError: the corpus does not exist.
    """
    documents = DEFINITIONS if corpus is None else str(corpus)
    data = DataSettings(kg=str(kg), corpus=documents, body="dataset:minilm-l6-384")
    is_path = documents != DEFINITIONS and not documents.startswith("dataset:")
    if is_path and not Path(documents).exists():
        raise ConfigError(
            "the corpus does not exist",
            where="--corpus",
            got=documents,
            expected=f"a file or folder of documents, dataset:NAME, or {DEFINITIONS}",
        )
    if documents == DEFINITIONS:
        config = RunConfig(out="run-output", data=data)
    else:
        config = RunConfig(
            out="run-output",
            data=data,
            inject=InjectSettings(method="scored"),
            extract=ExtractSettings(
                token_scores=False,
                target_precision=0.8,
                sweep=True,
                corpus=CorpusExtractSettings(enabled=True, tails="sequence"),
            ),
        )
    fetch = "".join(f"#   graphmert data fetch {name}\n" for name in datasets_of(config))
    return f"# Needed once, on a machine that has not got it:\n#\n{fetch}\n" + to_toml(
        config, comments=True
    )


def datasets_of(config: RunConfig) -> list[str]:
    """The data sets that a run file names, which must be fetched before it runs."""
    sources = [config.data.kg] if isinstance(config.data.kg, str) else [*config.data.kg]
    places = [*sources, config.data.corpus, config.data.body]
    if config.data.corpus != DEFINITIONS:
        places.append(config.embedding.model)
    named = (one.removeprefix(DATASET) for one in places if one.startswith(DATASET))
    return list(dict.fromkeys(named))


def execute(
    config: RunConfig,
    *,
    stage: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Run all stages up to and including `stage`; finished ones are not done again.

    Returns: exit code 1 where fewer triples were accepted than `extract.min_accepted`.

    Raises:
        ConfigError: a setting names something unknown, or a launcher started several processes.
    """
    progress = progress or Silent()
    _check(config)
    last = STAGES.index(stage) if stage is not None else len(STAGES) - 1
    weights = config.train.weights
    if last >= STAGES.index("extract") and weights and not weights.get("entity"):
        raise ConfigError(
            "extraction ranks entities with MNM-entity, which has no weight",
            where="train.weights",
            got=", ".join(weights),
            expected="a weight for entity",
            fix="Add entity = 1.0, or stop after --stage train.",
        )
    require_runnable(config)
    run_dir = Path(config.out)
    plan = _Plan(config, run_dir)
    if dry_run:
        return RunResult(0, plan.describe(STAGES[: last + 1]))
    run_dir.mkdir(parents=True, exist_ok=True)
    _write_config(config, run_dir / "run.toml")
    summary: dict[str, Any] = {"run": str(run_dir), "stages": {}}
    for name in STAGES[: last + 1]:
        wanted = plan.fingerprint(name)
        if plan.manifest.is_done(name, wanted):
            summary["stages"][name] = "already done"
            progress.message(f"{name}: already done")
            continue
        plan.manifest.run(name, wanted, plan.work(name, wanted, progress))
        summary["stages"][name] = "done"
    summary |= plan.results()
    accepted = plan.counts("extract").get("n_accepted")
    if last < STAGES.index("extract") or accepted is None:
        return RunResult(0, summary)
    code = 0
    if accepted < config.extract.min_accepted:
        progress.message(
            f"{accepted} triples accepted, fewer than extract.min_accepted = "
            f"{config.extract.min_accepted}; ledger.json names the reasons"
        )
        code = 1
    return RunResult(code, summary)


def _check(config: RunConfig) -> None:
    """Check what the types of the settings leave open, and the launcher, before anything else."""
    from graphmert.model import OBJECTIVES
    from graphmert.run.checking import check_network, check_objectives, require_one_process

    require_one_process()
    model = config.model
    loss_form = check_network(model.preset, model.form, model.changes)
    check_objectives(config.train, OBJECTIVES, loss_form)


def _write_config(config: RunConfig, path: Path) -> None:
    """Keep the resolved configuration beside the results; a file that says it is left alone.

    The number of processes changes no result and is left at its default.
    """
    text = to_toml(config.model_copy(update={"n_workers": 1}), comments=False)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic_write_text(path, text)


def hash_of(paths: Sequence[Path], *, named: bool = False) -> str:
    """Hash files, and folders by the names and contents of their files.

    Args:
        named: a single file counts with its name as well, from which documents have their ids;
            else by its content alone.
    """
    if len(paths) == 1 and paths[0].is_file() and not named:
        return sha256_file(paths[0])
    found = []
    for path in paths:
        if path.is_file():
            found.append([path.name, sha256_file(path)])
            continue
        if not path.is_dir():
            raise ConfigError("an input does not exist", where=str(path), fix="Check the path.")
        files = sorted(one for one in path.rglob("*") if one.is_file())
        found += [[one.relative_to(path).as_posix(), sha256_file(one)] for one in files]
    return fingerprint(found)


def header_of(config: RunConfig, inputs: Mapping[str, str]) -> dict[str, Any]:
    """What a manifest says of a run beside its stages."""
    dumped = config.model_dump(mode="json", exclude={"out", "n_workers"})
    return {
        "config": dumped,
        "config_hash": fingerprint(dumped),
        "inputs": dict(inputs),
        "seed": config.seed,
    }


def fingerprint_of(run_dir: Path, stage: str, config: RunConfig, inputs: Mapping[str, str]) -> str:
    """What a stage depends on: its configuration, and the recorded outputs of those before.

    Args:
        config, inputs: as the manifest records them; no input is read.
    """
    return _Plan(config, run_dir, inputs=inputs).fingerprint(stage)


def is_current(run_dir: Path, stage: str, config: RunConfig, inputs: Mapping[str, str]) -> bool:
    """Whether a stage recorded in a run was done with its configuration and the stages before.

    It may have been done by another version of this package.

    Args:
        config, inputs: as the manifest records them; no input is read.
    """
    plan = _Plan(config, run_dir, inputs=inputs)
    recorded = plan.manifest.stages.get(stage, {}).get("fingerprint")
    made_by = plan.manifest.made_by(stage)
    if recorded is None or made_by is None:
        return False
    return recorded == plan.fingerprint(stage, made_by=made_by)


class _Plan:
    """Which stage depends on what, and how each is done.

    Args:
        inputs: their hashes where they are known; else the inputs are read.
    """

    def __init__(
        self, config: RunConfig, run_dir: Path, *, inputs: Mapping[str, str] | None = None
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.inputs: dict[str, str] = dict(inputs or {})
        if inputs is None:
            self._read_inputs()
        self.manifest = Manifest(run_dir, header_of(config, self.inputs), STAGES)

    def _read_inputs(self) -> None:
        config = self.config
        self.kg = kg_paths(config.data)
        self.corpus = corpus_path(config.data)
        self.body = body_path(config.data.body)
        self.inputs = {"kg": hash_of(self.kg)}
        if self.corpus is not None:
            self.inputs["corpus"] = hash_of([self.corpus], named=True)
        if self._embeds() and config.embedding.model != LEXICAL:
            embedding = str(body_path(config.embedding.model))
            self.inputs["embedding_files"] = hash_pretrained(embedding, what="embedding model")
            if (weights := Path(embedding) / WEIGHTS).is_file():
                self.inputs["embedding"] = sha256_file(weights)
        if config.kg.schema_file:
            self.inputs["schema"] = hash_of([Path(config.kg.schema_file)])
        if config.complete.is_on:
            for role in ("valid", "test", "entities"):
                if place := getattr(config.complete, role):
                    self.inputs[role] = hash_of([kg_source(place)])
        judge = body_path(config.evaluate.body)
        for role, body in (("body", self.body), ("baseline_body", judge)):
            if body is not None:
                self.inputs[role] = hash_pretrained(body, what="pretrained body")

    def _embeds(self) -> bool:
        """Whether the run may need the embedding model."""
        config = self.config
        finds = config.candidates.phrases.enabled or config.candidates.tagger.enabled
        links = config.link.enabled and finds
        chooses = config.inject.method == "scored"
        compares = config.extract.corpus.enabled and config.extract.corpus.beta is not None
        return (self.corpus is not None and (links or chooses)) or compares

    def fingerprint(self, stage: str, *, made_by: str | None = None) -> str:
        """What the stage's result depends on.

        Args:
            made_by: version of this package, the one that runs when None.
        """
        made_by = made_by or version(PACKAGE)
        config = self.config.model_dump(mode="json")
        parts = {
            "prepare": ["data", "split", "text"],
            "train": ["model", "masking", "feed", "train", "seed", "text"],
            "extract": ["extract", "masking", "text"],
            "evaluate": ["evaluate", "seed"],
            "report": [],
        }[stage]
        own = {name: config[name] for name in parts}
        if stage == "train":
            own["train"] = self.config.train.lasting()
        if self.config.complete.is_on:
            own["complete"] = self._of_completion(stage, config["complete"])
        if stage == "extract":
            own |= self._of_extract(config)
        if stage == "prepare":
            own["vocab_size"] = None if self.body else self.config.model.vocab_size
            own |= self._of_corpus(config)
            return fingerprint(made_by, stage, own, self.inputs["kg"], self.inputs.get("body"))
        if stage in ("train", "evaluate"):
            own["body"] = self.inputs.get("body")
        if stage == "evaluate":
            own["baseline_body"] = self.inputs.get("baseline_body")
        if stage in ("extract", "evaluate"):
            own["compute"] = [config["train"][name] for name in ("precision", "n_threads")]
        before = [self.manifest.outputs(name) for name in STAGES[: STAGES.index(stage)]]
        return fingerprint(made_by, stage, own, before)

    def _of_completion(self, stage: str, settings: dict[str, Any]) -> dict[str, Any]:
        """The part of `complete` that a stage depends on, with the files it names."""
        walks, published = settings.pop("walks"), settings.pop("published")
        inputs = {role: self.inputs.get(role) for role in ("valid", "test", "entities", "schema")}
        return {
            "prepare": settings | inputs,
            "train": walks,
            "extract": {"max_shown": walks["max_shown"]},
            "evaluate": {"published": published},
            "report": {},
        }[stage]

    def _of_corpus(self, config: dict[str, Any]) -> dict[str, Any]:
        """What else preparing depends on: for definitions only what is not the default."""
        inputs = ("schema",) if self.corpus is None else ("corpus", "embedding_files", "schema")
        own = {f"input {name}": self.inputs[name] for name in inputs if name in self.inputs}
        for name in CORPUS_SECTIONS:
            plain = RunConfig.model_fields[name].default.model_dump(mode="json")
            if self.corpus is not None or config[name] != plain:
                own[name] = config[name]
        if self.config.reduce.is_set:
            own["reduce"] = config["reduce"]
        return own

    def _of_extract(self, config: dict[str, Any]) -> dict[str, Any]:
        """What extracting depends on; similarity also on the embedding model."""
        plain = RunConfig.model_fields["extract"].default.model_dump(mode="json")
        found = {
            name: value
            for name, value in config["extract"].items()
            if name not in OPTIONAL_EXTRACT or value != plain[name]
        }
        own: dict[str, Any] = {"extract": found}
        if self.config.extract.corpus.beta is not None:
            own["embedding"] = [config["embedding"], self.inputs.get("embedding_files")]
        return own

    def work(self, stage: str, wanted: str, progress: Progress) -> Callable[[], StageOutput]:
        """The function that does a stage."""
        from graphmert.run import stages
        from graphmert.run.prepare import prepare_stage
        from graphmert.run.training import drop_stale_training

        config, run_dir = self.config, self.run_dir
        stages.set_threads(config.train.n_threads)
        if stage == "train":
            drop_stale_training(run_dir / "model", wanted, progress)
        if config.complete.is_on:
            return self._completion_work(stage, wanted, progress)
        return {
            "prepare": lambda: prepare_stage(
                config, run_dir, self.kg, self.body, progress, mark=wanted, corpus=self.corpus
            ),
            "train": lambda: stages.train_stage(config, run_dir, wanted, progress),
            "extract": lambda: stages.extract_stage(config, run_dir, progress),
            "evaluate": lambda: stages.evaluate_stage(config, run_dir, progress),
            "report": lambda: stages.report_stage(run_dir),
        }[stage]

    def _completion_work(
        self, stage: str, wanted: str, progress: Progress
    ) -> Callable[[], StageOutput]:
        """The function that does a stage of a run that completes a graph."""
        from graphmert.run import stages
        from graphmert.run.completion import stages as completion
        from graphmert.run.completion.prepare import prepare_completion

        config, run_dir = self.config, self.run_dir
        return {
            "prepare": lambda: prepare_completion(config, run_dir, self.kg, self.body, progress),
            "train": lambda: completion.train_stage(config, run_dir, wanted, progress),
            "extract": lambda: completion.rank_stage(config, run_dir, progress),
            "evaluate": lambda: completion.evaluate_stage(config, run_dir),
            "report": lambda: stages.report_stage(run_dir),
        }[stage]

    def counts(self, stage: str) -> dict[str, Any]:
        """Counts of a finished stage."""
        return dict(self.manifest.stages.get(stage, {}).get("counts", {}))

    def results(self) -> dict[str, Any]:
        """What the user wants to see at the end."""
        found: dict[str, Any] = {}
        for stage in ("prepare", "train", "extract", "evaluate"):
            if counts := self.counts(stage):
                found[stage] = counts
        if "report" in self.manifest.stages:
            found["report"] = str(self.run_dir / "report.html")
        return found

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """What would be done, and how much work it is."""
        from graphmert.run.estimate import estimate

        state = {}
        fresh = False
        for name in names:
            done = not fresh and self._is_done(name)
            fresh = fresh or not done
            state[name] = "done" if done else "to do"
        return {"run": str(self.run_dir), "stages": state} | estimate(
            self.config, self.kg, self.corpus
        )

    def _is_done(self, name: str) -> bool:
        return self.manifest.is_done(name, self.fingerprint(name))


def demo(*, offline: bool, out: Path, progress: Progress | None = None) -> RunResult:
    """Run the demo; see `graphmert.run.demonstration`."""
    from graphmert.run.demonstration import run_demo

    return run_demo(offline=offline, out=out, progress=progress or Silent())
