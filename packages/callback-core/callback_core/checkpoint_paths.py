"""`saved_checkpoint`: finds the checkpoint that a trainer has just saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from callback_core.arguments import CallbackArguments, output_directory
from callback_core.state import TrainerState


def saved_checkpoint(
    args: CallbackArguments, state: TrainerState, checkpoint_dir: str | None = None
) -> Path | None:
    """Return the absolute path of the checkpoint that was saved right before `on_save`.

    A trainer that passes no `checkpoint_dir`, such as that of transformers, saves to
    `<output_dir>/checkpoint-<step>`. In a hyperparameter search, it saves to a directory for each
    trial below `output_dir`, whose name it does not pass. There, the checkpoint is recognized by
    its `trainer_state.json`.

    Args:
        args: The arguments of the training.
        state: The state of the training.
        checkpoint_dir: The path that the trainer passes to `on_save`, if it does.

    Returns:
        The path; `None` if the training is a trial, and no checkpoint belongs to it.
    """
    if checkpoint_dir is not None:
        return Path(checkpoint_dir).absolute()
    output_dir = Path(output_directory(args))
    name = f"checkpoint-{state.global_step}"
    if not state.is_hyper_param_search:
        return output_dir / name
    candidates = {output_dir / name, *output_dir.glob(f"*/{name}")}
    if state.trial_name is not None:  # it may contain slashes
        candidates.add(output_dir / state.trial_name / name)
    found = [path for path in candidates if _is_of(state, path)]
    return max(found, key=_written_at, default=None)  # a trial may repeat an earlier one


def _is_of(state: TrainerState, checkpoint: Path) -> bool:
    """Return whether the training with this state saved the checkpoint."""
    try:
        saved = TrainerState.load_from_json(_state_file(checkpoint))
    except (OSError, ValueError, TypeError):
        return False
    logs = state.log_history[: len(saved.log_history)]  # other callbacks may have logged since
    of_the_trial = (state.global_step, state.trial_params, logs)
    return _text(of_the_trial) == _text((saved.global_step, saved.trial_params, saved.log_history))


def _text(values: Any) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _written_at(checkpoint: Path) -> int:
    return _state_file(checkpoint).stat().st_mtime_ns


def _state_file(checkpoint: Path) -> Path:
    return checkpoint / "trainer_state.json"
