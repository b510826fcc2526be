"""`LoopCallback`: a callback that takes part in the work of this Trainer, beyond the events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from callback_core import TrainerCallback
from trainer_torch.model.operations import OperationCounter


@dataclass(frozen=True)
class Interval:
    """What one process has done since the last log.

    Attributes:
        seconds: The time that its update steps took, without evaluations and saves.
        waited: The seconds of that time in which it waited for batches.
        steps: The number of update steps.
        samples: The number of samples; `None` if the number in a batch is unknown.
        tokens: The number of input tokens; `None` if the batches have none.
        operations: The floating point operations of the model, forward and backward.
        peak_memory: The most bytes of the device that were allocated since the training began; on
            the CPU, the most memory that the process had. `None` if that is not known.
    """

    seconds: float
    waited: float
    steps: int
    samples: int | None
    tokens: int | None
    operations: float
    peak_memory: int | None


class LoopCallback(TrainerCallback):
    """A callback that this Trainer also asks between the events. Other loops fire the events only.

    Override what you need. Every process calls each of these methods at the same step, except
    `checkpoint_files`, which only a process that saves calls. With a sharded model, all processes
    call it, and the files of the main one are written. What they raise ends the training.

    Attributes:
        operation_counter: Counts the floating point operations of the training, if there is one.
    """

    operation_counter: OperationCounter | None = None

    def interval_logs(self, ranks: Sequence[Interval]) -> dict[str, float]:
        """Return values to add to a log of training.

        Args:
            ranks: What each process has done since the last log.
        """
        return {}

    def evaluation(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which `model` is evaluated or predicts."""
        return nullcontext()

    def checkpoint_files(self, model: nn.Module) -> Mapping[str, Any]:
        """Return what a resumed training needs, by the names of files in the checkpoint.

        A name that ends in `.json` is for a value that JSON can represent. `.safetensors` is for
        `trainer_torch.SafeTensors`. Any other is for what `torch.save` writes and
        `torch.load(weights_only=True)` reads.

        Called with `save_only_model` too, because the files may hold weights.
        """
        return {}

    def load_files(self, model: nn.Module, checkpoint: Path) -> None:
        """Read the files of `checkpoint_files`. The weights of `model` are already those saved.

        Called after `on_train_begin`, and within an epoch after `on_epoch_begin`; and when a
        training goes back to a checkpoint, with `on_non_finite="rollback"`.
        """

    def finish(self, model: nn.Module, best: Path | None) -> None:
        """Change the weights with which a complete training ends.

        Called after its last log and before `on_train_end`.

        Args:
            model: The model, with the weights of the last step, or with those of `best`.
            best: The best checkpoint, if its weights were loaded.
        """
