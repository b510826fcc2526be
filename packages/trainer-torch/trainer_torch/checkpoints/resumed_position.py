"""Where in its data a training begins, or continues: also with other batches or processes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from trainer_torch.checkpoints.checkpoint_loading import load_data_state, load_progress
from trainer_torch.data.position import LoopPosition
from trainer_torch.data.reading import batch_size_of_loader, batches_of, can_start_anywhere
from trainer_torch.data.sources import has_state
from trainer_torch.run.plan import Plan, continued_plan, plan_training
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.checkpoint import count_ranks

logger = logging.getLogger(__name__)


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
    """Restore the position in the data, and return the length of the training from there.

    The position is exact for another batch size, accumulation or number of processes too. The plan
    then counts the steps done as they are, and the rest in the new size of a step.
    """
    position, args = run.position, run.args
    progress = load_progress(run, plan, checkpoint)
    ranks = count_ranks(checkpoint)
    position.load_state_dict(progress)
    is_at_end = position.batches == progress["length"]
    if args.ignore_data_skip and position.is_within_epoch and not is_at_end:
        logger.info("ignore_data_skip: epoch %d starts at its first batch again.", position.epoch)
        position.restart_epoch()
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
    """Warn that an iterable dataset may divide itself differently among its workers."""
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

    A state fits one number of workers. The state of a loader that is not the Trainer's also fits
    only one batch size, and is needed at the end of an epoch too.
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
    """Warn that an epoch had `length` batches at the checkpoint, and now has another number."""
    position = run.position
    within = (
        " The order differs too: within this epoch, samples may come twice or not at all."
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
            "%d sample(s) of this epoch are trained on twice, because the checkpoint comes after "
            "%d samples, which is not a whole number of the new batches.",
            repeated,
            done,
        )
