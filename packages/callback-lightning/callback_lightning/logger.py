"""`TrackerLogger`: makes any of our trackers a logger of Lightning."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from callback_core.tracking import Tracker, TrackerCallback
from callback_lightning.callbacks import LightningCallbacks
from callback_lightning.checkpoints import state_in
from callback_lightning.framework import Trainer, is_main_process
from callback_lightning.receiver import LogReceiver, parameters_of, tell_of_late
from callback_lightning.training import Training

logger = logging.getLogger(__name__)


class TrackerLogger(LogReceiver):
    """Logs to trackers as a logger of Lightning does.

        Trainer(logger=TrackerLogger(MLflowCallback()))

    In a trainer, it adds `LightningCallbacks` when a run begins, unless there are some. They learn
    for its callbacks how the training begins, resumes and ends. Without a trainer, what is logged
    until `finalize` is one run.

    Args:
        callbacks: Callbacks of trackers, or trackers.
        args: Arguments, as for `LightningCallbacks`. If the trainer has `LightningCallbacks`, their
            arguments apply instead.

    Raises:
        TypeError: `args` or a callback is of a wrong type.
        ValueError: There is no callback, or an argument is not allowed.
    """

    def __init__(self, *callbacks: TrackerCallback | Tracker, args: Any = None) -> None:
        super().__init__()
        if not callbacks:
            raise ValueError("TrackerLogger needs the callback of a tracker: MLflowCallback().")
        for one in callbacks:
            if not isinstance(one, (TrackerCallback, Tracker)):
                raise TypeError(
                    f"{one!r} is not the callback of a tracker. Pass it to LightningCallbacks."
                )
        self.callbacks = [
            TrackerCallback(one) if isinstance(one, Tracker) else one for one in callbacks
        ]
        self._args = args
        self._alone = Training(self.callbacks, args)
        self._has_told_of_graph = self._has_told_of_trainer = False
        self.directory = self._alone.args.output_dir if self._alone.has_directory else None

    @property
    def name(self) -> str:
        """The run's name in the arguments, which is part of the path of checkpoints; or empty."""
        return self._alone.args.run_name or ""

    @property
    def experiment(self) -> Any:
        """The first callback, with `run_id` and `run_url`; a dummy on ranks other than 0."""
        return self.callbacks[0] if is_main_process() else super().experiment

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values by name.

        Args:
            metrics: The values.
            step: Their step; by default that of the training.
        """
        if self.listener is not None:
            super().log_metrics(metrics, step)
            return
        if not is_main_process():
            return
        alone = self._alone
        if "epoch" in metrics and not self._has_told_of_trainer:  # Lightning's trainer adds it
            self._has_told_of_trainer = True
            logger.warning(
                "TrackerLogger does not know the trainer that logs to it, because "
                "enable_autolog_hparams is off. So the run cannot resume, and has no parameters. "
                "Add LightningCallbacks() to the trainer's callbacks."
            )
        if not alone.is_running:
            alone.forget()
            alone.begin(0, None)
            alone.fire("on_epoch_begin")
        if step is not None:
            alone.state.global_step = step
        alone.log_of_lightning(metrics, step, "train")

    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Log hyperparameters, as parameters of the run.

        Args:
            params: Values by name.
            args: If the first one is a mapping, metrics to log with the parameters.
            kwargs: `metrics` may be such a mapping instead.
        """
        if self.listener is None:
            tell_of_late(self._alone.learn(parameters_of(params)))
        super().log_hyperparams(params, *args, **kwargs)

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Join the trainer of `model`, because Lightning calls this when a run begins.

        This logs no graph.
        """
        if input_array is not None and not self._has_told_of_graph:
            self._has_told_of_graph = True
            logger.warning("TrackerLogger does not log the graph of the model.")
        try:
            trainer: Trainer = model.trainer
        except (AttributeError, RuntimeError):  # there is none
            return
        self._join(trainer, model)

    def finalize(self, status: str) -> None:
        """End the run that was logged without a trainer.

        Args:
            status: `success`, or anything else for a failure.
        """
        if status == "success":
            self._alone.end()
        else:
            self._alone.close(RuntimeError(f"The run was finalized as {status!r}."))

    def _join(self, trainer: Trainer, model: Any) -> None:
        """Add `LightningCallbacks` to the trainer, unless it has them."""
        if any(isinstance(one, LightningCallbacks) for one in trainer.callbacks):
            return
        self._alone.end()
        driver = LightningCallbacks((), self._args)
        driver.training.learn(self._alone.args.given)
        first = next(iter(trainer.checkpoint_callbacks), None)
        at = len(trainer.callbacks) if first is None else trainer.callbacks.index(first)
        trainer.callbacks.insert(at, driver)
        driver.attach(trainer, model)
        if trainer.state.fn == "fit" and (state := state_in(trainer.ckpt_path)) is not None:
            driver.training.load_state_dict(state)
