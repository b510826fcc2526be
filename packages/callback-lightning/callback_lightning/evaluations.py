"""`EvaluationEvents`: the events of validations, tests and predictions."""

from __future__ import annotations

from typing import Any

from callback_lightning.framework import Callback, LightningModule, Trainer
from callback_lightning.names import Stage
from callback_lightning.training import Training


def stage_of(trainer: Trainer | None) -> Stage:
    """Return in which stage the trainer is; without a trainer, it is `train`."""
    if trainer is None or trainer.training:
        return "train"
    return "test" if trainer.testing else "eval" if trainer.validating else "train"


class EvaluationEvents(Callback):
    """The part of `LightningCallbacks` that fires the events of validations, tests and predictions.

    Lightning's sanity check of the validation, before a training, fires none.

    Attributes:
        training: The events, the state and the control.
    """

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training
        self._metrics_before: dict[str, Any] = {}

    def act(self, trainer: Trainer, *, ends_epoch: bool = False) -> None:
        """Do what callbacks ask for.

        Args:
            trainer: Lightning's trainer.
            ends_epoch: Whether an epoch ends, rather than a batch.
        """
        raise NotImplementedError

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the metrics that exist already."""
        self._metrics_before = dict(trainer.callback_metrics)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Fire `on_prediction_step`."""
        if not trainer.sanity_checking:
            self.training.fire("on_prediction_step")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fire `on_evaluate`."""
        if not trainer.sanity_checking:
            self._evaluated(trainer, "eval")
            if self.training.is_running:
                self.act(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the metrics that exist already."""
        self._metrics_before = dict(trainer.callback_metrics)

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Fire `on_prediction_step`."""
        self.training.fire("on_prediction_step")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fire `on_evaluate`."""
        self._evaluated(trainer, "test")

    def on_predict_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Fire `on_prediction_step`."""
        self.training.fire("on_prediction_step")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fire `on_predict`. Lightning's predictions have no metrics."""
        self.training.fire("on_predict", metrics=None)

    def _evaluated(self, trainer: Trainer, stage: Stage) -> None:
        """Fire `on_evaluate` with the new metrics, including those that no logger gets."""
        before, self._metrics_before = self._metrics_before, {}
        metrics = {
            name: value
            for name, value in trainer.callback_metrics.items()
            if value is not before.get(name)
        }
        self.training.evaluated(metrics, stage)
