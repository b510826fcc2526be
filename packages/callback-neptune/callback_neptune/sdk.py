"""Opening runs through Neptune's SDK, without what it starts by itself."""

from __future__ import annotations

import atexit
import logging
import random
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from callback_core.tracking import import_sdk
from callback_neptune.arguments import QUIET
from callback_neptune.outbox import Outbox

logger = logging.getLogger(__name__)

OFFLINE_ID: Final = "offline:"
"""What the ids of runs begin with that Neptune keeps in a folder."""

_UNASKED: Final = ("PingBackgroundJob", "WebsocketSignalsBackgroundJob")
"""Threads that hold every fork of the process while the server is away, and that end the process
when somebody presses *stop* in the web app."""


def imported_neptune() -> Any:
    """Return Neptune, which takes seconds to import.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    neptune = import_sdk("neptune", install="neptune", needed_by="NeptuneCallback")
    # It names its folders by the generator that the training draws from, which would go on
    # differently than without it.
    naming: Any = import_module("neptune.internal.operation_processors.utils")
    naming.random = _RANDOM
    return neptune


_RANDOM: Final = random.Random()


def opened(**arguments: Any) -> Any:
    """Return a run that does nothing but what it is asked to, in the mode `sync` or `offline`."""
    imported_neptune()
    return _run_class()(**{**QUIET, **arguments})


def id_of(run: Any) -> str:
    """Return by what a run is known again, also of one that is stopped."""
    return OFFLINE_ID + run._id if is_offline(run) else str(run._sys_id)  # noqa: SLF001


def is_open(run: Any) -> bool:
    """Return whether a run takes values."""
    return bool(run.get_state() == "started")


def is_offline(run: Any) -> bool:
    """Return whether a run is kept in a folder, or nowhere, and cannot be opened again."""
    return run._mode.value in ("offline", "debug")  # noqa: SLF001


def project_of(run: Any) -> str:
    """Return the project of a run that is online."""
    return f"{run._workspace}/{run._project_name}"  # noqa: SLF001


def stop(run: Any) -> None:
    """Stop a run that was `opened`, and remove what it leaves empty in the working directory."""
    folder = Path(run._op_processor.data_path)  # noqa: SLF001
    run.stop()
    for parent in (folder.parent, folder.parent.parent):
        try:
            parent.rmdir()
        except OSError:  # there is something in it
            return


@cache
def _run_class() -> Any:
    """Return the class of runs that start nothing by themselves."""
    neptune = imported_neptune()
    handler = import_module("neptune.internal.utils.uncaught_exception_handler").instance
    quiet_logger = import_module("neptune.internal.utils.logger").get_disabled_logger()

    class QuietRun(neptune.Run):  # type: ignore[name-defined]
        """A run without threads and hooks but those that were asked for."""

        _op_processor: Any

        def _get_background_jobs(self) -> list[Any]:
            jobs = super()._get_background_jobs()
            return [job for job in jobs if type(job).__name__ not in _UNASKED]

        def _startup(self, debug_mode: bool) -> None:
            self._logger = quiet_logger  # it writes to standard output
            if self._mode.value == "sync":
                self._op_processor = Outbox(self, self._op_processor)
                logger.info("The run is at %s", self.get_url())
            self.start()
            atexit.unregister(self._shutdown_hook)  # whoever opened it closes it
            if self._capture_traceback:
                handler.activate()

    return QuietRun
