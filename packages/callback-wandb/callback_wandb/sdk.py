"""Weights & Biases' SDK: importing it, opening a run with it, and leaving the process clean."""

from __future__ import annotations

import os
import sys
import weakref
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, Final

OPEN_TIMEOUT: Final = 30.0
"""Seconds for a server to answer when a run is opened; the SDK's own default is 90."""

FINISH_TIMEOUT: Final = 60.0
"""Seconds for a server to take the rest when a run is closed; without it the SDK waits for ever."""

QUIET: Final = {"console": "off", "save_code": False, "disable_git": True, "disable_code": True}
"""What the SDK is not to capture, unless its own settings ask for it."""

_SERVICE: Final = "WANDB_SERVICE"

_OURS: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""Runs that were opened here: one that hangs is not taken for the user's."""


def imported_wandb() -> Any:
    """Return the SDK, which takes seconds to import.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        return import_module("wandb")
    except ModuleNotFoundError as error:
        if error.name != "wandb":
            raise
        raise ModuleNotFoundError(
            "WandbCallback needs Weights & Biases: pip install wandb", name="wandb"
        ) from error


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


def open_run(output_dir: Path, *, new: bool = False, others: bool = False, **given: Any) -> Any:
    """Open a run, which is `wandb.run` unless there is one.

    Args:
        output_dir: Where the SDK keeps its files, unless it is told where.
        new: Whether it is none that there is already; then `WANDB_RUN_ID` has the say over its id.
        others: Whether the run is somebody else's, whose state is not ours to say.
        given: Arguments of `wandb.init`.

    Raises:
        RuntimeError: Nobody is logged in.
    """
    wandb = imported_wandb()
    _FOOTPRINT.begin()
    try:
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
        if run is None or run.id != given["id"]:  # it is one that the user opened meanwhile
            run = wandb.init(**arguments, reinit="create_new")
        _OURS.add(run)
        return run
    except BaseException:
        leave()
        raise


def leave() -> None:
    """End what the SDK has begun in this process for our runs, unless there is another run."""
    _FOOTPRINT.end()


def hide(run: Any) -> None:
    """Let `run`, which may hang, be `wandb.run` no more; must not wait for anything."""
    if run is not None and current_run() is run:
        import_module("wandb.sdk.lib.module").unset_globals()
    _FOOTPRINT.restore()


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
    """Raise where the SDK would ask for a key at the terminal, in the middle of a training."""
    if not wandb.login(prompt=False):
        raise RuntimeError(
            "nobody is logged in to Weights & Biases: call `wandb login`, or set WANDB_API_KEY, "
            "or WANDB_MODE=offline"
        )


class _Footprint:
    """What the SDK leaves in a process with its first run, and takes back never or at exit.

    It is a process of its own, a variable of the environment with its address, and replacements of
    `sys.exit` and `sys.excepthook`.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._before: tuple[Any, Any] | None = None

    def begin(self) -> None:
        """Be told that a run is opened, before it is."""
        with self._lock:
            if self._before is None and _SERVICE not in os.environ:
                self._before = (sys.exit, sys.excepthook)

    def end(self) -> None:
        """Take all of it back, once no run is open."""
        with self._lock:
            wandb = sys.modules.get("wandb")
            if self._before is None or wandb is None:
                return
            if getattr(wandb.setup(), "most_recent_active_run", True) is not None:
                return
            with suppress(SystemExit):  # raised where the SDK's process ended with an error
                wandb.teardown()
            self._restore()
            self._before = None

    def restore(self) -> None:
        """Put `sys.exit` and `sys.excepthook` back, without waiting for the SDK's process."""
        if self._lock.acquire(blocking=False):
            self._restore()
            self._lock.release()

    def _restore(self) -> None:
        if self._before is None:
            return
        for name, was in zip(("exit", "excepthook"), self._before, strict=True):
            owner = getattr(getattr(sys, name), "__self__", None)
            if type(owner).__module__.startswith("wandb."):  # and not somebody's who came later
                setattr(sys, name, was)
        os.environ.pop(_SERVICE, None)


_FOOTPRINT: Final = _Footprint()
