"""Takes the content of a checkpoint from a training: a value for each of its files.

Another module writes the values, so that writing needs neither the training nor other processes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from callback_core import export_states, json_value
from trainer_torch.checkpoints.argument_changes import arguments_to_keep
from trainer_torch.model.sharded_optimizer import split_state
from trainer_torch.model.shards import SHARDS, Shards
from trainer_torch.model.structure import describe
from trainer_torch.model.weights import MODEL, shards_of, weights_of
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.checkpoint import (
    DATA,
    MANIFEST,
    OPTIMIZER,
    PROGRESS,
    SCHEDULER,
    STATE,
    STRUCTURE,
    generators_name,
)
from trainer_torch.storage.values import loadable
from trainer_torch.wrapping import is_sharded


def take_contents(
    run: TrainingRun,
    progress: dict[str, Any],
    rng_states: Mapping[int, dict[str, Any]],
    data_states: Mapping[int, dict[str, Any] | None],
    states: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of the checkpoint of the current step, by the names of its files.

    If the model is sharded, the result has only what this process writes, and all processes must
    call this. It also stores the states of callbacks in `run.state`.

    The tensors are those of the training, not copies. Other values that change are copied.

    Args:
        run: The training.
        progress: What `progress_of` returned.
        rng_states: The states of the random generators, by rank.
        data_states: The states of the data, by rank; `None` for data without a state.
        states: The states of callbacks and of the control; `None` for the current ones.

    Raises:
        TypeError: A value in a state could not be loaded again. The message names it.
        ValueError: A file of a callback has the name of another file.
    """
    optimizer = None if run.args.save_only_model else run.optimizer.state_dict()
    if is_sharded(run.model):
        shards = dict(shards_of(run.model).tensors)
        if optimizer is not None:
            optimizer, tensors = split_state(optimizer)
            shards |= tensors
        contents: dict[str, Any] = {SHARDS: Shards(shards)}
    else:
        contents = {MODEL: weights_of(run.model)}
    if optimizer is not None:
        contents |= {
            OPTIMIZER: loadable(optimizer, "The optimizer's state"),
            SCHEDULER: loadable(run.lr_scheduler.state_dict(), "The scheduler's state"),
            PROGRESS: progress,
            STRUCTURE: describe(run.model, run.optimizer, run.lr_scheduler),
            **_of_data(run, data_states),
        }
        for rank, state in rng_states.items():
            contents[generators_name(rank, run.world.size)] = state
    if states is None:
        owners = [*run.callback_handler.callbacks, run.control]
        states = export_states(owners, run.state.stateful_callbacks)
    run.state.stateful_callbacks = states
    contents[STATE] = copy.copy(run.state)
    contents[STATE].log_history = [{**entry} for entry in run.state.log_history]
    for callback in run.loop_callbacks:
        files = callback.checkpoint_files(run.model)
        if taken := files.keys() & {*contents, MANIFEST}:
            raise ValueError(
                f"checkpoint_files of {type(callback).__name__} returns a file {min(taken)!r}, but "
                "the checkpoint already has one of that name. Give it another name."
            )
        contents |= files
    if is_sharded(run.model) and not run.world.is_main:
        own = {generators_name(rank, run.world.size) for rank in rng_states}
        own |= {DATA.format(rank) for rank in data_states}
        return {
            name: value
            for name, value in contents.items()
            if name in own or isinstance(value, Shards)
        }
    return contents


def progress_of(run: TrainingRun) -> dict[str, Any]:
    """Return the position in the data, and other values that resuming needs, for JSON.

    Every process must call this.
    """
    return {
        **run.position.state_dict(),
        "global_step": run.state.global_step,
        "step_logs": json_value(run.step_logs),
        "precision": run.precision.state_dict(),
        "accumulation": run.args.gradient_accumulation_steps,
        "arguments": arguments_to_keep(run.args),
        "given_options": run.given.options(),
        "non_finite": {"steps": run.guard.steps, "rollbacks": run.guard.rollbacks},
    }


def _of_data(run: TrainingRun, states: Mapping[int, dict[str, Any] | None]) -> dict[str, Any]:
    """Return the state of each rank's data, if there is one and it can be loaded again."""
    files: dict[str, Any] = {}
    for rank, state in states.items():
        try:
            written = loadable(state, "The state of the training data")
        except TypeError as error:
            run.warn_once(
                f"{error} Checkpoints are saved without this state, so a resumed training reads "
                "the data again up to its position."
            )
            return files
        if state is not None:
            files[DATA.format(rank)] = written
    return files
