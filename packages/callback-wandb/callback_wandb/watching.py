"""Logs histograms of a model's tensors, without ever raising an error into the training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

logger = logging.getLogger(__name__)


class ModelWatch:
    """Adds the SDK's hooks to a model. They log histograms to `wandb.run` in the training's thread.

    `wandb.watch` is not used, because its hooks raise their errors into the training, for example
    if there is no run.

    Args:
        model: A torch module.
        what: `gradients`, `parameters` or `all`.
        frequency: The number of steps between two histograms.
    """

    def __init__(self, model: Any, what: str, frequency: int) -> None:
        self._model = model
        self._history: Any = import_module("wandb.integration.torch.wandb_torch").TorchHistory()
        self._history.log_tensor_stats = _without_errors(self._history.log_tensor_stats)
        if what != "gradients":
            self._history.add_log_parameters_hook(model, log_freq=frequency)
        if what != "parameters":
            self._history.add_log_gradients_hook(model, log_freq=frequency)

    def end(self) -> None:
        """Remove the hooks."""
        self._history.unhook_all()
        del self._model._wandb_hook_names  # noqa: SLF001


def _without_errors(log: Callable[..., None]) -> Callable[..., None]:
    """Return a version of `log` that logs its first error, and raises none."""
    has_failed = False

    def method(*args: Any) -> None:
        nonlocal has_failed
        try:
            log(*args)
        except Exception:
            if not has_failed:
                has_failed = True
                logger.warning("Could not log a histogram. Training continues.", exc_info=True)

    return method
