"""AdamW over the parameters of a model, in groups."""

from __future__ import annotations

import torch
from torch import nn

from graphmert.errors import ConfigError
from graphmert.recipe import TrainConfig


def build_optimizer(
    model: nn.Module, config: TrainConfig
) -> tuple[torch.optim.Optimizer, list[float]]:
    """Return AdamW over up to four groups, and the peak learning rate of each.

    Vectors (biases, norms) are not decayed; parameters of a pretrained body have their own rate.
    """
    names = getattr(model, "pretrained_parameter_names", tuple)()
    pretrained = frozenset(names) if config.pretrained_learning_rate is not None else frozenset()
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith("bias")
            members.setdefault((decays, name in pretrained), []).append(parameter)
    if not members:
        raise ConfigError("the model has no parameter to train")
    groups, peaks = [], []
    for (decays, is_pretrained), parameters in sorted(members.items(), key=lambda item: item[0]):
        decay = config.weight_decay if decays else 0.0
        peak = config.pretrained_learning_rate if is_pretrained else None
        groups.append({"params": parameters, "weight_decay": decay})
        peaks.append(config.learning_rate if peak is None else peak)
    optimizer = torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True
    )
    return optimizer, peaks
