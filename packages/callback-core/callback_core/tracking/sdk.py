"""`import_sdk`: imports a tracker's SDK when a run opens, and not earlier."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def import_sdk(module: str, *, install: str, needed_by: str) -> Any:
    """Return a module of a tracker's SDK.

    Args:
        module: The name of the module.
        install: The argument of `pip install` that installs it.
        needed_by: The callback that needs it.

    Raises:
        ModuleNotFoundError: It is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the SDK is installed, but one of its requirements is not
        raise ModuleNotFoundError(
            f"{needed_by} needs {error.name}: pip install {install}", name=error.name
        ) from error
