"""Resuming: restores a run from a checkpoint, before callbacks begin the training and after."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from callback_core import restore_states
from trainer_torch.checkpoints.argument_changes import changed_arguments, tell_changes
from trainer_torch.checkpoints.checkpoint_loading import (
    load_optimizer,
    load_precision,
    load_progress,
    load_rng_states,
    load_state,
    load_structure,
)
from trainer_torch.hardware.seeding import has_accelerator_of, set_rng_state
from trainer_torch.model import structure
from trainer_torch.model.weights import load_model
from trainer_torch.run.plan import Plan
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.checkpoint import has_finite_weights

logger = logging.getLogger(__name__)

_OF_THE_BEST_MODEL: Final = ("metric_for_best_model", "greater_is_better")


def resume(run: TrainingRun, plan: Plan, checkpoint: Path) -> Resumption:
    """Restore the weights, the state and the callbacks of `run` from `checkpoint`.

    Warnings name the arguments that differ from those of the checkpoint, and which values hold.

    Returns:
        What remains to be restored when the callbacks have begun the training.

    Raises:
        ValueError: The checkpoint is that of another model, optimizer or scheduler; or a callback
            refuses its state.
    """
    run.state = load_state(checkpoint, run.world)
    states = {**run.state.stateful_callbacks}
    states.pop("TrainerControl", None)  # its requests were answered before the checkpoint
    restore_states(run.callback_handler.callbacks, states)
    progress = load_progress(run, plan, checkpoint)
    resumption = Resumption(run, checkpoint)
    logger.info("Resuming from %s at step %d.", checkpoint, run.state.global_step)
    run.resumed_from, run.resumed_step = checkpoint, run.state.global_step
    run.step_logs = progress["step_logs"]
    vars(run.guard).update(progress["non_finite"])
    run.guard.checkpoint = checkpoint if has_finite_weights(checkpoint) else None
    if checkpoint.resolve().parent == Path(run.args.output_dir).resolve():
        run.saved_step = run.state.global_step
    max_steps = run.state.max_steps
    run.set_length(plan)
    changed = changed_arguments(run.args, progress["arguments"])
    if any(name in changed for name in _OF_THE_BEST_MODEL):
        run.state.best_metric = run.state.best_global_step = None
        run.state.best_model_checkpoint = None
    if run.world.is_main:
        if "max_steps" not in changed and max_steps != plan.max_steps:
            changed["max_steps"] = f"{plan.max_steps} instead of {max_steps}"
        tell_changes(run, changed, progress["given_options"])
        if run.state.global_step >= run.state.max_steps:
            logger.info(
                "Nothing is left to train: step %d of %d is done.",
                run.state.global_step,
                run.state.max_steps,
            )
    return resumption


class Resumption:
    """Restores from a checkpoint what callbacks may change when a training begins.

    A callback that adds a parameter group, freezes layers or sets weights in `on_train_begin` does
    so again when the training is resumed, and the checkpoint already has the outcome. The same
    holds for `on_epoch_begin` if the training is resumed within an epoch. So the checkpoint is
    loaded after these events.

    Args:
        run: The training. Its weights are loaded here already, so that callbacks see them.
        checkpoint: The checkpoint.
    """

    def __init__(self, run: TrainingRun, checkpoint: Path) -> None:
        self._run, self._checkpoint = run, checkpoint
        self._structure = load_structure(run, checkpoint)
        self._rng_states = load_rng_states(checkpoint, run.world)
        if self._rng_states is not None and not has_accelerator_of(self._rng_states[0]):
            run.warn_once(
                "The random generators of the accelerator are seeded again, because the checkpoint "
                "was saved with other accelerators, or with another number of them."
            )
        structure.check_classes(self._structure, run.optimizer, run.lr_scheduler)
        self._restore_model(is_complete=False)

    def restore(self) -> None:
        """Restore everything but the position, the state and the callbacks.

        Within an epoch, the random generators get the state that they had when it began, so that
        the batches that are done can be skipped. `restore_generators` must follow.
        """
        run = self._run
        self._restore_model()
        structure.set_modes(run.model, self._structure)
        structure.regroup(run.model, run.optimizer, self._structure)
        load_optimizer(run, self._checkpoint)
        run.precision.load_state_dict(load_precision(self._checkpoint))
        for callback in run.loop_callbacks:
            callback.load_files(run.model, self._checkpoint)
        if self._rng_states is not None:
            now, at_epoch_begin = self._rng_states
            set_rng_state(at_epoch_begin if run.position.is_within_epoch else now)

    def restore_generators(self) -> None:
        """Restore the random generators, from which skipping batches may have drawn."""
        if self._rng_states is not None:
            self._run.epoch_rng_state = self._rng_states[1]
            set_rng_state(self._rng_states[0])

    def _restore_model(self, is_complete: bool = True) -> None:
        load_model(self._run.model, self._checkpoint, is_complete)
        structure.freeze(self._run.model, self._structure)
