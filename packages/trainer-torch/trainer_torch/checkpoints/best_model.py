"""The best model: the metric that decides, and the checkpoint that holds it."""

from __future__ import annotations

import logging
from pathlib import Path

from callback_core import is_best_checkpoint
from trainer_torch.checkpoints.selection import rotate_checkpoints
from trainer_torch.model.finite import is_finite
from trainer_torch.model.weights import load_model
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.checkpoint import checkpoint_path
from trainer_torch.storage.verification import find_fault_together

logger = logging.getLogger(__name__)


def best_checkpoint(run: TrainingRun) -> str | None:
    """Return the best checkpoint, including one of the current step.

    One with weights that are not finite never is, and a warning says so.
    """
    args, state = run.args, run.state
    if not is_best_checkpoint(args, state):
        return state.best_model_checkpoint
    checkpoint = checkpoint_path(args.output_dir, state.global_step)
    if all(run.world.gather(is_finite(run.model, optimizer=None))):
        return str(checkpoint)
    if run.world.is_main:
        logger.warning(
            "%s has the best %s so far, but its weights are not finite, so it is not the best "
            "checkpoint.",
            checkpoint,
            args.metric_for_best_model,
        )
    return state.best_model_checkpoint


def finish_model(run: TrainingRun) -> None:
    """Set the weights with which a training ends: the best ones, if the arguments ask for it.

    From then on, `save_total_limit` treats the newest checkpoint like any other. Callbacks may
    change the weights last.
    """
    best = _load_best_model(run) if run.args.load_best_model_at_end else None
    for callback in run.loop_callbacks:
        callback.finish(run.model, best)


def _load_best_model(run: TrainingRun) -> Path | None:
    """Load the best model, and return its checkpoint; `None` if there is none to load."""
    if run.state.best_model_checkpoint is None:
        if run.world.is_main:
            logger.warning(
                "load_best_model_at_end has no checkpoint to load: none was saved at an evaluation "
                "that reported %r as a number. The model keeps its last weights.",
                run.args.metric_for_best_model,
            )
        return None
    best = Path(run.state.best_model_checkpoint)
    failed = [one.step for one in run.saves.failed]
    if run.state.best_global_step in failed and run.world.is_main:
        logger.warning(
            "The best model, of step %d, could not be saved. load_best_model_at_end loads the "
            "best saved one instead, which is worse.",
            run.state.best_global_step,
        )
    if fault := find_fault_together(run.world, best):
        if run.world.is_main:
            logger.warning(
                "load_best_model_at_end cannot load the best model from %s: %s. The model keeps "
                "its last weights.",
                best,
                fault,
            )
        return None
    logger.info("Loading the best model from %s.", best)
    load_model(run.model, best)
    rotate_checkpoints(run)
    return best
