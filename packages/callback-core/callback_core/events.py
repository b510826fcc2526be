"""The table of events: every event of a training loop, in the order in which a run fires them.

`CallbackHandler` makes each of its methods from a row. The names also appear in `TrainerCallback`,
in `CallbackHandler` and in `docs/events.md`, where people look for them. Tests compare all of these
with the table.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Event(NamedTuple):
    """One event of the training loop.

    Attributes:
        name: The callback method that is called.
        when: When it happens, as one sentence.
        passes: The keywords that this event passes besides `COMMON_KEYWORDS`.
        resets: The flags of `TrainerControl` that are switched off before the callbacks are called.
        closes: Whether every callback is called, even if another one raises.
        raises: Whether an error of a callback is raised; otherwise it is logged. An interrupt is
            raised at any event.
    """

    name: str
    when: str
    passes: tuple[str, ...] = ()
    resets: tuple[str, ...] = ()
    closes: bool = False
    raises: bool = True


COMMON_KEYWORDS: Final = (
    "model",
    "processing_class",
    "tokenizer",
    "optimizer",
    "lr_scheduler",
    "train_dataloader",
    "eval_dataloader",
)
"""What every event passes.

`tokenizer` and `processing_class` are the same object under both names.
"""

PER_CALLBACK_COPIES: Final = ("logs", "metrics")
"""Keywords that every callback gets as a deep copy of the containers."""

_TABLE: Final = (
    Event("on_init_end", "The trainer has been built."),
    Event(
        "on_train_begin",
        "Training begins.",
        passes=("checkpoint_dir",),
        resets=("should_training_stop",),
    ),
    Event("on_epoch_begin", "An epoch begins.", resets=("should_epoch_stop",)),
    Event(
        "on_step_begin",
        "An update step begins, before the first of its batches.",
        resets=("should_log", "should_evaluate", "should_save"),
    ),
    Event(
        "on_substep_end",
        "A batch has been accumulated, and more follow in the same update step.",
        passes=("loss",),
    ),
    Event(
        "on_pre_optimizer_step",
        "The gradients are complete and clipped; the optimizer has not stepped yet.",
    ),
    Event("on_optimizer_step", "The optimizer has stepped; the gradients are still there."),
    Event("on_step_end", "An update step is complete.", passes=("loss",)),
    Event("on_log", "Values have been logged.", passes=("logs",), resets=("should_log",)),
    Event("on_prediction_step", "One batch has been evaluated or predicted."),
    Event(
        "on_evaluate",
        "An evaluation is complete.",
        passes=("metrics",),
        resets=("should_evaluate",),
    ),
    Event("on_predict", "A prediction is complete.", passes=("metrics",)),
    Event(
        "on_save",
        "A checkpoint has been written.",
        passes=("checkpoint_dir",),
        resets=("should_save",),
    ),
    Event("on_epoch_end", "An epoch ends, completely or early."),
    Event("on_push_begin", "The model is about to be pushed to a hub."),
    Event(
        "on_exception",
        "Training ends with an error, an interrupt or a signal; `on_train_end` still follows.",
        passes=("exception",),
        closes=True,
        raises=False,  # the user must see the error that ended the training
    ),
    Event("on_train_end", "Training has ended, however it ended.", closes=True),
)

EVENTS: Final = {event.name: event for event in _TABLE}
"""All events by name, in the order in which a run first fires them."""
