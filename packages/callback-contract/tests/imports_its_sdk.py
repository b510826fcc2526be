"""A module that imports an SDK as soon as it is imported."""

from __future__ import annotations

import colorsys  # noqa: F401
from typing import Any

from callback_core import TrainerCallback


class Imported(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        try:
            import colorsys  # noqa: F401
        except ImportError:
            raise RuntimeError("There is no colorsys; pip install colorsys.") from None
