"""Resuming: chooses a checkpoint, restores a run from it, and tells how to resume."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from callback_core import restore_states
from trainer_torch.checkpoint import (
    checkpoint_path,
    checkpoint_step,
    count_ranks,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_state,
)
from trainer_torch.data import Plan
from trainer_torch.run import TrainingRun

logger = logging.getLogger(__name__)

_FROM_ARGUMENTS: Final = (
    "max_steps",
    "num_train_epochs",
    "train_batch_size",
    "logging_steps",
    "eval_steps",
    "save_steps",
)
"""The fields of the state that the arguments decide, also when resuming."""


def choose_checkpoint(run: TrainingRun, resume_from: str | Path | bool | None) -> Path | None:
    """Return the checkpoint to resume from, or `None` to start from the beginning.

    Raises:
        FileNotFoundError: The checkpoint that `resume_from` names is not there or not complete.
    """
    output_dir = run.args.output_dir
    if resume_from:
        return run.world.on_main(lambda: find_checkpoint(resume_from, output_dir))
    if run.world.is_main and (found := list_checkpoints(output_dir)):
        logger.info(
            "Training starts from the beginning, although there are checkpoints of an earlier "
            "training. The newest is %s.",
            found[-1],
        )
    return None


def resume(run: TrainingRun, plan: Plan, checkpoint: Path) -> None:
    """Restore `run`, including its callbacks, from `checkpoint`.

    Arguments that differ from those of the checkpoint take effect. A warning names them.
    """
    load_checkpoint(run, checkpoint)
    run.state = run.world.on_main(lambda: load_state(checkpoint))
    states = {**run.state.stateful_callbacks}
    states.pop("TrainerControl", None)  # requests of that time are not requests of today
    restore_states(run.callback_handler.callbacks, states)
    logger.info("Resuming from %s at step %d.", checkpoint, run.state.global_step)
    run.resumed_from = checkpoint
    if checkpoint.resolve().parent == Path(run.args.output_dir).resolve():
        run.saved_step = run.state.global_step
    _fit_number_of_ranks(run, count_ranks(checkpoint))
    saved = {name: getattr(run.state, name) for name in _FROM_ARGUMENTS}
    run.set_length(plan)
    if not run.world.is_main:
        return
    changed = [
        f"{name} {getattr(run.state, name)} instead of {value}"
        for name, value in saved.items()
        if getattr(run.state, name) != value
    ]
    if changed:
        logger.warning("The arguments differ from the checkpoint's: %s.", ", ".join(changed))
    if run.state.global_step >= plan.max_steps:
        logger.info(
            "Nothing is left to train: step %d of %d is done.",
            run.state.global_step,
            plan.max_steps,
        )


def tell_how_to_continue(run: TrainingRun, exception: BaseException) -> None:
    """Log from which checkpoint a training that `exception` has ended can be resumed, if any."""
    checkpoint = run.resumed_from
    if run.saved_step is not None:
        checkpoint = checkpoint_path(run.args.output_dir, run.saved_step)
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
    else:
        logger.warning(
            "%s. To continue from step %d, call train(resume_from_checkpoint=%r).",
            ended,
            checkpoint_step(checkpoint),
            str(checkpoint),
        )


def _fit_number_of_ranks(run: TrainingRun, ranks: int) -> None:
    """Convert the position of a checkpoint of `ranks` processes to the current number."""
    if ranks == run.world.size:
        return
    run.position.batches = run.position.batches * ranks // run.world.size
    logger.log(
        logging.WARNING if run.world.is_main else logging.DEBUG,
        "The checkpoint was saved by %d process(es), and now there are %d. The random generators "
        "are seeded again, and the number of steps in an epoch changes.",
        ranks,
        run.world.size,
    )
