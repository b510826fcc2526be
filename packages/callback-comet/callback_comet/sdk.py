"""Comet's SDK: importing it, and telling it to capture nothing by itself."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final
from weakref import WeakSet

from callback_core.tracking import import_sdk

OURS: Final[WeakSet[Any]] = WeakSet()
"""The experiments of this process that we have opened; any other is the user's."""

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
"""What an experiment captures, and the settings of Comet's own, `comet.auto_log.*`, for that."""

_BY_OTHER_MODULES: Final = ("log_graph", "auto_param_logging", "auto_metric_logging")

_ENVIRONMENT: Final = ("gpu", "host", "cpu", "network", "disk")


def imported_comet() -> Any:
    """Return Comet's SDK, which takes seconds to import.

    Importing it changes how errors are reported and what other modules do when they are imported,
    and warns of modules that were imported before. All this is undone, unless the user has imported
    it already, or has it log what other modules do.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    known, hook = sys.modules.get("comet_ml"), sys.excepthook
    comet_ml = import_sdk("comet_ml", install="comet_ml", needed_by="CometCallback")
    if known is None:
        if sys.excepthook.__module__.startswith("comet_ml"):
            sys.excepthook = hook
        finder = getattr(comet_ml, "MODULE_FINDER", None)
        wanted = captured(comet_ml)
        if finder in sys.meta_path and not any(wanted[name] for name in _BY_OTHER_MODULES):
            sys.meta_path.remove(finder)
            import_module("comet_ml.monkey_patching").ALREADY_IMPORTED_MODULES.clear()
    return comet_ml


def captured(comet_ml: Any) -> dict[str, Any]:
    """Return what an experiment is to capture by itself: what the user's Comet settings ask for."""
    config = comet_ml.get_config()

    def asked(setting: str) -> bool:
        return bool(config.get_bool(None, f"comet.auto_log.{setting}", default=False))

    wanted: dict[str, Any] = {name: asked(setting) for name, setting in _CAPTURED.items()}
    parts = {f"log_env_{part}": asked(f"env_{part}") for part in _ENVIRONMENT}
    wanted["log_env_details"] = asked("env_details") or any(parts.values())
    if not asked("env_details"):  # with which Comet captures what is not refused
        wanted.update(parts)
    output = config.get_string(None, "comet.auto_log.output_logger", default="")
    wanted["auto_output_logging"] = output or False
    wanted["display_summary_level"] = config.get_int(None, "comet.display_summary_level", default=0)
    return wanted


def setting(comet_ml: Any, name: str) -> Any:
    """Return a setting of Comet's own; `None` where it is not set, or this version has it not."""
    config = comet_ml.get_config()
    return config[name] if name in config.config_map else None


def running_experiment() -> Any:
    """Return the experiment that the user has opened in this process, without importing Comet."""
    find = getattr(sys.modules.get("comet_ml"), "get_running_experiment", None)
    experiment = None if find is None else find()
    if experiment is None or experiment in OURS or experiment.ended or not experiment.alive:
        return None
    return experiment
