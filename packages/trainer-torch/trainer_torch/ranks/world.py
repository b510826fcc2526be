"""Collective operations of the processes in a training. For a single process they are no-ops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import zip_longest
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from torch import nn

from callback_core import TrainerControl, TrainerState
from trainer_torch.ranks.signals import Signals

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class World:
    """A single process. `trainer_torch.ranks.distributed` overrides this for several.

    Attributes:
        rank: The number of this process, from 0. Rank 0 is the main process.
        local_rank: The number of this process on its machine.
        size: The number of processes.
    """

    rank = 0
    local_rank = 0
    size = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the main process."""
        return self.rank == 0

    @property
    def saving_group(self) -> Any:
        """The process group of those that save together. It is not used for anything else."""
        return None

    def mark(self, state: TrainerState) -> None:
        """Record in `state` whether this is the main process, overall and on its machine."""
        state.is_world_process_zero = self.is_main
        state.is_local_process_zero = self.local_rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the module that computes the gradients of `model`."""
        return model

    def average_gradients(self, wrapped: nn.Module, now: bool) -> None:
        """Set whether the next backward pass of `wrapped` averages gradients over all ranks."""

    def share_weights(self, model: nn.Module) -> None:
        """Copy the main process's parameters and buffers of `model` to all ranks."""

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the main process's buffers of `model`, such as running statistics, to all ranks."""

    def agree(self, control: TrainerControl, signals: Signals, is_busy: bool = False) -> bool:
        """Set each flag of `control` that any rank has set, and determine which signal is due.

        The loop calls this before it acts on the control, so that all ranks act alike.

        Args:
            control: The control of this rank.
            signals: The signals of this rank.
            is_busy: Whether this rank is busy, for example with writing a checkpoint.

        Returns:
            Whether any rank is busy.
        """
        signals.due = signals.received
        return is_busy

    def all_arrive(self, seconds: float) -> bool:
        """Return whether every rank calls this within `seconds` of this rank."""
        return True

    def trim_to_shortest(self, batches: list[Any]) -> list[Any]:
        """Return the first of `batches`: as many as the rank with the fewest has."""
        return batches

    def add(self, numbers: list[int]) -> list[int]:
        """Return the sum of each of `numbers` over all ranks."""
        return numbers

    def gather(self, value: T) -> list[T]:
        """Return the `value` of each rank, in the order of ranks."""
        return [value]

    def gather_while_saving(self, value: T) -> list[T]:
        """Return the same as `gather`. A thread that saves may call this while training goes on."""
        return [value]

    def pass_to_main(self, items: Iterator[T], receive: Callable[[T], None]) -> None:
        """Call `receive` in the main process with the `items` of all ranks, one of each in turn.

        Raises:
            RuntimeError: On the other ranks, if `receive` failed. Rank 0 raises its error.
        """
        for item in items:
            receive(item)

    def on_main(self, do: Callable[[], T]) -> T:
        """Call `do` in the main process and return its result on every rank.

        Raises:
            RuntimeError: On the other ranks, if `do` failed. The main process raises the error.
        """
        return do()

    def on_each_node(self, do: Callable[[], T]) -> T:
        """Call `do` in the first process of each machine. Return the main one's result everywhere.

        Raises:
            RuntimeError: On the other ranks, if `do` failed. The rank itself raises the error.
        """
        return do()

    def closing(self, error: BaseException) -> AbstractContextManager[None]:
        """Return a context for closing callbacks after a failure on any rank.

        Other ranks may have ended, so nothing in this context may wait for them.

        Args:
            error: What ends the training here.
        """
        return nullcontext()

    def watched(self) -> AbstractContextManager[Any]:
        """Return a context in which a watchdog notices ranks that hang. It may be nested."""
        return nullcontext()

    def waiting(self) -> AbstractContextManager[None]:
        """Return a context in which this process waits for the others, for the watchdog.

        Within another such context, it does not wait. A thread that saves may enter it too.
        """
        return nullcontext()

    def note(self, event: str, step: int) -> None:
        """Note for the watchdog that this process has reached an event."""


SINGLE_PROCESS: Final = World()


def watched(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Return a method of the Trainer that runs in the context `watched` of its processes."""

    @functools.wraps(method)
    def in_context(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.run.world.watched():
            return method(self, *args, **kwargs)

    return in_context


def interleave(items_of_ranks: Iterable[Sequence[T]]) -> list[T]:
    """Return the items of all ranks in the order of the data, from which each took one in turn."""
    absent: Any = object()
    turns = zip_longest(*items_of_ranks, fillvalue=absent)
    return [item for turn in turns for item in turn if item is not absent]
