"""The configuration of a run: one TOML file, every value checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from graphmert.config import Settings
from graphmert.documents.records import CorpusSettings
from graphmert.domains.text.candidates import CandidateSettings
from graphmert.domains.text.embedding import LEXICAL, Embedder, load_embedder
from graphmert.domains.text.helper import HelperSettings
from graphmert.domains.text.linking import LinkSettings
from graphmert.domains.text.selection import SelectSettings
from graphmert.errors import CapabilityError, ConfigError
from graphmert.evaluate.judged import JudgeSettings
from graphmert.inject import InjectSettings
from graphmert.kg.reduce import ReduceSettings
from graphmert.masking import MaskingConfig
from graphmert.recipe import TrainConfig
from graphmert.run.completion.settings import CompleteSettings

DATASET = "dataset:"
SAMPLE = "sample:"
DEFINITIONS = "definitions"


class DataSettings(Settings):
    """Where the corpus, the seed KG and the pretrained body come from."""

    kg: str | tuple[str, ...] = Field(
        description="one source or a list: a file (.obo, .ttl, .nt, .rdf, .owl, .csv, .tsv, "
        ".jsonl, .json, .txt, also with .gz), a folder of rows, dataset:NAME for fetched data, "
        "sample:go for the sample inside the package"
    )
    corpus: str = Field(
        default="definitions",
        description="definitions: every term's name and definition is a document; else a file or "
        "folder of documents (.txt, .md, .jsonl, .csv, .tsv, .parquet, PubMed .xml, also with .gz) "
        "or dataset:NAME",
    )
    body: str = Field(
        default="",
        description="folder or hub id of a BERT or RoBERTa body, dataset:NAME, or empty to start "
        "from random weights",
    )


class KGSettings(Settings):
    """What the seed KG must keep to, and what of it is used."""

    schema_file: str = Field(
        default="",
        description="schema (TOML) with types, relations, aliases; empty: the one in the KG's "
        "folder, else inferred",
    )
    leave_out_relations: tuple[str, ...] = Field(
        default=(), description="relations that are no part of the seed"
    )


class EmbeddingSettings(Settings):
    """Sentence vectors for linking and for choosing triples."""

    model: str = Field(
        default="dataset:minilm-l6-384",
        description="folder or hub id of a sentence-embedding model, dataset:NAME, or lexical: "
        "letters and words only, no meaning",
    )
    max_tokens: int = Field(default=128, ge=8, description="longer texts are cut for it")
    precision: Literal["fp32", "bf16"] = Field(default="bf16", description="of its matrix products")
    cache: str = Field(
        default="", description="folder of vectors by hash; empty: beside the fetched data"
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


class CorpusExtractSettings(Settings):
    """Extraction from the whole corpus, wherever it names an entity."""

    enabled: bool = Field(
        default=False,
        description="ask wherever the corpus names an entity, not only at held-out heads",
    )
    places_per_head: int = Field(
        default=5, ge=0, description="sequences in which an entity is asked about; 0 is no limit"
    )
    relation_recall: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="share of the known (head, relation) pairs of validation heads that the choice "
        "of relations must keep; fewer questions the lower it is",
    )
    max_relations: int = Field(
        default=0, ge=0, description="most relations asked about at a place; 0 is no limit"
    )
    tails: Literal["entities", "sequence", "corpus"] = Field(
        default="entities",
        description="candidate tails: known entities; sequence: also unlinked candidates that "
        "stand in the sequence; corpus: also all others of the corpus",
    )
    min_phrase_count: int = Field(
        default=2, ge=1, description="occurrences of an unlinked candidate that may be a tail"
    )
    min_novel_examples: int = Field(
        default=50,
        ge=1,
        description="correct validation examples needed to accept tails beyond the seed at all",
    )
    beta: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="least cosine of a triple's words and its sequence, by embedding.model; "
        "not set: no such filter",
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
    calibration: Literal["isotonic", "temperature"] = Field(
        default="isotonic", description="what turns scores into probabilities"
    )
    sweep: bool = Field(
        default=False,
        description="keep precision and recall of validation heads at every threshold",
    )
    corpus: CorpusExtractSettings = CorpusExtractSettings()
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
    n_workers: int = Field(
        default=1,
        ge=1,
        description="processes that prepare a corpus; changes no result and is not recorded",
    )
    data: DataSettings
    kg: KGSettings = KGSettings()
    corpus: CorpusSettings = CorpusSettings()
    candidates: CandidateSettings = CandidateSettings()
    link: LinkSettings = LinkSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    select: SelectSettings = SelectSettings()
    inject: InjectSettings = InjectSettings()
    split: SplitSettings = SplitSettings()
    reduce: ReduceSettings = ReduceSettings()
    text: TextSettings = TextSettings()
    model: ModelSettings = ModelSettings()
    masking: MaskingConfig = MaskingConfig()
    feed: FeedSettings = FeedSettings()
    train: TrainConfig = TrainConfig(epochs=1, warmup_steps=50, batch_size=32)
    extract: ExtractSettings = ExtractSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    complete: CompleteSettings = CompleteSettings()


def require_runnable(config: RunConfig) -> None:
    """Refuse settings that would end in an error only after a training.

    Raises:
        ConfigError: names the setting.
    """
    parted = config.train.micro_batch_size or config.train.max_tokens_per_micro_batch
    if config.complete.is_on and parted:
        raise ConfigError(
            "the chains of an update are candidates for one another and cannot be parted",
            where="train.micro_batch_size",
            fix="Leave it out; lower train.batch_size.",
        )
    corpus = config.extract.corpus
    if config.data.corpus == DEFINITIONS and corpus.enabled and corpus.tails != "entities":
        raise ConfigError(
            "tails beyond the seed need candidate entities, which definitions have not",
            where="extract.corpus.tails",
            got=corpus.tails,
            expected="entities",
            fix="Give documents as data.corpus, or set extract.corpus.tails to entities.",
        )
    if config.complete.is_on and config.evaluate.bi_encoder_steps:
        raise ConfigError(
            "the bi-encoder is no baseline of completing a graph",
            where="evaluate.bi_encoder_steps",
            got=config.evaluate.bi_encoder_steps,
            expected="0",
        )


def kg_paths(data: DataSettings) -> list[Path]:
    """Resolve the places of the KG's sources to files and folders.

    Raises:
        CapabilityError: a data set that is not fetched yet.
        ConfigError: no such file or folder.
    """
    sources = [data.kg] if isinstance(data.kg, str) else list(data.kg)
    if not sources:
        raise ConfigError("no seed KG is named", where="data.kg", expected="at least one source")
    return [kg_source(one) for one in sources]


def kg_path(data: DataSettings) -> Path:
    """Resolve the KG's place where it has one source.

    Raises:
        CapabilityError: a data set that is not fetched yet.
        ConfigError: no such file, or several sources.
    """
    paths = kg_paths(data)
    if len(paths) != 1:
        raise ConfigError("one seed KG is wanted", where="data.kg", got=len(paths), expected=1)
    return paths[0]


def kg_source(source: str) -> Path:
    """Resolve one source of a KG: sample:NAME, dataset:NAME, a file, a folder.

    Raises:
        CapabilityError: a data set that is not fetched yet.
        ConfigError: no such file or folder.
    """
    if source.startswith(SAMPLE):
        from importlib.resources import files

        name = source.removeprefix(SAMPLE)
        path = Path(str(files("graphmert") / "data" / f"{name}-sample.obo.gz"))
    elif source.startswith(DATASET):
        folder = _fetched(source.removeprefix(DATASET))
        found = sorted(one for one in folder.iterdir() if one.suffix in (".obo", ".json"))
        found = [one for one in found if one.name != "SOURCE.json"]
        found = found or sorted(folder.rglob("*.tar.gz"))
        path = found[0] if found else folder / "*.obo"
    else:
        path = Path(source)
    if not path.exists():
        raise ConfigError(
            "the seed KG does not exist",
            where="data.kg",
            got=source,
            expected="an OBO file, another file of a KG, or a folder of rows",
        )
    return path


def corpus_path(data: DataSettings) -> Path | None:
    """Resolve the corpus to a file or folder; None where it is the KG's definitions.

    Raises:
        CapabilityError: a data set that is not fetched yet.
        ConfigError: no such file or folder.
    """
    if data.corpus == DEFINITIONS:
        return None
    if data.corpus.startswith(DATASET):
        return _fetched(data.corpus.removeprefix(DATASET))
    path = Path(data.corpus)
    if not path.exists():
        raise ConfigError(
            "the corpus does not exist",
            where="data.corpus",
            got=data.corpus,
            expected=f"a file or folder of documents, dataset:NAME, or {DEFINITIONS}",
        )
    return path


def embedding_cache(settings: EmbeddingSettings) -> Path:
    """Return the folder that keeps vectors by hash."""
    from graphmert import datasets

    if settings.cache:
        return Path(settings.cache)
    return datasets.default_root().parent / "embeddings"


def open_embedder(settings: EmbeddingSettings) -> Embedder:
    """Load the embedding model of a run; the lexical one only where it is named.

    Raises:
        CapabilityError: the model is neither a folder nor in the local hub cache.
    """
    model = settings.model
    return load_embedder(
        model if model == LEXICAL else str(body_path(model)),
        cache=embedding_cache(settings),
        max_tokens=settings.max_tokens,
        precision=settings.precision,
    )


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
