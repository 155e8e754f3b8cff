"""The configuration of a run: one TOML file, every value checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from graphmert.config import Settings
from graphmert.domains.text.helper import HelperSettings
from graphmert.errors import CapabilityError, ConfigError
from graphmert.evaluate.judged import JudgeSettings
from graphmert.masking import MaskingConfig
from graphmert.recipe import TrainConfig

DATASET = "dataset:"
SAMPLE = "sample:"


class DataSettings(Settings):
    """Where the corpus, the seed KG and the pretrained body come from."""

    kg: str = Field(
        description="OBO file (.obo, .obo.gz); dataset:NAME for fetched data; sample:go for the "
        "sample inside the package"
    )
    corpus: Literal["definitions"] = Field(
        default="definitions",
        description="definitions: every term's name and definition is a document",
    )
    body: str = Field(
        default="",
        description="folder or hub id of a BERT or RoBERTa body, dataset:NAME, or empty to start "
        "from random weights",
    )


class SplitSettings(Settings):
    """Which heads are held out, before anything is injected."""

    n_valid_heads: int = Field(default=500, ge=1, description="heads for every choice")
    n_test_heads: int = Field(default=1000, ge=1, description="heads for the final scores only")
    seed: int = Field(default=0, ge=0, description="another seed holds out other heads")


class TextSettings(Settings):
    """How text becomes chains."""

    max_tokens: int = Field(
        default=126, ge=8, description="root tokens of a sequence, specials apart"
    )
    max_tail_tokens: int = Field(default=16, ge=1, description="longer tails go to the ledger")
    max_triples_per_chain: int = Field(
        default=32, ge=1, description="most triples injected in a chain"
    )
    inject: Literal["title", "all"] = Field(
        default="title",
        description="heads that receive triples: the term defined, or every mention",
    )


class ModelSettings(Settings):
    """The network: a preset for random weights or a body's shape, and what differs from it."""

    preset: str = Field(
        default="default", description="shape when there is no body: default, small, tiny"
    )
    vocab_size: int = Field(
        default=8000, ge=100, description="WordPiece vocabulary when there is no body"
    )
    form: Literal["default", "paper", "reference"] = Field(
        default="default", description="encoder form"
    )
    changes: dict[str, Any] = Field(
        default_factory=dict, description="fields of the model configuration that differ"
    )


class FeedSettings(Settings):
    """How training batches are made."""

    n_negatives: int = Field(
        default=96, ge=0, description="random entity names in every micro-batch"
    )


class ExtractSettings(Settings):
    """What is asked of which documents, and what is accepted."""

    token_scores: bool = Field(
        default=True,
        description="score names by MNM-leaf as well, if that helps on validation heads",
    )
    n_rule_queries: int = Field(
        default=200,
        ge=1,
        description="validation queries, even over relations, that choose its weight",
    )
    top_k: int = Field(default=5, ge=1, description="candidates kept for each query")
    target_precision: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="choose the threshold for this precision, not the best F1",
    )
    min_accepted: int = Field(
        default=1, ge=0, description="fewer accepted triples end with exit code 1"
    )
    n_formed: int = Field(
        default=0, ge=0, description="test triples whose tail is named by tokens alone"
    )
    helper: HelperSettings = HelperSettings()


class EvaluateSettings(Settings):
    """Baselines and intervals."""

    n_resamples: int = Field(default=1000, ge=10, description="bootstrap resamples, by head")
    body: str = Field(
        default="",
        description="frozen body of the baseline nearest name; empty: data.body, and where that "
        "is empty too, it is not measured",
    )
    bi_encoder_steps: int = Field(
        default=0,
        ge=0,
        description="baseline: updates of the run's own body, from its own start, as a "
        "bi-encoder; 0 leaves it out",
    )
    bi_encoder_batch: int = Field(
        default=32, ge=2, description="triples per update of the bi-encoder"
    )
    bi_encoder_negatives: int = Field(default=96, ge=0, description="its random names per update")
    bi_encoder_learning_rate: float = Field(
        default=3e-4, gt=0, description="its peak learning rate"
    )
    judge: JudgeSettings = JudgeSettings()


class RunConfig(Settings):
    """One run of the main job."""

    out: str = Field(description="run directory")
    seed: int = Field(default=0, ge=0, description="seed of weights, masking and batches")
    data: DataSettings
    split: SplitSettings = SplitSettings()
    text: TextSettings = TextSettings()
    model: ModelSettings = ModelSettings()
    masking: MaskingConfig = MaskingConfig()
    feed: FeedSettings = FeedSettings()
    train: TrainConfig = TrainConfig(epochs=1, warmup_steps=50, batch_size=32)
    extract: ExtractSettings = ExtractSettings()
    evaluate: EvaluateSettings = EvaluateSettings()


def kg_path(data: DataSettings) -> Path:
    """Resolve the KG's place to a file.

    Raises:
        CapabilityError: a data set that is not fetched yet.
        ConfigError: no such file.
    """
    if data.kg.startswith(SAMPLE):
        from importlib.resources import files

        path = Path(
            str(files("graphmert") / "data" / f"{data.kg.removeprefix(SAMPLE)}-sample.obo.gz")
        )
    elif data.kg.startswith(DATASET):
        folder = _fetched(data.kg.removeprefix(DATASET))
        found = sorted(folder.glob("*.obo"))
        path = found[0] if found else folder / "*.obo"
    else:
        path = Path(data.kg)
    if not path.is_file():
        raise ConfigError(
            "the seed KG does not exist", where="data.kg", got=data.kg, expected="an OBO file"
        )
    return path


def body_path(body: str) -> str | None:
    """Resolve a body to a folder or hub id; None where none is named.

    Raises:
        CapabilityError: a data set that is not fetched yet.
    """
    if body.startswith(DATASET):
        return str(_fetched(body.removeprefix(DATASET)))
    return body or None


def _fetched(name: str) -> Path:
    from graphmert import datasets

    if not datasets.is_fetched(datasets.find_dataset(name)):
        raise CapabilityError(
            "a data set is not on this machine, or damaged",
            where=f"dataset:{name}",
            expected=str(datasets.default_root() / name),
            fix=f"run: graphmert data fetch {name}",
        )
    return datasets.default_root() / name
