"""Train an encoder to complete a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from graphmert.batch import RelationNames
from graphmert.config import config_hash
from graphmert.errors import ConfigError
from graphmert.model import OBJECTIVES as ALL_OBJECTIVES
from graphmert.model import GraphMERT, GraphMERTConfig
from graphmert.presets import FORMS, preset_config
from graphmert.pretrained import from_body
from graphmert.progress import Progress
from graphmert.run.completion.prepared import Completion
from graphmert.run.losses import by_loss, loss_form_of
from graphmert.run.settings import RunConfig, body_path
from graphmert.run.training import write_model
from graphmert.train import TrainResult, train
from graphmert.walks import WalkFeed

OBJECTIVES = ("entity",)


def build_model(config: RunConfig, prepared: Completion) -> GraphMERT:
    """Make the network with random or pretrained weights; the seed fixes every draw."""
    torch.manual_seed(config.seed)
    words = prepared.relation_words()
    changes: dict[str, Any] = FORMS[config.model.form] | {
        "n_relations": 2 * len(prepared.relations),
        "objectives": OBJECTIVES,
        "max_tail_tokens": config.complete.max_leaf_tokens,
        "max_name_tokens": max(len(name) for name in words.tokens),
        "known_terms": True,
        **config.model.changes,
    }
    if changes.get("leaf_visibility", "isolated") != "isolated":
        raise ConfigError(
            "queries and candidates share chains, so queries must not be seen",
            where="model.changes.leaf_visibility",
            got=changes["leaf_visibility"],
            expected="isolated",
        )
    body = body_path(config.data.body)
    if body is not None:
        return from_body(body, **changes)
    tokenizer = prepared.tokenizer
    shape = {
        "n_positions": config.text.max_tokens + 2,
        "vocab_size": tokenizer.vocab_size,
        "pad_token_id": tokenizer.pad_id,
    }
    return GraphMERT(preset_config(config.model.preset, **{**shape, **changes}))


def words_for(prepared: Completion, model: GraphMERTConfig) -> RelationNames:
    """The words of relations where the model is given them."""
    return prepared.relation_words() if model.relation_names else RelationNames()


def build_feeds(
    config: RunConfig, prepared: Completion, model: GraphMERTConfig
) -> tuple[WalkFeed, WalkFeed]:
    """Walks over the training triples, and the validation triples one by one."""
    graph = prepared.graph("train")
    walks = config.complete.walks
    single = walks.model_copy(update={"walk_length": 1, "ask_rate": 0.0, "blind_share": 0.0})

    def feed(settings: Any, part: str, seed: int) -> WalkFeed:
        return WalkFeed(
            prepared.texts,
            graph,
            prepared.triples[part],
            settings=settings,
            batch_size=config.train.batch_size,
            seed=seed,
            relation_names=words_for(prepared, model),
        )

    return feed(walks, "train", config.seed), feed(single, "valid", config.seed + 1)


def train_completion(
    config: RunConfig, prepared: Completion, out_dir: Path, *, fingerprint: str, progress: Progress
) -> TrainResult:
    """Train and write `model/`: weights, configuration, tokenizer, relations, training.jsonl."""
    model = build_model(config, prepared)
    feed, valid = build_feeds(config, prepared, model.config)
    settings = by_loss(
        config.train.model_copy(update={"weights": {}}),
        asked=OBJECTIVES,
        known=ALL_OBJECTIVES,
        loss_form=loss_form_of(config.model.form, config.model.changes),
    )
    progress.begin("train", total=settings.n_steps(feed), unit="updates")
    result = train(
        model,
        feed,
        config=settings,
        out_dir=out_dir,
        eval_data=valid,
        fingerprint=f"{fingerprint}:{config_hash(config.model)}",
        on_progress=lambda step, of, line: progress.update(step, total=of),
    )
    names = (*prepared.relations, *(f"^{name}" for name in prepared.relations))
    relations = {
        name: {"index": place, "label": prepared.labels[place]} for place, name in enumerate(names)
    }
    write_model(model, prepared.tokenizer, relations, out_dir)
    progress.end()
    return result
