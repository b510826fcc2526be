"""Settings with W&B's own rules: the project, the models to keep, and what to watch."""

from __future__ import annotations

from typing import Final, Literal, cast

from callback_core.tracking import config

LogModel = Literal["end", "checkpoint", "false"]
WatchedTensors = Literal["gradients", "parameters", "all", "false"]

DEFAULT_PROJECT: Final = "huggingface"

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
