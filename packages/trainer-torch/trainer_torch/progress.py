"""Where the loop stands: what a checkpoint keeps so that a resumed training goes on exactly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Progress:
    """The position in the data, and the loss of the update steps.

    Losses stay on their device until somebody reads them.

    Args:
        device: Where losses are.

    Attributes:
        epoch: The epoch that the loop is in, from 0.
        batches: Batches of that epoch that are done.
        epoch_ended: Whether that epoch is over. One in whose middle training was stopped is not:
            a resumed training goes on with it.
        logged_step: The update step of the last log.
    """

    def __init__(self, device: torch.device) -> None:
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
        total = self._loss_since_log.item()
        mean = total / (step - self.logged_step)
        self._loss_before_log += total
        self._loss_since_log.zero_()
        self.logged_step = step
        return mean

    def mean_loss(self, step: int) -> float:
        """Return the mean loss of all `step` steps. Synchronises."""
        return (self._loss_before_log + self._loss_since_log.item()) / max(1, step)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` goes on from. Synchronises."""
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
