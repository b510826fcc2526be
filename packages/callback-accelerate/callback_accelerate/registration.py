"""Makes trackers: from names in `log_with`, or from callbacks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import accelerate.tracking

from callback_accelerate.run import Run, Stage, handler_of
from callback_accelerate.tracker import CallbackTracker
from callback_core import (
    TrainerCallback,
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)

_PROJECTS: Final = {
    "azure_ml": "experiment_name",
    "clearml": "project_name",
    "comet_ml": "project_name",
    "dagshub": "experiment_name",
    "mlflow": "experiment_name",
    "wandb": "project",
}
"""What the callbacks call the project of a run."""


class RegisteredTracker(CallbackTracker):
    """A tracker that Accelerate makes for a name in `log_with`.

    Trackers that one `init_trackers` makes share a run.

    Args:
        project_name: The project of the run, if the tracker has projects.
        logging_dir: The directory of the journal, and of what the tracker writes.
        run_name: The name of the run, for all trackers.
        settings: Arguments of the callback.

    Attributes:
        integration: The name under which the callback's package registers it.
    """

    integration: ClassVar[str]

    def __init__(
        self, project_name: str, logging_dir: Any, run_name: str | None = None, **settings: Any
    ) -> None:
        if argument := _PROJECTS.get(self.integration):
            settings.setdefault(argument, project_name)
        (callback,) = get_reporting_integration_callbacks(self.integration)
        run = _run_for(project_name, str(logging_dir))
        run.run_name = run.run_name or run_name
        super().__init__(f"callback_{self.integration}", callback(**settings), run)


def register_trackers() -> list[str]:
    """Register each installed tracker, so that `log_with` can name it: `callback_mlflow`.

    Call this before you make the `Accelerator`, in each process.

    Returns:
        The names.

    Raises:
        RuntimeError: Accelerate is older than 1.15 and cannot register trackers.
    """
    register = getattr(accelerate.tracking, "register_tracker_class", None)
    if register is None:
        raise RuntimeError(
            f"Accelerate {accelerate.__version__} cannot register trackers. Pass objects: "
            "log_with=make_trackers([MLflowCallback()], output_dir)."
        )
    names = []
    for integration in get_available_reporting_integrations():
        name = f"callback_{integration}"
        names.append(name)
        if name not in _REGISTERED:
            content = {"name": name, "integration": integration, "__doc__": None}
            _REGISTERED[name] = type(RegisteredTracker.__name__, (RegisteredTracker,), content)
            register(_REGISTERED[name])
    return names


def make_trackers(
    callbacks: Iterable[TrainerCallback | type[TrainerCallback]],
    output_dir: str,
    run_name: str | None = None,
) -> list[CallbackTracker]:
    """Return a tracker for each callback, to pass as `log_with`. All of them share a run.

    Args:
        callbacks: The callbacks of trackers, or classes of such callbacks.
        output_dir: The directory of the journal, and of what trackers write.
        run_name: The name of the run.

    Raises:
        TypeError: One of `callbacks` is not a callback.
    """
    run = Run(str(output_dir), run_name)
    _, *made = handler_of(callbacks).callbacks
    return [CallbackTracker(_name_of(one), one, run) for one in made]


def _name_of(callback: Any) -> str:
    tracker = getattr(callback, "tracker", None)
    package = type(callback).__module__.partition(".")[0].removeprefix("callback_")
    return f"callback_{getattr(tracker, 'name', package)}"


def _run_for(project_name: str, output_dir: str) -> Run:
    """Return the run of the `init_trackers` that is now making trackers.

    It makes all its trackers before it starts any.
    """
    key = (project_name, output_dir)
    run = _BEING_MADE.get(key)
    if run is None or run.stage is not Stage.NEW:
        _BEING_MADE.clear()
        run = _BEING_MADE[key] = Run(output_dir)
    return run


_REGISTERED: Final[dict[str, type[RegisteredTracker]]] = {}
"""The classes that were registered with Accelerate, by their names."""

_BEING_MADE: Final[dict[tuple[str, str], Run]] = {}
"""The run of the trackers that were made last, by its project and directory."""
