"""A run in several processes: the first does the stages, the others take part in training."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from graphmert.errors import CapabilityError
from graphmert.processes import is_main_process, leave_group, world_size

Said = TypeVar("Said")
PATIENCE = timedelta(hours=4)
"""How long processes wait for the first one, which prepares and encodes alone."""


class Together:
    """The processes that a launcher started; without one, this process alone.

    Raises:
        CapabilityError: weights are sharded, or the processes do not find each other.
    """

    def __init__(self, *, on_cpu: bool) -> None:
        self.is_main = is_main_process()
        self.is_many = world_size() > 1
        if not self.is_many:
            return
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise CapabilityError(
                "runs on code keep whole weights in every process, and FSDP shards them",
                fix="Start them with torchrun alone.",
            )
        try:
            PartialState(cpu=on_cpu, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise _apart(error) from error

    def __enter__(self) -> Together:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for all and leave the group; the first process may go on alone after that."""
        if self.is_many:
            if kind is None:
                wait_for_all()
            leave_group()
            self.is_many = False

    def agree(self, say: Callable[[], Said]) -> Said:
        """What the first process says, in every process; only that one is asked.

        Raises:
            CapabilityError: the first process is gone.
        """
        said: list[Any] = [say() if self.is_main else None]
        if self.is_many:
            try:
                broadcast_object_list(said)
            except RuntimeError as error:
                raise _apart(error) from error
        return said[0]


def wait_for_all() -> None:
    """Return when every process of a group has come here; at once where there is no group."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _apart(error: BaseException) -> CapabilityError:
    return CapabilityError(
        "the processes cannot work together",
        got=str(error).strip().splitlines()[0],
        fix="Start them with torchrun, which sets RANK, WORLD_SIZE and MASTER_ADDR. If another "
        "process stopped first, its own message says why.",
    )
