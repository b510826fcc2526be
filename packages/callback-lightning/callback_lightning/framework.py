"""The classes of Lightning, from the one of its two packages that the program uses.

`lightning.pytorch` and `pytorch_lightning` have equal classes. A trainer of one also calls the
callbacks and loggers of the other. So this choice only avoids importing both.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule
    from pytorch_lightning.loggers.logger import DummyLogger, Logger
    from pytorch_lightning.utilities import rank_zero_only

    Trainer: TypeAlias = Any  # its class does not declare all its attributes

__all__ = [
    "Callback",
    "DummyLogger",
    "LightningModule",
    "Logger",
    "Trainer",
    "is_main_process",
    "rank_zero_only",
]


def _package() -> str:
    """Return the package that the program has imported, or otherwise one that is installed."""
    names = ("lightning.pytorch", "pytorch_lightning")
    imported = [name for name in names if name in sys.modules]
    return imported[0] if imported else names[find_spec("lightning") is None]


if not TYPE_CHECKING:
    _PACKAGE = _package()
    _pytorch = import_module(_PACKAGE)
    _loggers = import_module(f"{_PACKAGE}.loggers.logger")
    Callback, LightningModule = _pytorch.Callback, _pytorch.LightningModule
    Trainer = _pytorch.Trainer
    DummyLogger, Logger = _loggers.DummyLogger, _loggers.Logger
    rank_zero_only = import_module(f"{_PACKAGE}.utilities").rank_zero_only


def is_main_process() -> bool:
    """Return whether this is the process of rank 0, as far as Lightning knows by now."""
    rank: Any = getattr(rank_zero_only, "rank", None)
    return not rank
