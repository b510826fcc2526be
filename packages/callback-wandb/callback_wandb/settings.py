"""Reading a setting: what was given, or else an environment variable, or else a default."""

from __future__ import annotations

import os
from typing import Final, Literal, cast

LogModel = Literal["end", "checkpoint", "false"]
Watch = Literal["gradients", "parameters", "all", "false"]

TRUE: Final = ("1", "ON", "YES", "TRUE")
FALSE: Final = ("0", "OFF", "NO", "FALSE")
DEFAULT_PROJECT: Final = "huggingface"

_MODES: Final = ("online", "offline", "shared", "disabled", "dryrun", "run")


def project(given: str | None) -> str:
    """Return the name of the project.

    Raises:
        ValueError: W&B has no projects of that name.
    """
    source, value = _source("project", given, "WANDB_PROJECT")
    if value is None:
        return DEFAULT_PROJECT
    odd = {*"/\\#?%:"} if isinstance(value, str) else set()
    if not isinstance(value, str) or not value.strip() or odd & {*value} or len(value) > 128:
        raise ValueError(
            f"{source} is {value!r}, it must be a name of 1 to 128 characters without / \\ # ? % :"
        )
    return value


def log_model(given: str | bool | None) -> LogModel:
    """Return when to keep the model: at the `end`, at each `checkpoint` too, or never: `false`.

    A plain yes is `end`, as it was when this was a flag.

    Raises:
        ValueError: It is none of these.
    """
    value = _choice("log_model", given, "WANDB_LOG_MODEL", ("end", "checkpoint", "false"), "end")
    return cast(LogModel, value)


def watch(given: str | bool | None) -> Watch:
    """Return what of the model's tensors to log histograms of.

    Raises:
        ValueError: It is none of the choices.
    """
    choices = ("gradients", "parameters", "all", "false")
    return cast(Watch, _choice("watch", given, "WANDB_WATCH", choices, None))


def disabled() -> bool:
    """Return whether `WANDB_DISABLED`, or `WANDB_MODE`, says that nothing is to be done.

    Raises:
        ValueError: One of them says nothing that is known.
    """
    value = os.environ.get("WANDB_DISABLED", "").strip()
    if value and value.upper() not in (*TRUE, *FALSE):
        choices = ", ".join((*TRUE, *FALSE))
        raise ValueError(f"WANDB_DISABLED is {value!r}, it must be one of: {choices}.")
    mode = os.environ.get("WANDB_MODE", "").strip()
    if mode and mode not in _MODES:
        raise ValueError(f"WANDB_MODE is {mode!r}, it must be one of: {', '.join(_MODES)}.")
    return value.upper() in TRUE or mode == "disabled"


def _choice(
    argument: str,
    given: str | bool | None,
    variable: str,
    choices: tuple[str, ...],
    yes: str | None,
) -> str:
    """Return one of `choices`; `yes` where it is merely affirmed, and `false` where denied."""
    source, value = _source(argument, given, variable)
    if value is None:
        return "false"
    word = str(value).strip()
    if word.lower() in choices:
        return word.lower()
    if word.upper() in FALSE:
        return "false"
    if yes is not None and word.upper() in TRUE:
        return yes
    raise ValueError(f"{source} is {value!r}, it must be one of: {', '.join(choices)}.")


def _source(argument: str, given: object, variable: str) -> tuple[str, object]:
    """Return the value that counts and the name of where it comes from; an empty one is none."""
    if given is not None:
        return argument, given
    return variable, os.environ.get(variable, "").strip() or None
