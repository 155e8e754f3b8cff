"""Sentence embedding models in the folder format of sentence-transformers.

A folder holds `modules.json`, a list of modules that are applied one after another: Transformer
(any encoder that transformers knows; of T5 only its encoder), Pooling (mean, cls, max or mean over
the root of the length), Dense and Normalize. Nothing in the folder is executed.

Shapes: B texts of a batch, S token places, D width of the body, C channels of the vectors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel
from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

from graphmert import datasets
from graphmert.errors import CapabilityError, FormatError
from graphmert.shards import sha256_file

DATASET = "dataset:"
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt",
}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda x: x,
    "Tanh": torch.tanh,
    "ReLU": torch.relu,
    "GELU": nn.functional.gelu,
}
_DEFAULT_MAX_TOKENS = 512
_CODE = (".md", ".py", ".ini", ".txt.lock")


def find_model(path_or_id: str | Path) -> Path:
    """Return the folder of a model: a folder, `dataset:NAME`, or a hub id in the local cache.

    Raises:
        CapabilityError: it is not on this machine, or is no sentence-transformers model.
    """
    text = str(path_or_id)
    if text.startswith(DATASET):
        folder = datasets.require(text.removeprefix(DATASET))
    elif Path(text).is_dir():
        folder = Path(text)
    else:
        folder = _cached(text)
    if not (folder / "modules.json").is_file():
        raise CapabilityError(
            "not a model in the format of sentence-transformers",
            where=text,
            expected="a folder with modules.json",
            fix="Give the folder that holds modules.json, config.json and the weights.",
        )
    return folder


def _cached(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise CapabilityError(
            "the embedding model could not be found",
            where=hub_id,
            expected="a folder, dataset:NAME, or a model id in the local hub cache",
            fix="Download the model first and give its folder.",
        ) from error


def model_sha256(folder: Path) -> str:
    """Return a hash of all files of a model that its vectors depend on."""
    digest = hashlib.sha256()
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        name = file.relative_to(folder).as_posix()
        if name == "SOURCE.json" or name.startswith(".") or name.endswith(_CODE):
            continue
        digest.update(f"{name}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Dense:
    weight: Tensor
    bias: Tensor | None
    activation: Callable[[Tensor], Tensor]

    def __call__(self, x_BD: Tensor) -> Tensor:
        return self.activation(nn.functional.linear(x_BD, self.weight, self.bias))


class SentenceModel:
    """Turn texts into vectors.

    Args:
        folder: the model's folder.
        precision: "bf16" or "fp32" for the body; pooling and what follows are float32.
        device: where it computes.
        max_tokens: texts are cut after so many tokens; at most the model's own number.

    Raises:
        CapabilityError: a module or a setting of a module that is not known here.
        FormatError: a file is missing or broken.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        precision: str = "bf16",
        device: str = "cpu",
        max_tokens: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        modules = _read_json(self.folder / "modules.json")
        kinds = [str(one["type"]).rpartition(".")[2] for one in modules]
        if kinds[:2] != ["Transformer", "Pooling"]:
            raise CapabilityError(
                "modules of the model are not supported in this order",
                where=str(self.folder / "modules.json"),
                got=", ".join(kinds),
                expected="Transformer, Pooling, then Dense and Normalize",
            )
        body_folder = self.folder / modules[0]["path"]
        self.device = torch.device(device)
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._body = _load_body(body_folder, self._dtype).to(self.device)
        self._tokenizer = AutoTokenizer.from_pretrained(str(body_folder), local_files_only=True)
        self._pooling = _read_pooling(self.folder / modules[1]["path"] / "config.json")
        self._rest = [
            _read_module(kind, self.folder / one["path"], self.device)
            for kind, one in zip(kinds[2:], modules[2:], strict=True)
        ]
        own = _own_max_tokens(body_folder, self._tokenizer, self._body.config)
        self.max_tokens = own if max_tokens is None else min(own, max_tokens)

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Return the token ids of each text, and how many texts were cut."""
        encoded = self._tokenizer(list(texts), add_special_tokens=True, truncation=False)
        ids: list[list[int]] = encoded["input_ids"]
        n_cut = sum(len(one) > self.max_tokens for one in ids)
        if not n_cut:
            return ids, 0
        cut = self._tokenizer(
            list(texts), add_special_tokens=True, truncation=True, max_length=self.max_tokens
        )
        return cut["input_ids"], n_cut

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, batch_tokens: int = 4096) -> tuple[NDArray, int]:
        """Return the vectors of texts, float32 (B, C), and how many texts were cut.

        Texts of like length are computed together; what is in a batch depends on the texts alone.
        """
        ids, n_cut = self.tokenize(texts)
        order = sorted(range(len(ids)), key=lambda index: (len(ids[index]), index))
        vectors: NDArray | None = None
        for batch in _batches(order, ids, batch_tokens):
            values = self._forward([ids[index] for index in batch]).cpu().numpy()
            if vectors is None:
                vectors = np.empty((len(ids), values.shape[1]), np.float32)
            vectors[batch] = values
        if vectors is None:
            raise FormatError("there is no text to embed", expected="at least one")
        return vectors, n_cut

    def _forward(self, ids: list[list[int]]) -> Tensor:
        longest = max(len(one) for one in ids)
        pad = self._tokenizer.pad_token_id or 0
        padded = [one + [pad] * (longest - len(one)) for one in ids]
        tokens_BS = torch.tensor(padded, device=self.device)
        lengths_B = torch.tensor([len(one) for one in ids], device=self.device)
        mask_BS = torch.arange(longest, device=self.device)[None] < lengths_B[:, None]
        states_BSD = self._body(
            input_ids=tokens_BS, attention_mask=mask_BS.long()
        ).last_hidden_state.float()
        x_BC = _pool(states_BSD, mask_BS, self._pooling)
        for module in self._rest:
            x_BC = module(x_BC)
        return x_BC


def _batches(order: list[int], ids: list[list[int]], batch_tokens: int) -> list[list[int]]:
    batches: list[list[int]] = [[]]
    for index in order:
        if batches[-1] and len(ids[index]) * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return [one for one in batches if one]


def _pool(states_BSD: Tensor, mask_BS: Tensor, poolings: Sequence[str]) -> Tensor:
    weight_BS1 = mask_BS[:, :, None].to(states_BSD.dtype)
    count_B1 = weight_BS1.sum(1).clamp(min=1)
    parts = []
    for pooling in poolings:
        if pooling == "cls":
            parts.append(states_BSD[:, 0])
        elif pooling == "max":
            hidden = states_BSD.masked_fill(~mask_BS[:, :, None], float("-inf"))
            parts.append(hidden.amax(1))
        else:
            total_BD = (states_BSD * weight_BS1).sum(1)
            parts.append(total_BD / (count_B1 if pooling == "mean" else count_B1.sqrt()))
    return torch.cat(parts, 1)


def _load_body(folder: Path, dtype: torch.dtype) -> nn.Module:
    was_shown = is_progress_bar_enabled()
    disable_progress_bar()  # ours is the one that counts
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        loader: Any = T5EncoderModel if config.model_type == "t5" else AutoModel
        model = loader.from_pretrained(
            str(folder), local_files_only=True, dtype=dtype, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(
            "the body of the embedding model cannot be read",
            where=str(folder),
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            expected="config.json and weights of an encoder that transformers knows",
        ) from error
    finally:
        if was_shown:
            enable_progress_bar()
    return model.eval().requires_grad_(False)


def _own_max_tokens(folder: Path, tokenizer: Any, config: Any) -> int:
    path = folder / "sentence_bert_config.json"
    own = _read_json(path).get("max_seq_length") if path.is_file() else None
    limits = [own, tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    known = [int(one) for one in limits if isinstance(one, int) and 0 < one < 1_000_000]
    return min(known, default=_DEFAULT_MAX_TOKENS)


def _read_pooling(path: Path) -> list[str]:
    config = _read_json(path)
    wanted = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
    unknown = [name for name in wanted if name not in _POOLINGS]
    if unknown or not wanted:
        raise CapabilityError(
            "the model pools in a way that is not supported",
            where=str(path),
            got=", ".join(unknown) or "no pooling mode",
            expected=", ".join(_POOLINGS),
        )
    return [_POOLINGS[name] for name in _POOLINGS if name in wanted]


def _read_module(kind: str, folder: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    if kind == "Normalize":
        return lambda x_BC: nn.functional.normalize(x_BC, dim=1)
    if kind != "Dense":
        raise CapabilityError(
            "a module of the model is not supported",
            where=str(folder),
            got=kind,
            expected="Transformer, Pooling, Dense, Normalize",
        )
    name = str(_read_json(folder / "config.json").get("activation_function", "Identity"))
    activation = _ACTIVATIONS.get(name.rpartition(".")[2])
    if activation is None:
        raise CapabilityError(
            "an activation of the model is not supported",
            where=str(folder / "config.json"),
            got=name,
            expected=", ".join(_ACTIVATIONS),
        )
    weights = _read_weights(folder)
    if "linear.weight" not in weights:
        raise FormatError(
            "the dense module lacks its weight", where=str(folder), expected="linear.weight"
        )
    bias = weights.get("linear.bias")
    return _Dense(
        weights["linear.weight"].float().to(device),
        None if bias is None else bias.float().to(device),
        activation,
    )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    if (folder / "model.safetensors").is_file():
        return load_file(folder / "model.safetensors")
    path = folder / "pytorch_model.bin"
    if not path.is_file():
        raise FormatError("weights not found", where=str(folder), expected="model.safetensors")
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(
            "file of the model is not readable", where=str(path), got=error
        ) from error
