"""Pretrained models as files: from a folder or the local hub cache, and a hash of what counts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from graphmert.errors import CapabilityError, FormatError
from graphmert.shards import sha256_file

WEIGHTS = "model.safetensors"
_OTHER_WEIGHTS = (
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
POOLING = "1_Pooling/config.json"


def pretrained_files(model: str | Path, *, what: str = "model") -> dict[str, Path]:
    """Find what a model's results depend on: configuration, weights, tokenizer, pooling.

    Args:
        model: a folder, or a hub id, which is looked up in the local cache alone.
        what: the model in words, for the error.

    Returns:
        Paths by name; the parts of weights that are in several files, too.

    Raises:
        CapabilityError: there is no such folder or cached model, or it lacks configuration,
            weights or tokenizer.
        FormatError: the list of the parts of the weights is damaged.
    """
    found = {name: path for name in ("config.json", POOLING) if (path := _find(model, name))}
    tokenizer = {name: path for name in _TOKENIZER if (path := _find(model, name))}
    weights: dict[str, Path] = {}
    for name in (WEIGHTS, *_OTHER_WEIGHTS):
        if WEIGHTS not in weights and (path := _find(model, name)):
            weights[name] = path
    parts = [one for name, path in weights.items() if name.endswith(".index.json")
             for one in _parts(path)]  # fmt: skip
    weights |= {name: path for name in parts if (path := _find(model, name))}
    lacking = ["configuration"] * ("config.json" not in found)
    lacking += ["weights"] * (not weights or not weights.keys() >= set(parts))
    lacking += ["tokenizer"] * (not tokenizer)
    if lacking:
        raise CapabilityError(
            f"the {what} could not be found",
            where=str(model),
            got=f"no {', no '.join(lacking)}",
            expected="a folder with config.json, weights (model.safetensors or pytorch_model.bin) "
            "and tokenizer, or a model id in the local hub cache",
            fix="Fetch it first and give its folder.",
        )
    return found | tokenizer | weights


def hash_pretrained(model: str | Path, *, what: str = "model") -> str:
    """Return a hash of the names and contents of `pretrained_files`.

    The place does not count: a folder and the same model in the hub cache have the same hash.
    """
    digest = hashlib.sha256()
    for name, path in sorted(pretrained_files(model, what=what).items()):
        digest.update(f"{name}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _find(model: str | Path, name: str) -> Path | None:
    folder = Path(model)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from transformers.utils.hub import cached_file

    try:
        found = cached_file(
            str(model),
            name,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):  # not the form of a hub id, or never cached
        return None
    return None if found is None else Path(found)


def _parts(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            "not a list of the parts of weights",
            where=str(index),
            got=f"{type(error).__name__}: {error}",
            expected="JSON with a table weight_map",
        ) from error
