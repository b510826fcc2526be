"""Gives an SDK random numbers of its own, so that it never draws from the program's generator.

SDKs draw names of runs, and how long they wait before a retry, from Python's global generator. They
do so in the thread of a delivery, at times that differ between two trainings. A training that draws
from the same generator, to augment its data for example, would no longer be reproducible.
"""

from __future__ import annotations

import builtins
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import module_from_spec
from threading import Lock
from types import BuiltinMethodType, MethodType, ModuleType
from typing import Any, Final

_HELPERS: Final = (
    "botocore",
    "databricks",
    "google.api_core",
    "rich",
    "sentry_sdk",
    "tenacity",
    "urllib3",
    "websocket",
)
"""Packages that SDKs bring along, and that draw: ids, samples, and the time until a retry."""

_SEEDING: Final = ("seed", "getstate", "setstate")
"""What an SDK does with the program's generator on purpose."""

_lock: Final = Lock()
_importing: Final[Counter[str]] = Counter()
_hook: Any = None
_import_before: Any = None


@contextmanager
def own_random(package: str) -> Iterator[None]:
    """Give the modules of `package` another generator than the program's.

    This covers the modules that exist already, and those that the block imports, from their first
    statement on. It does not cover what they draw with numpy or torch.
    """
    _watch_imports(package)
    try:
        yield
    finally:
        _end_watching(package)
        for name, module in list(sys.modules.items()):
            if _is_part(name, (package, *_HELPERS)) and issubclass(type(module), ModuleType):
                _replace_random_in(module)


@cache
def _other_random() -> ModuleType:
    """Return a copy of the module `random`, with a generator that the program does not have."""
    spec: Any = random.__spec__
    copy = module_from_spec(spec)
    spec.loader.exec_module(copy)
    for name in _SEEDING:
        setattr(copy, name, getattr(random, name))
    return copy


def _replace_random_in(module: ModuleType) -> None:
    generator = getattr(random.random, "__self__", None)
    # An attribute of a module that is loaded lazily, even its __class__, would load it.
    for name, value in list(object.__getattribute__(module, "__dict__").items()):
        if value is random:
            setattr(module, name, _other_random())
        elif type(value) in (MethodType, BuiltinMethodType) and value.__self__ is generator:
            setattr(module, name, getattr(_other_random(), value.__name__))


def _is_part(module: str, packages: tuple[str, ...]) -> bool:
    return f"{module}.".startswith(_prefixes_of(packages))


@cache
def _prefixes_of(packages: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{package}." for package in packages)


def _watch_imports(package: str) -> None:
    global _hook, _import_before
    with _lock:
        if not _importing:
            _import_before = builtins.__import__
            _hook = builtins.__import__ = _hook_before(_import_before)
        _importing[package] += 1


def _end_watching(package: str) -> None:
    global _hook
    with _lock:
        _importing.subtract([package])
        if not +_importing:
            _importing.clear()
            if builtins.__import__ is _hook:
                builtins.__import__ = _import_before
            _hook = None


def _hook_before(import_before: Any) -> Any:
    """Return an `__import__` that gives the modules of SDKs another `random`.

    It does so only while it is `_hook`. An SDK may put a hook of its own in front of it, for good.
    Each hook calls what was there before it, so that no two of them call each other.
    """

    def hook(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if name == "random" and level == 0 and hook is _hook:
            importer = str((globals or {}).get("__name__"))
            if _is_part(importer, (*_importing, *_HELPERS)):
                return _other_random()
        return import_before(name, globals, locals, fromlist, level)

    return hook
