"""Which checkpoint a training resumes from, and which ones are kept."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from trainer_torch.ranks.processes import may_restart
from trainer_torch.ranks.world import SINGLE_PROCESS, World
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.background import Work
from trainer_torch.storage.checkpoint import (
    has_all_files,
    has_finite_weights,
    has_only_model,
    list_checkpoints,
    surplus,
)
from trainer_torch.storage.checkpoint_writing import clear_leftovers, remove
from trainer_torch.storage.places import Place, find_place
from trainer_torch.storage.restarts import restart_count, saved_by_earlier_attempts
from trainer_torch.storage.verification import find_fault_together

logger = logging.getLogger(__name__)

AUTO: Final = "auto"
"""The value of `resume_from_checkpoint` that resumes if there is a checkpoint."""


def choose_checkpoint(run: TrainingRun, resume_from: str | Path | bool | None) -> Path | None:
    """Return the checkpoint to resume from, or `None` to start from the beginning.

    If `torchrun` has started the processes again, this is the newest complete checkpoint that
    earlier attempts have saved, if there is one. Only a `resume_from` of `False` prevents that.

    Args:
        run: The training.
        resume_from: What `train` got. `None` means what the arguments say.

    Raises:
        ConnectionError: The store cannot be read, and there is no local checkpoint.
        FileNotFoundError: The checkpoint that `resume_from` names is not there or not complete.
        ValueError: The checkpoint was saved with `save_only_model`.
    """
    output_dir = run.args.output_dir
    run.on_writers(lambda: clear_leftovers(Path(output_dir)))
    if resume_from is None:
        resume_from = run.args.resume_from_checkpoint
    if resume_from is not False and (saved := _saved_before_restart(run)) is not None:
        return saved
    if resume_from == AUTO:
        place = find_place(True, output_dir, run.args.remote_output_dir)
        directory = place.make_local(run.world)
        if found := run.world.on_main(lambda: list_checkpoints(directory)):
            return _newest(found, place, run.world)
        if run.world.is_main:
            logger.info("%s has no checkpoint. Training starts from the beginning.", place)
        return None
    if resume_from:
        remote = run.args.remote_output_dir
        return find_checkpoint(resume_from, output_dir, run.world, remote)
    if run.world.is_main and (found := list_checkpoints(output_dir)):
        logger.info(
            "Training starts from the beginning, although there are checkpoints of an earlier "
            "training. The newest is %s.",
            found[-1],
        )
    return None


def _saved_before_restart(run: TrainingRun) -> Path | None:
    """Return the newest complete checkpoint of earlier attempts of `torchrun`, if there is one."""
    if not may_restart():
        return None
    output_dir, restarts = run.args.output_dir, max(run.world.gather(restart_count()))
    saved = run.world.on_main(lambda: saved_by_earlier_attempts(output_dir, restarts > 0))
    newest, _ = _newest_complete(saved, run.world)
    if restarts:
        _tell(
            run.world,
            "torchrun has started the processes again (restart %d). %s",
            restarts,
            f"Training continues from {newest}."
            if newest
            else "Earlier attempts have saved no checkpoint, so it starts as the first one did.",
        )
    return newest


def find_checkpoint(
    resume_from: str | Path | bool,
    output_dir: str | Path,
    world: World = SINGLE_PROCESS,
    remote_output_dir: str | None = None,
) -> Path:
    """Return the complete checkpoint that `resume_from` names. Every process must call this.

    If it is in a store only, it is downloaded first, once for each machine.

    In a directory, this is the newest complete one with finite weights, or the newest complete one
    if none has finite weights. Warnings name the newer ones, and weights that are not finite.

    Args:
        resume_from: A checkpoint; or a directory of checkpoints; or `True` for `output_dir`.
        output_dir: The directory of this run's checkpoints.
        world: The processes. Each checks a part of the files of a checkpoint.
        remote_output_dir: The address of this run's checkpoints, if they have one.

    Raises:
        ConnectionError: The store cannot be read, and there is no local checkpoint.
        FileNotFoundError: There is no complete checkpoint. The message says what is wrong.
        ValueError: It was saved with `save_only_model`.
    """
    place = find_place(resume_from, output_dir, remote_output_dir)
    directory = place.make_local(world)
    found = world.on_main(lambda: list_checkpoints(directory))
    is_here = place.remote is None or world.on_main(directory.is_dir)
    if resume_from is not True and not found and is_here:
        return _named(directory, world)
    return _newest(found, place, world)


def _newest(found: list[Path], place: Place, world: World) -> Path:
    """Return the newest complete one of the checkpoints `found` in `place`, or raise an error."""
    newest, only_model = _newest_complete(found, world)
    if newest is not None:
        return newest
    if only_model is not None:
        return _named(only_model, world)
    raise FileNotFoundError(
        f"Cannot resume: {place} has no complete checkpoint. Train with "
        "resume_from_checkpoint=False to start from the beginning."
    )


def _newest_complete(found: list[Path], world: World) -> tuple[Path | None, Path | None]:
    """Return the newest of `found` to resume from, if possible with finite weights.

    Warnings name the newer ones. If training can resume from none, the second result is the newest
    one that has only a model.
    """
    not_finite = only_model = None
    for checkpoint in reversed(found):
        if fault := find_fault_together(world, checkpoint):
            _tell(world, "Skipped the incomplete checkpoint %s: %s.", checkpoint, fault)
        elif has_only_model(checkpoint):
            _tell(world, "Skipped the checkpoint %s: %s.", checkpoint, _ONLY_MODEL)
            only_model = only_model or checkpoint
        elif has_finite_weights(checkpoint):
            return checkpoint, None
        else:
            _tell(world, "The weights in %s are not finite, so an older one is tried.", checkpoint)
            not_finite = not_finite or checkpoint
    if not_finite is not None:
        _tell(world, "No older checkpoint is finite, so training resumes from %s.", not_finite)
    return not_finite, only_model


_ONLY_MODEL = "it was saved with save_only_model, without the optimizer"


def _tell(world: World, message: str, *values: Any) -> None:
    if world.is_main:
        logger.warning(message, *values)


def _named(checkpoint: Path, world: World) -> Path:
    if fault := find_fault_together(world, checkpoint):
        raise FileNotFoundError(f"Cannot resume from {checkpoint}: {fault}.")
    if has_only_model(checkpoint):
        raise ValueError(
            f"Cannot resume from {checkpoint}: {_ONLY_MODEL}. Load its weights into the model, and "
            "train without resume_from_checkpoint."
        )
    if not has_finite_weights(checkpoint):
        _tell(
            world,
            "Training resumes from %s, but its weights are not finite, so losses will probably "
            "not be finite either. Name an older checkpoint, or the directory, for its newest "
            "finite one.",
            checkpoint,
        )
    return checkpoint


def rotate_checkpoints(run: TrainingRun, *keep: Path) -> None:
    """Delete the oldest checkpoints over `save_total_limit`, but neither `keep` nor the best.

    The newest one with finite weights is not deleted either. At the end of a training, without
    `keep`, the best one takes its place. With an address, a checkpoint is kept until it,
    or a newer one, is uploaded.

    With `save_async`, a thread deletes while training continues.
    """
    limit, best = run.args.save_total_limit, run.state.best_model_checkpoint
    if limit is None:
        return
    kept = {checkpoint.name for checkpoint in keep}
    if best is not None:
        kept.add(Path(best).name)
    keeps_newest = bool(keep) or best is None
    _delete(run, limit, kept, keeps_newest)


def make_room(run: TrainingRun) -> None:
    """Delete the oldest checkpoint that the next save would delete, because the disk is full.

    The newest complete one stays, and so do those that `rotate_checkpoints` keeps.
    """
    limit, best = run.args.save_total_limit, run.state.best_model_checkpoint
    if limit is not None and limit > 1:
        _delete(run, limit - 1, set() if best is None else {Path(best).name}, keeps_newest=True)
        wait_for_deletion(run)


def wait_for_deletion(run: TrainingRun) -> None:
    """Wait until this process has deleted what it has to, and warn of what it could not delete."""
    _tell_failures(run, _finish_deletion(run))


def _delete(run: TrainingRun, limit: int, kept: set[str], keeps_newest: bool) -> None:
    _tell_failures(run, run.on_writers(lambda: delete_oldest(run, limit, kept, keeps_newest)))


def _tell_failures(run: TrainingRun, failures: list[str]) -> None:
    for failure in failures:
        run.warn_once(
            f"A checkpoint over save_total_limit could not be deleted: {failure}. Training "
            "continues, and tries again after the next save. If the disk becomes full, delete it "
            "yourself.",
            about="a checkpoint that could not be deleted",
        )


def delete_oldest(
    run: TrainingRun, limit: int, kept: Collection[str], keeps_newest: bool
) -> list[str]:
    """Delete the oldest complete checkpoints over `limit` in this process.

    Damaged ones neither count nor are deleted. A checkpoint is renamed before it is deleted, so no
    damaged one is left under its name after a failure or a kill.

    Args:
        run: The training.
        limit: The number of checkpoints to keep.
        kept: The names of checkpoints to keep anyway.
        keeps_newest: Whether to keep the newest one, and the newest one with finite weights, too.

    Returns:
        The errors since the last call, in words. If a thread deletes, its errors follow later.
    """
    directory = Path(run.args.output_dir)
    complete = {one.name: one for one in list_checkpoints(directory) if has_all_files(one)}
    names = [(name, has_finite_weights(one)) for name, one in complete.items()]
    oldest = [complete[name] for name in surplus(names, limit, kept, keeps_newest)]
    if run.uploader is not None:
        oldest = [one for one in oldest if run.uploader.may_delete(one)]
    failures = _finish_deletion(run)
    renamed = list(directory.glob(".checkpoint-*.deleted"))
    for checkpoint in oldest:
        try:
            renamed.append(checkpoint.rename(directory / f".{checkpoint.name}.deleted"))
        except OSError as error:
            failures.append(str(error))
    run.saves.deletion = Work(lambda: _remove(renamed), run.saves_in_thread)
    return failures if run.saves_in_thread else [*failures, *_finish_deletion(run)]


def _finish_deletion(run: TrainingRun) -> list[str]:
    """Wait until this process has deleted what it has to, and return the errors in words."""
    deletion, run.saves.deletion = run.saves.deletion, None
    if deletion is None:
        return []
    deletion.wait()
    failures: list[str] = deletion.result
    return failures


def _remove(directories: list[Path]) -> list[str]:
    failures = []
    for directory in directories:
        try:
            remove(directory)
        except OSError as error:
            failures.append(str(error))
    return failures
