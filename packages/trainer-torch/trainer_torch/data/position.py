"""The position of a training in its data, and its running loss. Both are part of a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer_torch.ranks.world import SINGLE_PROCESS, World


class LoopPosition:
    """The position in the data, and the sum of the losses.

    The losses since the last log stay on their device until they are read.

    Args:
        device: The device of the losses.
        world: The processes of the training. Each adds the losses of its own batches; the mean over
            all of them is read.
        batch_size: The number of samples in a full batch of each process, if that is known.

    Attributes:
        epoch: The current epoch, from 0.
        batches: The number of batches done in that epoch.
        samples: The number of samples done in that epoch, by `batch_size`; 0 if that is not known.
        epoch_ended: Whether that epoch has ended. If training was stopped within it, it has not:
            a resumed training continues it.
        logged_step: The update step of the last log.
        length: The number of batches of each rank in an epoch; `None` if it is not known.
        read_size: The number of samples in the batches done in this epoch, if they were of another
            size than those to come.
        reading: The batches of the epoch that are left, `reading.Reading`, once it has begun.
        data_state: The state of the data in the checkpoint, for the epoch that begins next.
        has_other_steps: Whether steps of another size, or of data of another length, were done
            before, so that the number of steps does not tell the epoch.
    """

    def __init__(
        self,
        device: torch.device,
        world: World = SINGLE_PROCESS,
        batch_size: int | None = None,
    ) -> None:
        self._world = world
        self.batch_size = batch_size
        self.epoch = 0
        self.batches = self.samples = 0
        self.epoch_ended = False
        self.logged_step = 0
        self.length: int | None = None
        self.has_other_steps = False
        self.read_size: int | None = None
        self.reading: Any = None
        self.data_state: Any = None
        self._loss_before_log = 0.0
        self._loss_since_log = torch.zeros((), device=device)

    def begin_epoch(self, epoch: int) -> None:
        """Start `epoch`, unless resuming inside it."""
        if epoch != self.epoch or self.epoch_ended:
            self.epoch, self.epoch_ended = epoch, False
            self.restart_epoch()

    def restart_epoch(self) -> None:
        """Go back to the beginning of the epoch."""
        self.batches = self.samples = 0
        self.read_size = None

    @property
    def is_within_epoch(self) -> bool:
        """Whether the epoch has begun and not ended."""
        return (self.batches > 0 or self.samples > 0) and not self.epoch_ended

    def data_state_dict(self) -> dict[str, Any] | None:
        """Return the state of the data after the batches that are done; `None` without one."""
        return self.reading and self.reading.state_dict(self.batches)

    def add_batch(self) -> None:
        """Count a batch that is done."""
        self.batches += 1
        self.samples += self.batch_size or 0

    def add_loss(self, loss: Tensor) -> None:
        """Add the mean loss of an update step, without waiting for the device."""
        self._loss_since_log += loss

    def take_loss(self, step: int) -> float:
        """Return the mean loss since the last log, and begin a new mean. Waits for the device."""
        total = self._sum_since_log()
        mean = total / (step - self.logged_step)
        self._loss_before_log += total
        self._loss_since_log.zero_()
        self.logged_step = step
        return mean

    def mean_loss(self, step: int) -> float:
        """Return the mean loss of all `step` steps. Waits for the device."""
        return (self._loss_before_log + self._sum_since_log()) / max(1, step)

    def state_dict(self) -> dict[str, Any]:
        """Return a state for `load_state_dict`. Waits for the device."""
        # A resumed rank starts from the mean over all ranks. This training continues from the same
        # mean, so that both round alike.
        self._loss_since_log.fill_(self._sum_since_log())
        return {
            "epoch": self.epoch,
            "batches": self.batches,
            "samples": self.samples,
            "batch_size": self.batch_size,
            "epoch_ended": self.epoch_ended,
            "logged_step": self.logged_step,
            "length": self.length,
            "has_other_steps": self.has_other_steps,
            "loss_before_log": self._loss_before_log,
            "loss_since_log": self._loss_since_log.item(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned, but for the batch size and the length."""
        self.epoch = state["epoch"]
        self.batches, self.samples = state["batches"], state["samples"]
        self.epoch_ended = state["epoch_ended"]
        self.logged_step = state["logged_step"]
        self.has_other_steps = state["has_other_steps"]
        self._loss_before_log = state["loss_before_log"]
        self._loss_since_log.fill_(state["loss_since_log"])

    def _sum_since_log(self) -> float:
        """Return the sum of the losses since the last log, as the mean over all ranks."""
        sums = self._world.gather(self._loss_since_log.item())
        return sum(sums) / len(sums)
