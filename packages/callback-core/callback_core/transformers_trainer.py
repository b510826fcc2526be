"""What our callbacks need to know of transformers' Trainer, and it does not tell."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Final

from callback_core.events import COMMON_KEYWORDS

logger = logging.getLogger(__name__)

_TELLS: Final = "_tells_callbacks_of_errors"
"""Marks a method that tells callbacks of errors already."""


def callers_with(control: Any) -> Iterator[tuple[str, Any]]:
    """Yield each call under way of a method whose owner has this `control` and can log.

    The owner is the trainer. The innermost call comes first, as the method's name and the owner.
    """
    from inspect import currentframe  # here, because it takes 10 ms

    here: Any = currentframe()
    frame = here.f_back  # not this one: its locals would hold it, and so the trainer
    del here
    while frame is not None:
        # f_locals keeps all that it shows for as long as the call is under way: ask only methods.
        is_method = frame.f_code.co_varnames[:1] == ("self",)
        owner = frame.f_locals.get("self") if is_method else None
        if getattr(owner, "control", None) is control and callable(getattr(owner, "log", None)):
            yield frame.f_code.co_name, owner
        frame = frame.f_back


def recorded_twice_by(callback: Any, control: Any) -> str | None:
    """Return the name of transformers' own callback that does the work of `callback` too.

    It has the same name, or one of them extends a class with the name of the other.

    Args:
        callback: Our callback.
        control: The control that a trainer passes to it.

    Returns:
        The name; `None` if the trainer that calls has no such callback.
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

    Its `train` calls nothing then. After this, it calls `on_exception` and then `on_train_end` of
    each callback that has an `on_exception`, and raises the same error. If transformers is not
    imported, or has such an event by itself, this does nothing.
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
    """Fire `on_exception` and `on_train_end`. What they raise must not replace `error`."""
    handler = trainer.callback_handler
    keywords = {name: getattr(handler, name, None) for name in COMMON_KEYWORDS}
    named = (keywords["processing_class"], keywords["tokenizer"])  # transformers has one of them
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
