"""`LogReceiver`: the logger by which a training learns what Lightning logs and saves."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from callback_lightning.framework import DummyLogger, Logger, is_main_process

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Receives what Lightning passes to its loggers."""

    def logged(self, metrics: Mapping[str, Any], step: int | None, by: object) -> None:
        """Receive what was logged.

        Args:
            metrics: Values by Lightning's names.
            step: The step that Lightning or the user passed.
            by: The logger that Lightning has called. It passes the same to each logger.
        """

    def learned_hyperparameters(self, parameters: Mapping[str, Any]) -> None:
        """Receive hyperparameters."""

    def saved_checkpoint(self, checkpoint_callback: Any) -> None:
        """Receive a `ModelCheckpoint` that has saved."""


class LogReceiver(Logger):
    """Passes on what Lightning logs and saves. It has no run of its own.

    Its name and version are empty, so that a `ModelCheckpoint` writes to `checkpoints` in the
    `default_root_dir`, as without a logger.

    Attributes:
        listener: Receives what the logger gets; `None` outside of a trainer.
        callbacks: The callbacks that `LightningCallbacks` takes over from it.
        directory: The directory to which the training writes, once it is known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.listener: Listener | None = None
        self.callbacks: list[Any] = []
        self.directory: str | None = None

    @property
    def name(self) -> str:
        """The name of the experiment, which is part of the path of checkpoints: empty."""
        return ""

    @property
    def version(self) -> str:
        """The version of the experiment, which is part of the path of checkpoints: empty."""
        return ""

    @property
    def save_dir(self) -> str | None:
        """The directory to which the training writes, once it is known."""
        return self.directory

    @property
    def experiment(self) -> Any:
        """A dummy that takes any call, for modules that log to their logger's experiment."""
        return DummyLogger().experiment

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Pass on values by name.

        Args:
            metrics: The values.
            step: Their step; by default that of the training.
        """
        if self.listener is not None:
            self.listener.logged(metrics, step, self)

    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Pass on hyperparameters.

        Args:
            params: Values by name.
            args: If the first one is a mapping, metrics to log with the parameters.
            kwargs: `metrics` may be such a mapping instead.
        """
        if self.listener is None:
            return
        self.listener.learned_hyperparameters(parameters_of(params))
        metrics = kwargs.get("metrics", args[0] if args else None)
        if isinstance(metrics, Mapping):
            self.log_metrics(metrics)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Pass on that a `ModelCheckpoint` has saved."""
        if self.listener is not None:
            self.listener.saved_checkpoint(checkpoint_callback)


def parameters_of(params: Mapping[str, Any] | Namespace | None) -> dict[str, Any]:
    """Return hyperparameters by name, from any of the forms that Lightning takes."""
    if params is None:
        return {}
    found = params if isinstance(params, Mapping) else vars(params)
    return {str(name): value for name, value in found.items()}


def tell_of_late(names: Sequence[str]) -> None:
    """Warn about hyperparameters that came too late, if there are any."""
    if names and is_main_process():
        logger.warning(
            "These hyperparameters came after training had begun, so trackers do not get them: %s. "
            "Log them earlier, or with save_hyperparameters().",
            ", ".join(names),
        )


class Duplicates:
    """Finds logs that another logger has received before.

    Lightning passes each log to each of its loggers. A user may log to only one of them.
    """

    def __init__(self) -> None:
        self._at: Any = None
        self._seen: dict[str, int] = {}
        self._told: dict[tuple[int, str], int] = {}

    def is_new(self, metrics: Mapping[str, Any], step: int | None, by: object) -> bool:
        """Return whether `by` gets `metrics` more often at this step than any other logger."""
        if step != self._at:
            self._at, self._seen, self._told = step, {}, {}
        content = repr(sorted(metrics.items(), key=lambda item: str(item[0])))
        told = self._told[id(by), content] = self._told.get((id(by), content), 0) + 1
        if told <= self._seen.get(content, 0):
            return False
        self._seen[content] = told
        return True
