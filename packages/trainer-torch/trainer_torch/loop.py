"""The training loop: epochs, update steps, their batches, and the events between them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from callback_core import IntervalStrategy, Request
from trainer_torch.accumulation import Shares, share_out
from trainer_torch.announcement import tell_how_to_continue
from trainer_torch.argument_values import BEST
from trainer_torch.batch_finding import next_batches
from trainer_torch.batch_size import count_loaded
from trainer_torch.batches import kind_of
from trainer_torch.best_model import (
    deciding_metric,
    finish_model,
    update_best_checkpoint,
    update_best_metric,
)
from trainer_torch.devices import empty_cache
from trainer_torch.non_finite import respond, tell_number, watch
from trainer_torch.overrides import call
from trainer_torch.plan import DataLength, Plan
from trainer_torch.precision import clip_gradients
from trainer_torch.reading import begin_epoch
from trainer_torch.resume import Resumption
from trainer_torch.run import TrainingRun
from trainer_torch.seeding import rng_state
from trainer_torch.summary import speed_metrics, sum_known


class TrainOutput(NamedTuple):
    """The result of `Trainer.train`: all steps done, the mean loss, and the metrics."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class LoopHooks(Protocol):
    """What the loop calls and a subclass of Trainer may override."""

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: int | None = None
    ) -> Tensor:
        """Add the gradients of a batch and return its part of the step's loss, detached."""

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is divided by `num_items_in_batch`, and not the mean of a batch."""

    def count_items(self, inputs: Any, size: int | None) -> int | None:
        """Return over how many items of a batch its mean loss is taken, or `None` if unknown."""

    def get_train_dataloader(self) -> Any:
        """Return a loader of training batches."""

    def floating_point_ops(self, inputs: Any) -> float:
        """Return the operations of the training step on a batch; 0 if they are unknown."""

    def get_batch_size(self, batch: Any, loaded: int | None) -> int | None:
        """Return the number of samples in a batch, or `None` if it is unknown."""

    def evaluate(self, *, ignore_keys: list[str] | None = None) -> Mapping[str, float]:
        """Evaluate, log the metrics and return them."""

    def log(self, logs: dict[str, Any]) -> None:
        """Add `logs` to the history and fire `on_log`."""

    def save_checkpoint(self) -> None:
        """Save a checkpoint and fire `on_save`."""


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
    start_time, first_step = time.perf_counter(), run.state.global_step
    run.model_wrapped = model_wrapped
    try:
        with run.signals:
            run.signals.protect_workers(run.train_dataloader)
            _run_epochs(run, plan, hooks, resumption)
        tell_number(run)
        samples = run.world.gather(run.samples)
        steps = run.state.global_step - first_step
        speed = speed_metrics(start_time, samples, steps, run.warn_once)
        metrics = {f"train_{name}": value for name, value in speed.items()}
        metrics["train_loss"] = run.position.mean_loss(run.state.global_step)
        metrics |= run.usage.final_metrics(run.state, time.perf_counter() - start_time)
        logs_steps = run.args.logging_strategy != IntervalStrategy.NO
        unlogged = _take_unlogged(run) if logs_steps else {}
        logs = {**unlogged, **metrics}
        hooks.log(logs)
        finish_model(run)
    except BaseException as exception:
        with run.world.closing():
            run.close_callbacks(exception)
        tell_how_to_continue(run, exception)
        raise
    finally:
        run.model_wrapped = run.model
        run.given.note_end(run.model, run.optimizer)
    run.fire(run.callback_handler.on_train_end)
    metrics = {name: value for name, value in logs.items() if name not in unlogged}
    return TrainOutput(run.state.global_step, metrics["train_loss"], metrics)


def _run_epochs(
    run: TrainingRun, plan: Plan, hooks: LoopHooks, resumption: Resumption | None
) -> None:
    """Run the epochs that are left.

    This function, `_run_step` and `_accumulate` are the table of events in code: whatever happens
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
    if args.eval_on_start and state.global_step == 0:
        call(hooks.evaluate, ignore_keys=run.ignore_keys)
        run.world.agree(run.control, run.signals)
        _end_if_due(run, hooks)
    for epoch in _epochs(run, plan):
        _zero_grad(run)  # of a step that was stopped between two of its batches
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
            run.batches = begin_epoch(run.train_dataloader, args, position, shows_skipping)
        if resumption is not None:
            resumption.restore_generators()
            resumption = None
        while step_batches := next_batches(run):
            _run_step(run, plan, hooks, step_batches)
            if _leaves_epoch(run):
                break
        position.epoch_ended = (
            position.batches >= plan.batches_per_epoch
            or run.control.should_epoch_stop
            or (position.batches > 0 and not run.control.should_training_stop)
        )
        is_at_end = not is_done and not _leaves_epoch(run)
        if is_at_end or position.batches > plan.batches_per_epoch:
            length.check(epoch, position.batches, by_steps=args.max_steps > 0)
        if is_at_end and (
            position.batches == 0 or (length.is_short and not _goes_on(run, plan, epoch))
        ):
            _end_of_data(run)
        fire(on.on_epoch_end)
        _log_evaluate_save(run, hooks)
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
    """Ask for the end of training, and for what its last step is due by the strategy `steps`."""
    args, state, control = run.args, run.state, run.control
    step, by_steps = state.global_step, IntervalStrategy.STEPS
    was_evaluated = step % state.eval_steps == 0
    if args.eval_strategy == by_steps and args.eval_delay <= step and not was_evaluated:
        control.should_evaluate = True
    if args.save_strategy == by_steps and step not in (0, run.saved_step):
        control.should_save = True
    control.request_stop("the training data has come to its end")


def _run_step(run: TrainingRun, plan: Plan, hooks: LoopHooks, batches: list[Any]) -> None:
    """Do one update step, unless the control asks to stop between two of its `batches`."""
    state, position = run.state, run.position
    on, fire = run.callback_handler, run.fire
    fire(on.on_step_begin)
    run.guard.begin_step(run.model)
    done = _accumulate_in_memory(run, plan, hooks, batches)
    if done is None:
        return
    step_loss = done.loss
    groups = run.optimizer.param_groups
    if all(parameter.grad is None for group in groups for parameter in group["params"]):
        run.warn_once(
            "The update changes nothing, because no parameter in the optimizer has a gradient. The "
            "loss must be computed by the model that training_step is called with, and "
            "training_step must call self.accelerator.backward(loss)."
        )
    run.precision.unscale(run.model, run.optimizer)
    grad_norm = clip_gradients(run.model, run.args.max_grad_norm)
    loss_of = partial(_loss_of, run, hooks, done.shares)
    watch(run, done.batches, step_loss, grad_norm, loss_of)
    fire(on.on_pre_optimizer_step)
    is_made = run.guard.update(run.optimizer, run.model, run.precision.step)
    fire(on.on_optimizer_step)
    # The rate that the step was made with: before the schedule sets the next one.
    run.step_logs = {"grad_norm": grad_norm, "learning_rate": _learning_rate(run.optimizer)}
    if is_made and not isinstance(run.lr_scheduler, ReduceLROnPlateau):
        run.lr_scheduler.step()
    _zero_grad(run)
    position.add_loss(step_loss)
    state.global_step += 1
    state.epoch = position.epoch + position.batches / plan.batches_per_epoch
    every = run.args.torch_empty_cache_steps
    if every is not None and state.global_step % every == 0:
        empty_cache(run.args.device)
    run.usage.end_step(state)
    fire(on.on_step_end, loss=step_loss)
    _log_evaluate_save(run, hooks)


class _Accumulated(NamedTuple):
    """The loss of an update step, its batches, and how their losses were put together."""

    loss: Tensor
    batches: list[Any]
    shares: Shares


def _accumulate_in_memory(
    run: TrainingRun, plan: Plan, hooks: LoopHooks, batches: list[Any]
) -> _Accumulated | None:
    """Do `_accumulate`, again with smaller batches if memory runs out and the arguments ask so."""
    while True:
        try:
            return _accumulate(run, hooks, batches)
        except Exception as error:
            if run.step_start is None or not run.step_start.can_shrink(run, error):
                raise
        # Only now is nothing left of the error, which refers to what filled the memory.
        batches = run.step_start.shrink(run, plan, hooks)


def _accumulate(run: TrainingRun, hooks: LoopHooks, batches: list[Any]) -> _Accumulated | None:
    """Add the gradients of `batches`, and return their loss; `None` if the control asks to stop."""
    on, position = run.callback_handler, run.position
    sizes = _sizes(run, hooks, batches)
    shares = _shares(run, hooks, batches, sizes)
    run.batches_in_step = len(batches)
    step_loss = torch.zeros((), device=run.args.device)
    for number, batch in enumerate(batches, start=1):
        is_last = number == len(batches)
        run.world.average_gradients(run.model_wrapped, is_last)
        with run.control.called(hooks, run.state), run.usage.counting(batch):
            loss = _loss_of(run, hooks, shares, number, batch)
        step_loss += loss.to(step_loss.dtype)  # bfloat16 has two digits
        run.samples = sum_known([run.samples, sizes[number - 1]])
        position.add_batch()
        if not is_last:
            run.fire(on.on_substep_end, loss=loss)
            run.world.agree(run.control, run.signals)
            if _leaves_epoch(run):
                _add_usage(run, hooks, batches[:number], sizes)
                return None
    _add_usage(run, hooks, batches, sizes)
    return _Accumulated(step_loss, batches, shares)


def _loss_of(run: TrainingRun, hooks: LoopHooks, shares: Shares, number: int, batch: Any) -> Tensor:
    """Add the gradients of the batch with this `number` in its step, and return its loss."""
    run.loss_divisor = shares.divisors[number - 1]
    items = shares.num_items
    loss = call(hooks.training_step, run.model_wrapped, batch, num_items_in_batch=items)
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"training_step returned {kind_of(loss)}, but must return the loss of the batch as a "
            "tensor, detached."
        )
    return loss


def _add_usage(
    run: TrainingRun, hooks: LoopHooks, batches: list[Any], sizes: list[int | None]
) -> None:
    """Count what the training on `batches` has used."""
    for batch, size in zip(batches, sizes, strict=False):
        run.usage.add(batch, size, hooks.floating_point_ops(batch))


def _sizes(run: TrainingRun, hooks: LoopHooks, batches: list[Any]) -> list[int | None]:
    """Return the number of samples in each of `batches`, which follow the position of the run."""
    position, sizes = run.position, []
    for number, batch in enumerate(batches):
        done = position.samples + number * (position.batch_size or 0)
        loaded = count_loaded(run.train_dataloader, position.batches + number, done)
        sizes.append(hooks.get_batch_size(batch, loaded))
    return sizes


def _shares(
    run: TrainingRun, hooks: LoopHooks, batches: list[Any], sizes: list[int | None]
) -> Shares:
    """Return how to put the losses of `batches` together. A single mean loss stands as it is."""
    across_devices, scales_loss = run.args.average_tokens_across_devices, hooks.scales_loss
    if len(batches) == 1 and not scales_loss and (run.world.size == 1 or not across_devices):
        return Shares(None, [1.0])
    items = [hooks.count_items(batch, size) for batch, size in zip(batches, sizes, strict=True)]
    shares = share_out(items, run.world, across_devices, scales_loss)
    if not shares.are_known:
        run.warn_once(
            "All batches of an update step count alike, because the number of samples in a batch "
            "is unknown. If they differ in size, override count_items of the Trainer."
        )
    return shares


def _log_evaluate_save(run: TrainingRun, hooks: LoopHooks) -> None:
    """Do what the control asks for, in this order, because each may ask for the next.

    All ranks agree on the control first, and again whenever callbacks may have changed it.
    """
    step = run.state.global_step
    run.world.agree(run.control, run.signals)
    if run.control.requests or run.signals.due:  # what comes now waits for the device anyway
        respond(run)
    if run.control.should_log and (logs := _take_unlogged(run)):
        hooks.log(logs)
        run.world.agree(run.control, run.signals)
    if run.control.should_evaluate:
        metric = deciding_metric(run.args, _evaluate(run, hooks))
        if metric is not None:
            if update_best_metric(run.args, run.state, metric) and run.args.save_strategy == BEST:
                run.control.should_save = True
            if run.saved_step == step:
                update_best_checkpoint(run)
            if isinstance(run.lr_scheduler, ReduceLROnPlateau):
                run.lr_scheduler.step(metric)
        run.world.agree(run.control, run.signals)
    if run.control.should_save:
        with run.usage.paused():
            hooks.save_checkpoint()
        run.world.agree(run.control, run.signals)
    _end_if_due(run, hooks)


def _evaluate(run: TrainingRun, hooks: LoopHooks) -> Mapping[str, float]:
    """Evaluate, and return the metrics. The evaluation is then no longer due.

    An overridden `evaluate` may not fire `on_evaluate`, which resets the flag.
    """
    asked = [request for request in run.control.requests if request.flag == "should_evaluate"]
    with run.usage.paused():
        metrics: Mapping[str, float] = call(hooks.evaluate, ignore_keys=run.ignore_keys)
    if asked and asked[0] in run.control.requests:
        run.control.reset({"should_evaluate": False})
    return metrics


def _end_if_due(run: TrainingRun, hooks: LoopHooks) -> None:
    """End the training by the signal that is due, after a checkpoint if the arguments ask for one.

    Raises:
        KeyboardInterrupt: The signal is SIGINT.
        SystemExit: It is another signal.
    """
    if not run.signals.due:
        return
    step = run.state.global_step
    stop = Request("should_training_stop", "a signal", step, run.signals.reason)
    run.control.requests = (*run.control.requests, stop)
    if run.args.enable_jit_checkpoint and run.saved_step != step:
        run.signals.is_saving = True
        hooks.save_checkpoint()
    run.signals.raise_due()


def _take_unlogged(run: TrainingRun) -> dict[str, Any]:
    """Return the loss and the like of the steps since the last log; nothing if there are none."""
    step = run.state.global_step
    if step <= run.position.logged_step:
        return {}
    logs = {"loss": run.position.take_loss(step), **run.step_logs}  # has waited for the device
    run.usage.publish(run.state)
    if measuring := run.usage.measures and run.loop_callbacks:
        ranks = run.usage.take_interval()
        for callback in measuring:
            logs |= callback.interval_logs(ranks)
    return logs


def _leaves_epoch(run: TrainingRun) -> bool:
    return run.control.should_epoch_stop or run.control.should_training_stop


def _zero_grad(run: TrainingRun) -> None:
    run.model.zero_grad()
    run.optimizer.zero_grad()  # it may have parameters that the model does not have


def _learning_rate(optimizer: Optimizer) -> Any:
    """Return the learning rate of the first group. A tensor is copied, because it changes."""
    rate = optimizer.param_groups[0]["lr"]
    return rate.clone() if isinstance(rate, Tensor) else rate
