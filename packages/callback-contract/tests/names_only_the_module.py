"""A module whose callback does not say what to install where its SDK is missing."""

from __future__ import annotations

from typing import Any

from callback_core import TrainerCallback


class Imported(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        import colorsys  # noqa: F401
