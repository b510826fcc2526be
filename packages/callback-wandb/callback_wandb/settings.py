"""Settings with W&B's own rules: the project, the models to keep, and what to watch."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Final, Literal, cast

from callback_core import CallbackArguments, TrainerState
from callback_core.tracking import config

logger = logging.getLogger(__name__)

LogModel = Literal["end", "checkpoint", "false"]
WatchedTensors = Literal["gradients", "parameters", "all", "false"]

DEFAULT_PROJECT: Final = "huggingface"

NAME_LENGTH: Final = 128
"""The most characters of the name of a run, a group or a job type. W&B's server refuses more."""

_PROJECT: Final = r"(?=.*\S)[^/\\#?%:]{1,128}"

_MODES: Final = ("online", "offline", "shared", "disabled", "dryrun", "run")


def project(given: str | None) -> str:
    """Return the name of the project.

    Raises:
        ValueError: The name is invalid in W&B.
    """
    demand = "a name of 1 to 128 characters without / \\ # ? % :"
    found = config.matching("project", given, "WANDB_PROJECT", _PROJECT, demand)
    return DEFAULT_PROJECT if found is None else found


def fitting_name(name: str) -> str:
    """Return the name of a run, a group or a job type, cut to what W&B takes.

    Names that differ only behind that still differ.
    """
    if len(name) <= NAME_LENGTH:
        return name
    rest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{name[: NAME_LENGTH - 9]}-{rest}"


def warn_of_long_names(args: CallbackArguments, state: TrainerState) -> None:
    """Warn of the names that W&B does not take, and that are cut."""
    names = {
        name: os.environ.get(name) for name in ("WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE")
    }
    names["run_name"] = args.run_name
    if state.is_hyper_param_search:
        names["the trial's name"] = state.trial_name
        names["output_dir"] = (
            None if args.run_name else str(Path(args.output_dir or ".").absolute())
        )
    for source, name in names.items():
        if name and len(name) > NAME_LENGTH:
            logger.warning(
                "W&B takes names of at most %d characters, and %s has %d: it is cut to %s.",
                NAME_LENGTH,
                source,
                len(name),
                fitting_name(name),
            )


def check_tags() -> None:
    """Check the tags of the environment, which the SDK would refuse when a run opens.

    Raises:
        ValueError: A tag is empty or too long.
    """
    demand = "tags of 1 to 64 characters, separated by commas"
    config.matching("WANDB_TAGS", None, "WANDB_TAGS", r"(\s*[^,\s][^,]{0,63},)*[^,]{1,64}", demand)


def log_model(given: str | bool | None) -> LogModel:
    """Return when to keep the model: at the `end`, also at each `checkpoint`, or never: `false`.

    An affirmative value means `end`, because this setting was once a flag.

    Raises:
        ValueError: The value is none of the choices.
    """
    choices = ("end", "checkpoint", "false")
    return cast(LogModel, _choice("log_model", given, "WANDB_LOG_MODEL", choices, yes="end"))


def watch(given: str | bool | None) -> WatchedTensors:
    """Return which of the model's tensors to log as histograms.

    Raises:
        ValueError: The value is none of the choices.
    """
    choices = ("gradients", "parameters", "all", "false")
    return cast(WatchedTensors, _choice("watch", given, "WANDB_WATCH", choices))


def disabled() -> bool:
    """Return whether `WANDB_DISABLED` or `WANDB_MODE` disables the callback.

    Raises:
        ValueError: One of them has an unknown value.
    """
    mode = config.choice("WANDB_MODE", None, "WANDB_MODE", _MODES)
    return config.flag("WANDB_DISABLED", None, "WANDB_DISABLED") or mode == "disabled"


def _choice(
    argument: str,
    given: str | bool | None,
    variable: str,
    choices: tuple[str, ...],
    yes: str | None = None,
) -> str:
    """Return one of `choices`; `yes` for an affirmative value, `false` for a negative one."""
    word = str(config.setting(argument, given, variable).value).upper()
    if word in config.FALSE:
        return "false"
    if yes is not None and word in config.TRUE:
        return yes
    return config.choice(argument, cast("str | None", given), variable, choices) or "false"
