"""Training in several processes, which `torchrun` starts.

Each process is a *rank*. Ranks coordinate through a process group of their own on the CPU, so that
coordination never waits for a device.
"""

from __future__ import annotations

import logging
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from itertools import islice
from typing import Any, Final, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from callback_core import FLAGS, TrainerControl, combine_requests, flag_bits
from trainer_torch.arguments import TrainingArguments
from trainer_torch.processes import connect, local_rank, rank, size
from trainer_torch.signals import Signals
from trainer_torch.world import SINGLE_PROCESS, World, interleave
from trainer_torch.wrapping import distributed_part

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A later torch has renamed the option, and warns of the old name.
_HAS_NEW_NAME: Final = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
_BUFFERS: Final = "forward_sync_buffers" if _HAS_NEW_NAME else "broadcast_buffers"

_OPTIONS: Final = {
    "ddp_find_unused_parameters": "find_unused_parameters",
    "ddp_bucket_cap_mb": "bucket_cap_mb",
    "ddp_broadcast_buffers": _BUFFERS,
    "ddp_static_graph": "static_graph",
}
"""The arguments that are options of DistributedDataParallel, with its names for them."""

_FAILED: Final = 2
"""What rank 0 says in `pass_to_main` after an error; otherwise 1, or 0 without items."""

_ITEMS_IN_TURN: Final = 16
_BYTES_IN_TURN: Final = 2**24
"""The most that a rank gathers at once in `pass_to_main`, except that it is at least one item."""


class DistributedWorld(World):
    """Several processes. All of them must call the same methods in the same order.

    Args:
        args: Provides the arguments whose names begin with `ddp_`.
    """

    def __init__(self, args: TrainingArguments) -> None:
        self.rank, self.local_rank, self.size = rank(), local_rank(), size()
        given = {name: getattr(args, name) for name in _OPTIONS}
        self._options = {name: value for name, value in given.items() if value is not None}
        self._group = dist.new_group(backend="gloo", timeout=args.ddp_timeout_delta)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return `model` in a DistributedDataParallel, or as it is if it already is one.

        A warning names the options in the arguments that one of the user does not get.

        Raises:
            ValueError: No parameter of `model` requires a gradient.
        """
        if distributed_part(model) is not None:
            if self._options and self.is_main:
                logger.warning(
                    "The model is in a DistributedDataParallel already, so these arguments have no "
                    "effect: %s.",
                    ", ".join(self._options),
                )
            return model
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(
                f"{type(model).__name__} has no parameter that requires a gradient, so its "
                f"{self.size} processes would diverge. Make the parameters that the optimizer "
                "trains a part of the model, or train in one process."
            )
        options = {_OPTIONS[name]: value for name, value in self._options.items()}
        return DistributedDataParallel(model, **options)

    def average_gradients(self, wrapped: nn.Module, now: bool) -> None:
        """Set the flag of DistributedDataParallel that its context `no_sync` sets.

        With a static graph, it averages in every backward pass, because it fails if it skips the
        first one, and a resumed training has another first one. The gradients are the same.
        """
        if (part := distributed_part(wrapped)) is not None:
            part.require_backward_grad_sync = now or part.static_graph

    def share_buffers(self, model: nn.Module) -> None:
        """Broadcast each buffer of `model` from the main process."""
        for buffer in model.buffers():
            shared = buffer.detach().contiguous()
            dist.broadcast(shared, src=0)
            buffer.detach().copy_(shared)

    def agree(self, control: TrainerControl, signals: Signals) -> None:
        """Combine the flags and signals of all ranks.

        One reduction exchanges one integer of each rank: its flags in the low bits, its signal
        above. Only if flags differ do the ranks exchange who set them. If several ranks received a
        signal, that of the lowest rank is due.
        """
        asked = torch.zeros(self.size, dtype=torch.int64)
        asked[self.rank] = flag_bits(control) | (signals.received or 0) << len(FLAGS)
        self._reduce(asked, dist.ReduceOp.SUM)
        flags_of = [mask & ~(-1 << len(FLAGS)) for mask in asked.tolist()]
        signals_of = [mask >> len(FLAGS) for mask in asked.tolist()]
        if any(signals_of):
            rank = next(rank for rank, number in enumerate(signals_of) if number)
            signals.due, signals.where = signal.Signals(signals_of[rank]), f" by rank {rank}"
        if len(set(flags_of)) > 1:
            combine_requests(control, self.gather(control.requests))

    def trim_to_shortest(self, batches: list[Any]) -> list[Any]:
        """Return the first of `batches`: as many as the rank with the fewest has."""
        count = torch.tensor(len(batches))
        self._reduce(count, dist.ReduceOp.MIN)
        return batches[: int(count)]

    def add(self, numbers: list[int]) -> list[int]:
        """Return the sum of each of `numbers` over all ranks."""
        sums = torch.tensor(numbers)
        self._reduce(sums, dist.ReduceOp.SUM)
        return sums.tolist()

    def gather(self, value: T) -> list[T]:
        """Return the `value` of each rank. Tensors in it must be on the CPU."""
        values: list[Any] = [None] * self.size
        with self._explained_errors():
            dist.all_gather_object(values, value, group=self._group)
        return values

    def pass_to_main(self, items: Iterator[T], receive: Callable[[T], None]) -> None:
        """Gather some items of each rank on rank 0, until no rank has any.

        The items go to rank 0 only. To wait less often, there are several in a turn as long as they
        are small. Tensors in them must be on the CPU.
        """
        error: Exception | None = None
        count = 1
        while True:
            own = list(islice(items, count))
            packed = pickle.dumps(own)
            is_left = _FAILED if error else min(1, len(own))
            state = torch.tensor([is_left, len(packed) // (len(own) or 1)])
            self._reduce(state, dist.ReduceOp.MAX)
            is_left, size = state.tolist()
            if is_left != 1:
                break
            count = max(1, min(_ITEMS_IN_TURN, _BYTES_IN_TURN // size))
            turn: list[Any] | None = [None] * self.size if self.is_main else None
            with self._explained_errors():
                dist.gather_object(packed, turn, group=self._group)
            try:
                for item in interleave(pickle.loads(one) for one in turn or ()):
                    receive(item)
            except Exception as raised:
                error = raised
        self.on_main(lambda: _raise(error))

    def on_main(self, do: Callable[[], T]) -> T:
        """Call `do` on rank 0 and broadcast its result, or its error as text."""
        error: Exception | None = None
        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer[0] = do()
            except Exception as raised:
                error, answer[1] = raised, repr(raised)
        with self._explained_errors():
            dist.broadcast_object_list(answer, src=0, group=self._group)
        if error is not None:
            raise error
        if answer[1] is not None:
            raise RuntimeError(f"Rank 0 failed while rank {self.rank} was waiting: {answer[1]}")
        return cast("T", answer[0])

    def on_each_node(self, do: Callable[[], T]) -> T:
        """Call `do` on local rank 0 of each machine, and gather results, and errors as text."""
        error: Exception | None = None
        answer: tuple[Any, str | None] = None, None
        if self.local_rank == 0:
            try:
                answer = do(), None
            except Exception as raised:
                error, answer = raised, (None, repr(raised))
        answers = self.gather(answer)
        if error is not None:
            raise error
        for failed, (_, failure) in enumerate(answers):
            if failure is not None:
                raise RuntimeError(
                    f"Rank {failed} failed while rank {self.rank} was waiting: {failure}"
                )
        return cast("T", answers[0][0])

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Ignore SIGTERM, which torchrun sends as soon as another process has failed.

        That leaves the callbacks half a minute, until torchrun sends SIGKILL.
        """
        # Only the main thread may set handlers.
        in_main_thread = threading.current_thread() is threading.main_thread()
        previous = signal.signal(signal.SIGTERM, signal.SIG_IGN) if in_main_thread else None
        try:
            yield
        finally:
            if in_main_thread:
                signal.signal(signal.SIGTERM, previous)

    def _reduce(self, tensor: Tensor, operation: Any) -> None:
        with self._explained_errors():
            dist.all_reduce(tensor, operation, group=self._group)

    @contextmanager
    def _explained_errors(self) -> Iterator[None]:
        """Explain a failed collective operation."""
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError(
                f"Rank {self.rank} lost the other processes of the training. Either one of them "
                "has ended, and its own error says why, or one took longer than ddp_timeout."
            ) from error


def find_world(args: TrainingArguments) -> World:
    """Return the processes of this training. Connects them if nothing else has.

    Raises:
        RuntimeError: The processes cannot connect.
        ValueError: They cannot connect with `ddp_backend`.
    """
    connect(args.device, args.ddp_timeout_delta, args.ddp_backend)
    return DistributedWorld(args) if size() > 1 else SINGLE_PROCESS


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error
