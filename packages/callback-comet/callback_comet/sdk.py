"""Imports Comet's SDK, and turns off its automatic capture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final
from weakref import WeakSet

from callback_core.tracking import Rejected, RunNotFound, import_sdk

OURS: Final[WeakSet[Any]] = WeakSet()
"""The experiments of this process that this package opened. All others are the user's."""

_CAPTURED: Final = {
    "log_code": "code",
    "log_graph": "graph",
    "parse_args": "cli_arguments",
    "log_git_metadata": "git_metadata",
    "log_git_patch": "git_patch",
    "auto_param_logging": "parameters",
    "auto_metric_logging": "metrics",
    "auto_log_co2": "co2",
}
"""The options of an experiment for automatic capture, with Comet's `comet.auto_log.*` settings."""

_REFUSED: Final = (
    "InvalidAPIKey",
    "InvalidWorkspace",
    "ServiceAccountWorkspaceRestricted",
    "ProjectNameEmpty",
    "ProjectNameIsTooLong",
)
"""The SDK's errors about a server that never opens an experiment."""

_BY_OTHER_MODULES: Final = ("log_graph", "auto_param_logging", "auto_metric_logging")

_ENVIRONMENT: Final = ("gpu", "host", "cpu", "network", "disk")


def import_comet() -> Any:
    """Return Comet's SDK. Importing it takes seconds.

    The import replaces `sys.excepthook`, patches modules that are imported later, and warns about
    modules that were imported earlier. This function undoes all of that, unless the user imported
    the SDK before, or enabled logging from other modules.

    Raises:
        ModuleNotFoundError: The SDK is not installed.
    """
    known, hook = sys.modules.get("comet_ml"), sys.excepthook
    comet_ml = import_sdk("comet_ml", install="comet_ml", needed_by="CometCallback")
    if known is None:
        if sys.excepthook.__module__.startswith("comet_ml"):
            sys.excepthook = hook
        finder = getattr(comet_ml, "MODULE_FINDER", None)
        wanted = capture_options(comet_ml)
        if finder in sys.meta_path and not any(wanted[name] for name in _BY_OTHER_MODULES):
            sys.meta_path.remove(finder)
            import_module("comet_ml.monkey_patching").ALREADY_IMPORTED_MODULES.clear()
    return comet_ml


@contextmanager
def final_errors(comet_ml: Any, key: str, continues: bool) -> Iterator[None]:
    """Raise `RunNotFound` or `Rejected` instead of errors for which no experiment ever opens.

    Args:
        comet_ml: The SDK.
        key: The experiment.
        continues: Whether it was opened before.
    """
    errors = import_module("comet_ml.exceptions")
    refused = tuple(getattr(errors, name) for name in _REFUSED if hasattr(errors, name))
    try:
        yield
    except errors.ExperimentNotFound as error:
        if continues:
            raise RunNotFound(f"Comet does not have the experiment {key}") from error
        raise Rejected(f"Comet does not have the experiment {key}: {error}") from error
    except refused as error:
        raise Rejected(str(error)) from error


def capture_options(comet_ml: Any) -> dict[str, Any]:
    """Return the options that limit automatic capture to what the user's Comet settings enable."""
    config = comet_ml.get_config()

    def is_enabled(setting: str) -> bool:
        return bool(config.get_bool(None, f"comet.auto_log.{setting}", default=False))

    wanted: dict[str, Any] = {name: is_enabled(setting) for name, setting in _CAPTURED.items()}
    parts = {f"log_env_{part}": is_enabled(f"env_{part}") for part in _ENVIRONMENT}
    wanted["log_env_details"] = is_enabled("env_details") or any(parts.values())
    if not is_enabled("env_details"):  # it captures all parts that are not disabled explicitly
        wanted.update(parts)
    output = config.get_string(None, "comet.auto_log.output_logger", default="")
    wanted["auto_output_logging"] = output or False
    wanted["display_summary_level"] = config.get_int(None, "comet.display_summary_level", default=0)
    return wanted


def setting(comet_ml: Any, name: str) -> Any:
    """Return one of Comet's settings; `None` if it is unset or unknown to this version."""
    config = comet_ml.get_config()
    return config[name] if name in config.config_map else None


def running_experiment() -> Any:
    """Return the user's open experiment in this process. This does not import Comet."""
    find = getattr(sys.modules.get("comet_ml"), "get_running_experiment", None)
    experiment = None if find is None else find()
    if experiment is None or experiment in OURS or experiment.ended or not experiment.alive:
        return None
    return experiment
