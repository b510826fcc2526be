"""Opens runs through Neptune's SDK, without its background threads and hooks."""

from __future__ import annotations

import atexit
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from callback_core.tracking import Rejected, RunNotFound, import_sdk
from callback_neptune.arguments import QUIET
from callback_neptune.outbox import Outbox

logger = logging.getLogger(__name__)

OFFLINE_ID: Final = "offline:"
"""The prefix of the ids of offline runs."""

_UNWANTED_JOBS: Final = ("PingBackgroundJob", "WebsocketSignalsBackgroundJob")
"""Threads that block every fork of the process while the server is unreachable, and that end the
process when a user clicks *stop* in the web app."""


def import_neptune() -> Any:
    """Return Neptune's SDK. Importing it takes seconds.

    Raises:
        ModuleNotFoundError: The SDK is not installed.
    """
    neptune = import_sdk("neptune", install="neptune", needed_by="NeptuneCallback")
    # Neptune draws the names of its directories from the global random generator, which would
    # change the random numbers of the training.
    naming: Any = import_module("neptune.internal.operation_processors.utils")
    naming.random = _RANDOM
    return neptune


_RANDOM: Final = random.Random()

_DENIED: Final = ("Unauthorized", "Forbidden", "NeptuneInvalidApiTokenException", "ProjectNotFound")
"""The SDK's errors about a server that never opens the run."""


@contextmanager
def final_errors(run_id: str | None) -> Iterator[None]:
    """Raise `RunNotFound` or `Rejected` instead of errors for which the run never opens.

    Args:
        run_id: The run to continue; `None` for a new one, or one that a setting names.
    """
    try:
        yield
    except Exception as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "RunNotFound" in kinds and run_id is not None:
            raise RunNotFound(f"Neptune does not have the run {run_id}") from error
        if not kinds.isdisjoint((*_DENIED, "RunNotFound")):
            raise Rejected(" ".join(str(error).split())) from error
        raise


def init_run(**arguments: Any) -> Any:
    """Open a run that captures only what `arguments` enable, in the mode `sync` or `offline`."""
    import_neptune()
    return _run_class()(**{**QUIET, **arguments})


def id_of(run: Any) -> str:
    """Return the id of an open or stopped run."""
    return OFFLINE_ID + run._id if is_offline(run) else str(run._sys_id)  # noqa: SLF001


def is_open(run: Any) -> bool:
    """Return whether a run accepts values."""
    return bool(run.get_state() == "started")


def is_offline(run: Any) -> bool:
    """Return whether a run is stored in a directory or nowhere, so that it cannot be reopened."""
    return run._mode.value in ("offline", "debug")  # noqa: SLF001


def project_of(run: Any) -> str:
    """Return the project of an online run."""
    return f"{run._workspace}/{run._project_name}"  # noqa: SLF001


def stop(run: Any) -> None:
    """Stop a run of `init_run`, and remove its empty directories."""
    folder = Path(run._op_processor.data_path)  # noqa: SLF001
    run.stop()
    for parent in (folder.parent, folder.parent.parent):
        try:
            parent.rmdir()
        except OSError:  # it is not empty
            return


@cache
def _run_class() -> Any:
    """Return a subclass of `neptune.Run` that starts no threads or hooks on its own."""
    neptune = import_neptune()
    handler = import_module("neptune.internal.utils.uncaught_exception_handler").instance
    quiet_logger = import_module("neptune.internal.utils.logger").get_disabled_logger()

    class QuietRun(neptune.Run):  # type: ignore[name-defined]
        """A run with only those threads and hooks that the user enabled."""

        _op_processor: Any

        def _get_background_jobs(self) -> list[Any]:
            jobs = super()._get_background_jobs()
            return [job for job in jobs if type(job).__name__ not in _UNWANTED_JOBS]

        def _startup(self, debug_mode: bool) -> None:
            self._logger = quiet_logger  # the default writes to standard output
            if self._mode.value == "sync":
                self._op_processor = Outbox(self, self._op_processor)
                logger.info("The run is at %s", self.get_url())
            self.start()
            atexit.unregister(self._shutdown_hook)  # the tracker stops the run
            if self._capture_traceback:
                handler.activate()

    return QuietRun
