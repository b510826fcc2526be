"""Opens a new or an existing experiment."""

from __future__ import annotations

import logging
import os
from typing import Any, Final, NamedTuple
from uuid import uuid4

from callback_comet import archive, sdk
from callback_core import NotConfigured
from callback_core.tracking import Opening, training_process

logger = logging.getLogger(__name__)


_OF_A_PROCESS: Final = ("auto_log_co2", "auto_output_logging", "log_code")
"""Options that record facts about the process in which the experiment is open."""


class ExperimentSettings(NamedTuple):
    """Which experiment to open, and how. `CometCallback` documents each setting."""

    mode: str | None
    project_name: str | None
    workspace: str | None
    experiment_key: str | None
    offline_directory: str | None


def start_experiment(comet_ml: Any, settings: ExperimentSettings, opening: Opening) -> Any:
    """Return an open experiment in which the SDK captures only what the user enabled.

    Raises:
        ConnectionError: Comet does not open the experiment.
        NotConfigured: There is no API key.
        RunNotFound: Comet does not have the experiment to continue.
        Rejected: Comet refuses the API key, the workspace or the project.
    """
    online = _is_online(comet_ml, settings.mode)
    if online and not sdk.setting(comet_ml, "comet.api_key"):
        raise NotConfigured(
            "Comet has no API key: run `comet login`, or set COMET_API_KEY, or COMET_MODE=OFFLINE"
        )
    key, mode = _key_and_mode(comet_ml, settings, opening, online)
    if not online:
        archive.complete(opening.folder)
    with sdk.final_errors(comet_ml, key, opening.run_id == key):
        experiment = comet_ml.start(
            project=settings.project_name,
            workspace=settings.workspace,
            online=online,
            experiment_key=key,
            mode=mode,
            experiment_config=comet_ml.ExperimentConfig(
                name=None if opening.run_id else opening.trial_name or opening.name,
                offline_directory=settings.offline_directory,
                **_capture_options(comet_ml),
            ),
        )
    if not experiment.alive:  # Comet raises no error, and would drop all data
        raise ConnectionError("Comet did not open the experiment; see its log for the reason")
    sdk.OURS.add(experiment)
    if not online:
        archive.note(opening.folder, experiment)
    return experiment


def _capture_options(comet_ml: Any) -> dict[str, Any]:
    """Return the options that limit automatic capture to what the user enabled, of the training.

    What a delivery process or a replay could capture of itself is left out, with a warning.
    """
    options = sdk.capture_options(comet_ml)
    of_itself = [
        name
        for name, wanted in options.items()
        if wanted and (name in _OF_A_PROCESS or name.startswith("log_env_"))
    ]
    if of_itself and training_process() != os.getpid():
        logger.warning(
            "The process that delivers to Comet is not the one that trains, and would record "
            "itself, so these are off: %s. delivery='thread' records them.",
            ", ".join(of_itself),
        )
        options |= dict.fromkeys(of_itself, False)
    return options


def describe(experiment: Any, opening: Opening, model_graph: str | None) -> None:
    """Add the description of a training to its experiment."""
    experiment.log_other("Created from", "callback-comet")
    if model_graph:
        experiment.set_model_graph(model_graph)
    if opening.trial_name is not None:
        experiment.log_optimization(
            optimization_id=opening.trial_name, parameters=dict(opening.trial_parameters or {})
        )


def _is_online(comet_ml: Any, mode: str | None) -> bool:
    if mode in ("ONLINE", "OFFLINE"):
        return mode == "ONLINE"
    return sdk.setting(comet_ml, "comet.start.online") is not False


def _key_and_mode(
    comet_ml: Any, settings: ExperimentSettings, opening: Opening, online: bool
) -> tuple[str, str]:
    """Return the key of the experiment to open, and Comet's start mode."""
    requested = None if opening.adopted or opening.trial_name else settings.experiment_key
    if opening.run_id is not None:  # "get_or_create" would begin one without its earlier points
        continues = requested in (None, opening.run_id) and online
        return requested or opening.run_id, "get" if continues else "get_or_create"
    known = opening.recall("experiment_key")
    if known is not None:  # the process was killed while it opened the experiment
        return known, "get_or_create"
    key = opening.note("experiment_key", requested or uuid4().hex)
    if requested is None:
        return key, "get_or_create" if online else "create"
    chosen = settings.mode if settings.mode in ("get_or_create", "create", "get") else None
    return key, chosen or sdk.setting(comet_ml, "comet.start.mode") or "get_or_create"
