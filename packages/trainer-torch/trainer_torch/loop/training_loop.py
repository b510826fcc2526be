"""The training loop: epochs, update steps, their batches, and the events between them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from callback_core import IntervalStrategy
from trainer_torch.checkpoints.best_model import finish_model
from trainer_torch.checkpoints.checkpoint_saving import finish_save
from trainer_torch.checkpoints.exception_saving import save_after
from trainer_torch.checkpoints.resume import Resumption
from trainer_torch.checkpoints.save_failures import tell_failed_saves
from trainer_torch.checkpoints.selection import wait_for_deletion
from trainer_torch.data.reading import begin_epoch, end_reading
from trainer_torch.evaluation.summary import speed_metrics
from trainer_torch.hardware.seeding import rng_state
from trainer_torch.loop.announcement import tell_how_to_continue
from trainer_torch.loop.batch_finding import next_batches
from trainer_torch.loop.hooks import LoopHooks
from trainer_torch.loop.non_finite import tell_number
from trainer_torch.loop.requested import (
    end_if_signalled,
    leaves_epoch,
    log_evaluate_save,
    take_unlogged,
)
from trainer_torch.loop.update_step import run_step
from trainer_torch.optimizers.gradients import drop_gradients
from trainer_torch.overrides import call
from trainer_torch.run.plan import DataLength, Plan
from trainer_torch.run.training_run import TrainingRun


class TrainOutput(NamedTuple):
    """The result of `Trainer.train`: all steps done, the mean loss, and the metrics."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


def run_training(
    run: TrainingRun,
    plan: Plan,
    hooks: LoopHooks,
    model_wrapped: nn.Module,
    resumption: Resumption | None,
) -> TrainOutput:
    """Train from the run's position to the end of `plan`, or until the control asks to stop.

    Whatever ends the training, every callback is closed.

    Args:
        run: The training, ready to continue.
        plan: The length of the training.
        hooks: The overridable parts of the Trainer.
        model_wrapped: The module that computes gradients.
        resumption: What remains to be restored from a checkpoint, if resuming from one.

    Returns:
        The result. Its metrics are also logged, together with the loss of the steps since the last
        log, unless `logging_strategy` is `no`.
    """
    run.model_wrapped = model_wrapped
    with run.signals:
        try:
            output = _train(run, plan, hooks, resumption)
        except BaseException as exception:
            run.signals.is_ending = True
            with run.world.closing(exception):
                try:
                    save_after(run, exception)
                finally:  # even after a Ctrl-C
                    run.close_callbacks(exception)
            tell_how_to_continue(run, exception)
            raise
        finally:
            wait_for_deletion(run)
            end_reading(run.train_dataloader, run.position)
            run.model_wrapped = run.model
            run.given.note_end(run.model, run.optimizer)
        run.signals.is_ending = True
        run.fire(run.callback_handler.on_train_end)
    return output


def _train(
    run: TrainingRun, plan: Plan, hooks: LoopHooks, resumption: Resumption | None
) -> TrainOutput:
    """Run the epochs that are left, log the metrics of the training, and finish its model."""
    start_time, first_step = time.perf_counter(), run.state.global_step
    run.signals.protect_workers(run.train_dataloader)
    _run_epochs(run, plan, hooks, resumption)
    finish_save(run)
    tell_number(run)
    tell_failed_saves(run)
    samples = run.world.gather(run.samples)
    steps = run.state.global_step - first_step
    speed = speed_metrics(start_time, samples, steps, run.warn_once)
    metrics = {f"train_{name}": value for name, value in speed.items()}
    metrics["train_loss"] = run.position.mean_loss(run.state.global_step)
    metrics |= run.usage.final_metrics(run.state, time.perf_counter() - start_time)
    logs_steps = run.args.logging_strategy != IntervalStrategy.NO
    unlogged = take_unlogged(run) if logs_steps else {}
    logs = {**unlogged, **metrics}
    if not _has_logged_end(run):
        hooks.log(logs)
    end_if_signalled(run, hooks)
    finish_model(run)
    end_if_signalled(run, hooks)
    metrics = {name: value for name, value in logs.items() if name not in unlogged}
    return TrainOutput(run.state.global_step, metrics["train_loss"], metrics)


def _has_logged_end(run: TrainingRun) -> bool:
    """Return whether the end was logged before a signal stopped the training that is resumed."""
    step = run.state.global_step
    return run.resumed_from is not None and any(
        entry["step"] == step and "train_loss" in entry for entry in run.state.log_history
    )


def _run_epochs(
    run: TrainingRun, plan: Plan, hooks: LoopHooks, resumption: Resumption | None
) -> None:
    """Run the epochs that are left.

    This function, and those of `update_step`, are the table of events in code: whatever happens
    between two events stands between two calls of `fire`.
    """
    args, state, position = run.args, run.state, run.position
    on, fire = run.callback_handler, run.fire
    is_done, length = state.global_step >= plan.max_steps, DataLength(plan, run.world.is_main)
    run.model.train()
    fire(on.on_train_begin, checkpoint_dir=run.resumed_from and str(run.resumed_from))
    if resumption is not None and not position.is_within_epoch:
        resumption.restore()
        resumption = None
    if args.eval_on_start and run.resumed_from is None:
        call(hooks.evaluate, ignore_keys=run.ignore_keys)
        end_if_signalled(run, hooks)
    for epoch in _epochs(run, plan):
        drop_gradients(run.model, run.optimizer)  # of a step that was stopped between its batches
        position.begin_epoch(epoch)
        if resumption is None:
            fire(on.on_epoch_begin)
        else:  # callbacks see the epoch as it was when this event came first
            state.epoch, done = float(epoch), state.epoch
            fire(on.on_epoch_begin)
            state.epoch = done
            resumption.restore()
        run.epoch_rng_state = rng_state()
        run.batches = iter(())
        if not is_done:
            shows_skipping = state.is_world_process_zero
            run.batches = begin_epoch(
                run.train_dataloader, args, position, shows_skipping, lambda: run.signals.received
            )
        if resumption is not None:
            end_if_signalled(run, hooks)  # skipping batches may take long
            resumption.restore_generators()
            resumption = None
        while step_batches := next_batches(run):
            run_step(run, plan, hooks, step_batches)
            if leaves_epoch(run):
                break
        position.epoch_ended = (
            position.batches >= plan.batches_per_epoch
            or run.control.should_epoch_stop
            or (position.batches > 0 and not run.control.should_training_stop)
        )
        is_at_end = not is_done and not leaves_epoch(run)
        if is_at_end or position.batches > plan.batches_per_epoch:
            length.check(epoch, position.batches, by_steps=args.max_steps > 0)
        if is_at_end and (
            position.batches == 0 or (length.is_short and not _goes_on(run, plan, epoch))
        ):
            _end_of_data(run)
        fire(on.on_epoch_end)
        log_evaluate_save(run, hooks)
        if run.control.should_training_stop:
            break


def _epochs(run: TrainingRun, plan: Plan) -> Iterator[int]:
    """Yield the epochs that are left.

    If all steps are done, an epoch is left only if its end was not reached: the training was killed
    after its last step, and `on_epoch_end` is still due.
    """
    position = run.position
    epoch = position.epoch + position.epoch_ended
    if run.state.global_step >= plan.max_steps:
        yield from [epoch] * (position.batches > 0 and not position.epoch_ended)
        return
    while _goes_on(run, plan, epoch - 1):
        yield epoch
        epoch += 1


def _goes_on(run: TrainingRun, plan: Plan, epoch: int) -> bool:
    """Return whether another epoch follows `epoch`: one of the plan, or one to reach `max_steps`.

    The latter is needed if the data has fewer batches than its length.
    """
    batches = run.position.batches
    return epoch + 1 < plan.num_train_epochs or (
        run.args.max_steps > run.state.global_step
        and 0 < batches < plan.batches_per_epoch
        and not run.control.should_epoch_stop
    )


def _end_of_data(run: TrainingRun) -> None:
    """Ask for the end of training, and for what the strategy `steps` does at the last step."""
    args, state, control = run.args, run.state, run.control
    step, by_steps = state.global_step, IntervalStrategy.STEPS
    was_evaluated = step % state.eval_steps == 0
    if args.eval_strategy == by_steps and args.eval_delay <= step and not was_evaluated:
        control.should_evaluate = True
    if args.save_strategy == by_steps and step not in (0, run.last_save_step):
        control.should_save = True
    control.request_stop("the training data has ended")
