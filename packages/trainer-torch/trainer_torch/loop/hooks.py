"""`LoopHooks`: what the loop calls, and a subclass of the Trainer may override."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn


class LoopHooks(Protocol):
    """What the loop calls and a subclass of Trainer may override."""

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: int | None = None
    ) -> Tensor:
        """Add the gradients of a batch and return its part of the step's loss, detached."""

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is divided by `num_items_in_batch`, and not the mean of a batch."""

    def count_items(self, inputs: Any, size: int | None) -> int | None:
        """Return over how many items of a batch its mean loss is taken, or `None` if unknown."""

    def get_train_dataloader(self) -> Any:
        """Return a loader of training batches, with the batch size of the arguments."""

    def floating_point_ops(self, inputs: Any) -> float:
        """Return the operations of the training step on a batch; 0 if they are unknown."""

    def get_batch_size(self, batch: Any, loaded: int | None) -> int | None:
        """Return the number of samples in a batch, or `None` if it is unknown."""

    def evaluate(self, *, ignore_keys: list[str] | None = None) -> Mapping[str, float]:
        """Evaluate, log the metrics and return them."""

    def log(self, logs: dict[str, Any]) -> None:
        """Add `logs` to the history and fire `on_log`."""

    def save_checkpoint(self) -> None:
        """Save a checkpoint and fire `on_save`."""
