"""The training loop: epochs, update steps, their batches, and the events between them."""

from __future__ import annotations

import logging
import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainer_torch.best_model import deciding_metric, note_evaluation
from trainer_torch.data import Plan, begin_epoch
from trainer_torch.seeding import set_rng_state

if TYPE_CHECKING:
    from trainer_torch.trainer import Trainer

logger = logging.getLogger(__name__)


class RunningLoss:
    """The loss of the update steps, on its device until somebody reads it.

    Args:
        device: Where losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self.logged_step = 0
        self.before_log = 0.0
        self.since_log = torch.zeros((), device=device)

    def add(self, loss: Tensor) -> None:
        """Add the mean loss of an update step. Nothing is synchronised."""
        self.since_log += loss

    def mean_since_log(self, step: int) -> float:
        """Return the mean loss of the steps since this was last asked, at `step`. Synchronises."""
        total = self.since_log.item()
        mean = total / (step - self.logged_step)
        self.before_log += total
        self.since_log.zero_()
        self.logged_step = step
        return mean

    def mean(self, step: int) -> float:
        """Return the mean loss of all `step` steps. Synchronises."""
        return (self.before_log + self.since_log.item()) / max(1, step)

    def state_dict(self) -> dict[str, float]:
        """Return what `load_state_dict` goes on from. Synchronises."""
        return {
            "logged_step": self.logged_step,
            "before_log": self.before_log,
            "since_log": self.since_log.item(),
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from what `state_dict` returned."""
        self.logged_step = int(state["logged_step"])
        self.before_log = state["before_log"]
        self.since_log.fill_(state["since_log"])


def run_training(trainer: Trainer, plan: Plan, rng_state: dict[str, Any] | None) -> None:
    """Train from where the trainer's state stands to the end of `plan`, or until told to stop.

    This is the table of events in its order: all that happens between two events stands between two
    lines of `fire`.

    Args:
        trainer: Holds model, optimizer, schedule, state and callbacks, all ready to go on.
        plan: How long the training is.
        rng_state: The random generators at the step that is resumed from.
    """
    args, state, on, fire = trainer.args, trainer.state, trainer.callback_handler, trainer.fire
    model, optimizer, lr_scheduler = trainer.model, trainer.optimizer, trainer.lr_scheduler
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
        fire(on.on_epoch_begin)
        epoch_batches = begin_epoch(trainer.train_dataloader, args, epoch, skip=batches_done)
        if rng_state is not None:  # as the checkpoint left them: before the next batch is drawn
            set_rng_state(rng_state)
            rng_state = None
        while batches := list(islice(epoch_batches, args.gradient_accumulation_steps)):
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
                    logs = {
                        "grad_norm": grad_norm,
                        "learning_rate": optimizer.param_groups[0]["lr"],
                    }
                    if not isinstance(lr_scheduler, ReduceLROnPlateau):
                        lr_scheduler.step()
                    model.zero_grad()
                    trainer.running_loss.add(step_loss)
                    state.global_step += 1
                    state.epoch = epoch + batches_done / plan.batches_per_epoch
                    fire(on.on_step_end, loss=step_loss)
                    log_evaluate_save(trainer, logs)
                if leaving():
                    break
            if leaving():
                break
        if batches_done == 0:
            logger.warning("train_dataset yielded nothing in epoch %d: training stops here.", epoch)
            trainer.control.request_stop("the training data has come to its end")
        fire(on.on_epoch_end)
        log_evaluate_save(trainer, logs)
        if trainer.control.should_training_stop:
            break


def log_evaluate_save(trainer: Trainer, logs: dict[str, Any]) -> None:
    """Do what the control asks for, in this order: each may ask for the next.

    Args:
        trainer: The trainer whose control is read.
        logs: What is logged of the last update step, beside the mean loss since the last log.
    """
    args, state, losses = trainer.args, trainer.state, trainer.running_loss
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
    return {
        name: value.item() if isinstance(value, Tensor) else value for name, value in logs.items()
    }
