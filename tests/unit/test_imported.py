"""Checkpoints of other next-vector programs: same outputs, clear refusals."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmert.errors import CheckpointError, ConfigError
from graphmert.forecast import Forecaster
from graphmert.forecast.imported import convert_lvm

DIM, LENGTH, HEADS = 8, 5, 2


class SourceLayer(nn.Module):
    """A post-LN layer in the usual words of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.ffn = nn.Sequential(nn.Linear(DIM, 12), nn.GELU(), nn.Dropout(0.1), nn.Linear(12, DIM))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, x, x, attn_mask=bias, need_weights=False)[0])
        return self.norm2(x + self.ffn(x))


class SourceLVM(nn.Module):
    """Five vectors, attention within two neighbours, mean pool, head."""

    def __init__(self) -> None:
        super().__init__()
        self.position_embeddings = nn.Parameter(torch.randn(1, LENGTH, DIM))
        self.layers = nn.ModuleList(SourceLayer() for _ in range(2))
        self.output_head = nn.Sequential(
            nn.Linear(DIM, DIM), nn.GELU(), nn.Dropout(0.1), nn.Linear(DIM, DIM)
        )
        self.decay_mask = nn.Module()
        self.decay_mask.threshold = nn.Parameter(torch.tensor(1.25))

    def forward(self, x: Tensor, *, soft: bool = False) -> Tensor:
        place = torch.arange(LENGTH)
        gap = (place[:, None] - place[None, :]).abs()
        bias = torch.zeros(LENGTH, LENGTH).masked_fill(gap > 2, -math.inf)
        if soft:
            bias = math.log(0.6) * F.gelu(gap.sqrt() - self.decay_mask.threshold)
        x = x + self.position_embeddings
        for layer in self.layers:
            x = layer(x, bias)
        return self.output_head(x.mean(1))


class SourceAMN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.key_proj, self.query_proj = nn.Linear(DIM, 4), nn.Linear(DIM, 4)
        self.residual_net = nn.Sequential(
            nn.Linear(2 * DIM, 6), nn.GELU(), nn.LayerNorm(6),
            nn.Linear(6, 5), nn.GELU(), nn.LayerNorm(5), nn.Linear(5, DIM),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1)
        score = (self.key_proj(x) * self.query_proj(mean)[:, None]).sum(-1) / 2
        mixed = (score.softmax(-1)[..., None] * x).sum(1)
        return mean + self.residual_net(torch.cat([mean, mixed], -1))


class SourceLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(DIM, 6, 2, batch_first=True)
        self.output_proj = nn.Linear(6, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_proj(self.lstm(x)[0][:, -1])


class SourceGRU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_proj, self.output_proj = nn.Linear(DIM, 6), nn.Linear(6, DIM)
        self.gru_layers = nn.ModuleList(nn.GRU(6, 6, batch_first=True) for _ in range(3))
        self.layer_norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_proj(x)
        for gru, norm in zip(self.gru_layers, self.layer_norms, strict=True):
            x = norm(x + gru(x)[0])
        return self.output_proj(x[:, -1])


class SourceTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_proj = nn.Linear(DIM, 6)
        self.pos_encoder = nn.Module()
        self.pos_encoder.register_buffer("pe", torch.randn(1, 100, 6))
        layer = nn.TransformerDecoderLayer(6, HEADS, 10, batch_first=True)
        self.transformer_decoder = nn.TransformerDecoder(layer, 2)
        self.head = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, DIM))

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_proj(x) + self.pos_encoder.pe[:, :LENGTH]
        hidden = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        x = self.transformer_decoder(x, x, tgt_mask=hidden, memory_mask=hidden)
        return self.head(x[:, -1])


SOURCES: dict[str, type[nn.Module]] = {
    "lvm-768d": SourceLVM,
    "amn": SourceAMN,
    "lstm": SourceLSTM,
    "gru": SourceGRU,
    "transformer": SourceTransformer,
}


def source(name: str) -> nn.Module:
    torch.manual_seed(3)
    model = SOURCES[name]().eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    return model


def contexts() -> Tensor:
    return torch.randn(3, LENGTH, DIM, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("wrapped", [True, False], ids=["wrapped", "bare"])
@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_converted_model_predicts_the_same(tmp_path: Path, name: str, wrapped: bool) -> None:
    model = source(name)
    state: dict[str, Any] = dict(model.state_dict())
    if wrapped:
        state = {f"module.{key}": tensor for key, tensor in state.items()}
        state = {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {}}}
    torch.save(state, tmp_path / "best_model.pt")
    found = convert_lvm(tmp_path / "best_model.pt", tmp_path / "out", n_attn_heads=HEADS)
    assert found["model"] == name
    assert found["ignored"] == (["epoch", "optimizer_state_dict"] if wrapped else [])
    with torch.no_grad():
        torch.testing.assert_close(Forecaster.load(tmp_path / "out")(contexts()), model(contexts()))
    if name == "lvm-768d":
        value = model.decay_mask.threshold.item()
        assert f"{value:.4f}" in found["left_out"]["threshold"]
        assert found["settings"]["band"] == 2


def test_our_decay_keeps_the_threshold(tmp_path: Path) -> None:
    model = source("lvm-768d")
    torch.save(model.state_dict(), tmp_path / "a.pt")
    convert_lvm(tmp_path / "a.pt", tmp_path / "out", decay="log_bias", n_attn_heads=HEADS)
    loaded = Forecaster.load(tmp_path / "out")
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(loaded(contexts()), model(contexts(), soft=True))


def test_other_spellings(tmp_path: Path) -> None:
    """Query, key and value apart, and the linear maps by name."""
    model, state = source("lvm-768d"), {}
    for name, tensor in model.state_dict().items():
        if "in_proj" in name:
            part = name.rsplit("_", 1)[1]
            for x, piece in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace(f"in_proj_{part}", f"{x}_proj.{part}")] = piece.clone()
        else:
            state[
                "encoder." * name.startswith("layers")
                + name.replace("ffn.0", "fc1").replace("ffn.3", "fc2").replace("norm", "ln")
            ] = tensor
    torch.save(state, tmp_path / "a.pt")
    convert_lvm(tmp_path / "a.pt", tmp_path / "out", n_attn_heads=HEADS)
    with torch.no_grad():
        torch.testing.assert_close(Forecaster.load(tmp_path / "out")(contexts()), model(contexts()))


def test_a_table_of_names(tmp_path: Path) -> None:
    model = source("lstm")
    state = {name.replace("output_proj", "to_vec"): t for name, t in model.state_dict().items()}
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"does not have.*to_vec.bias.*--names"):
        convert_lvm(tmp_path / "a.pt", tmp_path / "out")
    table = tmp_path / "names.toml"
    table.write_text('"to_vec.weight" = "output_proj.weight"\n"to_vec.bias" = "output_proj.bias"\n')
    convert_lvm(tmp_path / "a.pt", tmp_path / "out", names=table)
    table.write_text('"to_vek.weight" = "output_proj.weight"\n')
    with pytest.raises(ConfigError, match=r"lacks.*to_vek"):
        convert_lvm(tmp_path / "a.pt", tmp_path / "out2", names=table)


def refused(tmp_path: Path, state: object, words: str) -> None:
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match=words):
        convert_lvm(tmp_path / "bad.pt", tmp_path / "never", n_attn_heads=HEADS)
    assert not (tmp_path / "never").exists()


def test_bad_checkpoints_are_refused(tmp_path: Path) -> None:
    state = dict(source("lvm-768d").state_dict())
    first = "layers.0.norm1.weight"
    refused(tmp_path, {"args": argparse.Namespace(lr=1), "model": state}, "Python objects")
    refused(tmp_path, {k: v for k, v in state.items() if k != first}, "lacks a tensor.*attn_norm")
    refused(tmp_path, state | {first: torch.ones(9)}, r"another shape.*\(9,\)")
    refused(tmp_path, state | {first: torch.full((DIM,), math.nan)}, "not finite")
    refused(tmp_path, state | {"surplus": torch.ones(1)}, "does not have.*surplus")
    refused(tmp_path, {"state": 1}, "no tensors by name")
    refused(tmp_path, torch.ones(3), "no tensors by name")
    torch.save(state, tmp_path / "cut.pt")
    whole = (tmp_path / "cut.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        convert_lvm(tmp_path / "cut.pt", tmp_path / "never")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        convert_lvm(tmp_path / "absent.pt", tmp_path / "never")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ConfigError, match="the output exists"):
        convert_lvm(tmp_path / "cut.pt", tmp_path / "full")
