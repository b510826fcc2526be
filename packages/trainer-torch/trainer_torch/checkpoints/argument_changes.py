"""Which arguments a checkpoint keeps, and which of those of a resumed training differ from them."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from callback_core.tracking import Redaction
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.optimizers.schedules import needs_metric
from trainer_torch.run.training_run import TrainingRun

logger = logging.getLogger(__name__)

_OF_THE_OPTIMIZER: Final = (
    "learning_rate",
    "optim_args",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
)
"""The arguments that a checkpoint decides, because they are in the state of the optimizer."""


def arguments_to_keep(args: TrainingArguments) -> dict[str, Any]:
    """Return the arguments as a checkpoint keeps them, to compare them when resuming.

    Secrets are removed. An argument that only a subclass has may be one in disguise, so only a
    digest of it is kept.
    """
    own = {field.name for field in fields(TrainingArguments)}
    return {
        name: Redaction().of(value, name) if name in own else _digest(value)
        for name, value in args.to_dict().items()
        if name != "resume_from_checkpoint"  # it differs whenever a training is resumed
    }


def changed_arguments(args: TrainingArguments, before: dict[str, Any]) -> dict[str, str]:
    """Return the arguments that differ from those of the checkpoint, each with both values."""
    changed = {}
    now = arguments_to_keep(args)
    own = Path(now["output_dir"]).resolve()
    if "output_dir" in before and Path(before["output_dir"]).resolve() == own:
        # The same in other words, such as a relative path.
        before = before | {"output_dir": now["output_dir"]}
    for name, value in now.items():
        if name in before and before[name] != value:
            is_hidden = isinstance(value, dict)  # a digest
            changed[name] = "other" if is_hidden else f"{value!r} instead of {before[name]!r}"
    return changed


def tell_changes(run: TrainingRun, changed: dict[str, str], options_before: dict[str, Any]) -> None:
    """Warn of what differs from the checkpoint, and say which values hold.

    Args:
        run: The training.
        changed: The arguments that differ, each with both values.
        options_before: The options of the optimizer and the scheduler that the user gave, as they
            were when the checkpoint was saved.
    """
    decided = set(_OF_THE_OPTIMIZER)
    if needs_metric(run.args.lr_scheduler_type):
        decided.add("lr_scheduler_kwargs")  # its state has them
    held = {name: text for name, text in changed.items() if name in decided}
    new = [f"{name} {text}" for name, text in changed.items() if name not in held]
    held |= _changed_options(run, options_before)
    if new:
        logger.warning(
            "Arguments differ from the checkpoint's. From now on, the new values hold: %s.",
            ", ".join(new),
        )
    if held:
        logger.warning(
            "Arguments differ from the checkpoint's. The checkpoint's values hold, because they "
            "are part of the state of the optimizer or the scheduler: %s. To train with the new "
            "values, start a new training with the weights of the checkpoint.",
            ", ".join(f"{name} {text}" for name, text in held.items()),
        )


def _changed_options(run: TrainingRun, before: dict[str, Any]) -> dict[str, str]:
    """Return the options of a given optimizer or scheduler that differ, each with both values."""
    return {
        name: f"{value!r} instead of {before[name]!r}"
        for name, value in run.given.options().items()
        if name in before and before[name] != value
    }


def _digest(value: Any) -> dict[str, str]:
    return {"sha256": hashlib.sha256(json.dumps(value).encode()).hexdigest()}
