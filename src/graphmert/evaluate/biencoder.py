"""The trained baseline: a plain bi-encoder of the same body.

It reads the relation as words, "relation label: name: definition", and is trained so that the
mean state of that text lies near the mean state of the tail's name. What a leafy chain adds must
show against this, at equal steps and tuning.

Legend: B queries of a batch, C candidate names, S tokens, D width, N entities, M training triples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from graphmert.batch import text_batch
from graphmert.config import Settings
from graphmert.errors import DataError
from graphmert.evaluate.baselines import Query
from graphmert.model import GraphMERT
from graphmert.objectives import entity_loss
from graphmert.pretrained import from_body
from graphmert.tokens import Tokenizer

OBJECTIVE = "contrastive"
# What a network of ours is without leaves and objectives: a plain transformer.
PLAIN: Mapping[str, Any] = {
    "objectives": (),
    "decay": "none",
    "hgat": "none",
    "relation_embedding": False,
    "relation_names": False,
    "max_tail_tokens": 0,
    "n_types": 1,
}


class BiEncoderConfig(Settings):
    """Say how the bi-encoder reads texts and draws its batches."""

    max_query_tokens: int = Field(
        default=128, ge=3, description="Longest query text, with its two ends."
    )
    max_name_tokens: int = Field(
        default=32, ge=3, description="Longest entity name, with its two ends."
    )
    batch_size: int = Field(default=32, ge=1, description="Triples per update.")
    n_sampled_negatives: int = Field(
        default=96, ge=0, description="Random entities per update, beside the tails of the batch."
    )
    temperature: float = Field(
        default=0.05, gt=0, description="First value of the learned temperature."
    )
    relation_weighting: Literal["sqrt", "none"] = Field(
        default="sqrt",
        description="sqrt draws a triple with weight 1/sqrt(triples of its relation).",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Of the body, in training.")
    encode_precision: Literal["fp32", "bf16"] = Field(
        default="bf16", description="When encoding names and queries for ranking; bf16 is autocast."
    )
    seed: int = Field(default=0, ge=0, description="Of the batches.")


def query_text(query: Query, relation_labels: Sequence[str]) -> str:
    """Return what the bi-encoder reads: the relation in words, then the head's own text."""
    return f"{relation_labels[query.relation]}: {query.text}"


@dataclass(frozen=True)
class Draw:
    """The triples and candidate names of one update.

    Attributes:
        triple: indices of the drawn triples, shape (B,).
        candidate: distinct entity indices, ascending, shape (C,); every drawn tail is one.
        positive: column of each triple's tail, shape (B,).
        excluded: other known tails of each triple's (head, relation), shape (B, C); they are
            true, so they are no negatives.
    """

    triple: NDArray[np.int64]
    candidate: NDArray[np.int64]
    positive: NDArray[np.int64]
    excluded: NDArray[np.bool_]


@dataclass(frozen=True)
class TrainTriples:
    """Training triples as indices, with the tails known per (head, relation).

    Attributes:
        head: shape (M,).
        relation: shape (M,).
        tail: shape (M,).
        known: every training tail of a (head, relation).
    """

    head: NDArray[np.int64]
    relation: NDArray[np.int64]
    tail: NDArray[np.int64]
    known: Mapping[tuple[int, int], NDArray[np.int64]]

    @classmethod
    def build(cls, triples: Sequence[tuple[int, int, int]]) -> TrainTriples:
        """Gather the known tails of (head, relation, tail) index triples.

        Raises:
            DataError: there are no triples.
        """
        if not triples:
            raise DataError("no training triples for the bi-encoder")
        table = np.asarray(triples, np.int64)
        known: dict[tuple[int, int], list[int]] = {}
        for head, relation, tail in triples:
            known.setdefault((head, relation), []).append(tail)
        return cls(
            head=table[:, 0],
            relation=table[:, 1],
            tail=table[:, 2],
            known={key: np.unique(np.asarray(tails, np.int64)) for key, tails in known.items()},
        )

    def __len__(self) -> int:
        return len(self.head)


def triple_weights(
    relation_M: NDArray[np.int64], weighting: Literal["sqrt", "none"]
) -> NDArray[np.float64]:
    """Return the probability of drawing each triple, shape (M,)."""
    if weighting == "none":
        return np.full(len(relation_M), 1 / len(relation_M))
    weight_M = 1 / np.sqrt(np.bincount(relation_M)[relation_M])
    return weight_M / weight_M.sum()


def draw_batch(
    triples: TrainTriples,
    cumulative_M: NDArray[np.float64],
    *,
    n_entities: int,
    batch_size: int,
    n_sampled_negatives: int,
    rng: np.random.Generator,
) -> Draw:
    """Draw triples with replacement, and candidates: their tails and random entities.

    Args:
        triples: the training triples.
        cumulative_M: running sum of the triples' probabilities.
        n_entities: entities to draw negatives from.
        batch_size: triples to draw.
        n_sampled_negatives: random entities to draw.
        rng: the generator of this update.
    """
    drawn_B = np.searchsorted(cumulative_M, rng.random(batch_size) * cumulative_M[-1], "right")
    triple_B = np.minimum(drawn_B, len(triples) - 1)
    tail_B = triples.tail[triple_B]
    candidate_C = np.unique(
        np.concatenate([tail_B, rng.integers(n_entities, size=n_sampled_negatives)])
    )
    positive_B = np.searchsorted(candidate_C, tail_B)
    excluded_BC = np.zeros((batch_size, candidate_C.size), np.bool_)
    for row, index in enumerate(triple_B):
        key = (int(triples.head[index]), int(triples.relation[index]))
        excluded_BC[row] = np.isin(candidate_C, triples.known[key])
        excluded_BC[row, positive_B[row]] = False
    return Draw(triple_B, candidate_C, positive_B, excluded_BC)


@dataclass(frozen=True)
class BiEncoderBatch:
    """One update, tokenised.

    Attributes:
        query_ids: int64, shape (B, S).
        query_padding: True = real, shape (B, S).
        name_ids: int64, shape (C, S).
        name_padding: True = real, shape (C, S).
        positive: column of the true name per query, shape (B,).
        excluded: names that are true as well and count neither way, shape (B, C).
    """

    query_ids: Tensor
    query_padding: Tensor
    name_ids: Tensor
    name_padding: Tensor
    positive: Tensor
    excluded: Tensor

    @property
    def n_samples(self) -> int:
        """Number of queries."""
        return int(self.query_ids.shape[0])

    def counts(self) -> dict[str, float]:
        """Return the counts that the loss of this batch returns."""
        return {OBJECTIVE: float(self.n_samples)}

    def to(self, device: torch.device) -> BiEncoderBatch:
        """Return the batch on a device."""
        return BiEncoderBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class BiEncoder(nn.Module):
    """Encode texts as unit vectors: the mean of a transformer's last states.

    Args:
        body: a GraphMERT without leaves and objectives: the same encoder, as fast.
        tokenizer: the body's tokenizer.
        config: lengths and the first temperature.
    """

    def __init__(self, body: GraphMERT, tokenizer: Tokenizer, config: BiEncoderConfig) -> None:
        super().__init__()
        self.body = body
        self.tokenizer = tokenizer
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    @classmethod
    def from_body(cls, path_or_id: str | Path, config: BiEncoderConfig) -> BiEncoder:
        """Load body and tokenizer from a folder or the local hub cache.

        Raises:
            CapabilityError: no such folder or cached model, or a family that is not supported.
            CheckpointError: the weights are incomplete.
        """
        body = from_body(path_or_id, **PLAIN, dropout=config.dropout)
        return cls(body, Tokenizer.load(path_or_id), config)

    def pretrained_parameter_names(self) -> frozenset[str]:
        """Return the names of the parameters that came from the body."""
        return frozenset(n for n, _ in self.named_parameters() if n.startswith("body."))

    def forward(self, ids_BS: Tensor, padding_BS: Tensor) -> Tensor:
        """Return unit vectors, shape (B, D), float32: the mean state over real tokens."""
        return self.body.encode_names(text_batch(ids_BS, padding_BS))

    def loss(self, batch: BiEncoderBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """Return InfoNCE over the batch's names as (sum over queries, number of queries).

        -log( exp(t q·e⁺) / Σ_{e not excluded} exp(t q·e) ), t learned.

        Checked by: tests/unit/evaluate/test_biencoder.py
        """
        query_BD = self(batch.query_ids, batch.query_padding)
        name_CD = self(batch.name_ids, batch.name_padding)
        return {
            OBJECTIVE: entity_loss(
                query_BD, name_CD, self.log_scale, batch.positive, batch.excluded
            )
        }

    @torch.no_grad()
    def encode_texts(
        self, texts: Sequence[str], *, max_tokens: int, batch_size: int = 256
    ) -> NDArray[np.float32]:
        """Return unit vectors of texts, shape (len(texts), D), in their order.

        Texts are batched by length, so little of the work is padding; dropout is off.

        Args:
            texts: what to encode.
            max_tokens: longest text with its two ends; the rest is cut.
            batch_size: texts per forward pass.
        """
        was_training = self.training
        self.eval()
        device = self.log_scale.device
        rows = tokenise(texts, self.tokenizer, max_tokens=max_tokens)
        order = sorted(range(len(rows)), key=lambda index: (len(rows[index]), index))
        vectors: NDArray[np.float32] | None = None
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids, padding = pad([rows[index] for index in chosen], self.tokenizer.pad_id)
            with torch.autocast(
                device.type, torch.bfloat16, enabled=self.config.encode_precision == "bf16"
            ):
                block = self(ids.to(device), padding.to(device)).cpu().numpy()
            if vectors is None:
                vectors = np.empty((len(rows), block.shape[1]), np.float32)
            vectors[chosen] = block
        self.train(was_training)
        return np.empty((0, 0), np.float32) if vectors is None else vectors


class BiEncoderData:
    """Batches as a pure function of the step.

    Args:
        triples: training triples as entity, relation, entity indices.
        texts: per entity its own text, "name: definition"; needed for heads only.
        names: per entity its name.
        relation_labels: per relation its words.
        tokenizer: the body's tokenizer.
        config: lengths, sizes and the seed.
        triple_texts: per triple the text to read with it, in place of its head's own.
    """

    def __init__(
        self,
        triples: TrainTriples,
        *,
        texts: Mapping[int, str] | Sequence[str] = (),
        names: Sequence[str],
        relation_labels: Sequence[str],
        tokenizer: Tokenizer,
        config: BiEncoderConfig,
        triple_texts: Sequence[str] | None = None,
    ) -> None:
        self.triples = triples
        self.texts = texts
        self.triple_texts = triple_texts
        self.names = names
        self.relation_labels = relation_labels
        self.tokenizer = tokenizer
        self.config = config
        weights_M = triple_weights(triples.relation, config.relation_weighting)
        self._cumulative_M = np.cumsum(weights_M)

    @property
    def steps_per_epoch(self) -> int:
        """Number of updates that draw as many triples as there are."""
        return math.ceil(len(self.triples) / self.config.batch_size)

    def batch(self, step: int) -> list[BiEncoderBatch]:
        """Return the one micro-batch of an update."""
        config, triples = self.config, self.triples
        drawn = draw_batch(
            triples,
            self._cumulative_M,
            n_entities=len(self.names),
            batch_size=config.batch_size,
            n_sampled_negatives=config.n_sampled_negatives,
            rng=np.random.default_rng([config.seed, step]),
        )
        queries = [
            Query(
                head=int(triples.head[i]),
                head_name=self.names[int(triples.head[i])],
                relation=int(triples.relation[i]),
                text=self._text(int(i)),
            )
            for i in drawn.triple
        ]
        query_ids, query_padding = self._tensors(
            [query_text(query, self.relation_labels) for query in queries],
            config.max_query_tokens,
        )
        name_ids, name_padding = self._tensors(
            [self.names[int(index)] for index in drawn.candidate], config.max_name_tokens
        )
        return [
            BiEncoderBatch(
                query_ids=query_ids,
                query_padding=query_padding,
                name_ids=name_ids,
                name_padding=name_padding,
                positive=torch.from_numpy(drawn.positive),
                excluded=torch.from_numpy(drawn.excluded),
            )
        ]

    def _text(self, triple: int) -> str:
        if self.triple_texts is not None:
            return self.triple_texts[triple]
        return self.texts[int(self.triples.head[triple])]

    def _tensors(self, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
        return pad(tokenise(texts, self.tokenizer, max_tokens=max_tokens), self.tokenizer.pad_id)


class BiEncoderBaseline:
    """A trained bi-encoder as a baseline: one vector per name, one forward pass per query.

    Args:
        model: the trained bi-encoder.
        names: one name per entity; encoded once, here.
        relation_labels: per relation its words.
        batch_size: texts per forward pass.
    """

    name = "bi_encoder"

    def __init__(
        self,
        model: BiEncoder,
        names: Sequence[str],
        relation_labels: Sequence[str],
        *,
        batch_size: int = 256,
    ) -> None:
        self._model = model
        self._labels = relation_labels
        self._batch_size = batch_size
        vectors_ND = model.encode_texts(
            names, max_tokens=model.config.max_name_tokens, batch_size=batch_size
        )
        self._names_DN = np.ascontiguousarray(vectors_ND.T)

    def score(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Return cosines, shape (Q, N); the head itself is never proposed."""
        vectors_QD = self._model.encode_texts(
            [query_text(query, self._labels) for query in queries],
            max_tokens=self._model.config.max_query_tokens,
            batch_size=self._batch_size,
        )
        scores_QN = vectors_QD @ self._names_DN
        for row, query in enumerate(queries):
            if query.head >= 0:
                scores_QN[row, query.head] = -np.inf
        return scores_QN


def tokenise(texts: Sequence[str], tokenizer: Tokenizer, *, max_tokens: int) -> list[list[int]]:
    """Return the token ids of each text between its start and end tokens, cut at `max_tokens`."""
    return [
        [tokenizer.cls_id, *encoding.ids[: max_tokens - 2].tolist(), tokenizer.sep_id]
        for encoding in tokenizer.encode_batch(texts)
    ]


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return token ids filled up to the longest row, and True where they are real, (B, S)."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    padding = torch.zeros((len(rows), length), dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        padding[index, : len(row)] = True
    return ids, padding
