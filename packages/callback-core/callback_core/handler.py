"""`CallbackHandler`: calls, for each event, the callbacks that override it.

It is long because it has every name of transformers' handler, and because the calls that each step
of a training makes are written out for speed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from callback_core.arguments import CallbackArguments
from callback_core.callback import TrainerCallback
from callback_core.callback_list import CallbackList
from callback_core.class_names import has_base_named
from callback_core.control import TrainerControl
from callback_core.events import EVENTS, PER_CALLBACK_COPIES
from callback_core.failures import PATIENCE, Failures, is_isolated
from callback_core.state import TrainerState
from callback_core.validation import check_callback, instantiate, list_callbacks, overrides

logger = logging.getLogger(__name__)

_NOT_GIVEN: Final = object()

_Call = tuple[Any, Callable[..., Any]]  # a callback and its method


def _method_of(name: str) -> Callable[..., TrainerControl]:
    """Return the handler's method for `name`: reset its flags, then call the callbacks."""
    event = EVENTS[name]
    off = dict.fromkeys(event.resets, False)

    def method(
        self: CallbackHandler,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        *passed: Any,
        **kwargs: Any,
    ) -> TrainerControl:
        # An event that a callback fires itself serves no request: the loop has not acted on it yet.
        if off and control.caller.callback is None:
            control.reset(off)
        if not self._calls[name]:
            return control
        if passed:
            kwargs.update(zip(event.passes, passed, strict=False))
        if kwargs:
            return self.call_event(name, args, state, control, **kwargs)
        return self.call_event(name, args, state, control)  # in half of the time

    method.__name__, method.__qualname__, method.__doc__ = (
        name,
        f"CallbackHandler.{name}",
        event.when,
    )
    return method


class CallbackHandler(TrainerCallback):
    """Calls the callbacks in the order in which they were added.

    It has a method for each event: `on_train_begin(args, state, control, **kwargs)` and so on. Each
    returns the control with which the loop continues. Methods that a callback does not override are
    not called.

    Args:
        callbacks: Callbacks, or classes of callbacks, which are made without arguments.
        model: Passed to every event, like the following arguments.
        processing_class: A tokenizer, processor or the like; passed as `tokenizer` too.
        optimizer: The optimizer, once it exists.
        lr_scheduler: The learning rate scheduler, once it exists.

    Raises:
        TypeError: `callbacks` is not several callbacks; or a callback is a class that needs
            arguments, has no event method, has one that refuses unknown keywords, or has only one
            of `state_dict` and `load_state_dict`.
        ValueError: A callback has an invalid `on_error`.
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
        self._training = False
        self._failures = Failures()
        self._calls: dict[str, list[_Call]] = {}
        self.callbacks = []
        for callback in list_callbacks(callbacks):
            self.add_callback(callback)
        if not any(has_base_named(callback, "DefaultFlowCallback") for callback in self.callbacks):
            logger.warning(
                "There is no DefaultFlowCallback among the callbacks, so nothing tells the loop "
                "when to log, evaluate, save and stop. Add one before training, unless one of "
                "your callbacks does that. The callbacks are:\n%s",
                self.callback_list,
            )

    on_init_end = _method_of("on_init_end")
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
    _begin = _method_of("on_train_begin")
    _end = _method_of("on_train_end")

    def on_train_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Training begins.

        Raises:
            RuntimeError: The last training has not ended.
            TypeError: A callback was changed so that it can no longer be called.
            ValueError: A callback was given an invalid `on_error`.
        """
        if self._training:
            raise RuntimeError(
                "on_train_begin was fired during a training. Fire on_train_end first, also after a "
                "training that ended with an error."
            )
        for callback in self.callbacks:
            check_callback(callback)
        self._training = True
        self._failures.give_another_chance()
        self._find_calls()
        return self._begin(args, state, control, **kwargs)

    def on_train_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Training has ended, however it ended.

        One line in the log names the isolated callbacks that failed.
        """
        try:
            return self._end(args, state, control, **kwargs)
        finally:
            self._training = False
            failures, self._failures = self._failures, Failures()
            self._find_calls()
            if failures:
                logger.warning("Training was not affected, but %s.", failures.report())

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy keeps: the methods of the callbacks are found again."""
        return {**self.__dict__, "_callbacks": list(self._callbacks), "_calls": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what `__getstate__` returned."""
        self.__dict__.update(state)
        self.callbacks = self._callbacks

    @property
    def callbacks(self) -> list[Any]:
        """The callbacks in the order in which they are called. You may change the list."""
        return self._callbacks

    @callbacks.setter
    def callbacks(self, callbacks: Iterable[Any]) -> None:
        self._callbacks = CallbackList(callbacks, self._find_calls)
        self._find_calls()

    @property
    def tokenizer(self) -> Any:
        """The processing class, under its older name."""
        return self.processing_class

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self.processing_class = tokenizer

    @property
    def callback_list(self) -> str:
        """The class names of the callbacks, one on each line."""
        return "\n".join(type(callback).__name__ for callback in self.callbacks)

    def add_callback(self, callback: Any) -> None:
        """Add `callback`, or an instance of it if it is a class, after the others."""
        added = instantiate(callback)
        if type(added) in map(type, self.callbacks):
            logger.warning(
                "A second %s was added; both will be called. The callbacks were:\n%s",
                type(added).__name__,
                self.callback_list,
            )
        self.callbacks.append(added)

    def pop_callback(self, callback: Any) -> Any:
        """Remove and return the first callback that is `callback` or of that class, if any."""
        for index, found in enumerate(self.callbacks):
            if isinstance(found, callback) if isinstance(callback, type) else found == callback:
                return self.callbacks.pop(index)
        return None

    def remove_callback(self, callback: Any) -> None:
        """Remove the first callback that is `callback` or of that class.

        Raises:
            ValueError: `callback` is an instance that is not in the list. Removing a class without
                an instance is no error.
        """
        if self.pop_callback(callback) is None and not isinstance(callback, type):
            raise ValueError(
                f"{callback!r} cannot be removed: it is not among the callbacks:\n"
                f"{self.callback_list}"
            )

    def call_event(
        self,
        event: str,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        loss: Any = _NOT_GIVEN,
        **kwargs: Any,
    ) -> TrainerControl:
        """Call `event` of every callback that overrides it, and return the control to use next.

        Each callback gets its own copies of `logs` and `metrics`. An error of a callback is raised
        at once. At `on_exception` and `on_train_end`, all callbacks are called first; errors at
        `on_exception` are only logged. Errors of isolated callbacks are not raised. `event` may be
        a method that is not in `EVENTS`.
        """
        # Every step of the loop comes here. Keywords that are written out in a call take two thirds
        # of the time of a dictionary. So they are written out for events that pass nothing more,
        # and for those that pass `loss`. Other events use a dictionary.
        model, processing_class = self.model, self.processing_class
        optimizer, lr_scheduler = self.optimizer, self.lr_scheduler
        train_dataloader, eval_dataloader = self.train_dataloader, self.eval_dataloader
        keywords: dict[str, Any] = {}
        without_loss = loss is _NOT_GIVEN
        if kwargs:
            keywords = {
                "model": model,
                "processing_class": processing_class,
                "tokenizer": processing_class,
                "optimizer": optimizer,
                "lr_scheduler": lr_scheduler,
                "train_dataloader": train_dataloader,
                "eval_dataloader": eval_dataloader,
                **kwargs,
            }
            if not without_loss:
                keywords["loss"] = loss
            copied = [name for name in PER_CALLBACK_COPIES if kwargs.get(name) is not None]
        calls = self._calls.get(event)
        if calls is None:  # an event that is not in the table
            calls = self._calls_of(event)
        raised: BaseException | None = None
        caller = control.caller
        asking, before = caller.callback, caller.state
        caller.state = state
        try:
            for callback, method in calls:
                caller.callback = callback
                try:
                    if keywords:
                        for name in copied:
                            keywords[name] = _own_copy(kwargs[name])
                        answer = method(args, state, control, **keywords)
                    elif without_loss:
                        answer = method(
                            args,
                            state,
                            control,
                            model=model,
                            processing_class=processing_class,
                            tokenizer=processing_class,
                            optimizer=optimizer,
                            lr_scheduler=lr_scheduler,
                            train_dataloader=train_dataloader,
                            eval_dataloader=eval_dataloader,
                        )
                    else:
                        answer = method(
                            args,
                            state,
                            control,
                            model=model,
                            processing_class=processing_class,
                            tokenizer=processing_class,
                            optimizer=optimizer,
                            lr_scheduler=lr_scheduler,
                            train_dataloader=train_dataloader,
                            eval_dataloader=eval_dataloader,
                            loss=loss,
                        )
                    if answer is not None and answer is not control:
                        replacement = _replacement(answer, f"{type(callback).__name__}.{event}")
                        caller.callback, caller.state = asking, before
                        control, caller = replacement, replacement.caller
                        asking, before = caller.callback, caller.state
                        caller.state = state
                except BaseException as error:
                    if isinstance(error, Exception) and is_isolated(callback):
                        self._isolate(callback, event, state.global_step, error)
                    elif event not in EVENTS or not EVENTS[event].closes:
                        raise
                    elif raised is None and (
                        EVENTS[event].raises or not isinstance(error, Exception)
                    ):
                        raised = error
                    else:
                        name = type(callback).__name__
                        logger.error("%s.%s failed too.", name, event, exc_info=error)
        finally:
            caller.callback, caller.state = asking, before
        if raised is not None:
            raise raised
        return control

    def _find_calls(self) -> None:
        """Find the methods to call at each event."""
        self._calls = {event: self._calls_of(event) for event in EVENTS}

    def _calls_of(self, event: str) -> list[_Call]:
        """Return the callbacks to call at `event`. One that is off still gets events that close."""
        closes = event in EVENTS and EVENTS[event].closes
        return [
            (callback, self._failures.watched(callback, event, getattr(callback, event)))
            for callback in self._callbacks
            if overrides(callback, event) and (closes or not self._failures.is_off(callback))
        ]

    def _isolate(self, callback: Any, event: str, step: int, error: Exception) -> None:
        """Record the failure; switch the callback off after `PATIENCE` in a row."""
        was_off = self._failures.is_off(callback)
        last = self._failures.add(callback, event, step, error).last
        self._find_calls()
        if self._failures.is_off(callback) and not was_off and not self._training:
            logger.warning(
                "%s failed %d times in a row in %s and is switched off until the next training "
                "begins (last: %s).",
                type(callback).__name__,
                PATIENCE,
                event,
                last,
            )


def _own_copy(value: Any) -> Any:
    """Return `value` with copies of its dicts and lists, and the same values in them."""
    if isinstance(value, dict):
        return {name: _own_copy(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_own_copy(part) for part in value]
    return value


def _replacement(answer: Any, method: str) -> TrainerControl:
    """Return `answer`, the control that `method` returned instead of its own."""
    if not isinstance(answer, TrainerControl):
        raise TypeError(
            f"{method} returned {answer!r}. Return the TrainerControl that it got, or nothing."
        )
    return answer
