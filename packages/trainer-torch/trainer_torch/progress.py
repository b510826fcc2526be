"""Where the loop stands: what a checkpoint keeps so that a resumed training goes on exactly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer_torch.world import ALONE, World


class Progress:
    """The position in the data, and the loss of the update steps.

    Losses stay on their device until somebody reads them.

    Args:
        device: Where losses are.
        world: The processes of which each adds the losses of its own batches; what is read is the
            mean of all.

    Attributes:
        epoch: The epoch that the loop is in, from 0.
        batches: Batches of that epoch that are done.
        epoch_ended: Whether that epoch is over. One in whose middle training was stopped is not:
            a resumed training goes on with it.
        logged_step: The update step of the last log.
    """

    def __init__(self, device: torch.device, world: World = ALONE) -> None:
        self._world = world
        self.epoch = 0
        self.batches = 0
        self.epoch_ended = False
        self.logged_step = 0
        self._loss_before_log = 0.0
        self._loss_since_log = torch.zeros((), device=device)

    def begin_epoch(self, epoch: int) -> None:
        """Go to the beginning of `epoch`, unless that is the epoch that is gone on with."""
        if epoch != self.epoch or self.epoch_ended:
            self.epoch, self.batches, self.epoch_ended = epoch, 0, False

    def add_loss(self, loss: Tensor) -> None:
        """Add the mean loss of an update step. Nothing is synchronised."""
        self._loss_since_log += loss

    def loss_since_log(self, step: int) -> float:
        """Return the mean loss of the steps since this was last asked, at `step`. Synchronises."""
        total = self._mean_since_log()
        mean = total / (step - self.logged_step)
        self._loss_before_log += total
        self._loss_since_log.zero_()
        self.logged_step = step
        return mean

    def mean_loss(self, step: int) -> float:
        """Return the mean loss of all `step` steps. Synchronises."""
        return (self._loss_before_log + self._mean_since_log()) / max(1, step)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` goes on from. Synchronises."""
        # All ranks go on from the mean, as they do when resuming: so both round alike.
        self._loss_since_log.fill_(self._mean_since_log())
        return {
            "epoch": self.epoch,
            "batches": self.batches,
            "epoch_ended": self.epoch_ended,
            "logged_step": self.logged_step,
            "loss_before_log": self._loss_before_log,
            "loss_since_log": self._loss_since_log.item(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.epoch = state["epoch"]
        self.batches = state["batches"]
        self.epoch_ended = state["epoch_ended"]
        self.logged_step = state["logged_step"]
        self._loss_before_log = state["loss_before_log"]
        self._loss_since_log.fill_(state["loss_since_log"])

    def _mean_since_log(self) -> float:
        """Return the sum of the losses since the last log, as the mean over all ranks."""
        sums = self._world.gather(self._loss_since_log.item())
        return sum(sums) / len(sums)
