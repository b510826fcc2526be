"""The sessions of this process: finds that of a training, starts one, and closes them at exit."""

from __future__ import annotations

import atexit
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from callback_core.arguments import CallbackArguments, output_directory
from callback_core.state import TrainerState
from callback_core.tracking.run_folder import (
    NO_CHECKPOINT,
    RunFolder,
    RunOfCheckpoint,
    warn_of_pending_runs,
)
from callback_core.tracking.session import Session

_SESSIONS: Final[list[Session]] = []


def session_of(state: TrainerState) -> Session | None:
    """Return the session of the training with this state, if there is one."""
    _forget_finished_sessions()
    return next((one for one in reversed(_SESSIONS) if one.is_of(state)), None)


def start_session(
    args: CallbackArguments,
    state: TrainerState,
    model: Any,
    *,
    checkpoint: RunOfCheckpoint = NO_CHECKPOINT,
    training: bool = True,
    begins: bool = True,
) -> Session:
    """Return a new session, and close those that it replaces.

    Args:
        args: The arguments of the training.
        state: The state of the training.
        model: The model, whose configuration the trackers get.
        checkpoint: What the checkpoint from which the training resumes says about its run.
        training: Whether a training runs. Otherwise a value was logged without one.
        begins: Whether the training begins or resumes now. Otherwise it is under way already.

    Raises:
        OSError: No folder for the run can be written to.
    """
    continues = state.global_step > 0 or checkpoint.run is not None
    resumed = training and begins and continues
    at = state.global_step if resumed else None
    folder = RunFolder.of_training(Path(output_directory(args)), checkpoint, at)
    close_open_runs()
    for other in [one for one in _SESSIONS if one.is_replaced_in(folder)]:
        other.close()
    session = Session(args, state, model, folder, training=training, begins=begins, resumed=resumed)
    _keep(session, state)
    with suppress(OSError):
        warn_of_pending_runs(
            session.folder.output_dir,
            but={one.folder.path for one in _SESSIONS if one is session or one.is_served},
        )
    return session


def continue_session(
    session: Session, args: CallbackArguments, state: TrainerState, model: Any
) -> None:
    """Continue `session`, which recorded evaluations, with a training that begins now."""
    close_open_runs(but=session)
    session.begin_training(args, state, model)
    _keep(session, state)


def close_open_runs(but: Session | None = None) -> None:
    """Close the runs that stay open for further evaluations, as the interpreter's exit does.

    Args:
        but: A session whose runs stay open.
    """
    for session in [one for one in _SESSIONS if one.stays_open and one is not but]:
        session.close()


def _keep(session: Session, state: TrainerState) -> None:
    if session not in _SESSIONS:
        _SESSIONS.append(session)
    weakref.finalize(state, _forget_finished_sessions).atexit = False


def _forget_finished_sessions() -> None:
    """Drop the sessions that are over. Runs too when the state of one is collected."""
    for session in _SESSIONS:
        session.close_unused_runs()
    _SESSIONS[:] = [one for one in _SESSIONS if not one.is_over()]


@atexit.register
def _close_open_sessions() -> None:
    """Close the sessions that did not end before the interpreter does."""
    for session in list(_SESSIONS):
        if not session.is_inherited:
            session.close()
