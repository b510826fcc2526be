"""Training in several processes, which `torchrun` starts.

Each process is a *rank*. Ranks coordinate through a process group of their own on the CPU, so that
coordination never waits for a device.
"""

from __future__ import annotations

import logging
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from inspect import signature
from itertools import islice
from typing import Any, Final, Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from callback_core import FLAG_BITS, TrainerControl, combine_requests, flag_bits, flags_differ
from trainer_torch.ranks.hang_error import HangError
from trainer_torch.ranks.processes import connect, local_rank, rank, size
from trainer_torch.ranks.rank_watch import RankWatch
from trainer_torch.ranks.reduction import Reduction
from trainer_torch.ranks.signals import Signals
from trainer_torch.ranks.watchdog import with_margin
from trainer_torch.ranks.world import SINGLE_PROCESS, World, interleave
from trainer_torch.wrapping import distributed_part, is_sharded, sharded_modules

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
"""The status that rank 0 reduces in `pass_to_main` after an error.

Otherwise, a rank reduces 1 if it has items, and 0 if not."""

_ITEMS_IN_TURN: Final = 16
_BYTES_IN_TURN: Final = 2**24
"""The most that a rank gathers at once in `pass_to_main`, except that it is at least one item."""


class DistributedArguments(Protocol):
    """What this module reads of the arguments of a training, besides `_OPTIONS`."""

    @property
    def device(self) -> torch.device:
        """The device of this process."""

    @property
    def ddp_backend(self) -> str | None:
        """The backend of the process group, or None for that of the device."""

    @property
    def ddp_timeout(self) -> int:
        """How many seconds a collective operation may take."""


class DistributedWorld(World):
    """Several processes. All of them must call the same methods in the same order.

    Args:
        args: Provides the arguments whose names begin with `ddp_`.
    """

    def __init__(self, args: DistributedArguments) -> None:
        self.rank, self.local_rank, self.size = rank(), local_rank(), size()
        given = {name: getattr(args, name) for name in _OPTIONS}
        self._options = {name: value for name, value in given.items() if value is not None}
        self._timeout = with_margin(args.ddp_timeout)
        self._group = dist.new_group(backend="gloo", timeout=self._timeout)
        self._reduction = Reduction(self._group, self.local_rank, self._timeout)
        self._saving_group: Any = None
        self._watch = RankWatch(self._group, self.rank, self.size, args.ddp_timeout)

    def watched(self) -> AbstractContextManager[None]:
        """Watch this rank by a `Watchdog`, unless it is watched already."""
        return self._watch.watching()

    def waiting(self) -> AbstractContextManager[None]:
        """Note that this rank waits, unless this is a thread beside the training."""
        return self._watch.waiting()

    def note(self, event: str, step: int) -> None:
        """Note an event for the watchdog."""
        self._watch.progress.note(event, step)

    @property
    def saving_group(self) -> Any:
        """The group that saves. All ranks make it when they save for the first time."""
        if self._saving_group is None:
            self._saving_group = dist.new_group(backend="gloo", timeout=self._timeout)
        return self._saving_group

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return `model` in a DistributedDataParallel, or as it is if it is one or is sharded.

        A warning names the options in the arguments that then have no effect.

        Raises:
            ValueError: No parameter of `model` requires a gradient.
        """
        is_given = distributed_part(model) is not None
        if is_given or is_sharded(model):
            if self._options and self.is_main:
                logger.warning(
                    "The model is %s, so these arguments have no effect: %s.",
                    "in a DistributedDataParallel already" if is_given else "sharded",
                    ", ".join(self._options),
                )
            return model
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(
                f"{type(model).__name__} has no parameter that requires a gradient, so the "
                f"{self.size} processes would diverge. Register the parameters that the optimizer "
                "trains in the model, or train in one process."
            )
        options = {_OPTIONS[name]: value for name, value in self._options.items()}
        wrapped = DistributedDataParallel(model, **options)
        _fix_bucket_order(wrapped)
        return wrapped

    def average_gradients(self, wrapped: nn.Module, now: bool) -> None:
        """Set whether the next backward pass of DDP or FSDP2 averages gradients.

        DDP with a static graph averages in every backward pass. It fails if it skips the first
        pass, and in a resumed training another pass is the first. FSDP2 averages in every pass too
        if torch cannot drop gradients that are not averaged yet. The gradients are the same.
        """
        if (part := distributed_part(wrapped)) is not None:
            part.require_backward_grad_sync = now or part.static_graph
            return
        for module in sharded_modules(wrapped):
            is_due = now or not hasattr(module, "reset_iter_state")
            module.set_requires_gradient_sync(is_due, recurse=False)

    def share_weights(self, model: nn.Module) -> None:
        """Broadcast each parameter and buffer of `model` from the main process."""
        self._broadcast((*model.parameters(), *model.buffers()))

    def share_buffers(self, model: nn.Module) -> None:
        """Broadcast each buffer of `model` from the main process."""
        self._broadcast(model.buffers())

    def agree(self, control: TrainerControl, signals: Signals, is_busy: bool = False) -> bool:
        """Combine the flags and signals of all ranks, and return whether any rank is busy.

        They all-reduce one integer: bits for the flags, one for whether a rank is busy, and one for
        whether there is a signal. They exchange more only if flags differ or there is a signal. If
        several ranks received a signal, that of the lowest rank is due.
        """
        asked = flag_bits(control) | is_busy << FLAG_BITS
        asked |= (signals.received is not None) << FLAG_BITS + 1
        combined = torch.tensor(asked)
        self._reduce(combined, dist.ReduceOp.BOR)
        bits = int(combined)
        if bits >> FLAG_BITS + 1:
            received = self.gather(signals.received)
            rank = next(rank for rank, number in enumerate(received) if number is not None)
            signals.due, signals.where = received[rank], f" by rank {rank}"
        if flags_differ(bits):
            combine_requests(control, self.gather(control.requests))
        return bool(bits >> FLAG_BITS & 1)

    def all_arrive(self, seconds: float) -> bool:
        """Return whether every rank calls this within `seconds` of this rank. No rank waits longer.

        A torch that does not give access to the store is an exception: there, ranks may wait for
        rank 0 as long as in a collective operation.
        """
        if self._watch.has_store:
            return self._watch.all_arrive(seconds)
        try:
            dist.monitored_barrier(self._group, timedelta(seconds=seconds))
        except RuntimeError:
            return False
        return True

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
        with self._watch.collective_operation():
            dist.all_gather_object(values, value, group=self._group)
        return values

    def gather_while_saving(self, value: T) -> list[T]:
        """Return the same as `gather`, by the group that saves."""
        values: list[Any] = [None] * self.size
        with self._watch.collective_operation():
            dist.all_gather_object(values, value, group=self.saving_group)
        return values

    def pass_to_main(self, items: Iterator[T], receive: Callable[[T], None]) -> None:
        """Gather some items of each rank on rank 0, until no rank has any.

        The items go to rank 0 only. Each round gathers several items if they are small, so that
        there are fewer rounds. Tensors in them must be on the CPU.
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
            with self._watch.collective_operation():
                dist.gather_object(packed, turn, group=self._group)
            try:
                for item in interleave(pickle.loads(one) for one in turn or ()):
                    receive(item)
            except HangError:
                raise
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
            except HangError:  # nobody waits for the answer any more
                raise
            except Exception as raised:
                error, answer[1] = raised, repr(raised)
        with self._watch.collective_operation():
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
            except HangError:
                raise
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
    def closing(self, error: BaseException) -> Iterator[None]:
        """Tell the other ranks about an error, and log which of them failed or are lost.

        SIGTERM is ignored here, because torchrun sends it as soon as another process has failed.
        That leaves the callbacks half a minute, until torchrun sends SIGKILL.
        """
        # Only the main thread may set handlers.
        in_main_thread = threading.current_thread() is threading.main_thread()
        previous = signal.signal(signal.SIGTERM, signal.SIG_IGN) if in_main_thread else None
        try:
            self._watch.report_failure(error)
            yield
        finally:
            if in_main_thread:
                signal.signal(signal.SIGTERM, previous)

    def _broadcast(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            shared = tensor.detach().contiguous()
            # The default group may have a backend for the accelerator only.
            dist.broadcast(
                shared, src=0, group=self._group if shared.device.type == "cpu" else None
            )
            tensor.detach().copy_(shared)

    def _reduce(self, tensor: Tensor, operation: Any) -> None:
        with self._watch.collective_operation():
            self._reduction(tensor, operation)


def find_world(args: DistributedArguments) -> World:
    """Return the processes of this training, and connect them if nothing else has.

    Raises:
        RuntimeError: The processes cannot connect.
        TimeoutError: Not all processes have connected in time.
        ValueError: They cannot connect with `ddp_backend`.
    """
    connect(args.device, with_margin(args.ddp_timeout), args.ddp_backend)
    return DistributedWorld(args) if size() > 1 else SINGLE_PROCESS


def _fix_bucket_order(wrapped: DistributedDataParallel) -> None:
    """Let `wrapped` order its buckets of gradients now, and not in its first step.

    The order decides how the gradients of three or more processes are summed, to the last bit.
    DistributedDataParallel changes the order after its first backward pass. In a resumed training,
    that pass is of a different step, so the sums would differ. So one pass with a loss of 0 comes
    before the first step.
    """
    if wrapped.static_graph or wrapped.find_unused_parameters:  # it keeps the order
        return
    parameters = [one for one in wrapped.module.parameters() if one.requires_grad]
    gradients = [one.grad for one in parameters]
    rows = {  # their gradients must be sparse
        id(one.weight)
        for one in wrapped.module.modules()
        if isinstance(one, (nn.Embedding, nn.EmbeddingBag)) and one.sparse
    }
    wrapped.reducer.prepare_for_backward([])
    read = [_first_row(one) if id(one) in rows else one for one in parameters]
    torch.autograd.backward([(one.sum() * 0).real.float() for one in read])  # on several devices
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _first_row(weight: Tensor) -> Tensor:
    """Return the first row of the weight of an embedding, whose gradient is then sparse."""
    row = torch.zeros(1, dtype=torch.long, device=weight.device)
    return nn.functional.embedding(row, weight, sparse=True)


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error
