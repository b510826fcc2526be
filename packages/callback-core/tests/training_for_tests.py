"""The events of a trainer, for the callbacks that show its progress."""

from __future__ import annotations

from itertools import islice
from typing import Any

from arguments_for_tests import Arguments

from callback_core import (
    CallbackHandler,
    DefaultFlowCallback,
    ProgressCallback,
    TrainerControl,
    TrainerState,
)


class Training:
    """Fires what a trainer fires, at `callback`. Its state is made of `fields`."""

    def __init__(self, callback: Any = ProgressCallback, **fields: Any) -> None:
        self.state = TrainerState(**{"max_steps": 4, **fields})
        self.control = TrainerControl()
        self.handler = CallbackHandler([DefaultFlowCallback, callback], None, None, None, None)

    def fire(self, event: str, **kwargs: Any) -> None:
        getattr(self.handler, event)(Arguments(), self.state, self.control, **kwargs)

    def train(
        self,
        begin: int = 0,
        end: int = 4,
        eval_dataloaders: tuple[Any, ...] = (),
        stop: str | None = None,
    ) -> None:
        """Train to step `end`; `stop` is the reason for which that is the last."""
        self.state.global_step = begin
        self.fire("on_train_begin")
        try:
            for self.state.global_step in range(begin + 1, end + 1):
                self.fire("on_step_end")
                self.fire("on_log", logs={"loss": 1 / 3, "total_flos": 1.0})
                for dataloader in eval_dataloaders:
                    self.evaluate(dataloader)
            if stop:
                self.control.request_stop(stop)
        finally:
            self.fire("on_train_end")

    def evaluate(
        self, dataloader: Any = (1, 2), event: str = "on_evaluate", batches: int | None = None
    ) -> None:
        """Evaluate, or predict, all batches or the first ones; `event` tells of the end."""
        self.handler.eval_dataloader = dataloader
        for _ in islice(dataloader, batches):
            self.fire("on_prediction_step")
        if event == "on_evaluate":
            self.fire("on_log", logs={"eval_loss": 0.5})
        self.fire(event, metrics={"eval_loss": 0.5})


class Failing:
    """Batches. The last one cannot be read."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Any:
        yield from range(self.batches - 1)
        raise OSError("a batch that cannot be read")


class Endless:
    """Batches that do not know how many they are, as torch says it, or by another `error`."""

    def __init__(self, error: type[Exception] = TypeError) -> None:
        self.error = error

    def __len__(self) -> int:
        raise self.error("object of type 'Endless' has no len()")

    def __iter__(self) -> Any:
        return iter(range(3))
