"""`OptimizerEvents`: fires the events around the step of an optimizer of torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from callback_core.validation import overrides

logger = logging.getLogger(__name__)


class OptimizerEvents:
    """Fires `on_pre_optimizer_step` and `on_optimizer_step` from the hooks of an optimizer.

    Args:
        fire: Fires an event. It is called at each step of the optimizer.
    """

    NAMES: Final = ("on_pre_optimizer_step", "on_optimizer_step")

    def __init__(self, fire: Callable[[str], None]) -> None:
        self._fire = fire
        self._handles: list[Any] = []
        self._is_checked = False

    def watch(self, optimizer: Any) -> None:
        """Fire at each step of `optimizer` from now on, if it has the hooks of torch."""
        before, after = self.NAMES
        try:
            self._handles = [
                optimizer.register_step_pre_hook(lambda *_: self._fire(before)),
                optimizer.register_step_post_hook(lambda *_: self._fire(after)),
            ]
        except AttributeError:  # not an optimizer of torch, or a wrapper of one
            self._handles = []

    def leave_to_program(self) -> None:
        """Note that the program fires these events itself."""
        self._is_checked = True

    def stop(self) -> None:
        """Stop firing."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def tell_if_missing(self, callbacks: Iterable[Any]) -> None:
        """Warn once about callbacks that wait for events that nothing fires."""
        if self._handles or self._is_checked:
            return
        self._is_checked = True
        waiting = sorted(
            f"{type(one).__name__}.{name}"
            for one in callbacks
            for name in self.NAMES
            if overrides(one, name)
        )
        if waiting:
            logger.warning(
                "The loop does not know when the optimizer steps, so it does not call %s. Pass an "
                "optimizer of torch to the Loop, or call fire() with these events.",
                ", ".join(waiting),
            )
