"""The training loop: epochs, update steps, their batches, and the events between them."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainer_torch.best_model import deciding_metric, note_evaluation
from trainer_torch.data import Plan, update_batches
from trainer_torch.seeding import set_rng_state

if TYPE_CHECKING:
    from trainer_torch.trainer import Trainer

logger = logging.getLogger(__name__)


class RunningLoss:
    """The loss of the update steps, on its device until somebody reads it.

    Args:
        step: The update step at which training begins.
        device: Where losses are.
    """

    def __init__(self, step: int, device: torch.device) -> None:
        self.first_step = self.logged_step = step
        self.since_log = torch.zeros((), device=device)
        self.before_log = 0.0

    def add(self, loss: Tensor) -> None:
        """Add the mean loss of an update step. Nothing is synchronised."""
        self.since_log += loss

    def mean_since_log(self, step: int) -> float:
        """Return the mean loss of the steps since this was last asked, at `step`. Waits for the device."""
        total = self.since_log.item()
        mean = total / (step - self.logged_step)
        self.before_log += total
        self.since_log.zero_()
        self.logged_step = step
        return mean

    def mean(self, step: int) -> float:
        """Return the mean loss of all steps until `step`, 0 where there were none."""
        return (self.before_log + self.since_log.item()) / max(1, step - self.first_step)


def run_training(trainer: Trainer, plan: Plan, rng_state: dict[str, Any] | None) -> RunningLoss:
    """Train from the step at which the trainer's state stands to the end of `plan`, or until a callback stops it.

    This is the table of events in its order: all that happens between two events stands between two lines of
    `fire`.

    Args:
        trainer: Holds model, optimizer, schedule, state and callbacks, all ready to go on.
        plan: How long the training is.
        rng_state: The random generators at the step that is resumed from.

    Returns:
        The losses of the steps.
    """
    args, state, on, fire = trainer.args, trainer.state, trainer.callback_handler, trainer.fire
    model, optimizer, lr_scheduler = trainer.model, trainer.optimizer, trainer.lr_scheduler
    losses = RunningLoss(state.global_step, args.device)
    first_epoch, batches_to_skip = plan.position(state.epoch or 0.0)
    epochs = range(first_epoch, plan.num_train_epochs) if state.global_step < plan.max_steps else ()

    def leaving() -> bool:
        return trainer.control.should_epoch_stop or trainer.control.should_training_stop

    fire(on.on_train_begin)
    if args.eval_on_start:
        trainer.evaluate()
    for epoch in epochs:
        model.zero_grad()  # of a step that was left in its middle
        logs: dict[str, Any] = {}
        batches_done, batches_to_skip = batches_to_skip, 0
        steps = update_batches(trainer.train_dataloader, args, epoch, skip=batches_done)
        fire(on.on_epoch_begin)
        for batches in steps:
            if rng_state is not None:
                set_rng_state(rng_state)
                rng_state = None
            step_loss = torch.zeros((), device=args.device)
            fire(on.on_step_begin)
            for number, batch in enumerate(batches, start=1):
                loss = trainer.training_step(batch, len(batches))
                step_loss += loss / len(batches)
                batches_done += 1
                if number < len(batches):
                    fire(on.on_substep_end, loss=loss)
                else:
                    grad_norm = clip_grad_norm_(model.parameters(), args.max_grad_norm or math.inf)
                    fire(on.on_pre_optimizer_step)
                    optimizer.step()
                    fire(on.on_optimizer_step)
                    logs = {"grad_norm": grad_norm, "learning_rate": optimizer.param_groups[0]["lr"]}
                    if not isinstance(lr_scheduler, ReduceLROnPlateau):
                        lr_scheduler.step()
                    model.zero_grad()
                    losses.add(step_loss)
                    state.global_step += 1
                    state.epoch = epoch + batches_done / plan.batches_per_epoch
                    fire(on.on_step_end, loss=step_loss)
                    log_evaluate_save(trainer, losses, logs)
                if leaving():
                    break
            if leaving():
                break
        if batches_done == 0:
            logger.warning("train_dataset yielded nothing in epoch %d: training stops here.", epoch)
            trainer.control.request_stop("the training data has come to its end")
        fire(on.on_epoch_end)
        log_evaluate_save(trainer, losses, logs)
        if trainer.control.should_training_stop:
            break
    return losses


def log_evaluate_save(trainer: Trainer, losses: RunningLoss, logs: dict[str, Any]) -> None:
    """Do what the control asks for, in this order: each may ask for the next.

    Args:
        trainer: The trainer whose control is read.
        losses: Its mean since the last log is logged.
        logs: What else is logged of the last update step.
    """
    args, state = trainer.args, trainer.state
    if trainer.control.should_log and state.global_step > losses.logged_step:
        trainer.log({"loss": losses.mean_since_log(state.global_step), **_plain(logs)})
    if trainer.control.should_evaluate:
        metrics = trainer.evaluate()
        metric = deciding_metric(args, metrics)
        if metric is not None:
            note_evaluation(args, state, metric)
            if isinstance(trainer.lr_scheduler, ReduceLROnPlateau):
                trainer.lr_scheduler.step(metric)
    if trainer.control.should_save:
        trainer.save_checkpoint()


def _plain(logs: dict[str, Any]) -> dict[str, float]:
    return {name: value.item() if isinstance(value, Tensor) else value for name, value in logs.items()}
