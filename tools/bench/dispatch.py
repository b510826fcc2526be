"""Compare our handler with transformers' handler and with a plain loop.

    python tools/bench/dispatch.py [--check]

There are two targets. With eight callbacks that override none of a step's events, our handler takes
at most 1/60 of the time of transformers' handler. With eight callbacks that override the event, it
takes at most 1.2 times the time of a plain loop over their methods.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import transformers.trainer_callback
from table import Targets, checks, print_table, shown, times_in_turns

import callback_core

CALLBACKS: Final = 8
REPEATS: Final = 25
EVENTS: Final = (
    "on_step_begin",
    "on_substep_end",
    "on_pre_optimizer_step",
    "on_optimizer_step",
    "on_step_end",
)
"""The events of a step. A step can fire `on_substep_end` several times; here it counts once."""

IDLE_SHARE: Final = 1 / 60
PLAIN_RATIO: Final = 1.2


def handler_of(module: ModuleType, callback: type) -> Any:
    """Return a handler of `module` with `CALLBACKS` callbacks of this class."""
    # Both handlers warn about several callbacks of one class, and about the missing default flow.
    logging.disable(logging.WARNING)
    parts = ("model", "processing_class", "optimizer", "lr_scheduler")
    return module.CallbackHandler([callback() for _ in range(CALLBACKS)], *parts)


def firing(
    handler: Any, event: str, module: ModuleType, calls: int, passes: tuple[str, ...] = ()
) -> Callable[[], None]:
    """Return a function that fires `event` `calls` times, as a training loop does."""
    values = {"handler": handler, "args": object(), "state": module.TrainerState()}
    values |= {"calls": range(calls), "control": module.TrainerControl()}
    values |= dict.fromkeys(passes, object())
    passed = "".join(f", {name}={name}" for name in passes)
    return compiled(f"control = handler.{event}(args, state, control{passed})", values)


def plain_loop(handler: Any, event: str, calls: int, passes: tuple[str, ...]) -> Callable[[], None]:
    """Return a function that calls all methods, one after the other, `calls` times."""
    keywords = {name: getattr(handler, name) for name in callback_core.COMMON_KEYWORDS}
    keywords |= dict.fromkeys(passes, object())
    values = {"args": object(), "state": callback_core.TrainerState(), "calls": range(calls)}
    values |= {"control": callback_core.TrainerControl(), **keywords}
    values["methods"] = [getattr(callback, event) for callback in handler.callbacks]
    written_out = ", ".join(f"{name}={name}" for name in keywords)
    return compiled(f"for method in methods: method(args, state, control, {written_out})", values)


def compiled(statement: str, values: dict[str, Any]) -> Callable[[], None]:
    """Return a function that executes `statement` once per call, with local names only."""
    parameters = ", ".join(f"{name}={name}" for name in values)
    names = dict(values)
    exec(f"def run({parameters}):\n    for _ in calls:\n        {statement}\n", names)
    run: Callable[[], None] = names["run"]
    return run


def idle(module: ModuleType) -> type:
    """Return a callback class that overrides only an event that is not measured."""

    class Idle(module.TrainerCallback):
        """Overrides an event that is not fired."""

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Do nothing; this is never called."""

    return Idle


def busy(event: str) -> type:
    """Return a callback class of ours that overrides `event` and does nothing."""

    def method(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        pass

    return type("Busy", (callback_core.TrainerCallback,), {event: method})


def measure_idle(targets: Targets) -> None:
    """Compare the handlers if no callback overrides the event."""
    theirs_module, calls = transformers.trainer_callback, 2000
    theirs_handler = handler_of(theirs_module, idle(theirs_module))
    our_handler = handler_of(callback_core, idle(callback_core))
    rows, sums = [], {"theirs": 0.0, "ours": 0.0}
    for event in EVENTS:
        # Our side makes more calls, so that it takes long enough to measure.
        sides = {
            "theirs": firing(theirs_handler, event, theirs_module, calls),
            "ours": firing(our_handler, event, callback_core, 10 * calls),
        }
        taken = times_in_turns(sides, REPEATS, calls)
        theirs, ours = taken["theirs"], taken["ours"] / 10
        rows.append((event, shown(theirs), shown(ours), f"1/{theirs / ours:.1f}"))
        sums["theirs"] += theirs
        sums["ours"] += ours
    theirs, ours = sums["theirs"], sums["ours"]
    rows.append(("sum", shown(theirs), shown(ours), f"1/{theirs / ours:.1f}"))
    print_table(
        f"An event that none of {CALLBACKS} callbacks overrides",
        ("event", "transformers", "ours", "share"),
        rows,
    )
    targets.note(
        f"at most 1/{1 / IDLE_SHARE:.0f} of transformers', summed", ours <= IDLE_SHARE * theirs
    )


def measure_busy(targets: Targets) -> None:
    """Compare our handler with a plain loop if all callbacks override the event."""
    calls, rows, worst = 2000, [], 0.0
    for event in EVENTS:
        handler = handler_of(callback_core, busy(event))
        passes = callback_core.EVENTS[event].passes
        sides = {
            "loop": plain_loop(handler, event, calls, passes),
            "ours": firing(handler, event, callback_core, calls, passes),
        }
        taken = times_in_turns(sides, REPEATS, calls)
        ratio = taken["ours"] / taken["loop"]
        rows.append((event, shown(taken["loop"]), shown(taken["ours"]), f"{ratio:.2f}"))
        worst = max(worst, ratio)
    print_table(
        f"An event that all {CALLBACKS} callbacks override",
        ("event", "plain loop", "ours", "ratio"),
        rows,
    )
    targets.note(f"at most {PLAIN_RATIO} times a plain loop, at each event", worst <= PLAIN_RATIO)


def main() -> None:
    """Measure both, and print the results."""
    checks()  # reject a wrong command line before the measurement
    targets = Targets()
    measure_idle(targets)
    measure_busy(targets)
    targets.leave()


if __name__ == "__main__":
    main()
