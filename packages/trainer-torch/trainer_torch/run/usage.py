"""`Usage`: what a training uses: input tokens, floating point operations, time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from callback_core import TrainerState
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.callbacks.loop_callback import Interval
from trainer_torch.hardware.memory import MemoryMetrics, peak_memory, reset_peak
from trainer_torch.model.operations import OperationCounter
from trainer_torch.ranks.world import World

T = TypeVar("T")


class Usage:
    """Counts what one process uses, and adds what all processes use to the state.

    Nothing here waits for the device between two logs. Tokens in batches on the CPU are counted
    there. With one process, the state then has them after each update step; otherwise, and with
    several processes, at each log and checkpoint and at the end.

    Args:
        args: Provides `include_num_input_tokens_seen` and `skip_memory_metrics`.
        world: The processes of the training.
        warn: Logs a warning, unless it has been logged before.
        counter: Counts the operations, if a callback asks for it.
        measures: Whether callbacks want to know of each interval between two logs.
        main_input: The name of the tokens in a batch.
        padding: The token that fills sequences, if it is known.

    Attributes:
        measures: The argument of this name.
    """

    def __init__(
        self,
        args: TrainingArguments,
        world: World,
        warn: Callable[[str], None],
        *,
        counter: OperationCounter | None = None,
        measures: bool = False,
        main_input: str = "input_ids",
        padding: int | None = None,
    ) -> None:
        self._args, self._world, self._warn = args, world, warn
        self._included = str(args.include_num_input_tokens_seen)
        self._counter, self.measures = counter, measures
        self._main_input, self._padding = main_input, padding
        self._tokens: Any = 0  # not yet in the state: a number, or a tensor on the device
        self._operations = 0.0
        self._tokens_at_begin: int | None = None
        self._memory = None if args.skip_memory_metrics else MemoryMetrics(args.device)
        if measures and self._memory is None:
            reset_peak(args.device)
        self._began: float | None = None  # with the first batch, so that no set-up counts
        self._begin_interval()

    def waited_for(self, load: Callable[[], T]) -> T:
        """Return the next batches, which `load` returns, and measure how long they take."""
        began = time.perf_counter()
        if self._began is None:
            self._began = began
        loaded = load()
        self._waited += time.perf_counter() - began
        return loaded

    def counting(self, batch: Any) -> AbstractContextManager[None]:
        """Return the context of the training step on `batch`."""
        return nullcontext() if self._counter is None else self._counter.counting(batch)

    def operations_of(self, batch: Any) -> float:
        """Return the operations of the training step on `batch`; 0 if they are not counted."""
        return 0.0 if self._counter is None else self._counter.of(batch)

    def add(self, batch: Any, samples: int | None, operations: float) -> None:
        """Add a batch that was trained on.

        Args:
            batch: The batch.
            samples: The number of samples in it, if that is known.
            operations: What `Trainer.floating_point_ops` returned for it.
        """
        self._operations += operations
        if self._included == "no" and not self.measures:
            return
        tokens = self._count_tokens(batch)
        if tokens is not None and self._included != "no":
            self._tokens = self._tokens + tokens
        if self.measures:
            self._interval_tokens.append(tokens)
            self._interval_samples.append(samples)
            self._interval_operations += operations

    def end_step(self, state: TrainerState) -> None:
        """Count an update step, and add its tokens to `state` if that needs no waiting."""
        self._steps += 1
        if self._tokens_at_begin is None:
            self._tokens_at_begin = state.num_input_tokens_seen
        is_known = self._world.size == 1 and not isinstance(self._tokens, Tensor)
        if is_known and (self._tokens or self._operations):
            self.publish(state)

    def publish(self, state: TrainerState) -> None:
        """Add what all processes have used to `state`. Waits for the device and the processes."""
        if self._tokens_at_begin is None:
            self._tokens_at_begin = state.num_input_tokens_seen
        ranks = self._world.gather((int(self._tokens), self._operations))
        state.num_input_tokens_seen += sum(tokens for tokens, _ in ranks)
        state.total_flos += sum(operations for _, operations in ranks)
        self._tokens, self._operations = 0, 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time in this context, such as that of an evaluation, out of the interval."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if self._began is not None:
                self._began += time.perf_counter() - began

    def take_interval(self) -> list[Interval]:
        """Return what each process did since the last call, and begin a new interval."""
        now = time.perf_counter()
        interval = Interval(
            seconds=now - (now if self._began is None else self._began),
            waited=self._waited,
            steps=self._steps,
            samples=_total(self._interval_samples),
            tokens=_total(self._interval_tokens),
            operations=self._interval_operations,
            peak_memory=peak_memory(self._args.device),
        )
        self._begin_interval()
        self._began = now
        return self._world.gather(interval)

    def final_metrics(self, state: TrainerState, seconds: float) -> dict[str, float]:
        """Return what the log at the end adds to the metrics of a training of these seconds."""
        self.publish(state)
        metrics: dict[str, float] = {}
        if state.total_flos:
            metrics["total_flos"] = state.total_flos
        if self._included != "no":
            tokens = state.num_input_tokens_seen - (self._tokens_at_begin or 0)
            metrics["train_tokens_per_second"] = round(tokens / seconds, 3)
        if self._memory is not None:
            metrics |= self._memory.collect()
        return metrics

    def _begin_interval(self) -> None:
        self._waited = 0.0
        self._steps = 0
        self._interval_samples: list[Any] = []
        self._interval_tokens: list[Any] = []
        self._interval_operations = 0.0

    def _count_tokens(self, batch: Any) -> Any:
        """Return the tokens in `batch`: a number, or a tensor on its device; `None` if none."""
        tokens = batch.get(self._main_input) if isinstance(batch, Mapping) else None
        if not isinstance(tokens, Tensor):
            if self._included != "no":
                self._warn(
                    f"include_num_input_tokens_seen is {self._included!r}, but tokens are not "
                    f"counted, because a batch has no tensor {self._main_input!r}. Give the model "
                    "an attribute main_input_name with the name of its input."
                )
            return None
        if self._included != "non_padding":
            return tokens.numel()
        mask = batch.get("attention_mask")
        if isinstance(mask, Tensor):
            return _plain(mask.sum())
        if self._padding is not None:
            return _plain((tokens != self._padding).sum())
        self._warn(
            "include_num_input_tokens_seen is 'non_padding', but all tokens are counted, because a "
            "batch has no 'attention_mask', and there is no processing_class with a pad_token_id."
        )
        return tokens.numel()


def _plain(count: Tensor) -> Any:
    """Return a count as a number, if that does not wait for a device."""
    return int(count) if count.device.type == "cpu" else count.to(torch.int64)


def _total(counts: list[Any]) -> int | None:
    """Return the sum of `counts`, or `None` if one is unknown or there are none."""
    if not counts or any(count is None for count in counts):
        return None
    return int(sum(counts))
