"""Opening an experiment, a new one or one of before."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import uuid4

from callback_comet import archive, sdk
from callback_core import NotConfigured
from callback_core.tracking import Opening


class ExperimentSettings(NamedTuple):
    """Which experiment to open, and how; the arguments of `CometCallback` say what each means."""

    mode: str | None
    project_name: str | None
    workspace: str | None
    experiment_key: str | None
    offline_directory: str | None


def started(comet_ml: Any, settings: ExperimentSettings, opening: Opening) -> Any:
    """Return an experiment in which the SDK captures nothing that it was not asked for.

    Raises:
        ConnectionError: Comet does not open it.
        NotConfigured: There is no API key.
    """
    online = _is_online(comet_ml, settings.mode)
    if online and not sdk.setting(comet_ml, "comet.api_key"):
        raise NotConfigured(
            "Comet has no API key: call `comet login`, or set COMET_API_KEY, or COMET_MODE=OFFLINE"
        )
    key, mode = _key_and_mode(comet_ml, settings, opening, online)
    if not online:
        archive.complete(opening.folder)
    experiment = comet_ml.start(
        project=settings.project_name,
        workspace=settings.workspace,
        online=online,
        experiment_key=key,
        mode=mode,
        experiment_config=comet_ml.ExperimentConfig(
            name=None if opening.run_id else opening.trial_name or opening.name,
            offline_directory=settings.offline_directory,
            **sdk.captured(comet_ml),
        ),
    )
    if not experiment.alive:  # it raises nothing, and would drop all that it is given
        raise ConnectionError("Comet has not opened the experiment; what it has logged says why")
    sdk.OURS.add(experiment)
    if not online:
        archive.note(opening.folder, experiment)
    return experiment


def describe(experiment: Any, opening: Opening, model_graph: str | None) -> None:
    """Tell a new experiment, or the user's, what comes here."""
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
    """Return which experiment to open, and whether it may be there already, or must."""
    asked = None if opening.adopted or opening.trial_name else settings.experiment_key
    if opening.run_id is not None:
        return asked or opening.run_id, "get_or_create"
    known = opening.recall("experiment_key")
    if known is not None:  # the process was killed while it opened the experiment
        return known, "get_or_create"
    key = opening.note("experiment_key", asked or uuid4().hex)
    if asked is None:
        return key, "get_or_create" if online else "create"
    chosen = settings.mode if settings.mode in ("get_or_create", "create", "get") else None
    return key, chosen or sdk.setting(comet_ml, "comet.start.mode") or "get_or_create"
