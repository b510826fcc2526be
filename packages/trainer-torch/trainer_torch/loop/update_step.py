"""An update step: the gradients of its batches, the update, and the events between them."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainer_torch.data.accumulation import Shares, share_out
from trainer_torch.data.batches import kind_of
from trainer_torch.evaluation.summary import sum_known
from trainer_torch.hardware.devices import empty_cache
from trainer_torch.loop.hooks import LoopHooks
from trainer_torch.loop.non_finite import watch
from trainer_torch.loop.requested import leaves_epoch, log_evaluate_save
from trainer_torch.model.sharding import forget_call
from trainer_torch.optimizers.gradients import clip_gradients, drop_gradients
from trainer_torch.overrides import call
from trainer_torch.run.boundary import note_boundary
from trainer_torch.run.plan import Plan
from trainer_torch.run.training_run import TrainingRun

_HALF: Final = (torch.float16, torch.bfloat16)


def run_step(run: TrainingRun, plan: Plan, hooks: LoopHooks, batches: list[Any]) -> None:
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
    parameters = list(run.model.parameters())  # in each step, because callbacks may change them
    grad_norm = clip_gradients(parameters, run.args.max_grad_norm)
    loss_of = partial(_loss_of, run, hooks, done.shares)
    watch(run, done.batches, step_loss, grad_norm, loss_of)
    fire(on.on_pre_optimizer_step)
    run.boundary = None
    is_made = run.guard.update(run.optimizer, run.model, run.precision.step)
    fire(on.on_optimizer_step)
    # The rate that the step was made with: before the schedule sets the next one.
    run.step_logs = {"grad_norm": grad_norm, "learning_rate": _learning_rate(run.optimizer)}
    if is_made and not isinstance(run.lr_scheduler, ReduceLROnPlateau):
        run.lr_scheduler.step()
    drop_gradients(run.model, run.optimizer, parameters)
    position.add_loss(step_loss)
    state.global_step += 1
    state.epoch = position.epoch + position.batches / plan.batches_per_epoch
    every = run.args.torch_empty_cache_steps
    if every is not None and state.global_step % every == 0:
        empty_cache(run.args.device)
    run.usage.end_step(state)
    note_boundary(run, is_complete=False)
    fire(on.on_step_end, loss=step_loss)
    log_evaluate_save(run, hooks)


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
    step_loss: Tensor | None = None
    for number, batch in enumerate(batches, start=1):
        is_last = number == len(batches)
        run.world.average_gradients(run.model_wrapped, is_last)
        with run.control.called(hooks, run.state), run.usage.counting(batch):
            loss = _loss_of(run, hooks, shares, number, batch)
        part = loss.float() if loss.dtype in _HALF else loss  # bfloat16 has two digits
        step_loss = part if step_loss is None else step_loss + part
        run.samples = sum_known([run.samples, sizes[number - 1]])
        position.add_batch()
        if not is_last:
            run.fire(on.on_substep_end, loss=loss)
            run.world.agree(run.control, run.signals)
            if leaves_epoch(run):
                forget_call(run.model)
                _add_usage(run, hooks, batches[:number], sizes)
                return None
    _add_usage(run, hooks, batches, sizes)
    assert step_loss is not None, "a step has batches"
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
    loaded = position.reading.sizes
    for number, batch in enumerate(batches):
        done = position.samples + number * (position.batch_size or 0)
        size = loaded.of(position.batches + number, done)
        sizes.append(hooks.get_batch_size(batch, size))
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


def _learning_rate(optimizer: Optimizer) -> Any:
    """Return the learning rate of the first group. A tensor is copied, because it changes."""
    rate = optimizer.param_groups[0]["lr"]
    return rate.clone() if isinstance(rate, Tensor) else rate
