"""Checkpoints that transformers' Trainer has written, from 4.34 to 5.24: reads them to resume.

Nothing is unpickled. `training_args.bin` holds a pickled object and is therefore not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from callback_core import TrainerState
from trainer_torch.model.structure import describe
from trainer_torch.run.optimizer_creation import Schedule
from trainer_torch.run.plan import Plan
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.checkpoint import STATE
from trainer_torch.wrapping import plain_name

SCALER: Final = "scaler.pt"

_NOT_DECAYED: Final = (
    re.compile(r"bias"),
    re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)", re.IGNORECASE),
)
"""The names of parameters without weight decay: in transformers 4.34, and in 5.24."""


def read_progress(run: TrainingRun, plan: Plan, checkpoint: Path, ranks: int) -> dict[str, Any]:
    """Return the position of a checkpoint of transformers, in the form of ours.

    transformers keeps the share of the epoch that is done, and the step.

    Args:
        run: The training, with its position at the beginning.
        plan: The length of a training that is not resumed.
        checkpoint: The checkpoint.
        ranks: The number of processes that saved it.
    """
    state = TrainerState.load_from_json(checkpoint / STATE)
    args, step, size = run.args, state.global_step, run.position.batch_size
    saved_size = state.train_batch_size if size is not None and state.train_batch_size else size
    length = plan.batches_per_epoch
    if size and saved_size:
        length = math.ceil(length * size * run.world.size / (saved_size * ranks))
    steps = math.ceil(length / args.gradient_accumulation_steps)
    done = step / steps if state.epoch is None else state.epoch
    epoch = math.floor(done + 1e-6)
    batches = round((done - epoch) * length)
    has_ended = batches <= 0
    if has_ended:
        epoch, batches = max(0, epoch - 1), length if step else 0
    expected = epoch * steps + math.ceil(batches / args.gradient_accumulation_steps)
    _tell(run, checkpoint, is_within_epoch=not has_ended)
    known = {"per_device_train_batch_size": saved_size} if state.train_batch_size else {}
    return {
        **run.position.state_dict(),
        "epoch": epoch,
        "batches": batches,
        "samples": batches * (saved_size or 0),
        "batch_size": saved_size,
        "epoch_ended": has_ended and step > 0,
        "logged_step": step,
        "has_other_steps": step != expected,
        "loss_before_log": _mean_loss(state) * step,
        "loss_since_log": 0.0,
        "global_step": step,
        "step_logs": {},
        "accumulation": args.gradient_accumulation_steps,
        "arguments": known,
        "given_options": {},
        "non_finite": {},
    }


def read_precision(checkpoint: Path) -> dict[str, Any]:
    """Return the state of the gradient scaler; nothing if the checkpoint has none."""
    path = checkpoint / SCALER
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else {}


def read_structure(run: TrainingRun, optimizer: dict[str, Any]) -> dict[str, Any]:
    """Return the structure of a checkpoint of transformers.

    The form is that of `trainer_torch.model.structure`. The checkpoint keeps no names. So the
    groups of the optimizer are those that transformers makes for this model, or those of this run,
    whichever have the shapes of the state.

    Args:
        run: The training.
        optimizer: The state of the optimizer in the checkpoint, without empty groups.

    Raises:
        ValueError: It is the state of another optimizer, or of other groups.
    """
    described = describe(run.model, run.optimizer, run.lr_scheduler)
    numbers = {
        name
        for name, value in run.optimizer.defaults.items()
        if isinstance(value, (int, float, tuple)) and not isinstance(value, bool)
    }
    groups = optimizer["param_groups"]
    if missing := sorted(numbers - set(groups[0])):
        raise ValueError(
            "The checkpoint has the state of another optimizer than "
            f"{type(run.optimizer).__name__}: it lacks {', '.join(missing)}. Pass the same "
            "optimizer to the Trainer, or train without resume_from_checkpoint."
        )
    candidates = [described["groups"], *(_groups(run.model, rule) for rule in _NOT_DECAYED)]
    shapes = {plain_name(name): one.shape for name, one in run.model.named_parameters()}
    for names in candidates:
        if _fits(names, optimizer, shapes):
            return {**described, "groups": names}
    raise ValueError(
        f"The checkpoint's optimizer has {len(groups)} parameter group(s) of "
        f"{[len(group['params']) for group in groups]} parameters, which are neither those of this "
        "training nor those that transformers makes for this model. Pass an optimizer with the "
        "same groups, or train without resume_from_checkpoint."
    )


def without_empty_groups(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an optimizer without groups that have no parameters.

    transformers makes a group without weight decay even if it is empty.
    """
    groups = [group for group in optimizer["param_groups"] if group["params"]]
    return {**optimizer, "param_groups": groups}


def check_scheduler(scheduler: Any, state: dict[str, Any]) -> None:
    """Check that `state` is that of a schedule of the same kind.

    Raises:
        ValueError: It is not.
    """
    if ("lr_lambdas" in state) != isinstance(scheduler, (LambdaLR, Schedule)):
        raise ValueError(
            f"The checkpoint has the state of another lr_scheduler than {type(scheduler).__name__}."
            " Choose the same lr_scheduler_type, or train without resume_from_checkpoint."
        )


def _tell(run: TrainingRun, checkpoint: Path, is_within_epoch: bool) -> None:
    order = (
        " The rest of this epoch comes in another order, so samples may come twice or not at all."
        if is_within_epoch
        else ""
    )
    is_unused = (checkpoint / SCALER).exists() and not run.precision.skips_overflows
    scaler = " Its gradient scaler is not used, because fp16 is False." if is_unused else ""
    generators = (
        "" if any(checkpoint.glob("rng_state*.pth")) else " The random generators are seeded again."
    )
    run.warn_once(
        f"{checkpoint} is a checkpoint of transformers. Its arguments are not compared, because "
        f"training_args.bin would have to be unpickled.{order}{scaler}{generators}"
    )


def _mean_loss(state: TrainerState) -> float:
    """Return the mean of the losses in the log history, each of which is a mean over steps."""
    total, before = 0.0, 0
    for entry in state.log_history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - before)
            before = entry["step"]
    return total / before if before else 0.0


def _groups(model: nn.Module, not_decayed: re.Pattern[str]) -> list[list[str]]:
    """Return the names of the parameters with weight decay, and of those without."""
    norms = {
        f"{name}.{own}" if name else own
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for own, _ in module.named_parameters(recurse=False)
    }
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    is_decayed: Callable[[str], bool] = lambda name: (  # noqa: E731
        name not in norms and not not_decayed.search(plain_name(name))
    )
    kinds = (True, False)
    groups = [[plain_name(n) for n in trained if is_decayed(n) == kind] for kind in kinds]
    return [names for names in groups if names]


def _fits(names: list[Any], optimizer: dict[str, Any], shapes: dict[str, torch.Size]) -> bool:
    """Return whether groups of parameters with these `names` can have the state `optimizer`."""
    groups = optimizer["param_groups"]
    if [len(group) for group in names] != [len(group["params"]) for group in groups]:
        return False
    for group, saved in zip(names, groups, strict=True):
        for name, number in zip(group, saved["params"], strict=True):
            for value in optimizer["state"].get(number, {}).values():
                if isinstance(value, Tensor) and value.ndim and value.shape != shapes.get(name):
                    return False
    return True
