"""Weights & Biases' SDK: opening a run with it, and its process beside ours."""

from __future__ import annotations

import os
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
from callback_core.tracking import import_sdk

OPEN_TIMEOUT: Final = 30.0
"""Seconds for a server to answer when a run is opened; the SDK's own default is 90."""

FINISH_TIMEOUT: Final = 60.0
"""Seconds for a server to take the rest when a run is closed; without it the SDK waits for ever."""

END_TIMEOUT: Final = 10.0
"""Seconds for the SDK's process to end when it is not needed any more; its runs are closed then."""

QUIET: Final = {"console": "off", "save_code": False, "disable_git": True, "disable_code": True}
"""What the SDK is not to capture, unless its own settings ask for it."""

_SERVICE: Final = "WANDB_SERVICE"
"""The variable in which the SDK notes the address of its process."""

_LOST: Final = ("AlreadyJoinedError", "HandleAbandonedError", "MailboxClosedError")
"""Errors of the SDK where its process is gone, beside `ConnectionError`; without a base class."""

_OURS: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""Runs that were opened here: one that hangs is not taken for the user's."""


def imported_wandb() -> Any:
    """Return the SDK, which takes seconds to import."""
    return import_sdk("wandb", install="wandb", needed_by="WandbCallback")


def current_run() -> Any:
    """Return `wandb.run`, without importing the SDK."""
    return getattr(sys.modules.get("wandb"), "run", None)


def run_of_user() -> Any:
    """Return `wandb.run` where the user has opened it."""
    run = current_run()
    return None if run in _OURS else run


def path_of(run: Any) -> str:
    """Return `entity/project/id`; offline there may be no entity."""
    return "/".join(part for part in (run.entity, run.project, run.id) if part)


def is_finished(run: Any) -> bool:
    """Return whether somebody has finished `run`, which then takes nothing any more."""
    return bool(getattr(run, "_is_finished", False))


def is_lost(error: Exception) -> bool:
    """Return whether the SDK's process is gone, and with it the runs that were open in it."""
    return isinstance(error, ConnectionError) or type(error).__name__ in _LOST


def hide(run: Any) -> None:
    """Let `run`, which may hang, be `wandb.run` no more; must not wait for anything."""
    if run is not None and current_run() is run:
        import_module("wandb.sdk.lib.module").unset_globals()


class Connection:
    """An open run, and its part in the SDK's process, which ends with the last of ours.

    Args:
        output_dir: Where the SDK keeps its files, unless it is told where.
        new: Whether it is none that there is already; then `WANDB_RUN_ID` has the say over its id.
        others: Whether the run is somebody else's, whose state is not ours to say.
        given: Arguments of `wandb.init`.

    Attributes:
        run: The run, which is `wandb.run` unless there is one.

    Raises:
        NotConfigured: Nobody is logged in.
    """

    def __init__(self, output_dir: Path, *, new: bool, others: bool, **given: Any) -> None:
        self._service = _SERVICES.join()
        try:
            self.run = _opened(imported_wandb(), output_dir, new, others, given)
        except BaseException as error:
            self.leave(lost=isinstance(error, Exception) and is_lost(error))
            raise
        _OURS.add(self.run)

    def leave(self, *, lost: bool = False) -> None:
        """Need the SDK's process no more.

        Args:
            lost: Whether it is gone, so that the next connection is to begin another.
        """
        service, self._service = self._service, None
        if service is not None:
            _SERVICES.leave(service, lost)


class _Services:
    """The SDK's process beside ours, which it begins with the first run and ends at our exit.

    We end it with the last run of ours, unless the user has a run or had begun it before.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users: list[Any] = []  # the SDK's session of each connection
        self._is_ours = False

    def join(self) -> Any:
        """Begin the process if there is none, and return the SDK's session with it."""
        wandb = imported_wandb()
        with self._lock, _process_kept():
            self._is_ours = self._is_ours or _SERVICE not in os.environ
            session = wandb.setup()
            if self._is_ours:
                _end_in_time(session)
            self._users.append(session)
            return session

    def leave(self, session: Any, lost: bool) -> None:
        """End the process if nobody needs it, or nobody can."""
        with self._lock:
            self._users.remove(session)
            current: Any = getattr(import_module("wandb.sdk.wandb_setup"), "_singleton", None)
            if current is not session:
                return  # somebody has ended it
            needed = session in self._users or session.most_recent_active_run is not None
            if lost or (self._is_ours and not needed):
                # It ends with an error where a server did not take all; that was said already.
                with suppress(Exception, SystemExit):
                    imported_wandb().teardown()
                self._is_ours = False


_SERVICES: Final = _Services()


def _end_in_time(session: Any) -> None:
    """Limit how long the SDK waits for the process that it began in `session` to end.

    It waits for ever, here and at the program's exit. But the process misses that it is to end
    where an answer to a request that was cancelled is on its way: it closes the connection with
    the rest of it unread (seen with wandb 0.31.0, after a login that no server answered).
    """
    process = session.ensure_service()._proc  # noqa: SLF001
    if process is not None:
        process.join = partial(_ended, process._process)  # noqa: SLF001


def _ended(process: Popen[bytes]) -> int:
    """Return with what `process` has ended: by itself, or else by force."""
    for force in (process.terminate, process.kill):
        with suppress(TimeoutExpired):
            return process.wait(END_TIMEOUT)
        force()
    return process.wait()


@contextmanager
def _process_kept() -> Iterator[None]:
    """Put back what the SDK replaces in this process, for good, when it begins its own.

    That are the address of its process in the environment, `sys.exit` and `sys.excepthook`, by
    which it learns how a program ends. Our runs are told.
    """
    before = {name: getattr(sys, name) for name in ("exit", "excepthook")}
    was_there = _SERVICE in os.environ
    try:
        yield
    finally:
        for name, was in before.items():
            owner = getattr(getattr(sys, name), "__self__", None)
            if type(owner).__module__.startswith("wandb."):
                setattr(sys, name, was)
        if not was_there:
            os.environ.pop(_SERVICE, None)


def _opened(wandb: Any, output_dir: Path, new: bool, others: bool, given: dict[str, Any]) -> Any:
    """Return a run of the SDK that is open now."""
    known = wandb.setup().settings
    if new and known.run_id:
        given["id"] = known.run_id
    if known.mode not in ("offline", "dryrun"):
        _check_logged_in(wandb)
        if known.mode != "shared":
            given.setdefault("resume", known.resume or "allow")
    arguments = given | {"settings": wandb.Settings(**_settings(known, output_dir, others))}
    run = None
    if current_run() is None:
        run = wandb.init(**arguments, reinit="return_previous")
    if run is None or run.id != given["id"]:  # it is one that was opened meanwhile
        run = wandb.init(**arguments, reinit="create_new")
    return run


def _settings(known: Any, output_dir: Path, others: bool) -> dict[str, Any]:
    """Return settings for what the user has not set: less is captured, and waited for."""
    wanted: dict[str, Any] = {
        **QUIET,
        "init_timeout": OPEN_TIMEOUT,
        "finish_timeout": FINISH_TIMEOUT,
    }
    ours = {name: value for name, value in wanted.items() if name not in known.model_fields_set}
    if not os.environ.get("WANDB_DIR"):
        ours["root_dir"] = str(output_dir)
    if others:
        ours["x_update_finish_state"] = False
    return ours | {"finish_timeout_raises": True}


def _check_logged_in(wandb: Any) -> None:
    """Raise where the SDK would ask for a key at the terminal, in the middle of a training.

    While there is a `wandb.run`, the SDK does not say whether somebody is logged in.
    """
    run = current_run()
    if (run is None or run.offline) and not wandb.login(prompt=False):
        raise NotConfigured(
            "nobody is logged in to Weights & Biases: call `wandb login`, or set WANDB_API_KEY, "
            "or WANDB_MODE=offline"
        )
