"""A training callback that measures the energy and emissions of a training with CodeCarbon."""

from __future__ import annotations

from callback_codecarbon.callback import CodeCarbonCallback

__all__ = ["CodeCarbonCallback"]
