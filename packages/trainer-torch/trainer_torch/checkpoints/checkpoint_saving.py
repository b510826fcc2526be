"""Saves the checkpoint of the current step, in all processes.

`begin_save` takes the content and starts writing it. `finish_save` waits until all processes have
written, publishes the checkpoint, and fires `on_save`: at once, or with `save_async` at a later
step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from trainer_torch.checkpoints.best_model import best_checkpoint
from trainer_torch.checkpoints.checkpoint_contents import progress_of, take_contents
from trainer_torch.checkpoints.save_failures import failure_of, note_failure, wait_for_writing
from trainer_torch.checkpoints.selection import rotate_checkpoints
from trainer_torch.checkpoints.uploads import find_uploader, upload_checkpoint
from trainer_torch.hardware.seeding import generators_file, rng_state
from trainer_torch.messages import listed
from trainer_torch.model.finite import is_finite, parts_not_finite
from trainer_torch.model.staging import Staged
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.background import Work
from trainer_torch.storage.checkpoint import (
    STATE,
    checkpoint_path,
    list_checkpoints,
    manifest_digest,
    written_at,
)
from trainer_torch.storage.checkpoint_writing import discard_unpublished, publish, write_unpublished
from trainer_torch.storage.restarts import note_save
from trainer_torch.storage.saves import FailedSave, Save
from trainer_torch.storage.sharded_writing import make_temporary_folder, write_own_part
from trainer_torch.wrapping import is_sharded

logger = logging.getLogger(__name__)

_TICK: Final = 0.001
"""The seconds between two checkpoints at least, if the clock was set back."""


def save_checkpoint(run: TrainingRun) -> None:
    """Save everything that resuming needs, rotate the checkpoints, and fire `on_save`.

    The main process writes, including the random number generators of each rank. With
    `save_on_each_node`, the first process of each machine writes the same. With `save_only_model`,
    only the weights and the state of the training are written. If the model is sharded, each
    process writes its part.

    With `save_async`, this returns once everything has been copied. A thread writes while training
    continues, and a later step calls `finish_save`. Every process must call this.

    Raises:
        RuntimeError: Another process has failed.
        TypeError: A value in a state could not be loaded again. The message names it.
        ValueError: A file of a callback has the name of another file.
    """
    finish_save(run)
    begin_save(run)
    if not run.saves_in_thread:
        finish_save(run)


def begin_save(run: TrainingRun, states: dict[str, Any] | None = None) -> None:
    """Take the content of the checkpoint of the current step, and begin to write it.

    Every process must call this.

    Args:
        run: The training.
        states: The states of callbacks; `None` for the current ones.

    Raises:
        TypeError: A value in a state could not be loaded again. The message names it.
        ValueError: A file of a callback has the name of another file.
    """
    if run.usage is not None:
        run.usage.publish(run.state)
    progress = progress_of(run)
    rng_states, data_states = _states_of_ranks(run)
    gathered = run.world.gather((is_finite(run.model, run.optimizer), _time_of(run)))
    finite, written = all(is_well for is_well, _ in gathered), gathered[0][1]
    step, state = run.state.global_step, run.state
    best_so_far, best = state.best_model_checkpoint, best_checkpoint(run)
    path = checkpoint_path(run.args.output_dir, step)
    save = Save(step, state.epoch, path, finite, written, best)

    def begin() -> None:
        other = None if best is None or Path(best) == path else Path(best)
        progress["best_manifest"] = other and manifest_digest(other)
        contents = take_contents(run, progress, rng_states, data_states, states)
        note_save(run.args.output_dir)
        write = _write_parts if is_sharded(run.model) else _write
        save.work = write(run, save, contents)

    state.best_model_checkpoint = best  # for the checkpoint; restored below until it is complete
    try:
        if is_sharded(run.model):
            # Buffers are not sharded, and only the main process writes them.
            run.world.share_buffers(run.model)
            begin()
        else:
            run.on_writers(begin)
    finally:
        state.best_model_checkpoint = best_so_far
    run.saves.current = save
    if run.control.caller.callback is None:  # otherwise, the loop still has to act on a request
        run.control.reset({"should_save": False})


def finish_save(run: TrainingRun) -> None:
    """Wait for the checkpoint that is being saved, if there is one, and finish the save.

    If the checkpoint is complete, older ones are rotated and `on_save` is fired. If the disk has
    failed, a warning says so, and the last complete checkpoint remains the newest.

    Every process must call this at the same step.

    Raises:
        Exception: Writing has failed for a reason other than the disk.
    """
    save = run.saves.current
    if save is None:
        return
    wait_for_writing(save)
    failed = _agree(run, save)
    if failed is None and _publishes_after_all_wrote(run):
        save.work = save.work and Work(lambda: publish(save.path), in_thread=False)
        failed = _agree(run, save)
    run.saves.current = None
    if failed is not None:
        note_failure(run, failed)
        return
    note_complete(run, save)
    find_uploader(run)  # which rotation asks
    try:
        if not save.finite and run.guard.steps == 0:  # otherwise, there was a warning
            _tell_what_is_not_finite(run, save.path)
        rotate_checkpoints(run, save.path)
        _fire(run, save)
    finally:
        upload_checkpoint(run, save.path)  # with the files that callbacks have added


def note_complete(run: TrainingRun, save: Save) -> None:
    """Note in this process that the checkpoint of `save` is complete."""
    run.saves.done += 1
    run.saved_step = save.step
    run.state.best_model_checkpoint = save.best
    if save.finite:
        run.guard.checkpoint = save.path


def note_best(run: TrainingRun) -> None:
    """Note whether the checkpoint of the current step, if there is one, is the best.

    This is for an evaluation after its save.
    """
    step, current = run.state.global_step, run.saves.current
    if current is not None and current.step == step:
        current.best = best_checkpoint(run)
    elif run.saved_step == step:
        run.state.best_model_checkpoint = best_checkpoint(run)


def finish_interrupted_save(run: TrainingRun) -> None:
    """Wait for this process's part of the save, if there is one, after an error.

    A sharded checkpoint becomes complete if all processes live long enough to write their parts.
    With `save_on_each_node`, it is discarded, because the machines could not agree. An error is
    logged and not raised, so that the first one is not masked.
    """
    save = run.saves.current
    try:
        if run.world.size == 1:
            finish_save(run)
        elif save is not None and save.work is not None:
            wait_for_writing(save)
            if save.work.error is not None:
                raise save.work.error
            if save.work.result:
                note_complete(run, save)
                upload_checkpoint(run, save.path)
            elif _publishes_after_all_wrote(run):
                discard_unpublished(save.path)
                logger.warning(
                    "The checkpoint of step %d was being saved when the training ended. It is "
                    "discarded, because with save_on_each_node it counts only if all machines have "
                    "written it. Resume from an older one.",
                    save.step,
                )
    except Exception:
        logger.exception(
            "The checkpoint of step %s, which was being saved when the training ended, could not "
            "be saved. Resume from an older one.",
            save and save.step,
        )
    run.saves.current = None


def _time_of(run: TrainingRun) -> float:
    """Return the time to note in a checkpoint, in seconds since 1970. The main process decides.

    It is later than that of all earlier checkpoints, even if the clock was set back since then.
    """
    saves = run.saves
    if not run.world.is_main:
        return 0.0
    if saves.newest is None:
        others = list_checkpoints(run.args.output_dir)
        known = [*others, *([run.resumed_from] if run.resumed_from else [])]
        saves.newest = max(map(written_at, known), default=0.0)
    saves.newest = max(time.time(), saves.newest + _TICK)
    return saves.newest


def _states_of_ranks(
    run: TrainingRun,
) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any] | None]]:
    """Return the random generators and the states of the data that this process writes, by rank.

    These are those of all ranks, or only its own if the model is sharded.
    """
    own = rng_state(), run.epoch_rng_state, run.position.data_state_dict()
    if is_sharded(run.model):
        of_ranks = {run.world.rank: own}
    else:
        of_ranks = dict(enumerate(run.world.gather(own)))
    generators = {rank: generators_file(now, begin) for rank, (now, begin, _) in of_ranks.items()}
    return generators, {rank: data for rank, (*_, data) in of_ranks.items()}


def _publishes_after_all_wrote(run: TrainingRun) -> bool:
    """Return whether a process publishes its checkpoint only after all have written theirs."""
    return run.args.save_on_each_node and not is_sharded(run.model)


def _write_parts(run: TrainingRun, save: Save, contents: dict[str, Any]) -> Work:
    """Begin to write the part of this process of a checkpoint that all processes write."""
    begun = make_temporary_folder(save.path, run.world)
    if begun is not None or not run.saves_in_thread:
        staged = Staged(contents, {})
        return Work(lambda: write_own_part(save, staged, run.world, begun), in_thread=False)
    _ = run.world.saving_group  # processes make it here, and not in threads
    staged = _staged(run, contents)
    return _in_thread(run, lambda: write_own_part(save, staged, run.world, None))


def _write(run: TrainingRun, save: Save, contents: dict[str, Any]) -> Work:
    """Begin to write `contents`. With several writers, publishing is left to `finish_save`."""
    publishes = not run.args.save_on_each_node
    if not run.saves_in_thread:
        return Work(lambda: _write_all(save, Staged(contents, {}), publishes), in_thread=False)
    staged = _staged(run, contents)
    return _in_thread(run, lambda: _write_all(save, staged, publishes))


def _staged(run: TrainingRun, contents: dict[str, Any]) -> Staged:
    """Return a copy of `contents`, in the same order. Its state is a copy already."""
    others = {name: value for name, value in contents.items() if name != STATE}
    copied = run.saves.staging.copy(others)
    return copied._replace(values={**contents, **copied.values})


def _in_thread(run: TrainingRun, write: Callable[[], Any]) -> Work:
    """Begin to write in a thread, once the last deletion has made room on the disk."""
    deletion = run.saves.deletion

    def write_later() -> Any:
        if deletion is not None:
            deletion.wait()
        return write()

    return Work(write_later, in_thread=True)


def _write_all(save: Save, staged: Staged, publishes: bool) -> bool:
    """Write the checkpoint, publish it if this process `publishes`, and return whether it does."""
    with staged.written_as_before():
        write_unpublished(save.path, staged.values, save.finite, save.written)
    if publishes:
        publish(save.path)
    return publishes


def _agree(run: TrainingRun, save: Save) -> FailedSave | None:
    """Return the failure of the disk of any process during `save`, or `None` if there was none.

    After a failure in any process, the save is over. Then, what this process wrote is deleted,
    unless the model is sharded.

    Raises:
        Exception: A process has failed for another reason. It raises its own error, and the others
            raise a `RuntimeError`.
    """
    error = None if save.work is None else save.work.error
    own = failure_of(save)
    outcomes = run.world.gather((own, None if error is None or own is not None else repr(error)))
    is_whole = all(outcome == (None, None) for outcome in outcomes)
    if not is_whole:
        run.saves.current = None
        if save.work is not None and not is_sharded(run.model):
            with suppress(OSError):  # the disk has failed already
                discard_unpublished(save.path)
    if error is not None and own is None:
        raise error
    for rank, (_, text) in enumerate(outcomes):
        if text is not None:
            raise RuntimeError(f"Rank {rank} failed to save {save.path}: {text}")
    return next((failed for failed, _ in outcomes if failed is not None), None)


def _fire(run: TrainingRun, save: Save) -> None:
    """Fire `on_save` with the step of `save` in the state, where callbacks look for it.

    If a checkpoint has been requested since then, it stays requested. Afterwards, all processes
    agree on what callbacks have asked for, because what comes next may act on it.
    """
    state, on_save = run.state, run.callback_handler.on_save
    now = state.global_step, state.epoch
    before = run.control.requests
    state.global_step, state.epoch = save.step, save.epoch
    try:
        run.control = on_save(run.args, state, run.control, checkpoint_dir=str(save.path))
    finally:
        state.global_step, state.epoch = now
    after = run.control.requests
    kept = [one for one in before if one in after or one.flag == "should_save"]
    run.control.requests = (*kept, *(one for one in after if one not in before))
    run.control.pass_logs(run.log)
    run.world.agree(run.control, run.signals)


def _tell_what_is_not_finite(run: TrainingRun, saved: Path) -> None:
    """Warn that `saved` has values that are not finite, although the loss of each step was."""
    gathered = run.world.gather(parts_not_finite(run.model, run.optimizer))
    names = listed(dict.fromkeys(name for names in gathered for name in names))
    run.warn_once(
        f"{saved} has values that are not finite: {names}. The loss and the gradient of each step "
        "were finite, so on_non_finite does nothing, and training continues with these values. The "
        "newest finite checkpoint is kept: resume from it with a lower learning rate, for example.",
        about="values of a checkpoint that are not finite",
    )
