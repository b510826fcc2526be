"""The settings that W&B has of its own: which project, which models, what to watch, and whether."""

from __future__ import annotations

from typing import Final, Literal, cast

from callback_core.tracking import config

LogModel = Literal["end", "checkpoint", "false"]
Watch = Literal["gradients", "parameters", "all", "false"]

DEFAULT_PROJECT: Final = "huggingface"

_PROJECT: Final = r"(?=.*\S)[^/\\#?%:]{1,128}"

_MODES: Final = ("online", "offline", "shared", "disabled", "dryrun", "run")


def project(given: str | None) -> str:
    """Return the name of the project.

    Raises:
        ValueError: W&B has no projects of that name.
    """
    demand = "a name of 1 to 128 characters without / \\ # ? % :"
    found = config.matching("project", given, "WANDB_PROJECT", _PROJECT, demand)
    return DEFAULT_PROJECT if found is None else found


def log_model(given: str | bool | None) -> LogModel:
    """Return when to keep the model: at the `end`, at each `checkpoint` too, or never: `false`.

    A plain yes is `end`, as it was when this was a flag.

    Raises:
        ValueError: It is none of these.
    """
    choices = ("end", "checkpoint", "false")
    return cast(LogModel, _choice("log_model", given, "WANDB_LOG_MODEL", choices, yes="end"))


def watch(given: str | bool | None) -> Watch:
    """Return what of the model's tensors to log histograms of.

    Raises:
        ValueError: It is none of the choices.
    """
    choices = ("gradients", "parameters", "all", "false")
    return cast(Watch, _choice("watch", given, "WANDB_WATCH", choices))


def disabled() -> bool:
    """Return whether `WANDB_DISABLED`, or `WANDB_MODE`, says that nothing is to be done.

    Raises:
        ValueError: One of them says nothing that is known.
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
    """Return one of `choices`; `yes` where it is merely affirmed, and `false` where denied."""
    word = str(config.setting(argument, given, variable).value).upper()
    if word in config.FALSE:
        return "false"
    if yes is not None and word in config.TRUE:
        return yes
    return config.choice(argument, cast("str | None", given), variable, choices) or "false"
