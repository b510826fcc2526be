"""Watching a model: histograms of its tensors, which cost the training nothing but their time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

logger = logging.getLogger(__name__)


class Watch:
    """The SDK's hooks in a model, which log histograms to `wandb.run` in the training's thread.

    Those of `wandb.watch` let their errors into the training, such as that there is no run.

    Args:
        model: A torch module.
        what: `gradients`, `parameters` or `all`.
        frequency: They are logged at every so many steps.
    """

    def __init__(self, model: Any, what: str, frequency: int) -> None:
        self._model = model
        self._history: Any = import_module("wandb.integration.torch.wandb_torch").TorchHistory()
        self._history.log_tensor_stats = _shielded(self._history.log_tensor_stats)
        if what != "gradients":
            self._history.add_log_parameters_hook(model, log_freq=frequency)
        if what != "parameters":
            self._history.add_log_gradients_hook(model, log_freq=frequency)

    def end(self) -> None:
        """Take the hooks off."""
        self._history.unhook_all()
        del self._model._wandb_hook_names  # noqa: SLF001


def _shielded(log: Callable[..., None]) -> Callable[..., None]:
    """Return `log`, whose first error is logged, and none raised."""
    said = False

    def method(*args: Any) -> None:
        nonlocal said
        try:
            log(*args)
        except Exception:
            if not said:
                said = True
                logger.warning("W&B did not take a histogram. Training goes on.", exc_info=True)

    return method
