"""Importing a tracker's SDK, which is done when a run opens and not before."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def import_sdk(module: str, *, install: str, needed_by: str) -> Any:
    """Return a module of a tracker's SDK.

    Args:
        module: Its name.
        install: What `pip install` brings it.
        needed_by: The callback that needs it.

    Raises:
        ModuleNotFoundError: It is not installed; the message says how to mend that.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is installed, and something that it needs is not
        raise ModuleNotFoundError(
            f"{needed_by} needs {error.name}: pip install {install}", name=error.name
        ) from error
