"""Tells how a training begins: its size, its arguments; and how to continue if it ends early."""

from __future__ import annotations

import logging
from typing import Any

from callback_core import number_of_batches
from callback_core.tracking import Redaction
from trainer_torch.run.plan import Plan
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.checkpoint import checkpoint_path, has_only_model

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


def tell_arguments(run: TrainingRun) -> None:
    """Log the arguments that differ from their defaults, and warn of those that nothing reads.

    Secrets are removed.
    """
    if run.world.is_main and (changed := Redaction().of(run.args.changed(), "arguments")):
        listed = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        logger.info("The arguments are the defaults, except %s.", listed)
    classes = (kind for one in run.callback_handler.callbacks for kind in type(one).__mro__)
    names = [kind.__name__ for kind in classes]
    if (unread := run.args.set_for_trackio()) and "TrackioCallback" not in names:
        run.warn_once(
            "Only transformers' TrackioCallback reads these arguments, and it is not among the "
            f"callbacks: {', '.join(unread)}. Give them to your tracker's callback instead."
        )


def tell_how_to_continue(run: TrainingRun, exception: BaseException) -> None:
    """Log from which checkpoint a training that `exception` has ended can be resumed, if any."""
    checkpoint, step = run.resumed_from, run.resumed_step
    if run.saved_step not in (None, run.resumed_step):
        checkpoint, step = checkpoint_path(run.args.output_dir, run.saved_step), run.saved_step
    # An error shows its own message. What ends a training from outside shows none.
    if not run.world.is_main or (checkpoint is None and isinstance(exception, Exception)):
        return
    ended = f"Training ended at step {run.state.global_step} of {run.state.max_steps}"
    if checkpoint is None:
        logger.warning(
            "%s and has saved no checkpoint, so it cannot be resumed. With "
            "enable_jit_checkpoint=True, a signal such as Ctrl-C saves one.",
            ended,
        )
    elif has_only_model(checkpoint):
        logger.warning(
            "%s. It cannot be resumed, because save_only_model leaves out the optimizer. The last "
            "weights are in %s.",
            ended,
            checkpoint,
        )
    else:
        logger.warning(
            "%s. To continue from step %d, call train(resume_from_checkpoint=%r).",
            ended,
            step,
            str(checkpoint) if run.args.remote_output_dir is None else True,
        )


def _samples(dataloader: Any) -> int | None:
    """Return the number of samples in the data, if it is known."""
    return number_of_batches(getattr(dataloader, "dataset", None))
