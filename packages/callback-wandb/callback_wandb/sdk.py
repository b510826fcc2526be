"""Opens runs with the SDK of Weights & Biases, and manages the SDK's service process."""

from __future__ import annotations

import logging
import os
import re
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from threading import Lock
from typing import Any, Final

from callback_core import NotConfigured
from callback_core.tracking import (
    Redaction,
    Rejected,
    RunNotFound,
    import_sdk,
    training_process,
)
from callback_wandb.settings import NAME_LENGTH, fitting_name

logger = logging.getLogger(__name__)

OPEN_TIMEOUT: Final = 30.0
"""Seconds to wait for a server when a run is opened. The SDK's own default is 90."""

FINISH_TIMEOUT: Final = 60.0
"""Seconds to wait for a server when a run is finished. By default the SDK waits forever."""

END_TIMEOUT: Final = 10.0
"""Seconds to wait for the SDK's process to end after its last run was finished."""

QUIET: Final = {"console": "off", "save_code": False, "disable_git": True, "disable_code": True}
"""Turns off the SDK's automatic capture, unless its own settings enable it."""

_RECORDED: Final = ("run_group", "run_job_type", "run_name", "run_notes", "run_tags")
"""The SDK's own settings that everybody with access to the run can read."""

_SERVICE_VARIABLE: Final = "WANDB_SERVICE"
"""The variable in which the SDK stores the address of its process."""

_LOST: Final = ("AlreadyJoinedError", "HandleAbandonedError", "MailboxClosedError")
"""Errors of the SDK when its process is gone, besides `ConnectionError`. They share no base."""

_NO_ANSWER: Final = r"(?i)tim(ed |e)out|connect|communicat|retry"
"""What an error's message says if no server answered. Otherwise it is the server's answer."""

_BAD_KEY: Final = r"(?i)\binvalid\b|api key|\b401\b|unauthorized"
"""What an error's message about a login says if the key is wrong."""

_NOT_THERE: Final = ("resume='must'", 'resume="must"', "does not exist", "and deleted")
"""Parts of the SDK's errors about a run to continue that the server does not have."""

_OURS: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""The runs that this module opened. A hanging one must not be mistaken for the user's."""


def import_wandb() -> Any:
    """Return the SDK. Importing it takes seconds."""
    return import_sdk("wandb", install="wandb", needed_by="WandbCallback")


def is_imported() -> bool:
    """Return whether the program, or an earlier training, has imported the SDK."""
    return "wandb" in sys.modules


def current_run() -> Any:
    """Return `wandb.run`. This does not import the SDK."""
    return getattr(sys.modules.get("wandb"), "run", None)


def user_run() -> Any:
    """Return `wandb.run` if the user opened it."""
    run = current_run()
    return None if run in _OURS else run


def chosen_project() -> str | None:
    """Return the project of the SDK's settings, such as those given to `wandb.setup`, if known.

    In the SDK, they take precedence over the environment. This does not start the SDK's process.
    """
    session = getattr(sys.modules.get("wandb.sdk.wandb_setup"), "_singleton", None)
    project: str | None = getattr(getattr(session, "settings", None), "project", None)
    return project


def is_offline() -> bool:
    """Return whether a new run would be offline, by the SDK's settings or by the environment."""
    session = getattr(sys.modules.get("wandb.sdk.wandb_setup"), "_singleton", None)
    known: str | None = getattr(getattr(session, "settings", None), "mode", None)
    return (known or os.environ.get("WANDB_MODE")) in ("offline", "dryrun")


def path_of(run: Any) -> str:
    """Return `entity/project/id`, or `project/id` if there is no entity, as offline."""
    return "/".join(part for part in (run.entity, run.project, run.id) if part)


def is_finished(run: Any) -> bool:
    """Return whether `run` is finished, by anyone, and accepts no more data."""
    return bool(getattr(run, "_is_finished", False))


def is_lost(error: Exception) -> bool:
    """Return whether an error means that the SDK's process is gone, with its open runs."""
    return isinstance(error, ConnectionError) or type(error).__name__ in _LOST


def _is_bad_key(error: BaseException) -> bool:
    """Return whether an error means that the key is wrong, not that no server checked it."""
    is_about_login = isinstance(error, import_wandb().errors.AuthenticationError)
    return is_about_login and re.search(_BAD_KEY, str(error)) is not None


def _is_refusal(error: Exception) -> bool:
    """Return whether an error means that a run can never be opened like this."""
    errors = import_wandb().errors
    if isinstance(error, errors.CommError) and not isinstance(error, errors.AuthenticationError):
        return re.search(_NO_ANSWER, str(error)) is None
    return isinstance(error, errors.UsageError | ValueError)


def hide(run: Any) -> None:
    """Remove `run` from `wandb.run`. The run may hang, so this waits for nothing."""
    if run is not None and current_run() is run:
        import_module("wandb.sdk.lib.module").unset_globals()


class Connection:
    """An open run, and a use of the SDK's process. The process ends with its last use.

    Args:
        output_dir: The directory of the SDK's files, unless the SDK's settings name another.
        new: Whether the run is a new one. `WANDB_RUN_ID` may then set its id.
        adopted: Whether the run is the user's. The connection then does not change its state.
        given: Arguments of `wandb.init`.

    Attributes:
        run: The run. It becomes `wandb.run`, unless there already is one.

    Raises:
        NotConfigured: There is no login, or its key is not valid.
        Rejected: The server or the SDK refuses the run, and would do so again.
    """

    def __init__(self, output_dir: Path, *, new: bool, adopted: bool, **given: Any) -> None:
        self._service = _SERVICE_PROCESS.join()
        try:
            self.run = _init_run(import_wandb(), output_dir, new, adopted, given)
        except BaseException as error:
            self.leave(lost=isinstance(error, Exception) and is_lost(error))
            if _is_bad_key(error):
                raise NotConfigured(str(error)) from error  # a later login may be right
            if isinstance(error, Exception) and _is_refusal(error):
                raise Rejected(str(error)) from error
            raise
        _OURS.add(self.run)

    def leave(self, *, lost: bool = False) -> None:
        """End the use of the SDK's process.

        Args:
            lost: Whether the process is gone, so that the next connection must start another.
        """
        service, self._service = self._service, None
        if service is not None:
            _SERVICE_PROCESS.leave(service, lost)


class _ServiceProcess:
    """Counts the uses of the SDK's service process.

    The SDK starts the process with the first run, and ends it when our process exits. This class
    ends it earlier, with our last run, unless the user has a run or started the process.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users: list[Any] = []  # the SDK's session of each connection
        self._is_ours = False

    def join(self) -> Any:
        """Start the process if there is none, and return the SDK's session."""
        wandb = import_wandb()
        with self._lock, _restored_process():
            self._is_ours = self._is_ours or _SERVICE_VARIABLE not in os.environ
            session = wandb.setup()
            if self._is_ours:
                _limit_waiting(session)
            self._users.append(session)
            return session

    def leave(self, session: Any, lost: bool) -> None:
        """End the process if it is lost, or if nothing uses it any longer."""
        with self._lock:
            self._users.remove(session)
            current: Any = getattr(import_module("wandb.sdk.wandb_setup"), "_singleton", None)
            if current is not session:
                return  # other code has ended it
            needed = session in self._users or session.most_recent_active_run is not None
            if lost or (self._is_ours and not needed):
                # It raises if the server did not accept everything, which was reported before.
                with suppress(Exception, SystemExit):
                    import_wandb().teardown()
                self._is_ours = False


_SERVICE_PROCESS: Final = _ServiceProcess()


def _limit_waiting(session: Any) -> None:
    """Limit how long the SDK waits for the end of the process that it started in `session`.

    By default it waits forever, here and when the program exits. The process may miss the request
    to end: if the answer to a cancelled request is on its way, it closes the connection and leaves
    the rest unread (seen with wandb 0.31.0, after a login that no server answered).
    """
    process = session.ensure_service()._proc  # noqa: SLF001
    if process is not None:
        process.join = partial(_wait_or_kill, process._process)  # noqa: SLF001


def _wait_or_kill(process: Popen[bytes]) -> int:
    """Wait for `process` to end, or else kill it, and return its exit code."""
    for force in (process.terminate, process.kill):
        with suppress(TimeoutExpired):
            return process.wait(END_TIMEOUT)
        force()
    return process.wait()


@contextmanager
def _restored_process() -> Iterator[None]:
    """Restore what the SDK permanently changes in this process when it starts its own.

    These are the variable with the address of its process, `sys.exit` and `sys.excepthook`. With
    the hooks the SDK learns how a program ends; our runs get a status instead.
    """
    before = {name: getattr(sys, name) for name in ("exit", "excepthook")}
    was_there = _SERVICE_VARIABLE in os.environ
    try:
        yield
    finally:
        for name, was in before.items():
            owner = getattr(getattr(sys, name), "__self__", None)
            if type(owner).__module__.startswith("wandb."):
                setattr(sys, name, was)
        if not was_there:
            os.environ.pop(_SERVICE_VARIABLE, None)


def _init_run(wandb: Any, output_dir: Path, new: bool, adopted: bool, given: dict[str, Any]) -> Any:
    """Open a run, and return it."""
    known = wandb.setup().settings
    if new and known.run_id:
        given["id"] = known.run_id
    if known.mode not in ("offline", "dryrun"):
        _check_logged_in(wandb)
        if known.mode != "shared":
            # With "allow", the server would begin a new run of this id without its earlier rows.
            given.setdefault("resume", known.resume or ("allow" if new else "must"))
    for argument in ("name", "group", "job_type"):
        name = given.get(argument) or getattr(known, f"run_{argument}")
        if name and len(name) > NAME_LENGTH:
            given[argument] = fitting_name(name)
    arguments = given | {"settings": wandb.Settings(**_settings(known, output_dir, adopted))}
    run = None
    with _missing_run_as_not_found(wandb, given["id"], new):
        if current_run() is None:
            run = wandb.init(**arguments, reinit="return_previous")
        if run is None or run.id != given["id"]:  # other code opened a run in the meantime
            run = wandb.init(**arguments, reinit="create_new")
    return run


@contextmanager
def _missing_run_as_not_found(wandb: Any, run_id: str, new: bool) -> Iterator[None]:
    """Raise `RunNotFound` instead of the SDK's errors, which have no codes, only texts."""
    try:
        yield
    except wandb.Error as error:
        if not new and any(part in str(error) for part in _NOT_THERE):
            raise RunNotFound(f"W&B does not have the run {run_id}") from error
        raise


def _settings(known: Any, output_dir: Path, adopted: bool) -> dict[str, Any]:
    """Return defaults for what the user has not set: less capture, and shorter waits."""
    wanted: dict[str, Any] = {
        **QUIET,
        "init_timeout": OPEN_TIMEOUT,
        "finish_timeout": FINISH_TIMEOUT,
    }
    ours = {name: value for name, value in wanted.items() if name not in known.model_fields_set}
    training = training_process()
    if training is None:  # a replay: the load of the machine is not the training's
        ours["x_disable_stats"] = True
    elif training != os.getpid():
        ours |= {"x_stats_pid": training, "program": sys.argv[0]}
    if not os.environ.get("WANDB_DIR"):
        ours["root_dir"] = str(output_dir)
    if adopted:
        ours["x_update_finish_state"] = False
    return ours | _without_secrets(known) | {"finish_timeout_raises": True}


def _without_secrets(known: Any) -> dict[str, Any]:
    """Return settings that replace those by which the SDK itself would record a secret."""
    redaction = Redaction()
    given = {name: getattr(known, name) for name in _RECORDED if getattr(known, name)}
    shown = {name: redaction.of(value) for name, value in given.items()}
    ours = {name: shown[name] for name in given if shown[name] != _as_json(given[name])}
    if redaction.of(sys.argv) != sys.argv and not known.x_disable_meta:
        logger.warning(
            "The command line contains a secret. W&B records it together with the machine and the "
            "version of Python, so this run has none of the three."
        )
        ours["x_disable_meta"] = True
    return ours


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_logged_in(wandb: Any) -> None:
    """Raise if the SDK would prompt for a key at the terminal, in the middle of a training.

    While there is an online `wandb.run`, the SDK cannot check the login, and there is one.

    Raises:
        NotConfigured: There is no login.
    """
    run = current_run()
    if (run is None or run.offline) and not wandb.login(prompt=False):
        raise NotConfigured(
            "Weights & Biases needs a login: run `wandb login`, or set WANDB_API_KEY, or "
            "WANDB_MODE=offline"
        )
