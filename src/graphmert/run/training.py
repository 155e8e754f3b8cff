"""Train a run's encoder: network, batches and validation from the prepared tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from graphmert.batch import RelationNames
from graphmert.chain import LeafyChain
from graphmert.checkpoint import find_checkpoints
from graphmert.config import config_hash
from graphmert.feed import ChainFeed, NameTable
from graphmert.masking import MaskVocabulary
from graphmert.model import OBJECTIVES, GraphMERT, GraphMERTConfig
from graphmert.presets import FORMS, preset_config
from graphmert.pretrained import from_body
from graphmert.progress import Progress, Silent
from graphmert.run.losses import by_loss, loss_form_of
from graphmert.run.prepared import Prepared
from graphmert.run.settings import RunConfig, body_path
from graphmert.shards import (
    NO_SPACE_TEXT,
    atomic_write_json,
    atomic_write_text,
    disk_full,
    is_disk_full,
    move_files,
)
from graphmert.tokens import Tokenizer
from graphmert.train import TrainResult, train


def relation_names(prepared: Prepared, model: GraphMERTConfig | None = None) -> RelationNames:
    """The words of each relation as the model is given them: as tokens, or not at all."""
    takes = model is None or model.relation_names
    return _relation_words(prepared) if takes else RelationNames()


def _relation_words(prepared: Prepared) -> RelationNames:
    """The words of each relation as tokens; the hidden relation is one mask token."""
    encoded = prepared.tokenizer.encode_batch(list(prepared.relation_labels))
    words = tuple(tuple(int(i) for i in e.ids) for e in encoded)
    return RelationNames((*words, (prepared.tokenizer.mask_id,)))


def name_table(prepared: Prepared) -> NameTable:
    """Entity names as chains of tokens between the special tokens."""
    tokenizer = prepared.tokenizer
    return NameTable(
        tuple((tokenizer.cls_id, *tokens, tokenizer.sep_id) for tokens in prepared.name_tokens)
    )


def objectives(config: RunConfig) -> tuple[str, ...]:
    """The objectives that have a weight; all of them where no weight is given."""
    weights = config.train.weights
    return tuple(name for name in OBJECTIVES if not weights or weights.get(name, 0) > 0)


def build_model(config: RunConfig, prepared: Prepared) -> GraphMERT:
    """Make the network with random or pretrained weights; the seed fixes every draw."""
    torch.manual_seed(config.seed)
    names = _relation_words(prepared)
    changes = FORMS[config.model.form] | {
        "n_relations": len(prepared.relations),
        "objectives": objectives(config),
        "max_tail_tokens": config.text.max_tail_tokens,
        "max_name_tokens": max(len(name) for name in names.tokens),
        "max_span": config.masking.max_span,
        **config.model.changes,
    }
    return _network(config, prepared, changes)


def build_plain(config: RunConfig, prepared: Prepared, plain: Mapping[str, Any]) -> GraphMERT:
    """Make the same body without leaves, from the same start: random or pretrained weights."""
    torch.manual_seed(config.seed)
    return _network(config, prepared, FORMS["default"] | {**config.model.changes, **plain})


def _network(config: RunConfig, prepared: Prepared, changes: Mapping[str, Any]) -> GraphMERT:
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


@dataclass(frozen=True)
class Feeds:
    """Training and validation batches of a run."""

    train: ChainFeed
    valid: ChainFeed


def build_feeds(config: RunConfig, prepared: Prepared, model: GraphMERTConfig) -> Feeds:
    """Mask training chains; validation chains carry the validation heads' own triples."""
    chains = prepared.training_chains()
    valid = prepared.answered_chains("valid")
    batch_size = config.train.batch_size
    epoch = max(1, -(-len(chains) // batch_size))
    if config.train.total_steps is not None:
        n_steps = config.train.total_steps
    else:
        n_steps = max(1, int(-(-(config.train.epochs or 1) * epoch // 1)))
    n_valid = max(1, -(-len(valid) // batch_size))
    return Feeds(
        chain_feed(config, prepared, model, chains, n_steps=n_steps, seed=config.seed),
        chain_feed(
            config,
            prepared,
            model,
            valid,
            n_steps=n_valid,
            seed=config.seed + 1,
            known=("train", "valid"),
        ),
    )


def chain_feed(
    config: RunConfig,
    prepared: Prepared,
    model: GraphMERTConfig,
    chains: Sequence[LeafyChain],
    *,
    n_steps: int,
    seed: int,
    known: Sequence[str] = ("train",),
) -> ChainFeed:
    """Mask some chains of a run as its settings say.

    Args:
        known: parts of the seed whose tails are no negatives for one another; training knows of
            no held-out triple.
    """
    tokenizer = prepared.tokenizer
    return ChainFeed(
        chains,
        masking=config.masking,
        vocabulary=MaskVocabulary(
            mask_id=tokenizer.mask_id,
            special_ids=tokenizer.special_ids,
            ordinary_ids=tokenizer.ordinary_ids,
            n_relations=len(prepared.relations),
        ),
        relation_names=relation_names(prepared, model),
        names=name_table(prepared) if "entity" in model.objectives else None,
        known_tails=prepared.known_tails(*known),
        n_negatives=config.feed.n_negatives,
        isolated=model.leaf_visibility == "isolated",
        pad_id=tokenizer.pad_id,
        batch_size=config.train.batch_size,
        micro_batch_size=config.train.micro_batch_size,
        max_tokens_per_micro_batch=config.train.max_tokens_per_micro_batch,
        n_steps=n_steps,
        seed=seed,
    )


def train_run(
    config: RunConfig, prepared: Prepared, out_dir: Path, *, fingerprint: str, progress: Progress
) -> TrainResult:
    """Train and write `model/`: weights, configuration, tokenizer, relations, training.jsonl."""
    model = build_model(config, prepared)
    feeds = build_feeds(config, prepared, model.config)
    settings = by_loss(
        config.train,
        asked=objectives(config),
        known=OBJECTIVES,
        loss_form=loss_form_of(config.model.form, config.model.changes),
    )
    total = settings.n_steps(feeds.train)
    progress.begin("train", total=total, unit="updates")

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
    save_model(model, prepared, out_dir)
    progress.end()
    return result


def drop_stale_training(out_dir: Path, fingerprint: str, progress: Progress | None = None) -> None:
    """Keep the checkpoints of a folder if they fit; those of other inputs cannot be gone on from.

    The fingerprint of the folder's inputs is in `fingerprint.txt`.

    Args:
        progress: is told what is deleted, and why, before it is.
    """
    record = out_dir / "fingerprint.txt"
    fits = record.is_file() and record.read_text(encoding="utf-8") == fingerprint
    if out_dir.is_dir() and not fits:
        found = find_checkpoints(out_dir / "checkpoints")
        kept = f"checkpoints up to update {found[-1][0]}" if found else "no checkpoint"
        (progress or Silent()).message(
            f"deleting {out_dir} ({kept}): it was trained on other data, with other settings or by "
            "another version, and cannot be gone on from"
        )
        shutil.rmtree(out_dir)
    atomic_write_text(record, fingerprint)


def save_model(model: GraphMERT, prepared: Prepared, out_dir: Path) -> None:
    """Write a folder that `GraphMERT.from_pretrained` and the tokenizer can be loaded from."""
    relations = {
        name: {"index": i, "label": prepared.relation_labels[i]}
        for i, name in enumerate(prepared.relations)
    }
    write_model(model, prepared.tokenizer, relations, out_dir)


def write_model(
    model: GraphMERT, tokenizer: Tokenizer, relations: Mapping[str, Any], out_dir: Path
) -> None:
    """Write weights, configuration, tokenizer and relations so that they are whole or not there.

    They are written beside and moved in, `config.json` last: a folder that has one is whole.

    Raises:
        CapabilityError: the disk is full.
    """
    written = out_dir / ".model.tmp"
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir(parents=True)
    try:
        model.save_pretrained(written, safe_serialization=True)
        tokenizer.save(written)
        atomic_write_json(written / "relations.json", relations)
        move_files(written, out_dir, last="config.json")
    except SafetensorError as error:
        # The writer reports a full disk as text only.
        if NO_SPACE_TEXT in str(error):
            raise disk_full(out_dir / "model.safetensors", OSError(NO_SPACE_TEXT)) from error
        raise
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(out_dir, error) from error
        raise
    finally:
        shutil.rmtree(written, ignore_errors=True)


def read_relations(out_dir: Path) -> dict[str, int]:
    """Relation indices of a trained model."""
    text = (out_dir / "relations.json").read_text(encoding="utf-8")
    return {name: int(value["index"]) for name, value in json.loads(text).items()}
