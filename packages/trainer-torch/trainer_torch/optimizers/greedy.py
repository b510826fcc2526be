"""`GreedyLR`: a schedule that raises the learning rate too, while a metric improves."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau


class GreedyLR(ReduceLROnPlateau):
    """Raises the learning rate while a metric improves, and lowers it while it does not.

    After [GreedyLR](https://arxiv.org/abs/2512.14527), with the parameters and defaults that it has
    in transformers. Those that it shares with `ReduceLROnPlateau` mean the same.

    Args:
        optimizer: The optimizer.
        mode: `min` if a lower metric is better, else `max`.
        factor: Multiplies the rate to lower it, and divides it to raise it.
        patience: The number of consecutive evaluations that change nothing. The next one changes
            the rate.
        threshold: How much better a metric must be to count.
        threshold_mode: `abs` or `rel`.
        cooldown: The number of evaluations that are ignored after the rate was lowered.
        warmup: The number of evaluations that are ignored after it was raised.
        min_lr: The lowest rate, or one for each parameter group.
        max_lr: The highest rate, or one for each parameter group.
        eps: The least change of the rate.
        smooth: Decide by the mean of the last `window_size` metrics.
        window_size: The number of metrics in that mean.
        reset_start: After how many attempts to lower the lowest rate the schedule starts again with
            the first rate.

    Raises:
        ValueError: A value is not allowed.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.95,
        patience: int = 10,
        threshold: float = 1e-6,
        threshold_mode: Literal["rel", "abs"] = "abs",
        cooldown: int = 0,
        warmup: int = 0,
        min_lr: Any = 1e-3,
        max_lr: Any = 1.0,
        eps: float = 1e-8,
        smooth: bool = False,
        window_size: int = 50,
        reset_start: int = 500,
    ) -> None:
        super().__init__(
            optimizer,
            mode=mode,
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_mode,
            cooldown=cooldown,
            min_lr=min_lr,
            eps=eps,
        )
        groups = optimizer.param_groups
        self.max_lrs = list(max_lr) if isinstance(max_lr, (list, tuple)) else [max_lr] * len(groups)
        if len(self.max_lrs) != len(groups):
            raise ValueError(
                f"max_lr has {len(self.max_lrs)} values, but the optimizer has {len(groups)} "
                "groups."
            )
        self.warmup = warmup
        self.first_lrs = [float(group["lr"]) for group in groups]
        self.smooth, self.window_size = smooth, window_size
        self.reset_start = reset_start
        self.warmup_counter = self.num_good_epochs = 0
        self.resets_in = reset_start
        self.recent: list[float] = []

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take the metric of an evaluation, and change the learning rates if it is time to.

        Args:
            metrics: The metric.
            epoch: The number of this evaluation; by default the next one.
        """
        for group in self.optimizer.param_groups[len(self.first_lrs) :]:  # added by a callback
            self.first_lrs.append(float(group["lr"]))
            self.min_lrs.append(self.min_lrs[-1])
            self.max_lrs.append(self.max_lrs[-1])
        current = float(metrics)
        if self.smooth:
            self.recent = [*self.recent, current][-self.window_size :]
            current = math.fsum(self.recent) / len(self.recent)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = self.num_good_epochs = 0
        elif self.warmup_counter > 0:
            self.warmup_counter -= 1
            self.num_bad_epochs = self.num_good_epochs = 0
        else:
            self._count(current)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _count(self, current: float) -> None:
        """Count a metric, and change the rates if it is one more than the patience."""
        if self._improves(current):
            self.best = current
            self.num_good_epochs, self.num_bad_epochs = self.num_good_epochs + 1, 0
        else:
            self.num_good_epochs, self.num_bad_epochs = 0, self.num_bad_epochs + 1
        if self.num_good_epochs > self.patience:
            self._raise_rates()
            self.warmup_counter, self.num_good_epochs = self.warmup, 0
        elif self.num_bad_epochs > self.patience:
            self._lower_rates()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _improves(self, current: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "abs":
            return bool(sign * current < sign * self.best - self.threshold)
        return bool(sign * current < sign * self.best * (1 - sign * self.threshold))

    def _raise_rates(self) -> None:
        for group, highest in zip(self.optimizer.param_groups, self.max_lrs, strict=False):
            raised = min(float(group["lr"]) / self.factor, highest)
            if raised - group["lr"] > self.eps:
                group["lr"] = raised
        self.resets_in = self.reset_start

    def _lower_rates(self) -> None:
        is_lowest = True
        for group, lowest in zip(self.optimizer.param_groups, self.min_lrs, strict=False):
            lowered = max(float(group["lr"]) * self.factor, lowest)
            if group["lr"] - lowered > self.eps:
                group["lr"] = lowered
            is_lowest &= bool(group["lr"] <= lowest)
        self.resets_in -= is_lowest
        if is_lowest and self.resets_in <= 0:
            for group, first in zip(self.optimizer.param_groups, self.first_lrs, strict=False):
                group["lr"] = first
            self._begin()

    def _begin(self) -> None:
        """Forget all metrics."""
        self.best = math.inf if self.mode == "min" else -math.inf
        self.num_good_epochs = self.num_bad_epochs = 0
        self.cooldown_counter = self.warmup_counter = 0
        self.resets_in = self.reset_start
        self.recent = []
