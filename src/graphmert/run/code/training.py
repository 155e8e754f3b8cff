"""Train a code encoder: network, batches and validation from the prepared index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graphmert.batch import RelationNames
from graphmert.chain import LeafyChain
from graphmert.config import config_hash
from graphmert.constraints import REGULARISERS
from graphmert.domains.code.rules import entity_types
from graphmert.feed import ChainFeed
from graphmert.masking import MaskingConfig
from graphmert.model import OBJECTIVES, GraphMERT, GraphMERTConfig
from graphmert.presets import FORMS, PRESETS, preset_config
from graphmert.pretrained import from_body
from graphmert.processes import is_main_process
from graphmert.progress import Progress
from graphmert.run.checking import check_network, check_objectives
from graphmert.run.code.prepared import CodePrepared
from graphmert.run.code.settings import CodeRunConfig
from graphmert.run.losses import by_loss, loss_form_of
from graphmert.run.training import write_model
from graphmert.train import TrainResult, train

KNOWN = (*OBJECTIVES, *REGULARISERS)


def check_settings(config: CodeRunConfig) -> None:
    """Check what the settings' types leave open (preset, changed fields, objectives).

    Raises:
        ConfigError: something unknown; names the nearest.
    """
    presets = [name for name in PRESETS if name in FORMS]
    preset = config.model.preset
    form = check_network(preset, preset, config.model.changes, presets=presets)
    check_objectives(config.train, KNOWN, form)


def asked_objectives(config: CodeRunConfig) -> tuple[str, ...]:
    """The objectives that have a weight, or those of the preset where no weight is given."""
    weights = config.train.weights
    if not weights:
        return tuple(PRESETS[config.model.preset].get("objectives", OBJECTIVES))
    return tuple(n for n in KNOWN if weights.get(n, 0) > 0)


def build_model(config: CodeRunConfig, prepared: CodePrepared, body: str | None) -> GraphMERT:
    """Make the network with random or pretrained weights; the seed fixes every draw."""
    torch.manual_seed(config.seed)
    words = prepared.relation_words.tokens
    changes: dict[str, Any] = {
        "n_relations": len(prepared.vocabulary.relations),
        "n_entity_types": len(entity_types()),
        "objectives": asked_objectives(config),
        "max_tail_tokens": config.chains.max_tail_tokens,
        "max_name_tokens": max(len(name) for name in words),
        "max_span": config.masking.max_span,
    }
    form = config.model.preset
    if body is not None:
        return from_body(body, **(FORMS[form] | changes | config.model.changes))
    tokenizer = prepared.tokenizer
    shape = {
        "vocab_size": tokenizer.vocab_size,
        "pad_token_id": tokenizer.pad_id,
        "n_positions": max(config.chains.max_roots, config.tune.max_roots),
    }
    return GraphMERT(preset_config(form, **(shape | changes | config.model.changes)))


def words_for(prepared: CodePrepared, model: GraphMERTConfig) -> RelationNames:
    """The words of relations where the model is given them."""
    return prepared.relation_words if model.relation_names else RelationNames()


@dataclass(frozen=True)
class Feeds:
    """Training and validation batches of a run."""

    train: ChainFeed
    valid: ChainFeed


def build_feeds(config: CodeRunConfig, prepared: CodePrepared, model: GraphMERTConfig) -> Feeds:
    """Mask training chains, and the chains of the validation packages for the losses."""
    chains = prepared.chains["train"]
    batch_size = config.train.batch_size
    if config.train.total_steps is not None:
        n_steps = config.train.total_steps
    else:
        epoch = -(-len(chains) // batch_size)
        n_steps = max(1, int(-(-(config.train.epochs or 1) * epoch // 1)))
    return Feeds(
        make_feed(config, prepared, model, chains, n_steps=n_steps, training=True),
        valid_feed(config, prepared, model, "valid"),
    )


def valid_feed(
    config: CodeRunConfig,
    prepared: CodePrepared,
    model: GraphMERTConfig,
    part: str,
    masking: MaskingConfig | None = None,
) -> ChainFeed:
    """Every chain of a part once, masked once and for all."""
    chains = prepared.chains[part]
    n_steps = max(1, -(-len(chains) // config.train.batch_size))
    return make_feed(
        config, prepared, model, chains, n_steps=n_steps, training=False, masking=masking
    )


def make_feed(
    config: CodeRunConfig,
    prepared: CodePrepared,
    model: GraphMERTConfig,
    chains: Sequence[LeafyChain],
    *,
    n_steps: int,
    training: bool,
    masking: MaskingConfig | None = None,
) -> ChainFeed:
    """Batches of chains; only training has a curriculum, triples to constrain, and its names."""
    asked = set(model.objectives)
    names = prepared.training_names if training else prepared.names
    return ChainFeed(
        chains,
        masking=masking or config.masking,
        vocabulary=prepared.mask_vocabulary,
        relation_names=words_for(prepared, model),
        names=names if "entity" in asked else None,
        known_tails=prepared.known_tails(*(("train",) if training else ("valid", "test"))),
        n_negatives=config.feed.n_negatives,
        isolated=model.leaf_visibility == "isolated",
        pad_id=prepared.tokenizer.pad_id,
        batch_size=config.train.batch_size,
        micro_batch_size=config.train.micro_batch_size,
        max_tokens_per_micro_batch=config.train.max_tokens_per_micro_batch,
        n_steps=n_steps,
        seed=config.seed + (not training),
        curriculum=config.train.length_curriculum if training else (),
        facts=prepared.facts("train") if training and asked & set(REGULARISERS) else None,
    )


def train_code(
    config: CodeRunConfig,
    prepared: CodePrepared,
    out_dir: Path,
    *,
    body: str | None,
    fingerprint: str,
    progress: Progress,
) -> TrainResult:
    """Train and write `model/`: weights, configuration, tokenizer, relations, training.jsonl."""
    model = build_model(config, prepared, body)
    feeds = build_feeds(config, prepared, model.config)
    settings = by_loss(
        config.train,
        asked=asked_objectives(config) if config.train.weights else (),
        known=KNOWN,
        loss_form=loss_form_of(config.model.preset, config.model.changes),
    )
    if config.checkpoint_epochs is not None:
        every = max(1, round(config.checkpoint_epochs * feeds.train.steps_per_epoch))
        settings = settings.model_copy(update={"checkpoint_every": every})
    progress.begin("train", total=settings.n_steps(feeds.train), unit="updates")

    def report(step: int, of: int, line: object) -> None:
        progress.update(step, total=of)

    result = train(
        model,
        feeds.train,
        config=settings,
        out_dir=out_dir,
        eval_data=feeds.valid,
        fingerprint=f"{fingerprint}:{config_hash(config.model)}:{config_hash(config.masking)}",
        on_progress=report,
    )
    if is_main_process():
        save_code_model(model, prepared, out_dir)
    progress.end()
    return result


def save_code_model(model: GraphMERT, prepared: CodePrepared, out_dir: Path) -> None:
    """Write a folder that `GraphMERT.from_pretrained` and the tokenizer can be loaded from."""
    relations = {name: {"index": i} for i, name in enumerate(prepared.vocabulary.relations)}
    write_model(model, prepared.tokenizer, relations, out_dir)
