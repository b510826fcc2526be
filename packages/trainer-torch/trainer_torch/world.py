"""What the processes of a training do together, as one process on its own does it: nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeVar

from torch import nn

from callback_core import TrainerControl, TrainerState

if TYPE_CHECKING:
    from trainer_torch.signals import Signals

T = TypeVar("T")


class World:
    """One process on its own, for which there is nothing to agree on.

    Attributes:
        rank: The number of this process among all; the main one is 0.
        local_rank: Its number among those of its machine.
        size: How many processes there are.
    """

    rank = 0
    local_rank = 0
    size = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the main one of all."""
        return self.rank == 0

    def mark(self, state: TrainerState) -> None:
        """Write into `state` whether this process is the main one, of all and of its machine."""
        state.is_world_process_zero = self.is_main
        state.is_local_process_zero = self.local_rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what the gradients of `model` are computed with."""
        return model

    def average_gradients(self, wrapped: nn.Module, now: bool) -> None:
        """Let the next backward pass of `wrapped` average the gradients over all ranks, or not."""

    def share_buffers(self, model: nn.Module) -> None:
        """Give the buffers of `model`, such as running statistics, the main process's values."""

    def agree(self, control: TrainerControl, signals: Signals) -> None:
        """Make what is asked for on one rank asked for on each, and say which signal is due.

        The loop calls this wherever it is about to act on the control, so that no rank acts alone.
        """
        signals.due = signals.received

    def as_many_as_all(self, batches: list[Any]) -> list[Any]:
        """Return the first of `batches`, as many as every rank has."""
        return batches

    def gather(self, value: T) -> list[T]:
        """Return the `value` of each rank, in the order of ranks."""
        return [value]

    def on_main(self, do: Callable[[], T]) -> T:
        """Call `do` in the main process and return on every rank what it returned.

        Raises:
            RuntimeError: It raised an error in the main process, where that one is raised.
        """
        return do()

    def closing(self) -> AbstractContextManager[None]:
        """Return a context in which the callbacks are told that training failed, wherever it did.

        Nothing in it waits for other ranks, which may be gone.
        """
        return nullcontext()


ALONE: Final = World()
