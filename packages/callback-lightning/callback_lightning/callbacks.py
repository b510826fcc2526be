"""`LightningCallbacks`: any of our callbacks as a callback of Lightning."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from callback_core.tracking import TrackerCallback
from callback_lightning.checkpoints import FILE, KEY, Checkpoints
from callback_lightning.evaluations import EvaluationEvents, stage_of
from callback_lightning.framework import LightningModule, Trainer
from callback_lightning.receiver import Duplicates, LogReceiver, tell_of_late
from callback_lightning.requests import Requests
from callback_lightning.settings import fill_arguments, find_directory, track_the_same
from callback_lightning.training import Training

logger = logging.getLogger(__name__)


class LightningCallbacks(EvaluationEvents):
    """Calls callbacks of `callback_core` at the events of Lightning's trainer.

        Trainer(callbacks=[LightningCallbacks([MLflowCallback(), EarlyStoppingCallback(2)])])

    What a module logs with `self.log` reaches the callbacks when Lightning logs it, even with
    `Trainer(logger=False)`. A checkpoint of Lightning holds the states of the callbacks, so that
    `fit(ckpt_path=…)` continues the runs of trackers. With `fast_dev_run`, trackers get nothing,
    like Lightning's own loggers.

    Args:
        callbacks: Callbacks, or classes of callbacks.
        args: Arguments for the callbacks, such as `run_name`, `output_dir` and
            `metric_for_best_model`, in any form that `callback_core.LoopArguments` takes. Trackers
            log them together with the hyperparameters of the module. By default, `output_dir` is
            Lightning's `default_root_dir`, and the metric is that of `ModelCheckpoint`.

    Attributes:
        training: The events, the state and the control.

    Raises:
        TypeError: `args` or a callback is of a wrong type.
        ValueError: An argument is not allowed.
    """

    def __init__(self, callbacks: Iterable[Any] = (), args: Any = None) -> None:
        super().__init__(Training(callbacks, args))
        self._callbacks = list(self.training.handler.callbacks)
        self._receiver = LogReceiver()
        self._duplicates = Duplicates()
        self._checkpoints, self._requests = Checkpoints(self._tell), Requests(self._tell)
        self._trainer: Trainer | None = None
        self._has_epoch = self._has_step = False
        self._losses: list[Any] = []
        self._told: set[str] = set()

    # The beginning and the end

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare for what the trainer is about to do: see `attach`."""
        self.attach(trainer, pl_module)

    def attach(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to the trainer's loggers, and take over the callbacks that they have.

        Raises:
            ValueError: The trainer has several of these callbacks.
        """
        if any(isinstance(one, type(self)) and one is not self for one in trainer.callbacks):
            raise ValueError(
                "The trainer has several LightningCallbacks. Pass all callbacks to one of them."
            )
        self._trainer = trainer
        training = self.training
        find_directory(training, trainer, self._tell)
        self._listen(trainer)
        training.handler.callbacks = [
            one
            for one in self._callbacks
            if not (trainer.fast_dev_run and isinstance(one, TrackerCallback))
        ]
        training.handler.model = pl_module
        if trainer.state.fn == "fit":
            training.forget()
        training.state.is_world_process_zero = trainer.is_global_zero
        training.state.is_local_process_zero = trainer.local_rank == 0
        training.initialize()

    def add(self, callback: Any) -> None:
        """Add a callback, unless it or one with the same tracker is there already."""
        if any(one is callback for one in self._callbacks):
            return
        if same := next((one for one in self._callbacks if track_the_same(one, callback)), None):
            self._tell(
                f"LightningCallbacks and a TrackerLogger each have a {type(same).__name__} with "
                "equal settings. Only one of them logs."
            )
            return
        self._callbacks.append(callback)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fire `on_train_begin`."""
        training, handler = self.training, self.training.handler
        optimizers, schedulers = trainer.optimizers, trainer.lr_scheduler_configs
        handler.optimizer = optimizers[0] if len(optimizers) == 1 else optimizers or None
        handler.lr_scheduler = schedulers[0].scheduler if schedulers else None
        handler.train_dataloader = trainer.train_dataloader
        handler.eval_dataloader = trainer.val_dataloaders
        fill_arguments(training, trainer)
        self._requests.begin()
        self._has_epoch = self._has_step = False
        self._checkpoints.clear()
        checkpoint = trainer.ckpt_path
        training.begin(trainer.global_step, None if checkpoint is None else str(checkpoint))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fire `on_train_end`, now that all checkpoints are saved."""
        self._tell_saved()
        try:
            self.training.end()
        finally:
            self._checkpoints.clear()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Fire `on_exception` and `on_train_end` if a training is running."""
        try:
            if self.training.is_running:
                self._tell_saved()
        except Exception:
            logger.exception("A callback failed at on_save while training was ending.")
        finally:
            self.training.close(exception)
            self._checkpoints.clear()
            self._leave(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the trainer as it was."""
        self._leave(trainer)

    # The epochs and steps

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fire `on_epoch_begin`."""
        self._begin_epoch(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Fire `on_save` if something was saved, and `on_step_begin` at the beginning of a step."""
        self._requests.restore(trainer)
        self.act(trainer)  # callbacks may have asked for something at a log
        self._tell_saved()
        self._begin_epoch(trainer)
        if not self._has_step:
            self._has_step, self._losses = True, []
            self.training.fire("on_step_begin")

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Fire `on_pre_optimizer_step`. Lightning has not clipped the gradients yet."""
        self.training.fire("on_pre_optimizer_step")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Fire `on_optimizer_step` and `on_step_end`, or `on_substep_end`."""
        training, state = self.training, self.training.state
        number = trainer.num_training_batches
        if math.isfinite(number):
            state.epoch = trainer.current_epoch + (batch_idx + 1) / number
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:  # Lightning has divided it by the number of batches in a step
            scale = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            self._losses.append((loss.detach() if hasattr(loss, "detach") else loss) * scale)
        mean = sum(self._losses) / len(self._losses) if self._losses else None
        if trainer.global_step > state.global_step:
            state.global_step = trainer.global_step
            self._has_step = False
            training.fire("on_optimizer_step")
            training.fire("on_step_end", loss=mean)
        else:
            training.fire("on_substep_end", loss=mean)
        self.act(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fire `on_epoch_end`."""
        self._begin_epoch(trainer)  # if the training resumes at the end of an epoch
        if not math.isfinite(trainer.num_training_batches):
            self.training.state.epoch = trainer.current_epoch + 1
        self._has_epoch = self._has_step = False
        self.training.fire("on_epoch_end")
        self.act(trainer, ends_epoch=True)

    # Checkpoints

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the state of the training and its callbacks."""
        if trainer.state.fn == "fit":
            checkpoint[KEY] = self.training.state_dict()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the state for the training that will resume."""
        if trainer.state.fn == "fit" and KEY in checkpoint:
            self.training.load_state_dict(checkpoint[KEY])

    # What the loggers receive

    def logged(self, metrics: Mapping[str, Any], step: int | None, by: object) -> None:
        """Fire `on_log` for what Lightning or the user has logged."""
        if self._duplicates.is_new(metrics, step, by):
            self.training.log_of_lightning(metrics, step, stage_of(self._trainer))

    def learned_hyperparameters(self, parameters: Mapping[str, Any]) -> None:
        """Add hyperparameters to the arguments that trackers log."""
        tell_of_late(self.training.learn(parameters))

    def saved_checkpoint(self, checkpoint_callback: Any) -> None:
        """Note the new checkpoints. `on_save` follows when their step is logged."""
        if not self.training.is_running:
            return
        if best := getattr(checkpoint_callback, "monitor", None) and getattr(
            checkpoint_callback, "best_model_path", None
        ):
            self.training.state.best_model_checkpoint = best
        self._checkpoints.note(checkpoint_callback)

    # What the above is made of

    def _listen(self, trainer: Trainer) -> None:
        receivers = [one for one in trainer.loggers if isinstance(one, LogReceiver)]
        if not receivers and not trainer.fast_dev_run:
            receivers = [self._receiver]
            trainer.loggers = [*trainer.loggers, self._receiver]
        for receiver in receivers:
            receiver.listener = self
            receiver.directory = self.training.args.output_dir
            for callback in receiver.callbacks:
                self.add(callback)

    def _leave(self, trainer: Trainer) -> None:
        self._requests.restore(trainer)
        trainer.loggers = [one for one in trainer.loggers if one is not self._receiver]
        self._trainer = None

    def _begin_epoch(self, trainer: Trainer) -> None:
        if not self._has_epoch:
            self._has_epoch = True
            state = self.training.state
            done, state.epoch = state.epoch or 0.0, float(trainer.current_epoch)
            self.training.fire("on_epoch_begin")
            state.epoch = max(done, state.epoch)

    def act(self, trainer: Trainer, *, ends_epoch: bool = False) -> None:
        """Do what callbacks ask for."""
        control, state = self.training.agree(), self.training.state
        is_done = 0 < state.max_steps <= state.global_step
        self._requests.stop(trainer, control, is_done=is_done)
        if ends_epoch:
            self._requests.after_epoch(control)
        else:
            self._requests.after_batch(trainer, control)
        if control.should_save:
            control.reset({"should_save": False})
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:
            return
        directory = Path(self.training.args.output_dir, f"checkpoint-{trainer.global_step}")
        trainer.save_checkpoint(directory / FILE)
        self._checkpoints.add(directory)

    def _tell_saved(self) -> None:
        """Fire `on_save` for what was saved at the current step.

        Lightning saves before it logs the step, and a training that resumes there does not log it
        again. In a journal, all that precedes a checkpoint stays. So the log must come first.
        """
        for directory in self._checkpoints.take():
            self.training.fire("on_save", checkpoint_dir=directory)

    def _tell(self, message: str) -> None:
        """Log a warning in the main process, once."""
        if self.training.state.is_world_process_zero and message not in self._told:
            self._told.add(message)
            logger.warning("%s", message)
