"""Next-vector networks: AMN, LSTM, GRU, Transformer, and GraphMERT-LVM on the core encoder.

Each maps a context of W vectors to one vector, `forward(contexts_BWC) -> raw (B, C)`.
Legend: B batch, W window, C channels, D width, K key width.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from graphmert.batch import ChainBatch, text_batch
from graphmert.config import Settings
from graphmert.model import GraphMERT, GraphMERTConfig
from graphmert.objectives import root_mean

_DIM = Field(default=768, ge=1, description="Channels of the vectors.")
_N_POSITIONS = 100


class AMNSettings(Settings):
    """Attention mixture network."""

    kind: Literal["amn"] = "amn"
    dim: int = _DIM
    key_width: int = Field(default=256, ge=1, description="Width of keys and query.")
    hidden: tuple[int, int] = Field(default=(512, 256), description="Widths of the residual net.")


class LSTMSettings(Settings):
    """LSTM over the context."""

    kind: Literal["lstm"] = "lstm"
    dim: int = _DIM
    width: int = Field(default=512, ge=1, description="Width of the state.")
    n_layers: int = Field(default=2, ge=1, description="Layers.")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="Between layers.")


class GRUSettings(Settings):
    """Residual GRU layers over the context."""

    kind: Literal["gru"] = "gru"
    dim: int = _DIM
    width: int = Field(default=512, ge=1, description="Width of the state.")
    n_layers: int = Field(default=4, ge=1, description="Layers.")


class TransformerSettings(Settings):
    """Causal transformer decoder layers over the context."""

    kind: Literal["transformer"] = "transformer"
    dim: int = _DIM
    width: int = Field(default=512, ge=2, description="Width of the layers.")
    n_layers: int = Field(default=4, ge=1, description="Layers.")
    n_attn_heads: int = Field(default=8, ge=1, description="Attention heads.")
    ffn_width: int = Field(default=2048, ge=1, description="Width of the feed-forward networks.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Of the layers.")

    @model_validator(mode="after")
    def _divides(self) -> TransformerSettings:
        if self.width % self.n_attn_heads or self.width % 2:
            raise ValueError("width is a multiple of n_attn_heads and of 2")
        return self


class LVMSettings(Settings):
    """GraphMERT-LVM: the core encoder over vectors, without leaves."""

    kind: Literal["lvm"] = "lvm"
    dim: int = _DIM
    length: int = Field(default=5, ge=1, description="Vectors of a context.")
    width: int | None = Field(
        default=None, ge=1, description="Width of the layers, dim when not set; else projected."
    )
    n_layers: int = Field(default=12, ge=1, description="Layers.")
    n_attn_heads: int = Field(default=8, ge=1, description="Attention heads.")
    ffn_width: int = Field(default=2048, ge=1, description="Width of the feed-forward networks.")
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="Of attention weights, attention output and head."
    )
    decay: Literal["log_bias", "none"] = Field(
        default="log_bias", description="Whether distance weakens attention, with a threshold p."
    )
    decay_base: float = Field(default=0.6, gt=0, le=1, description="Lambda of the decay.")
    band: int | None = Field(
        default=None, ge=0, description="Attend to so many neighbours on each side only."
    )

    @property
    def encoder_width(self) -> int:
        """Width of the layers."""
        return self.dim if self.width is None else self.width

    @model_validator(mode="after")
    def _divides(self) -> LVMSettings:
        if self.encoder_width % self.n_attn_heads:
            raise ValueError("width (or dim) is a multiple of n_attn_heads")
        return self


NetworkSettings = Annotated[
    AMNSettings | LSTMSettings | GRUSettings | TransformerSettings | LVMSettings,
    Field(discriminator="kind"),
]


class AMN(nn.Module):
    """Mix the context by attention from its mean, and add a residual to the mean.

    b = mean_w x_w;  a = softmax_w((W_q b) . (W_k x_w) / sqrt(K));  c = sum_w a_w x_w;
    raw = b + net([b ; c]). The order of the context does not matter.

    Checked by: tests/golden/test_forecast.py
    """

    def __init__(self, settings: AMNSettings) -> None:
        super().__init__()
        s, (first, second) = settings, settings.hidden
        self.key = nn.Linear(s.dim, s.key_width)
        self.query = nn.Linear(s.dim, s.key_width)
        self.residual = nn.Sequential(
            nn.Linear(2 * s.dim, first), nn.GELU(), nn.LayerNorm(first),
            nn.Linear(first, second), nn.GELU(), nn.LayerNorm(second),
            nn.Linear(second, s.dim),
        )  # fmt: skip

    def forward(self, contexts_BWC: Tensor) -> Tensor:
        """Predict the next vector, (B, C)."""
        mean_BC = contexts_BWC.mean(1)
        key_BWK, query_BK = self.key(contexts_BWC), self.query(mean_BC)
        score_BW = torch.einsum("bwk,bk->bw", key_BWK, query_BK) * query_BK.shape[-1] ** -0.5
        mixed_BC = torch.einsum("bw,bwc->bc", score_BW.softmax(-1), contexts_BWC)
        return mean_BC + self.residual(torch.cat([mean_BC, mixed_BC.to(mean_BC.dtype)], dim=-1))


class LSTM(nn.Module):
    """LSTM layers; the last step, projected.

    Checked by: tests/unit/test_forecast.py
    """

    def __init__(self, settings: LSTMSettings) -> None:
        super().__init__()
        s = settings
        between = s.dropout if s.n_layers > 1 else 0.0
        self.lstm = nn.LSTM(s.dim, s.width, s.n_layers, batch_first=True, dropout=between)
        self.out = nn.Linear(s.width, s.dim)

    def forward(self, contexts_BWC: Tensor) -> Tensor:
        """Predict the next vector, (B, C)."""
        states_BWD, _ = self.lstm(contexts_BWC)
        return self.out(states_BWD[:, -1])


class GRU(nn.Module):
    """x = W x; layer by layer x = LN(x + gru(x)); the last step, projected.

    Checked by: tests/golden/test_forecast.py
    """

    def __init__(self, settings: GRUSettings) -> None:
        super().__init__()
        s = settings
        self.into = nn.Linear(s.dim, s.width)
        self.grus = nn.ModuleList(
            nn.GRU(s.width, s.width, batch_first=True) for _ in range(s.n_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(s.width) for _ in range(s.n_layers))
        self.out = nn.Linear(s.width, s.dim)

    def forward(self, contexts_BWC: Tensor) -> Tensor:
        """Predict the next vector, (B, C)."""
        x_BWD = self.into(contexts_BWC)
        for gru, norm in zip(self.grus, self.norms, strict=True):
            states_BWD, _ = gru(x_BWD)
            x_BWD = norm(x_BWD + states_BWD)
        return self.out(x_BWD[:, -1])


def sinusoids(n_positions: int, width: int) -> Tensor:
    """Return sin(i / 10000^(2k/D)) and cos in turn, float32 (n_positions, D)."""
    place_N1 = torch.arange(n_positions, dtype=torch.float32)[:, None]
    rate_K = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    table_ND = torch.empty(n_positions, width)
    table_ND[:, 0::2] = torch.sin(place_N1 * rate_K)
    table_ND[:, 1::2] = torch.cos(place_N1 * rate_K)
    return table_ND


class Transformer(nn.Module):
    """Causal decoder layers over x = W x + sinusoids, with x as target and as memory.

    The table of 100 positions is a buffer that is saved; the size that is often quoted counts it.

    Checked by: tests/unit/test_forecast.py
    """

    table_1ND: Tensor

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        s = settings
        self.into = nn.Linear(s.dim, s.width)
        self.register_buffer("table_1ND", sinusoids(_N_POSITIONS, s.width)[None])
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                s.width, s.n_attn_heads, s.ffn_width, dropout=s.dropout, batch_first=True
            )
            for _ in range(s.n_layers)
        )
        self.head = nn.Sequential(
            nn.Linear(s.width, s.width), nn.GELU(), nn.LayerNorm(s.width), nn.Linear(s.width, s.dim)
        )

    def forward(self, contexts_BWC: Tensor) -> Tensor:
        """Predict the next vector, (B, C)."""
        n = contexts_BWC.shape[1]
        memory_BWD = self.into(contexts_BWC)
        memory_BWD = memory_BWD + self.table_1ND[:, :n].to(memory_BWD.dtype)
        hidden_WW = torch.ones(n, n, dtype=torch.bool, device=memory_BWD.device).triu(1)
        x_BWD = memory_BWD
        for layer in self.layers:
            x_BWD = layer(x_BWD, memory_BWD, tgt_mask=hidden_WW, memory_mask=hidden_WW)
        return self.head(x_BWD[:, -1])


def lvm_config(settings: LVMSettings, **changes: object) -> GraphMERTConfig:
    """Return the core encoder's configuration for GraphMERT-LVM.

    Args:
        changes: fields that the form with leaves sets otherwise.
    """
    s = settings
    fields: dict[str, object] = {
        "vocab_size": 0,
        "hidden_size": s.encoder_width,
        "n_layers": s.n_layers,
        "n_attn_heads": s.n_attn_heads,
        "ffn_size": s.ffn_width,
        "input_size": s.dim,
        "input_projection": s.encoder_width != s.dim,
        "input_mask": False,
        "n_positions": s.length,
        "n_types": 0,
        "n_root_slots": s.length,
        "n_leaf_slots": 0,
        "max_tail_tokens": 0,
        "max_name_tokens": 0,
        "relation_embedding": False,
        "relation_names": False,
        "hgat": "none",
        "decay": s.decay,
        "decay_base": s.decay_base,
        "root_band": s.band,
        "positions": "absolute",
        "embedding_norm": False,
        "objectives": (),
        "dropout": s.dropout,
        "attn_dropout": s.dropout,
        "ffn_dropout": 0.0,
        "embedding_dropout": 0.0,
        "norm_eps": 1e-5,
    }
    return GraphMERTConfig(**(fields | changes))  # type: ignore[arg-type]


def pooled_head(width: int, dim: int, dropout: float, *, std: float) -> nn.Sequential:
    """Return Linear, GELU, dropout, Linear; weights N(0, std), biases 0."""
    head = nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, dim)
    )
    for module in head:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
    return head


class LVM(nn.Module):
    """GraphMERT-LVM: the core encoder over W vectors, mean pool, two linear layers.

    x_w = v_w + position_w; post-LN layers whose attention logits get
    ln(lambda) GELU(sqrt|i - j| - p); raw = head(mean_w x_w).

    Source: GraphMERT-LVM-768D. Differs: the source cut attention off beyond two neighbours, where
    p had no effect; `band = 2` with `decay = "none"` repeats that.
    Checked by: tests/golden/test_forecast.py
    """

    def __init__(self, settings: LVMSettings) -> None:
        super().__init__()
        config = lvm_config(settings)
        self.core = GraphMERT(config)
        self.head = pooled_head(
            settings.encoder_width, settings.dim, settings.dropout, std=config.initializer_std
        )

    def forward(self, contexts_BWC: Tensor) -> Tensor:
        """Predict the next vector, (B, C)."""
        batch = vector_batch(contexts_BWC)
        return self.head(root_mean(self.core(batch), batch))


def vector_batch(contexts_BWC: Tensor) -> ChainBatch:
    """Return contexts as chains of W roots without leaves."""
    token_BW = torch.zeros(contexts_BWC.shape[:2], dtype=torch.int64, device=contexts_BWC.device)
    batch = text_batch(token_BW, torch.ones_like(token_BW, dtype=torch.bool))
    return replace(batch, vectors_BNC=contexts_BWC)


def build_network(settings: NetworkSettings) -> nn.Module:
    """Return the network of these settings, with random weights."""
    if isinstance(settings, AMNSettings):
        return AMN(settings)
    if isinstance(settings, LSTMSettings):
        return LSTM(settings)
    if isinstance(settings, GRUSettings):
        return GRU(settings)
    if isinstance(settings, TransformerSettings):
        return Transformer(settings)
    return LVM(settings)
