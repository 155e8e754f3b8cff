"""The rows that belong to one relation in the tables of a network: inserted, mixed, fitted alone.

Legend: E relations, D width, Q rank of low-rank H-GAT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from graphmert.batch import ChainBatch
from graphmert.errors import ConfigError
from graphmert.model import GraphMERT, GraphMERTConfig
from graphmert.processes import LossModule

Initial = Literal["nearest", "hidden"]

_FIXED = (
    "embed.relation.weight",
    "embed.hgat.score",
    "embed.hgat.matrix",
    "embed.hgat.left",
    "embed.hgat.right",
    "relation_head.linear.weight",
    "relation_head.linear.bias",
)
_BIAS = ".relation_bias"
_LOW_RANK = ("embed.hgat.left", "embed.hgat.right")


def relation_tables(model: GraphMERT) -> dict[str, nn.Parameter]:
    """Return the parameters whose first axis counts relations, by name.

    Embedding and H-GAT tables have one more row at the end, for a hidden relation.

    Raises:
        ConfigError: the model has outputs over relations that cannot be extended.
    """
    if model.constraint_head is not None:
        raise ConfigError(
            "a model with regularisers takes no new relation",
            where="train.weights",
            got=", ".join(model.config.objectives),
            fix="Train without regularisers.",
        )
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name in _FIXED or name.endswith(_BIAS)
    }


def insert_relation(model: GraphMERT, place: int, rows: Mapping[str, Tensor]) -> GraphMERT:
    """Return a model with one more relation; every other parameter keeps its bits.

    Args:
        model: the trained model.
        place: index of the new relation; those from there on move up by one.
        rows: its row in each table of `relation_tables`.
    """
    config = GraphMERTConfig.from_dict(model.config.to_dict())
    config.n_relations += 1
    wider = GraphMERT(config)
    tables = relation_tables(model)
    state = {}
    for name, value in model.state_dict().items():
        if name in tables:
            row = rows[name].to(value.dtype)[None]
            value = torch.cat([value[:place], row, value[place:]])
        state[name] = value
    wider.load_state_dict(state)
    wider.set_pretrained_parameter_names(set(model.pretrained_parameter_names()))
    return wider.eval()


@torch.no_grad()
def initial_rows(model: GraphMERT, weights: Sequence[float], initial: Initial) -> dict[str, Tensor]:
    """Return the rows of a relation that has no triple yet.

    nearest: sum_r w_r row_r over the known relations. For low-rank H-GAT, U V of rank Q nearest
    to sum_r w_r U_r V_r (its largest singular values). hidden: the row of the hidden relation,
    which was trained to answer without knowing the relation; tables without one take the mean.

    Args:
        model: the trained model.
        weights: of each known relation, summing to 1.
        initial: the rule.
    """
    n_relations = model.config.n_relations
    tables = {name: table.detach() for name, table in relation_tables(model).items()}
    w_E = torch.tensor(weights, dtype=torch.float32)
    rows: dict[str, Tensor] = {}
    for name, table in tables.items():
        known = table[:n_relations].float()
        if initial == "hidden" and len(table) > n_relations:
            rows[name] = table[n_relations].clone()
        elif initial == "hidden":
            rows[name] = known.mean(0)
        elif name not in _LOW_RANK:
            rows[name] = torch.tensordot(w_E, known, dims=1)
    if initial == "nearest" and _LOW_RANK[0] in tables:
        left_EDQ, right_EQD = (tables[name][:n_relations].float() for name in _LOW_RANK)
        mixed_DD = torch.einsum("e,edq,eqk->dk", w_E, left_EDQ, right_EQD)
        u, s, v = torch.linalg.svd(mixed_DD)
        rank = left_EDQ.shape[-1]
        root = s[:rank].sqrt()
        rows[_LOW_RANK[0]] = u[:, :rank] * root
        rows[_LOW_RANK[1]] = root[:, None] * v[:rank]
    return rows


class RelationFit(nn.Module):
    """One relation's rows as the only parameters; the network around them is frozen, in eval mode.

    `loss` is the network's own without MLM and SBO, which no relation enters.

    Args:
        model: holds the relation already.
        place: its index.
    """

    def __init__(self, model: GraphMERT, place: int) -> None:
        super().__init__()
        model.requires_grad_(False)
        model.eval()
        self.place = place
        self._names = {name.replace(".", "/"): name for name in relation_tables(model)}
        self._frozen = (LossModule(model),)  # in a tuple: no part of this module's parameters
        tables = relation_tables(model)
        self.rows = nn.ParameterDict(
            {key: nn.Parameter(tables[name][place].clone()) for key, name in self._names.items()}
        )

    def loss(self, batch: ChainBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """Return (sum, count) of each objective that the relation takes part in."""
        network = self._frozen[0]
        device = next(iter(self.rows.values())).device
        network.to(device)
        parts: Any = functional_call(network, self._tables(), (batch,))
        return {name: pair for name, pair in parts.items() if not name.startswith(("mlm", "sbo"))}

    def _tables(self) -> dict[str, Tensor]:
        tables = relation_tables(self._model)
        place = self.place
        return {
            f"model.{name}": torch.cat(
                [tables[name][:place], self.rows[key][None], tables[name][place + 1 :]]
            )
            for key, name in self._names.items()
        }

    @property
    def _model(self) -> GraphMERT:
        model = self._frozen[0].model
        assert isinstance(model, GraphMERT)
        return model

    @torch.no_grad()
    def write(self) -> GraphMERT:
        """Put the rows into the network and return it."""
        tables = relation_tables(self._model)
        for key, name in self._names.items():
            tables[name][self.place] = self.rows[key].to(tables[name].device)
        return self._model.cpu()
