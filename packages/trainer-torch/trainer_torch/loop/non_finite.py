"""What a training does about a step whose loss or gradient is not finite."""

from __future__ import annotations

import logging
from typing import Any, Final

from torch import Tensor

from trainer_torch.checkpoints.checkpoint_loading import load_optimizer_state, load_precision
from trainer_torch.checkpoints.checkpoint_saving import finish_save
from trainer_torch.loop.culprit import LossOf, find_culprit
from trainer_torch.model.weights import load_model
from trainer_torch.run.divergence import Divergence
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.verification import find_fault_together

logger = logging.getLogger(__name__)

MOST_ROLLBACKS: Final = 3
"""How often in a row training goes back to a checkpoint before it stops."""


def watch(
    run: TrainingRun,
    batches: list[Any],
    loss: Tensor,
    grad_norm: Tensor,
    loss_of: LossOf,
) -> None:
    """Note whether the current step is finite. If it is known not to be, find out where.

    Args:
        run: The training, before the update of the step.
        batches: The batches of the step.
        loss: The loss of the step.
        grad_norm: The norm of its gradient.
        loss_of: Repeats a batch.
    """
    guard = run.guard
    norm = None if run.precision.skips_overflows else grad_norm
    is_bad = guard.note(run.state.global_step + 1, loss, norm)
    # The ranks agree about the gradient, but not about the loss.
    if is_bad and not guard.where and (run.world.size == 1 or guard.has_bad_gradient):
        with run.usage.paused():
            guard.where = find_culprit(run, batches, loss_of)


def respond(run: TrainingRun) -> None:
    """Read what the steps since the last call have shown, and do what `on_non_finite` says.

    Waits for the device and for the other processes, so the loop calls it where it waits anyway.
    """
    guard, policy = run.guard, run.args.on_non_finite
    is_first = guard.steps == 0
    found = guard.read(run.world)
    if found is None:
        guard.rollbacks = 0
        return
    told = _sentence(run, found)
    if policy == "rollback":
        _roll_back(run, told)
    elif policy == "stop":
        run.control.request_stop(told)
        _tell(run, f"Training stops: {told}")
    elif is_first:
        consequence = {
            "warn": "Training continues, because on_non_finite is 'warn'.",
            "skip": "Updates with a gradient that is not finite are skipped.",
        }
        _tell(run, f"{told} {consequence[policy]}")


def tell_number(run: TrainingRun) -> None:
    """Tell at the end of a training how many of its steps were not finite, if several were."""
    if run.guard.steps > 1:
        _tell(
            run,
            f"The loss or the gradient was not finite in {run.guard.steps} of "
            f"{run.state.global_step} steps.",
        )


def _sentence(run: TrainingRun, found: Divergence) -> str:
    hint = "To find the module, train with debug='underflow_overflow'."
    where = found.where or (hint if not run.guard.looks_at_each_step else "")
    step = run.state.global_step
    later = "" if step == found.step else f", which was found at step {step}"
    what = " and the ".join(found.what)
    is_or_are = "is" if len(found.what) == 1 else "are"
    told = f"The {what} of step {found.step} {is_or_are} not finite{later}."
    return f"{told} {where}".strip()


def _roll_back(run: TrainingRun, told: str) -> None:
    """Restore what steps have changed from the newest finite checkpoint.

    These are the weights, the state of the optimizer, the scale of losses in float16, and the files
    of callbacks, such as an average of weights. The step, the position in the data, the schedule
    and the other state of callbacks, such as the patience of early stopping, stay as they are:
    training continues after the data with which it diverged.
    """
    finish_save(run)
    guard = run.guard
    checkpoint = guard.checkpoint
    if checkpoint is None:
        fault: str | None = "no checkpoint with finite weights was saved before"
    elif guard.rollbacks >= MOST_ROLLBACKS:
        fault = f"it has done so {guard.rollbacks} times in a row, and each time it diverged again"
    else:
        fault = find_fault_together(run.world, checkpoint)
    if checkpoint is None or fault is not None:
        why = f"{told} It cannot go back, because {fault}."
        run.control.request_stop(why)
        _tell(run, f"Training stops: {why}")
        return
    load_model(run.model, checkpoint)
    run.precision.load_state_dict(load_precision(checkpoint))
    for callback in run.loop_callbacks:
        callback.load_files(run.model, checkpoint)
    optimizer = run.optimizer
    saved = load_optimizer_state(checkpoint, run.args.device, run.optimizer)
    groups = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in saved["param_groups"]] == [one["params"] for one in groups]:
        optimizer.load_state_dict({**saved, "param_groups": groups})
        state = ""
    else:  # a callback has changed them
        optimizer.state.clear()
        state = " Its parameter groups have changed since, so the optimizer starts without a state."
    guard.rollbacks += 1
    _tell(
        run,
        f"{told} The weights are those of {checkpoint} again, and training continues with the data "
        f"after this step. This is rollback {guard.rollbacks} of at most {MOST_ROLLBACKS} in a row."
        f"{state}",
    )


def _tell(run: TrainingRun, message: str) -> None:
    logger.log(logging.WARNING if run.world.is_main else logging.DEBUG, "%s", message)
