"""The training loop: epochs, update steps, their batches, and the events between them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainer_torch.best_model import deciding_metric, note_evaluation
from trainer_torch.data import Plan, begin_epoch
from trainer_torch.outputs import batch_size_of
from trainer_torch.seeding import set_rng_state

if TYPE_CHECKING:
    from trainer_torch.trainer import Trainer

logger = logging.getLogger(__name__)


def run_training(trainer: Trainer, plan: Plan, rng_state: dict[str, Any] | None) -> int:
    """Train from where the trainer's progress stands to the end of `plan`, or until told to stop.

    This is the table of events in its order: all that happens between two events stands between two
    lines of `fire`.

    Args:
        trainer: Holds model, optimizer, schedule, state and callbacks, all ready to go on.
        plan: How long the training is.
        rng_state: The random generators at the step that is resumed from.

    Returns:
        The number of samples that this process trained on.
    """
    args, state, on, fire = trainer.args, trainer.state, trainer.callback_handler, trainer.fire
    model, optimizer, lr_scheduler = trainer.model, trainer.optimizer, trainer.lr_scheduler
    world, progress, samples = trainer.world, trainer.progress, 0
    first_epoch = progress.epoch + progress.epoch_ended
    done = state.global_step >= plan.max_steps
    owed = first_epoch + (progress.batches > 0 and not progress.epoch_ended)  # the end of its epoch
    epochs = range(first_epoch, owed if done else plan.num_train_epochs)

    def zero_grad() -> None:
        model.zero_grad()
        optimizer.zero_grad()  # which may have parameters of its own

    def leaving() -> bool:
        return trainer.control.should_epoch_stop or trainer.control.should_training_stop

    model.train()
    fire(on.on_train_begin)
    if args.eval_on_start and state.global_step == 0:
        trainer.evaluate()
    for epoch in epochs:
        zero_grad()  # of a step that was left in its middle
        logs: dict[str, Any] = {}
        progress.begin_epoch(epoch)
        fire(on.on_epoch_begin)
        epoch_batches: Iterator[Any] = iter(())
        if not done:
            epoch_batches = begin_epoch(trainer.train_dataloader, args, epoch, progress.batches)
        if rng_state is not None:  # as the checkpoint left them: before the next batch is drawn
            set_rng_state(rng_state)
            rng_state = None
        while batches := world.as_many_as_all(
            list(islice(epoch_batches, args.gradient_accumulation_steps))
        ):
            step_loss = torch.zeros((), device=args.device)
            fire(on.on_step_begin)
            for number, batch in enumerate(batches, start=1):
                world.average_gradients(trainer.model_wrapped, number == len(batches))
                loss = trainer.training_step(batch, len(batches))
                step_loss += loss / len(batches)
                progress.batches += 1
                samples += batch_size_of(batch)
                if number < len(batches):
                    fire(on.on_substep_end, loss=loss)
                    world.agree(trainer.control, trainer.signals)
                else:
                    grad_norm = clip_gradients(model, args.max_grad_norm)
                    fire(on.on_pre_optimizer_step)
                    optimizer.step()
                    fire(on.on_optimizer_step)
                    logs = {"grad_norm": grad_norm, "learning_rate": learning_rate(optimizer)}
                    if not isinstance(lr_scheduler, ReduceLROnPlateau):
                        lr_scheduler.step()
                    zero_grad()
                    progress.add_loss(step_loss)
                    state.global_step += 1
                    state.epoch = epoch + progress.batches / plan.batches_per_epoch
                    fire(on.on_step_end, loss=step_loss)
                    log_evaluate_save(trainer, logs)
                    if trainer.signals.due:
                        trainer.end_by_signal()
                if leaving():
                    break
            if leaving():
                break
        if progress.batches == 0:
            logger.warning("train_dataset yielded nothing in epoch %d: training stops here.", epoch)
            trainer.control.request_stop("the training data has come to its end")
        progress.epoch_ended = (
            progress.batches >= plan.batches_per_epoch
            or trainer.control.should_epoch_stop
            or not trainer.control.should_training_stop
        )
        fire(on.on_epoch_end)
        log_evaluate_save(trainer, logs)
        if trainer.control.should_training_stop:
            break
    return samples


def log_evaluate_save(trainer: Trainer, logs: dict[str, Any]) -> None:
    """Do what the control asks for, in this order: each may ask for the next.

    What it asks for is agreed on by all ranks, again after callbacks could change it.

    Args:
        trainer: The trainer whose control is read.
        logs: What is logged of the last update step, beside the mean loss since the last log.
    """
    args, state, progress = trainer.args, trainer.state, trainer.progress
    trainer.world.agree(trainer.control, trainer.signals)
    if trainer.control.should_log and state.global_step > progress.logged_step:
        trainer.log({"loss": progress.loss_since_log(state.global_step), **logs})
        trainer.world.agree(trainer.control, trainer.signals)
    if trainer.control.should_evaluate:
        metrics = trainer.evaluate()
        metric = deciding_metric(args, metrics)
        if metric is not None:
            note_evaluation(args, state, metric)
            if isinstance(trainer.lr_scheduler, ReduceLROnPlateau):
                trainer.lr_scheduler.step(metric)
        trainer.world.agree(trainer.control, trainer.signals)
    if trainer.control.should_save:
        trainer.save_checkpoint()
        trainer.world.agree(trainer.control, trainer.signals)


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Clip the gradients of `model` to `max_norm`, unless that is 0, and return their norm before.

    Nothing is synchronised.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = get_total_norm(gradients)
    if max_norm > 0:
        clip_grads_with_norm_(model.parameters(), max_norm, norm)
    return norm


def learning_rate(optimizer: Optimizer) -> Any:
    """Return the learning rate of the first group; a copy where it is a tensor, which changes."""
    rate = optimizer.param_groups[0]["lr"]
    return rate.clone() if isinstance(rate, Tensor) else rate
