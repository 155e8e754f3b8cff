"""The configuration of a code run: one TOML file, every value checked before anything starts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from graphmert.config import Settings
from graphmert.domains.code.chains import ChainSettings
from graphmert.masking import MaskingConfig
from graphmert.recipe import TrainConfig

Part = Literal["valid", "test"]


class CodeDataSettings(Settings):
    """Where the index and the pretrained body come from."""

    index: str = Field(description="run directory that `graphmert code index` wrote")
    profile: Literal["graphmer-se", "codebert", "all"] = Field(
        default="graphmer-se", description="which relations are seen, and under which names"
    )
    min_score: float = Field(
        default=0.5, ge=0, le=1, description="triples below this confidence are left out"
    )
    body: str = Field(
        default="",
        description="folder or hub id of a RoBERTa body; empty: random weights and a byte-level "
        "BPE vocabulary trained on the training packages",
    )
    vocab_size: int = Field(default=8000, ge=300, description="BPE vocabulary without a body")


class CodeSplitSettings(Settings):
    """Which packages are held out."""

    valid_packages: tuple[str, ...] = Field(default=(), description="packages for every choice")
    test_packages: tuple[str, ...] = Field(
        default=(), description="packages for the scores; none named: chosen for each language"
    )
    seed: int = Field(default=0, ge=0, description="of the choice where none is named")
    near_duplicate: float = Field(
        default=0.8, gt=0, le=1, description="Jaccard similarity from which samples are equal"
    )


class CodeModelSettings(Settings):
    """The network: a preset, and what differs from it."""

    preset: str = Field(default="graphmer-se", description="graphmer-se or codebert")
    changes: dict[str, Any] = Field(
        default_factory=dict, description="fields of the model configuration that differ"
    )


class CodeFeedSettings(Settings):
    """How training batches are made."""

    n_negatives: int = Field(
        default=96, ge=0, description="random entity names in every micro-batch"
    )
    n_facts: int = Field(
        default=32, ge=1, description="triples of the regularisers in every micro-batch"
    )


class TuneSettings(Settings):
    """Fine-tuning for code search: docstrings against the code they were cut from."""

    steps: int = Field(default=0, ge=0, description="updates; 0 leaves the fine-tuning out")
    batch_size: int = Field(default=32, ge=2, description="pairs of an update")
    micro_batch_size: int | None = Field(
        default=None,
        ge=2,
        description="pairs told from each other in one forward pass; all of an update when not "
        "set, and then only one process of several has work",
    )
    learning_rate: float = Field(default=2e-4, gt=0, description="peak")
    warmup_steps: int = Field(default=20, ge=0, description="updates of linear warm-up")
    max_roots: int = Field(default=160, ge=8, description="roots of a function's chain")
    max_query_tokens: int = Field(default=48, ge=4, description="tokens of a docstring")
    empty_graph_share: float = Field(
        default=0.25, ge=0, le=1, description="functions shown without leaves"
    )


class CodeEvaluateSettings(Settings):
    """What is measured, and on how much."""

    part: Part = Field(default="test", description="the packages that are measured")
    n_link_queries: int = Field(
        default=100, ge=1, description="held-out triples asked for, at most, of each relation"
    )
    hidden_share: float = Field(
        default=0.2, gt=0, lt=1, description="share of a package's triples that is held out"
    )
    n_call_sites: int = Field(default=400, ge=1, description="ambiguous call sites asked about")
    n_functions: int = Field(
        default=150, ge=1, description="functions whose hidden calls are completed"
    )
    n_search: int = Field(default=1000, ge=1, description="docstrings asked, at most")
    kge_epochs: int = Field(
        default=100, ge=0, description="epochs of TransE, ComplEx, RotatE, at most; 0: left out"
    )
    kge_patience: int = Field(
        default=5, ge=1, description="they stop after so many without a better validation MRR"
    )
    kge_widths: tuple[Annotated[int, Field(ge=2, multiple_of=2)], ...] = Field(
        default=(64, 128), min_length=1, description="widths that validation chooses from"
    )
    kge_learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.05, 0.2), min_length=1, description="Adagrad's, that validation chooses from"
    )
    n_resamples: int = Field(default=200, ge=10, description="bootstrap resamples, by head")
    truth: str = Field(
        default="",
        description="JSON lines of call sites with known targets (doc_id, start, target_id), "
        "from tracing; empty: the sites that the index resolved",
    )


class CodeRunConfig(Settings):
    """One run of the code domain: training and evaluation."""

    out: str = Field(description="run directory")
    seed: int = Field(default=0, ge=0, description="seed of weights, masking and batches")
    data: CodeDataSettings
    split: CodeSplitSettings = CodeSplitSettings()
    chains: ChainSettings = ChainSettings()
    model: CodeModelSettings = CodeModelSettings()
    masking: MaskingConfig = MaskingConfig(mention_rate=1.0, facts="pair")
    feed: CodeFeedSettings = CodeFeedSettings()
    train: TrainConfig = TrainConfig(total_steps=1000, warmup_steps=400, batch_size=128)
    checkpoint_epochs: float | None = Field(
        default=None, gt=0, description="epochs between checkpoints, in place of train's updates"
    )
    tune: TuneSettings = TuneSettings()
    evaluate: CodeEvaluateSettings = CodeEvaluateSettings()
