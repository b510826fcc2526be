"""Saves checkpoints: written under a temporary name, and published in one rename."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from callback_core import export_states, json_value
from trainer_torch.argument_changes import arguments_to_keep
from trainer_torch.checkpoint import (
    DATA,
    OPTIMIZER,
    PROGRESS,
    SCHEDULER,
    STATE,
    STRUCTURE,
    checkpoint_path,
    generators_path,
    write_json,
    write_manifest,
)
from trainer_torch.finite import is_finite, parts_not_finite
from trainer_torch.messages import listed
from trainer_torch.run import TrainingRun
from trainer_torch.seeding import generators_file, rng_state
from trainer_torch.structure import describe
from trainer_torch.values import loadable
from trainer_torch.weights import save_model


def save_checkpoint(run: TrainingRun) -> Path:
    """Write everything that resuming needs. The checkpoint appears complete or not at all.

    The main process writes, including the random number generators of each rank. The others wait.
    With `save_on_each_node`, the first process of each machine writes the same. With
    `save_only_model`, only the weights and the state of the training are written.

    Raises:
        TypeError: Something in a state could not be loaded again. The message says what.
    """
    if run.usage is not None:
        run.usage.publish(run.state)
    progress = {
        **run.position.state_dict(),
        "global_step": run.state.global_step,
        "step_logs": json_value(run.step_logs),
        "precision": run.precision.state_dict(),
        "accumulation": run.args.gradient_accumulation_steps,
        "arguments": arguments_to_keep(run.args),
        "given_options": run.given.options(),
        "non_finite": {"steps": run.guard.steps, "rollbacks": run.guard.rollbacks},
    }
    notes = run.world.gather(
        (rng_state(), run.epoch_rng_state, is_finite(run.model, run.optimizer))
    )
    rng_states = [generators_file(now, epoch_begin) for now, epoch_begin, _ in notes]
    data_states = run.world.gather(run.position.data_state_dict())
    finite = all(one for *_, one in notes)

    def write() -> Path:
        return _write_checkpoint(run, progress, rng_states, data_states, finite)

    saved = run.on_writers(write)
    run.saved_step = run.state.global_step
    if finite:
        run.guard.checkpoint = saved
    elif run.guard.steps == 0:  # otherwise it has been told
        _tell_what_is_not_finite(run, saved)
    return saved


def _tell_what_is_not_finite(run: TrainingRun, saved: Path) -> None:
    """Tell what in the checkpoint `saved` is not finite, although each step was."""
    gathered = run.world.gather(parts_not_finite(run.model, run.optimizer))
    names = listed(dict.fromkeys(name for names in gathered for name in names))
    run.warn_once(
        f"{saved} has values that are not finite: {names}. The loss and the gradient of each step "
        "were finite, so on_non_finite does nothing about it. The newest checkpoint that is finite "
        "is kept.",
        about="values of a checkpoint that are not finite",
    )


def _write_checkpoint(
    run: TrainingRun,
    progress: dict[str, Any],
    rng_states: list[dict[str, Any]],
    data_states: list[dict[str, Any] | None],
    finite: bool,
) -> Path:
    final = checkpoint_path(run.args.output_dir, run.state.global_step)
    part, replaced = (final.with_name(f".{final.name}.{kind}") for kind in ("part", "replaced"))
    for leftover in (part, replaced):  # of a process that was killed while saving
        if leftover.exists():
            shutil.rmtree(leftover)
    try:
        save_model(run.model, part)
        for callback in run.loop_callbacks:
            callback.save_files(run.model, part)
        if not run.args.save_only_model:
            _write_resumable(run, part, progress, rng_states)
            _write_data(run, part, data_states)
        _write_state(run, part)
        write_manifest(part, finite)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if final.exists():
        final.rename(replaced)
    part.rename(final)
    if replaced.exists():
        shutil.rmtree(replaced)
    return final


def _write_resumable(
    run: TrainingRun, part: Path, progress: dict[str, Any], rng_states: list[dict[str, Any]]
) -> None:
    """Write what resuming needs besides the weights and the state."""
    torch.save(loadable(run.optimizer.state_dict(), "The optimizer's state"), part / OPTIMIZER)
    torch.save(loadable(run.lr_scheduler.state_dict(), "The scheduler's state"), part / SCHEDULER)
    for rank, state in enumerate(rng_states):
        torch.save(state, generators_path(part, rank, len(rng_states)))
    write_json(part / PROGRESS, progress)
    write_json(part / STRUCTURE, describe(run.model, run.optimizer, run.lr_scheduler))


def _write_state(run: TrainingRun, part: Path) -> None:
    run.state.stateful_callbacks = export_states(
        [*run.callback_handler.callbacks, run.control], run.state.stateful_callbacks
    )
    run.state.save_to_json(part / STATE)


def _write_data(run: TrainingRun, part: Path, states: list[dict[str, Any] | None]) -> None:
    """Write the state of each rank's data, if there is one and it can be loaded again."""
    for rank, state in enumerate(states):
        try:
            written = loadable(state, "The state of the training data")
        except TypeError as error:
            run.warn_once(f"{error} A resumed training reads the data again instead.")
            return
        if state is not None:
            torch.save(written, part / DATA.format(rank))
