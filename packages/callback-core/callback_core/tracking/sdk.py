"""Finds a tracker's SDK when the callback is made, and imports it when a run opens."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from itertools import accumulate
from typing import Any

from callback_core.tracking.own_random import own_random


def check_sdk(module: str, *, install: str, needed_by: str) -> None:
    """Check that a module of a tracker's SDK is installed. This imports nothing.

    Args:
        module: The name of the module.
        install: The argument of `pip install` that installs it.
        needed_by: The callback that needs it.

    Raises:
        ModuleNotFoundError: It is not installed; the message says how to install it.
    """
    if sys.modules.get(module) is not None:
        return
    spec: ModuleSpec | None = None
    path: Sequence[str] | None = None
    for name in accumulate(module.split("."), "{}.{}".format):
        is_blocked = name in sys.modules and sys.modules[name] is None
        spec = None if is_blocked else _spec_of(name, path)
        if spec is None:
            break
        path = _path_of(name, spec)
    # A folder without code, such as the one to which an SDK writes, is a module without a loader.
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{needed_by} needs {name}: pip install {install}", name=name)


def import_sdk(module: str, *, install: str, needed_by: str) -> Any:
    """Return a module of a tracker's SDK, which draws no numbers from the program's `random`.

    Args:
        module: The name of the module.
        install: The argument of `pip install` that installs it.
        needed_by: The callback that needs it.

    Raises:
        ModuleNotFoundError: It is not installed; the message says how to install it. If the SDK is
            installed, but one of its requirements is not, the error is the SDK's own.
    """
    check_sdk(module, install=install, needed_by=needed_by)
    with own_random(module.partition(".")[0]):
        return import_module(module)


def _path_of(name: str, spec: ModuleSpec) -> Sequence[str]:
    """Return where the modules of a package are. Once it is imported, it may have added places."""
    path: Sequence[str] | None = getattr(sys.modules.get(name), "__path__", None)
    return path or spec.submodule_search_locations or ()


def _spec_of(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """Find a module as the import system does, but without importing its parent."""
    for finder in sys.meta_path:
        find: Any = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = None if find is None else find(name, path)
        if spec is not None:
            return spec
    return None
