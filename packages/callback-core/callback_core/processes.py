"""The processes of a training, and how they agree on what callbacks ask for.

`torch.distributed` connects the processes. This module never imports it: if the program has not
imported it, nothing is connected.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from callback_core.control import FLAGS, Request, TrainerControl
from callback_core.state import TrainerState

logger = logging.getLogger(__name__)

T = TypeVar("T")

FLAG_BITS: Final = 2 * len(FLAGS)
"""The number of bits of `flag_bits`."""

_ALL_FLAGS: Final = (1 << len(FLAGS)) - 1


class Processes:
    """The processes that train together; often there is only one.

    Each of them must make such an object, and all must call its methods in the same order.

    Attributes:
        rank: The number of this process, from 0. Rank 0 is the main process.
        local_rank: The number of this process on its machine.
        size: The number of processes.
        are_connected: Whether they can exchange values.
    """

    def __init__(self) -> None:
        dist: Any = sys.modules.get("torch.distributed")
        self.are_connected = dist is not None and dist.is_available() and dist.is_initialized()
        if self.are_connected:
            self.rank, self.size = dist.get_rank(), dist.get_world_size()
        else:
            self.size = int(os.environ.get("WORLD_SIZE", "1"))
            self.rank = int(os.environ.get("RANK", "0")) if self.size > 1 else 0
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank)) if self.size > 1 else 0
        self._group: Any = None
        if self.size > 1 and self.are_connected:
            # This group is on the CPU, because what is exchanged must not wait for a device.
            self._group = dist.new_group(backend="gloo")

    def tell_if_apart(self) -> None:
        """Warn if there are other processes, but nothing connects them to this one."""
        if self.size > 1 and not self.are_connected:
            logger.warning(
                "WORLD_SIZE is %d, but the processes are not connected, so each of them follows "
                "only its own callbacks. Call torch.distributed.init_process_group() first.",
                self.size,
            )

    @property
    def is_main(self) -> bool:
        """Whether this process is the main process."""
        return bool(self.rank == 0)

    def mark(self, state: TrainerState) -> None:
        """Record in `state` whether this is the main process, overall and on its machine."""
        state.is_world_process_zero = self.is_main
        state.is_local_process_zero = self.local_rank == 0

    def gather(self, value: T) -> list[T]:
        """Return the `value` of each process, in the order of ranks."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.size
        sys.modules["torch.distributed"].all_gather_object(values, value, group=self._group)
        return values

    def agree(self, control: TrainerControl) -> None:
        """Set each flag of `control` that any process has set, so that all of them act alike.

        They all-reduce one integer. Only if the flags differ, they also exchange who set them.
        """
        if self._group is None:
            return
        torch: Any = sys.modules["torch"]
        bits = torch.tensor(flag_bits(control))
        torch.distributed.all_reduce(bits, torch.distributed.ReduceOp.BOR, group=self._group)
        if flags_differ(int(bits)):
            combine_requests(control, self.gather(control.requests))


def flag_bits(control: TrainerControl) -> int:
    """Return the `FLAG_BITS` bits that say which flags of `control` are set, and which are not.

    Processes combine them by an all-reduce with a bitwise or.
    """
    is_set: int = sum(getattr(control, flag) << bit for bit, flag in enumerate(FLAGS))
    return is_set | (~is_set & _ALL_FLAGS) << len(FLAGS)


def flags_differ(bits: int) -> bool:
    """Return whether processes differ in a flag. `bits` are the combined bits of all of them."""
    return bool(bits & bits >> len(FLAGS) & _ALL_FLAGS)


def combine_requests(control: TrainerControl, requests: Sequence[tuple[Request, ...]]) -> None:
    """Set the flags of `control` that only other processes have set, and record who set them.

    Args:
        control: The control of this process.
        requests: The requests of each process, in the order of ranks.
    """
    missing = {flag for flag in FLAGS if not getattr(control, flag)}
    added = [
        Request(
            request.flag,
            f"rank {rank}: {request.by}" if request.by else f"rank {rank}",
            request.step,
            request.reason,
        )
        for rank, asked in enumerate(requests)
        for request in asked
        if request.flag in missing
    ]
    control.requests = (*control.requests, *added)
