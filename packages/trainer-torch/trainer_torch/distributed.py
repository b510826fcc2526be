"""The processes of a training that `torchrun` starts, and what they do together.

Each is a *rank*. What ranks tell each other to agree goes over a group of its own on the CPU, so
that it never waits for a device.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from callback_core import Request, TrainerControl
from trainer_torch.world import ALONE, World

if TYPE_CHECKING:
    from trainer_torch.arguments import TrainingArguments
    from trainer_torch.signals import Signals

T = TypeVar("T")

FLAGS: Final = tuple(TrainerControl().state()["args"])

_FROM_TORCHRUN: Final = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class Ranks(World):
    """Several processes, each of which calls the same methods in the same order.

    Args:
        args: Say how long a rank waits for the others, and how a model is wrapped.
    """

    def __init__(self, args: TrainingArguments) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        self._find_unused_parameters = bool(args.ddp_find_unused_parameters)
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=args.ddp_timeout))

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return `model` in a DistributedDataParallel, unless it is one.

        Raises:
            ValueError: It has nothing to train.
        """
        if isinstance(model, DistributedDataParallel):
            return model
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(
                f"{type(model).__name__} has no parameter that requires a gradient, so nothing "
                f"would keep it the same in {self.size} processes. Make what the optimizer trains "
                "a part of the model, or train in one process."
            )
        return DistributedDataParallel(model, find_unused_parameters=self._find_unused_parameters)

    def average_gradients(self, wrapped: nn.Module, now: bool) -> None:
        """Do what `DistributedDataParallel.no_sync` does, which is a context."""
        wrapped.require_backward_grad_sync = now  # type: ignore[assignment]

    def share_buffers(self, model: nn.Module) -> None:
        """Broadcast each buffer of `model`."""
        for buffer in model.buffers():
            shared = buffer.detach().contiguous()
            dist.broadcast(shared, src=0)
            buffer.detach().copy_(shared)

    def agree(self, control: TrainerControl, signals: Signals) -> None:
        """Join the flags and signals of all ranks in one reduction of a number for each rank.

        Who asked is exchanged too where they differ. The first rank's signal is the one that is
        due.
        """
        flags = sum(getattr(control, flag) << bit for bit, flag in enumerate(FLAGS))
        asked = torch.zeros(self.size, dtype=torch.int64)
        asked[self.rank] = flags | (signals.received or 0) << len(FLAGS)
        self._reduce(asked, dist.ReduceOp.SUM)
        flags_of = [mask & ~(-1 << len(FLAGS)) for mask in asked.tolist()]
        signals_of = [mask >> len(FLAGS) for mask in asked.tolist()]
        if any(signals_of):
            rank = next(rank for rank, number in enumerate(signals_of) if number)
            signals.due, signals.where = signal.Signals(signals_of[rank]), f" by rank {rank}"
        if len(set(flags_of)) > 1:
            _note(control, self.gather(control.requests))

    def as_many_as_all(self, batches: list[Any]) -> list[Any]:
        """Return the first of `batches`, as many as the rank that has the fewest."""
        least = torch.tensor(len(batches))
        self._reduce(least, dist.ReduceOp.MIN)
        return batches[: int(least)]

    def gather(self, value: T) -> list[T]:
        """Return the `value` of each rank. Tensors in it have to be on the CPU."""
        values: list[Any] = [None] * self.size
        with self._reaching_others():
            dist.all_gather_object(values, value, group=self._group)
        return values

    def on_main(self, do: Callable[[], T]) -> T:
        """Call `do` on rank 0 and broadcast what it returns, or that it failed."""
        error: Exception | None = None
        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer[0] = do()
            except Exception as raised:
                error, answer[1] = raised, repr(raised)
        with self._reaching_others():
            dist.broadcast_object_list(answer, src=0, group=self._group)
        if error is not None:
            raise error
        if answer[1] is not None:
            raise RuntimeError(f"Rank 0 failed while rank {self.rank} waited for it: {answer[1]}")
        return cast("T", answer[0])

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Ignore SIGTERM, by which torchrun ends this process once another has failed.

        It sends SIGKILL half a minute later.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()  # others may not
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN) if in_main_thread else None
        try:
            yield
        finally:
            if in_main_thread:
                signal.signal(signal.SIGTERM, before)

    def _reduce(self, tensor: Tensor, operation: Any) -> None:
        with self._reaching_others():
            dist.all_reduce(tensor, operation, group=self._group)

    @contextmanager
    def _reaching_others(self) -> Iterator[None]:
        """Say what it means when the others cannot be reached."""
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError(
                f"Rank {self.rank} lost the other processes of the training. Most likely one of "
                "them has ended, and its own error says why; or one took longer than ddp_timeout."
            ) from error


def find_world(args: TrainingArguments) -> World:
    """Return the processes of this training, beginning to talk to them where that is to be done.

    Raises:
        RuntimeError: A launcher started several processes, but did not tell them how to meet; or
            there are fewer GPUs than processes on this machine.
    """
    if not (dist.is_available() and dist.is_initialized()):
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return ALONE
        _begin(args)
    return Ranks(args) if dist.get_world_size() > 1 else ALONE


def bare(model: nn.Module) -> nn.Module:
    """Return the model that `model` wraps, or itself where it wraps none."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def _begin(args: TrainingArguments) -> None:
    """Meet the other processes that torchrun started, each with a GPU of its own if there are."""
    if missing := [name for name in _FROM_TORCHRUN if name not in os.environ]:
        raise RuntimeError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set, by "
            "which several processes meet. Start them with torchrun, or unset WORLD_SIZE."
        )
    on_gpu, local_rank = args.device.type == "cuda", int(os.environ["LOCAL_RANK"])
    if on_gpu:
        if local_rank >= torch.cuda.device_count():
            raise RuntimeError(
                f"LOCAL_RANK is {local_rank}, but this machine has {torch.cuda.device_count()} "
                "GPU(s). Start at most one process for each GPU, or train with use_cpu=True."
            )
        torch.cuda.set_device(local_rank)
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=args.ddp_timeout))
    atexit.register(_end)


def _end() -> None:
    """Take leave of the other processes, which might wait for ever where this one has failed."""
    if dist.is_initialized() and not hasattr(sys, "last_value"):
        dist.destroy_process_group()


def _note(control: TrainerControl, requests: list[tuple[Request, ...]]) -> None:
    """Ask `control` for what it is not asked for, but that of another rank is.

    Args:
        control: This rank's.
        requests: Of each rank.
    """
    missing = {flag for flag in FLAGS if not getattr(control, flag)}
    noted = [
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
    before = control.requests
    for request in noted:
        setattr(control, request.flag, True)
    control.requests = (*before, *noted)
