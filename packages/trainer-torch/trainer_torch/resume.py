"""Resuming: chooses a checkpoint, restores a run from it, and tells how to resume."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from callback_core import restore_states
from trainer_torch import structure
from trainer_torch.checkpoint import (
    arguments_to_keep,
    checkpoint_path,
    checkpoint_step,
    count_ranks,
    has_finite_weights,
    has_only_model,
    list_checkpoints,
    load_data_state,
    load_optimizer,
    load_precision,
    load_progress,
    load_rng_states,
    load_state,
    load_structure,
)
from trainer_torch.data import batch_size_of_loader, batches_of, can_start_anywhere
from trainer_torch.plan import Plan, continued_plan, plan_training
from trainer_torch.position import LoopPosition
from trainer_torch.run import TrainingRun
from trainer_torch.schedules import needs_metric
from trainer_torch.seeding import has_accelerator_of, set_rng_state
from trainer_torch.selection import find_checkpoint
from trainer_torch.sources import has_state
from trainer_torch.weights import load_model

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

_OF_THE_BEST_MODEL: Final = ("metric_for_best_model", "greater_is_better")


def choose_checkpoint(run: TrainingRun, resume_from: str | Path | bool | None) -> Path | None:
    """Return the checkpoint to resume from, or `None` to start from the beginning.

    Args:
        run: The training.
        resume_from: What `train` got. `None` means what the arguments say.

    Raises:
        FileNotFoundError: The checkpoint that `resume_from` names is not there or not complete.
    """
    output_dir = run.args.output_dir
    if resume_from is None:
        resume_from = run.args.resume_from_checkpoint
    if resume_from:
        return run.world.on_main(lambda: find_checkpoint(resume_from, output_dir))
    if run.world.is_main and (found := list_checkpoints(output_dir)):
        logger.info(
            "Training starts from the beginning, although there are checkpoints of an earlier "
            "training. The newest is %s.",
            found[-1],
        )
    return None


def find_position(run: TrainingRun, checkpoint: Path | None) -> Plan:
    """Set the position of `run` in its data, and return the length of the training.

    Args:
        run: The training, with its data loader.
        checkpoint: The checkpoint to continue from, if any.

    Raises:
        ValueError: There is no batch, or the data has no length and `max_steps` is not set.
    """
    args, world, dataloader = run.args, run.world, run.train_dataloader
    run.position = LoopPosition(args.device, world, batch_size_of_loader(dataloader))
    plan = plan_training(args, dataloader, world)
    run.position.length = plan.batches_per_epoch if plan.has_length else None
    return plan if checkpoint is None else _restore_position(run, plan, checkpoint)


def _restore_position(run: TrainingRun, plan: Plan, checkpoint: Path) -> Plan:
    """Restore the position in the data, and return what becomes of `plan` from there on.

    The position is exact for another batch size, accumulation or number of processes too. The plan
    then counts the steps done as they are, and the rest in the new size of a step.
    """
    position, args = run.position, run.args
    progress = load_progress(run, plan, checkpoint)
    ranks = count_ranks(checkpoint)
    position.load_state_dict(progress)
    is_at_end = position.batches == progress["length"]
    if args.ignore_data_skip and position.is_within_epoch and not is_at_end:
        logger.info("Epoch %d begins at its start again: ignore_data_skip.", position.epoch)
        position.begin_anew()
    is_changed = ranks != run.world.size or progress["batch_size"] != position.batch_size
    _warn_of_other_workers(run, progress["arguments"])
    position.data_state = _usable_state(run, checkpoint, is_changed)
    if is_changed:
        _convert_position(run, progress["batch_size"], ranks)
    if ranks != run.world.size:
        logger.log(
            logging.WARNING if run.world.is_main else logging.DEBUG,
            "The checkpoint was saved by %d process(es), and now there are %d. The random "
            "generators are seeded again, and the number of steps in an epoch changes.",
            ranks,
            run.world.size,
        )
    if not is_changed and progress["length"] != position.length:
        _warn_of_other_data(run, progress["length"])
        is_changed = True
    if is_changed or progress["accumulation"] != args.gradient_accumulation_steps:
        position.has_other_steps = True
    if not position.has_other_steps:
        return plan
    return continued_plan(plan, args, position, progress["global_step"])


def _warn_of_other_workers(run: TrainingRun, before: dict[str, Any]) -> None:
    """Warn that an iterable dataset may divide itself among its workers in another way now."""
    dataloader, position = run.train_dataloader, run.position
    if not (can_start_anywhere(dataloader) and dataloader.is_iterable and position.is_within_epoch):
        return
    now = dataloader.num_workers
    workers = before.get("dataloader_num_workers", now)  # that of transformers is not known
    if workers != now and max(workers, now) > 1 and run.world.is_main:
        logger.warning(
            "The iterable train_dataset was loaded by %d worker(s), and now there are %d. If it "
            "divides itself among them, samples of this epoch may come twice or not at all.",
            workers,
            now,
        )


def _usable_state(run: TrainingRun, checkpoint: Path, is_changed: bool) -> Any:
    """Return the state of the data in `checkpoint`, if the training can continue with it.

    A state belongs to a number of workers. That of another loader than the Trainer's also belongs
    to a size of batches, and is of use at the end of an epoch too.
    """
    dataloader, position = run.train_dataloader, run.position
    found = load_data_state(checkpoint, run.world)
    if found is None or found["workers"] != getattr(dataloader, "num_workers", 0):
        return None
    if can_start_anywhere(dataloader):
        is_usable = dataloader.is_iterable and position.is_within_epoch
    else:
        has_begun = position.is_within_epoch or position.epoch_ended
        is_usable = has_state(dataloader) and has_begun and not is_changed
    return found["state"] if is_usable else None


def _warn_of_other_data(run: TrainingRun, length: int | None) -> None:
    """Warn that an epoch of the checkpoint had `length` batches, and has another number now."""
    position = run.position
    within = (
        " The order is another one too: within this epoch, samples may come twice or not at all."
        if position.is_within_epoch
        else ""
    )
    logger.log(
        logging.WARNING if run.world.is_main else logging.DEBUG,
        "The training data has %s batches in an epoch, and had %s when the checkpoint was saved.%s",
        position.length or "an unknown number of",
        length or "an unknown number",
        within,
    )


def _convert_position(run: TrainingRun, batch_size: int | None, ranks: int) -> None:
    """Convert a position of `ranks` processes with this batch size to those of the run."""
    position, world = run.position, run.world
    size = position.batch_size
    if size is None or batch_size is None:
        position.batches = position.batches * ranks // world.size
        return
    done = position.samples * ranks
    if position.is_within_epoch:
        position.read_size = batch_size
    position.samples = done // world.size
    position.batches = batches_of(run.train_dataloader, position.samples, size)
    repeated = done - position.samples * world.size
    if not can_start_anywhere(run.train_dataloader):
        repeated = done - position.batches * size * world.size
        position.samples = position.batches * size
    if repeated and world.is_main and not position.epoch_ended:
        logger.warning(
            "%d sample(s) of this epoch are trained on a second time, because the checkpoint "
            "has done %d, which is not a whole number of the new batches.",
            repeated,
            done,
        )


def resume(run: TrainingRun, plan: Plan, checkpoint: Path) -> Resumption:
    """Restore the weights, the state and the callbacks of `run` from `checkpoint`.

    Warnings name the arguments that differ from those of the checkpoint, and which of both hold.

    Returns:
        What remains to be restored when the callbacks have begun the training.

    Raises:
        ValueError: The checkpoint is that of another model, optimizer or scheduler; or a callback
            refuses its state.
    """
    run.state = run.world.on_main(lambda: load_state(checkpoint))
    states = {**run.state.stateful_callbacks}
    states.pop("TrainerControl", None)  # requests of that time are not requests of today
    restore_states(run.callback_handler.callbacks, states)
    progress = load_progress(run, plan, checkpoint)
    resumption = Resumption(run, checkpoint)
    logger.info("Resuming from %s at step %d.", checkpoint, run.state.global_step)
    run.resumed_from, run.step_logs = checkpoint, progress["step_logs"]
    vars(run.guard).update(progress["non_finite"])
    run.guard.checkpoint = checkpoint if has_finite_weights(checkpoint) else None
    if checkpoint.resolve().parent == Path(run.args.output_dir).resolve():
        run.saved_step = run.state.global_step
    max_steps = run.state.max_steps
    run.set_length(plan)
    changed = _changed_arguments(run, progress["arguments"])
    if any(name in changed for name in _OF_THE_BEST_MODEL):
        run.state.best_metric = run.state.best_global_step = None
        run.state.best_model_checkpoint = None
    if run.world.is_main:
        if "max_steps" not in changed and max_steps != plan.max_steps:
            changed["max_steps"] = f"{plan.max_steps} instead of {max_steps}"
        _report(run, changed, _changed_options(run, progress["given_options"]))
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

        Within an epoch, the random generators get their state of its begin, for the batches that
        are done to be skipped. `restore_generators` must follow.
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


def _changed_arguments(run: TrainingRun, before: dict[str, Any]) -> dict[str, str]:
    """Return the arguments that differ from those of the checkpoint, each with both values."""
    changed = {}
    now = arguments_to_keep(run.args)
    if (
        "output_dir" in before
        and Path(before["output_dir"]).resolve() == Path(now["output_dir"]).resolve()
    ):
        before = before | {
            "output_dir": now["output_dir"]
        }  # the same in other words, such as a relative path
    for name, value in now.items():
        if name in before and before[name] != value:
            is_hidden = isinstance(value, dict)  # a digest
            changed[name] = "another" if is_hidden else f"{value!r} instead of {before[name]!r}"
    return changed


def _changed_options(run: TrainingRun, before: dict[str, Any]) -> dict[str, str]:
    """Return the options of a given optimizer or scheduler that differ, each with both values."""
    return {
        name: f"{value!r} instead of {before[name]!r}"
        for name, value in run.given_options().items()
        if name in before and before[name] != value
    }


def _report(run: TrainingRun, changed: dict[str, str], options: dict[str, str]) -> None:
    decided = set(_OF_THE_OPTIMIZER)
    if needs_metric(run.args.lr_scheduler_type):
        decided.add("lr_scheduler_kwargs")  # its state has them
    held = {name: text for name, text in changed.items() if name in decided}
    new = [f"{name} {text}" for name, text in changed.items() if name not in held]
    held |= options
    if new:
        logger.warning(
            "Arguments differ from the checkpoint's, and the new ones hold from here on: %s.",
            ", ".join(new),
        )
    if held:
        logger.warning(
            "Arguments differ from the checkpoint's, and the checkpoint's hold, because they are "
            "part of the state of the optimizer or the scheduler: %s. To train with the new ones, "
            "start a training of its own with the weights of the checkpoint.",
            ", ".join(f"{name} {text}" for name, text in held.items()),
        )
    if run.state.global_step >= run.state.max_steps:
        logger.info(
            "Nothing is left to train: step %d of %d is done.",
            run.state.global_step,
            run.state.max_steps,
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
            checkpoint_step(checkpoint),
            str(checkpoint),
        )
