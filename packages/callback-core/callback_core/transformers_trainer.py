"""Finds out what our callbacks need to know, and transformers' Trainer does not tell them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Final

from callback_core.events import COMMON_KEYWORDS

logger = logging.getLogger(__name__)

_TELLS: Final = "_tells_callbacks_of_errors"
"""Marks a `train` that already tells callbacks of errors."""


def callers_with(control: Any) -> Iterator[tuple[str, Any]]:
    """Yield each running call of a method whose owner has this `control` and can log.

    The owner is the trainer. A call is the method's name and its owner. The innermost comes first.
    """
    from inspect import currentframe  # here, because it takes 10 ms

    here: Any = currentframe()
    frame = here.f_back  # not this one, whose locals would keep itself and the trainer alive
    del here
    while frame is not None:
        # f_locals keeps what it returns alive until the call ends, so read it only of methods.
        is_method = frame.f_code.co_varnames[:1] == ("self",)
        owner = frame.f_locals.get("self") if is_method else None
        if getattr(owner, "control", None) is control and callable(getattr(owner, "log", None)):
            yield frame.f_code.co_name, owner
        frame = frame.f_back


def recorded_twice_by(callback: Any, control: Any) -> str | None:
    """Return the name of transformers' own callback that does the work of `callback` too.

    Such a callback has the same name, or one of the two extends a class with the other's name.

    Args:
        callback: Our callback.
        control: The control that a trainer passes to it.

    Returns:
        The name; `None` if the running trainer has no such callback.
    """
    if "transformers.integrations" not in sys.modules:
        return None
    _, trainer = next(callers_with(control), ("", None))
    handler = getattr(trainer, "callback_handler", None)
    ours = {base.__name__ for base in type(callback).__mro__}
    for other in getattr(handler, "callbacks", ()):
        for base in type(other).__mro__:
            if base.__name__ in ours and base.__module__.startswith("transformers.integrations"):
                return base.__name__
    return None


def tell_of_errors() -> None:
    """Let transformers' Trainer tell callbacks that an error or an interrupt ended a training.

    By itself, its `train` calls no callback then. After this, it calls `on_exception` and then
    `on_train_end` of each callback that has an `on_exception`, and raises the same error. If
    transformers is not imported, or has such an event itself, this does nothing.
    """
    module: Any = sys.modules.get("transformers.trainer")
    trainer = getattr(module, "Trainer", None)
    if trainer is None or hasattr(module.CallbackHandler, "on_exception"):
        return
    if not hasattr(trainer.train, _TELLS):
        trainer.train = _telling(trainer.train)


def _telling(train: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(train)
    def telling(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = self.state
        try:
            return train(self, *args, **kwargs)
        except BaseException as error:
            has_begun = self.state is not before
            # The Trainer fires on_train_end before it raises TrialPruned.
            if has_begun and type(error).__name__ != "TrialPruned":
                _tell(self, error)
            raise

    setattr(telling, _TELLS, True)
    return telling


def _tell(trainer: Any, error: BaseException) -> None:
    """Call `on_exception` and `on_train_end`. Their errors must not replace `error`."""
    handler = trainer.callback_handler
    keywords = {name: getattr(handler, name, None) for name in COMMON_KEYWORDS}
    named = (keywords["processing_class"], keywords["tokenizer"])  # a version has one of them
    keywords["processing_class"] = keywords["tokenizer"] = next(filter(None, named), None)
    told = [one for one in handler.callbacks if hasattr(one, "on_exception")]
    for event, passed in (("on_exception", {"exception": error}), ("on_train_end", {})):
        for callback in told:
            try:
                method = getattr(callback, event)
                method(trainer.args, trainer.state, trainer.control, **keywords, **passed)
            except Exception:
                name = type(callback).__name__
                logger.warning("%s.%s failed after an error.", name, event, exc_info=True)
