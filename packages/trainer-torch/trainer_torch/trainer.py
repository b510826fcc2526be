"""`Trainer`: the public face.

It holds what a training needs and leaves the work to the other modules.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from callback_core import (
    CallbackHandler,
    DefaultFlowCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerControl,
    TrainerState,
    make_reporting_integration_callbacks,
    restore_states,
)
from trainer_torch import checkpoint as checkpoints
from trainer_torch.arguments import TrainingArguments
from trainer_torch.best_model import note_checkpoint
from trainer_torch.data import Plan, eval_dataloader, plan_training, train_dataloader
from trainer_torch.distributed import bare, find_world
from trainer_torch.evaluation import ComputeMetrics, PredictionOutput, run_evaluation, speed
from trainer_torch.loop import run_training
from trainer_torch.optimizers import create_optimizer, create_scheduler
from trainer_torch.outputs import (
    ComputeLoss,
    forward,
    labels_of,
    plain_number,
    require_loss,
    split_output,
    to_device,
)
from trainer_torch.preflight import check_model, check_parts, check_training
from trainer_torch.progress import Progress
from trainer_torch.seeding import set_seed
from trainer_torch.signals import Signals

logger = logging.getLogger(__name__)


class TrainOutput(NamedTuple):
    """What `Trainer.train` returns: the steps done in all, the mean loss, and the metrics."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class Trainer:
    """Trains, evaluates and predicts with a PyTorch model, and tells callbacks about it.

    Subclass it and override `compute_loss`, `training_step`, `prediction_step`, `log` or the
    `get_*_dataloader` methods to change what it does; write a callback to watch it or to steer it.

    Args:
        model: Returns its loss from `forward`, as the first of a tuple, as `["loss"]` or as
            `.loss`; or any model, with a `compute_loss`. It is moved to the device.
        args: The settings; the defaults where not given.
        data_collator: Makes a batch of a list of samples; torch's `default_collate` where not
            given.
        train_dataset: What `train` goes through.
        eval_dataset: What `evaluate` goes through; a mapping evaluates each of its datasets under
            its name.
        processing_class: A tokenizer or the like, passed to the callbacks.
        compute_loss: Called with the model and a batch; returns the loss, or the loss and the
            predictions.
        compute_metrics: Called with an `EvalPrediction` of all samples; returns metrics by name.
        callbacks: Callbacks, or classes of them, called between the trackers and the progress bar.
        optimizers: An optimizer and a schedule to use instead of those that `args` describes;
            either may be `None`.

    Raises:
        TypeError: What is given as a callback is none.
        ValueError: Arguments that do not go together.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: Dataset[Any] | None = None,
        eval_dataset: Dataset[Any] | Mapping[str, Dataset[Any]] | None = None,
        processing_class: Any = None,
        compute_loss: ComputeLoss | None = None,
        compute_metrics: ComputeMetrics | None = None,
        callbacks: Iterable[Any] | None = None,
        optimizers: tuple[Optimizer | None, Any] = (None, None),
    ) -> None:
        self.args = args or TrainingArguments()
        self.world = find_world(self.args)
        self._given_model = model.to(self.args.device)
        self.model = self.model_wrapped = bare(self._given_model)
        self.data_collator = data_collator
        self.train_dataset = train_dataset
        self.eval_dataset = eval_dataset
        self.compute_metrics = compute_metrics
        self._compute_loss = compute_loss
        self._given_optimizers = optimizers
        self.optimizer: Any = optimizers[0]
        self.lr_scheduler: Any = optimizers[1]
        self.train_dataloader: Any = None
        check_parts(self)
        self.signals = Signals()
        self._saved_step: int | None = None
        self.progress = Progress(self.args.device, self.world)
        self.state = TrainerState()
        self.world.mark(self.state)
        self.control = TrainerControl()
        self.callback_handler = CallbackHandler(
            [
                DefaultFlowCallback,
                *make_reporting_integration_callbacks(self.args.report_to),
                *(callbacks or ()),
                PrinterCallback if self.args.disable_tqdm else ProgressCallback,
            ],
            self.model,
            processing_class,
            self.optimizer,
            self.lr_scheduler,
        )
        self.fire(self.callback_handler.on_init_end)

    def fire(self, event: Callable[..., TrainerControl], **kwargs: Any) -> None:
        """Fire an event, given as the handler's method for it, and keep the control it returns."""
        self.control = event(self.args, self.state, self.control, **kwargs)

    def add_callback(self, callback: Any) -> None:
        """Add a callback, or an instance of it where it is a class, behind the others."""
        self.callback_handler.add_callback(callback)

    def pop_callback(self, callback: Any) -> Any:
        """Remove and return the first callback that is `callback` or of that class, or `None`."""
        return self.callback_handler.pop_callback(callback)

    def remove_callback(self, callback: Any) -> None:
        """Remove the first callback that is `callback` or of that class."""
        self.callback_handler.remove_callback(callback)

    def is_world_process_zero(self) -> bool:
        """Return whether this process is the main one of all, which saves and reports."""
        return self.state.is_world_process_zero

    def is_local_process_zero(self) -> bool:
        """Return whether this process is the main one of its machine."""
        return self.state.is_local_process_zero

    def train(self, resume_from_checkpoint: str | Path | bool | None = None) -> TrainOutput:
        """Train, and return what came of it.

        Args:
            resume_from_checkpoint: Go on from this checkpoint, or from the newest complete one in
                this directory of checkpoints; `True` for that in `output_dir`.

        Raises:
            FileNotFoundError: That checkpoint does not exist or is not complete.
            ValueError: There is nothing to train on, or nothing to train.
        """
        checkpoint = None
        if resume_from_checkpoint:
            asked, output_dir = resume_from_checkpoint, self.args.output_dir
            checkpoint = self.world.on_main(lambda: checkpoints.find_checkpoint(asked, output_dir))
        elif self.world.is_main and (found := checkpoints.list_checkpoints(self.args.output_dir)):
            logger.info(
                "Beginning from the start, though there are checkpoints of an earlier training: %s "
                "is the newest.",
                found[-1],
            )
        self.train_dataloader = self.get_train_dataloader()
        plan = plan_training(self.args, self.train_dataloader, self.world)
        set_seed(self.args.seed + self.world.rank)
        self._prepare(plan, checkpoint)
        check_training(self)
        if self._model_returns_the_loss():
            check_model(self)
        rng_state = None
        if checkpoint is not None:
            rng_state = checkpoints.load_rng_state(checkpoint, self.world)
        as_given = bare(self._given_model) is self.model  # it may have been replaced
        self.model_wrapped = self.world.wrap(self._given_model if as_given else self.model)
        begun, first_step = time.perf_counter(), self.state.global_step
        try:
            with self.signals:
                samples = run_training(self, plan, rng_state)
            samples = sum(self.world.gather(samples))
            steps = self.state.global_step - first_step
            metrics = {
                f"train_{name}": value for name, value in speed(begun, samples, steps).items()
            }
            metrics["train_loss"] = self.progress.mean_loss(self.state.global_step)
            self.log(metrics)
            self._choose_best_model()
        except BaseException as exception:
            with self.world.closing():
                self._close_callbacks(exception)
            raise
        finally:
            self.model_wrapped = self.model
        self.fire(self.callback_handler.on_train_end)
        return TrainOutput(self.state.global_step, metrics["train_loss"], metrics)

    def evaluate(
        self,
        eval_dataset: Dataset[Any] | Mapping[str, Dataset[Any]] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate, log the metrics and return them.

        Args:
            eval_dataset: Evaluate on this instead of the trainer's own; a mapping evaluates each of
                its datasets, with its name in front of the metrics' names.
            metric_key_prefix: Put before each metric's name, with an underscore.

        Raises:
            ValueError: There is no dataset, or it is empty.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ValueError(
                "There is nothing to evaluate on: give evaluate or the Trainer an eval_dataset."
            )
        if isinstance(dataset, Mapping):
            metrics: dict[str, float] = {}
            for name, part in dataset.items():
                metrics.update(self.evaluate(part, f"{metric_key_prefix}_{name}"))
            return metrics
        metrics = self._run_evaluation(dataset, metric_key_prefix, keep_predictions=False).metrics
        self.log(metrics)
        self.fire(self.callback_handler.on_evaluate, metrics=metrics)
        return metrics

    def predict(
        self, test_dataset: Dataset[Any], metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Return predictions, labels and, where there are labels, metrics of `test_dataset`.

        Nothing is logged.
        """
        output = self._run_evaluation(test_dataset, metric_key_prefix, keep_predictions=True)
        self.fire(self.callback_handler.on_predict, metrics=output.metrics)
        return output

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Write the weights as `model.safetensors` to `output_dir`, or to that of the arguments.

        The main process does; it may be called in the others too, which do not wait.
        """
        if self.world.is_main:
            checkpoints.save_model(self.model, Path(output_dir or self.args.output_dir))

    def save_checkpoint(self) -> None:
        """Save what resuming needs, delete what is over `save_total_limit`, tell the callbacks.

        Of several processes, all have to call it, and the main one writes.

        Raises:
            RuntimeError: There has been no training, so there is nothing to resume.
        """
        args, state = self.args, self.state
        if self.optimizer is None or self.lr_scheduler is None:
            raise RuntimeError(
                "There is no training to save before train(); save_model saves the weights."
            )
        note_checkpoint(
            args, state, checkpoints.checkpoint_path(args.output_dir, state.global_step)
        )
        saved = checkpoints.save_checkpoint(self)
        self._saved_step = state.global_step
        self._rotate(saved)
        self.fire(self.callback_handler.on_save, checkpoint_dir=str(saved))

    def log(self, logs: dict[str, Any]) -> None:
        """Add `logs` to the state's history and pass them to the callbacks.

        The epoch is added to `logs` itself, as in transformers, and numbers of numpy and torch
        become Python's.
        """
        for name, value in logs.items():
            logs[name] = plain_number(name, value)
        if self.state.epoch is not None:
            logs["epoch"] = self.state.epoch
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.fire(self.callback_handler.on_log, logs=logs)

    def end_by_signal(self) -> None:
        """End the training by the signal that was received, between two steps.

        A checkpoint is saved where `enable_jit_checkpoint` asks for it.

        Raises:
            KeyboardInterrupt: By SIGINT.
            SystemExit: By SIGTERM.
        """
        self.control.request_stop(self.signals.reason)
        if self.args.enable_jit_checkpoint and self._saved_step != self.state.global_step:
            self.save_checkpoint()
        self.signals.raise_due()

    def compute_loss(self, model: nn.Module, batch: Any) -> Any:
        """Return the loss of a batch on the device, or the loss and the predictions."""
        if self._compute_loss is not None:
            return self._compute_loss(model, batch)
        return forward(model, batch)

    def training_step(self, batch: Any, batches_in_step: int) -> Tensor:
        """Add the gradient of a batch to the model's, as its share of the update step.

        It is computed with `model_wrapped`, which averages it over several processes.

        Returns:
            The loss of the batch, detached.
        """
        output = self.compute_loss(self.model_wrapped, to_device(batch, self.args.device))
        returned_by = (
            type(self.model).__name__ if self._model_returns_the_loss() else "compute_loss"
        )
        loss = require_loss(split_output(output)[0], returned_by)
        (loss / batches_in_step).backward()
        return loss.detach()

    def prediction_step(self, batch: Any) -> tuple[Tensor | None, Any, Any]:
        """Return loss, predictions and labels of a batch, `None` for what is missing."""
        batch = to_device(batch, self.args.device)
        loss, predictions = split_output(self.compute_loss(self.model, batch))
        return loss, predictions, labels_of(batch)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of batches of training; of several processes, of this one's share."""
        if self.train_dataset is None:
            raise ValueError("There is nothing to train on: give the Trainer a train_dataset.")
        return train_dataloader(self.train_dataset, self.data_collator, self.args, self.world)

    def get_eval_dataloader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        """Return the loader of batches of evaluation or prediction over `dataset`.

        Of several processes, each has every so many-th batch of it.
        """
        return eval_dataloader(dataset, self.data_collator, self.args, self.world)

    def _model_returns_the_loss(self) -> bool:
        """Return whether the loss is what `forward` returns, and not of the user's own making."""
        return (
            self._compute_loss is None
            and type(self).compute_loss is Trainer.compute_loss
            and type(self).training_step is Trainer.training_step
        )

    def _prepare(self, plan: Plan, checkpoint: Path | None) -> None:
        """Make optimizer, schedule and state anew, or as they were in `checkpoint`."""
        self.optimizer, self.lr_scheduler = self._given_optimizers
        self.optimizer = self.optimizer or create_optimizer(self.model, self.args)
        self.lr_scheduler = self.lr_scheduler or create_scheduler(
            self.optimizer, self.args, plan.max_steps
        )
        self.progress = Progress(self.args.device, self.world)
        self.state = TrainerState(epoch=0)
        self._saved_step = None
        if checkpoint is not None:
            self._load(checkpoint)
        self.world.mark(self.state)
        saved = replace(self.state)
        self.state.max_steps, self.state.num_train_epochs = plan.max_steps, plan.num_train_epochs
        self.state.train_batch_size = self.args.per_device_train_batch_size
        self.state.compute_steps(self.args, plan.max_steps)
        if checkpoint is not None and self.world.is_main:
            _say_what_differs(saved, self.state)
            if self.state.global_step >= plan.max_steps:
                logger.info(
                    "Nothing is left to train: step %d of %d is done.",
                    self.state.global_step,
                    plan.max_steps,
                )
        handler = self.callback_handler
        handler.optimizer, handler.lr_scheduler = self.optimizer, self.lr_scheduler
        handler.train_dataloader = self.train_dataloader

    def _load(self, checkpoint: Path) -> None:
        """Go back to where `checkpoint` was saved, callbacks included."""
        checkpoints.load_checkpoint(self, checkpoint)
        self.state = self.world.on_main(lambda: checkpoints.load_state(checkpoint))
        states = {**self.state.stateful_callbacks}
        states.pop("TrainerControl", None)  # what was asked for then is not asked for now
        restore_states(self.callback_handler.callbacks, states)
        logger.info("Resuming from %s, at step %d.", checkpoint, self.state.global_step)
        if (ranks := checkpoints.count_ranks(checkpoint)) != self.world.size:
            self.progress.batches = self.progress.batches * ranks // self.world.size
            logger.log(
                logging.WARNING if self.world.is_main else logging.DEBUG,
                "The checkpoint is of a training in %d process(es), which goes on in %d now: the "
                "random generators are seeded anew, and an epoch has another number of steps.",
                ranks,
                self.world.size,
            )

    def _close_callbacks(self, exception: BaseException) -> None:
        """Tell the callbacks that training ends by `exception`, which none of theirs may mask."""
        try:
            self.fire(self.callback_handler.on_exception, exception=exception)  # logs their errors
        finally:  # a second Ctrl-C too: nobody is left unclosed
            try:
                self.fire(self.callback_handler.on_train_end)
            except Exception:
                logger.exception("A callback failed while training was ending by %r.", exception)

    def _run_evaluation(
        self, dataset: Dataset[Any], prefix: str, keep_predictions: bool
    ) -> PredictionOutput:
        dataloader = self.get_eval_dataloader(dataset)
        self.callback_handler.eval_dataloader = dataloader
        return run_evaluation(self, dataloader, prefix, keep_predictions)

    def _choose_best_model(self) -> None:
        """Load the best weights where that is wanted, now that the newest may go."""
        best = self.state.best_model_checkpoint
        if not self.args.load_best_model_at_end:
            return
        if best is None:
            logger.warning(
                "load_best_model_at_end: no checkpoint was saved at an evaluation that reported "
                "%r as a number, so the model stays as training left it.",
                self.args.metric_for_best_model,
            )
        else:
            logger.info("Loading the best model, that of %s.", best)
            checkpoints.load_model(self.model, Path(best))
            self._rotate()

    def _rotate(self, *keep: Path) -> None:
        """Delete checkpoints over `save_total_limit`, but neither the best nor those of `keep`."""
        best, limit = self.state.best_model_checkpoint, self.args.save_total_limit
        if limit is not None:
            kept = [*keep, *([Path(best)] if best else [])]
            self.world.on_main(
                lambda: checkpoints.rotate_checkpoints(self.args.output_dir, limit, kept)
            )


def _say_what_differs(saved: TrainerState, state: TrainerState) -> None:
    """Name, in one line, what the arguments have changed in the state of the checkpoint."""
    differing = [
        f"{name} {getattr(state, name)} instead of {getattr(saved, name)}"
        for name in _FROM_ARGUMENTS
        if getattr(state, name) != getattr(saved, name)
    ]
    if differing:
        logger.warning(
            "Resuming with other arguments than those of the checkpoint: %s.", ", ".join(differing)
        )


_FROM_ARGUMENTS: Final = (
    "max_steps",
    "num_train_epochs",
    "train_batch_size",
    "logging_steps",
    "eval_steps",
    "save_steps",
)
