"""`CallbackHandler`: calls, for each event, the callbacks that override it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from callback_core.arguments import CallbackArguments
from callback_core.callback import TrainerCallback
from callback_core.control import TrainerControl
from callback_core.default_flow import DefaultFlowCallback
from callback_core.events import EVENTS, PER_CALLBACK_COPIES
from callback_core.state import TrainerState

logger = logging.getLogger(__name__)

# inspect.CO_VARKEYWORDS, without the 10 ms that importing inspect takes
_TAKES_ANY_KEYWORD: Final = 0x08


def _method_of(name: str) -> Callable[..., TrainerControl]:
    """Return the handler's method for `name`: reset its flags, then call whoever overrides it."""
    event = EVENTS[name]
    resets = event.resets

    def method(
        self: CallbackHandler,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        *passed: Any,
        **kwargs: Any,
    ) -> TrainerControl:
        if resets:
            control._reset(resets)
        if not self._overridden[name]:
            return control
        return self.call_event(
            name, args, state, control, **dict(zip(event.passes, passed, strict=False)), **kwargs
        )

    method.__name__, method.__qualname__, method.__doc__ = (
        name,
        f"CallbackHandler.{name}",
        event.when,
    )
    return method


class CallbackHandler(TrainerCallback):
    """Calls the callbacks in the order in which they were added.

    It has one method per event, `on_train_begin(args, state, control, **kwargs)` and so on, and
    each returns the control that the loop goes on with. What a callback does not override is not
    called.

    Args:
        callbacks: Callbacks, or classes of them, which are made without arguments.
        model: Passed to every event, as are the following.
        processing_class: Tokenizer, processor or the like; passed as `tokenizer` too.
        optimizer: The optimizer, once there is one.
        lr_scheduler: The learning rate scheduler, once there is one.

    Raises:
        TypeError: A callback has no event method at all, or one that refuses unknown keywords.
    """

    def __init__(
        self,
        callbacks: Iterable[Any],
        model: Any,
        processing_class: Any,
        optimizer: Any,
        lr_scheduler: Any,
    ) -> None:
        self.model = model
        self.processing_class = processing_class
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.train_dataloader: Any = None
        self.eval_dataloader: Any = None
        self._callbacks: list[Any] = []
        self._overridden: dict[str, list[tuple[Any, Callable[..., Any]]]] = {
            name: [] for name in EVENTS
        }
        for callback in callbacks:
            self.add_callback(callback)
        if not any(isinstance(callback, DefaultFlowCallback) for callback in self._callbacks):
            logger.warning(
                "There is no DefaultFlowCallback among the callbacks, so nothing tells the loop "
                "when to log, evaluate, save and stop. Add one before training, unless a "
                "callback of yours does. The callbacks are:\n%s",
                self.callback_list,
            )

    on_init_end = _method_of("on_init_end")
    on_train_begin = _method_of("on_train_begin")
    on_epoch_begin = _method_of("on_epoch_begin")
    on_step_begin = _method_of("on_step_begin")
    on_substep_end = _method_of("on_substep_end")
    on_pre_optimizer_step = _method_of("on_pre_optimizer_step")
    on_optimizer_step = _method_of("on_optimizer_step")
    on_step_end = _method_of("on_step_end")
    on_log = _method_of("on_log")
    on_prediction_step = _method_of("on_prediction_step")
    on_evaluate = _method_of("on_evaluate")
    on_predict = _method_of("on_predict")
    on_save = _method_of("on_save")
    on_epoch_end = _method_of("on_epoch_end")
    on_push_begin = _method_of("on_push_begin")
    on_exception = _method_of("on_exception")
    on_train_end = _method_of("on_train_end")

    @property
    def callbacks(self) -> tuple[Any, ...]:
        """The callbacks in the order in which they are called."""
        return tuple(self._callbacks)

    @property
    def callback_list(self) -> str:
        """The class names of the callbacks, one a line."""
        return "\n".join(type(callback).__name__ for callback in self._callbacks)

    def add_callback(self, callback: Any) -> None:
        """Add `callback`, or an instance of it where it is a class, behind the others."""
        added = callback() if isinstance(callback, type) else callback
        _check(added)
        if type(added) in map(type, self._callbacks):
            logger.warning(
                "A %s is added although there is one already; both will be called. The callbacks "
                "are:\n%s",
                type(added).__name__,
                self.callback_list,
            )
        self._callbacks.append(added)
        self._find_overridden()

    def pop_callback(self, callback: Any) -> Any:
        """Remove and return the first callback that is `callback` or of that class, or `None`."""
        found = self._find(callback)
        if found is not None:
            self._callbacks.pop([kept is found for kept in self._callbacks].index(True))
            self._find_overridden()
        return found

    def remove_callback(self, callback: Any) -> None:
        """Remove the first callback that is `callback` or of that class.

        Raises:
            ValueError: `callback` is an instance that was never added. A class that is absent is no
                error.
        """
        if self.pop_callback(callback) is None and not isinstance(callback, type):
            raise ValueError(
                f"{callback!r} cannot be removed: it is not among the "
                f"callbacks:\n{self.callback_list}"
            )

    def call_event(
        self,
        event: str,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> TrainerControl:
        """Call `event` of every callback that overrides it and return the control to go on with.

        `logs` and `metrics` are handed out as copies, one per callback.
        """
        keywords = {
            "model": self.model,
            "processing_class": self.processing_class,
            "tokenizer": self.processing_class,
            "optimizer": self.optimizer,
            "lr_scheduler": self.lr_scheduler,
            "train_dataloader": self.train_dataloader,
            "eval_dataloader": self.eval_dataloader,
            **kwargs,
        }
        copied = [name for name in PER_CALLBACK_COPIES if kwargs.get(name) is not None]
        try:
            for callback, method in self._overridden[event]:
                for name in copied:
                    keywords[name] = dict(kwargs[name])
                control._asking = callback, state.global_step
                answer = method(args, state, control, **keywords)
                if answer is not None and answer is not control:
                    control = _replacement(answer, f"{type(callback).__name__}.{event}")
        finally:
            control._asking = None
        return control

    def _find(self, callback: Any) -> Any:
        if isinstance(callback, type):
            return next((found for found in self._callbacks if isinstance(found, callback)), None)
        return next((found for found in self._callbacks if found == callback), None)

    def _find_overridden(self) -> None:
        self._overridden = {
            name: [
                (callback, getattr(callback, name))
                for callback in self._callbacks
                if _overrides(callback, name)
            ]
            for name in EVENTS
        }


def _overrides(callback: Any, event: str) -> bool:
    """Return whether `callback` has a method for `event` other than the empty one."""
    method = getattr(callback, event, None)
    return method is not None and getattr(method, "__func__", None) is not getattr(
        TrainerCallback, event
    )


def _check(callback: Any) -> None:
    """Refuse what the loop could not call, before it is called."""
    methods = {name: getattr(callback, name, None) for name in EVENTS}
    if not any(callable(method) for method in methods.values()):
        raise TypeError(
            f"{callback!r} is not a callback: it has none of the event methods (on_train_begin, "
            "on_log, …). Pass a subclass of TrainerCallback or an instance of one."
        )
    for name, method in methods.items():
        code = getattr(method, "__code__", None)
        if code is not None and not code.co_flags & _TAKES_ANY_KEYWORD:
            raise TypeError(
                f"{type(callback).__name__}.{name} would fail when it is called: events pass "
                "keywords such as model and optimizer. End its signature with **kwargs."
            )


def _replacement(answer: Any, method: str) -> TrainerControl:
    """Return `answer`, the control that `method` returned in place of the one it was given."""
    if not isinstance(answer, TrainerControl):
        raise TypeError(
            f"{method} returned {answer!r}. Return the TrainerControl that it was given, or "
            "nothing."
        )
    return answer
