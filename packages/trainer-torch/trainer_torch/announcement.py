"""Announces a training with its sizes."""

from __future__ import annotations

import logging
from typing import Any

from trainer_torch.plan import Plan, number_of_batches
from trainer_torch.run import TrainingRun

logger = logging.getLogger(__name__)


def announce(run: TrainingRun, plan: Plan) -> None:
    """Log the sizes of a training that begins or resumes, in the main process."""
    if not run.world.is_main or not logger.isEnabledFor(logging.INFO):
        return
    args, size = run.args, run.position.batch_size
    in_step = args.gradient_accumulation_steps * run.world.size
    trainable = sum(one.numel() for one in run.model.parameters() if one.requires_grad)
    sizes = {
        "samples": _samples(run.train_dataloader),
        "epochs": plan.num_train_epochs if plan.has_length else None,
        "batch size per device": size,
        "total batch size": None if size is None else size * in_step,
        "accumulated batches": args.gradient_accumulation_steps,
        "processes": run.world.size,
        "update steps": plan.max_steps,
        "trainable parameters": trainable,
    }
    lines = [
        f"  {name}: {'unknown' if value is None else f'{value:,}'}" for name, value in sizes.items()
    ]
    logger.info("Running training\n%s", "\n".join(lines))


def _samples(dataloader: Any) -> int | None:
    """Return the number of samples in the data, if it is known."""
    return number_of_batches(getattr(dataloader, "dataset", None))
