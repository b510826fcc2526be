"""Trackers that are wrong in one way each: about the values that are logged."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mutants import mutant
from reference_tracker import FileTracker, Reference, ReferenceCallback

from callback_core.tracking import Point

logger = logging.getLogger(__name__)

Wrong = Callable[[str, Any], bool]


def is_scalar(value: Any) -> bool:
    return getattr(value, "shape", None) == ()


def is_unreadable(value: Any) -> bool:
    try:
        float(value)
    except RuntimeError:
        return True
    return False


def is_no_value(value: Any) -> bool:
    return not isinstance(value, (int, float, str)) and not hasattr(value, "shape")


def is_infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def hears_no(wrong: Wrong) -> type[ReferenceCallback]:
    """Return a callback that leaves out some values, without a word."""

    class Callback(ReferenceCallback):
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, *more: Any, **kwargs: Any
        ) -> None:
            heard = {name: value for name, value in logs.items() if not wrong(name, value)}
            super().on_log(args, state, control, logs=heard, **kwargs)

    return Callback


def drops_logs_with(wrong: Wrong) -> type[ReferenceCallback]:
    """Return a callback that drops a log that has some value, and names that value once."""

    class Callback(ReferenceCallback):
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, *more: Any, **kwargs: Any
        ) -> None:
            names = sorted(name for name, value in logs.items() if wrong(name, value))
            if not names:
                super().on_log(args, state, control, logs=logs, **kwargs)
            elif not hasattr(self, "said"):
                self.said = True
                logger.warning("This log is not stored because of %s.", ", ".join(names))

    return Callback


@mutant("VAL-001")
class NamesWhatIsNotFinite(Reference):
    class tracker(FileTracker):
        limits = replace(FileTracker.limits, non_finite=False)


@mutant("VAL-002")
class DropsWhatIsNotFinite(Reference):
    capabilities = Reference.capabilities - {"non_finite"}
    callback = hears_no(lambda name, value: is_infinite(value))


@mutant("VAL-003")
class DropsLogsWithNaN(Reference):
    capabilities = Reference.capabilities - {"non_finite"}
    callback = drops_logs_with(lambda name, value: is_infinite(value))


@mutant("VAL-004")
class KnowsNoScalars(Reference):
    callback = hears_no(lambda name, value: is_scalar(value))


@mutant("VAL-005")
class KnowsNoBooleans(Reference):
    callback = hears_no(lambda name, value: isinstance(value, bool))


@mutant("VAL-006")
class CountsInSixtyFourBits(Reference):
    callback = hears_no(lambda name, value: isinstance(value, int) and value >= 2**63)


@mutant("VAL-007")
class WritesAscii(Reference):
    class tracker(FileTracker):
        def log_text(self, points: Sequence[Point]) -> None:
            super().log_text(
                [p._replace(value=p.value.encode("ascii", "replace").decode()) for p in points]
            )


@mutant("VAL-008")
class DropsText(Reference):
    capabilities = Reference.capabilities - {"text"}
    callback = hears_no(lambda name, value: isinstance(value, str))


@mutant("VAL-009")
class DropsLogsWithLists(Reference):
    callback = drops_logs_with(lambda name, value: is_no_value(value))


@mutant("VAL-010")
class DropsLists(Reference):
    callback = hears_no(lambda name, value: is_no_value(value))


@mutant("VAL-011")
class NamesListsAtEachLog(Reference):
    class callback(ReferenceCallback):
        def on_log(
            self,
            args: Any,
            state: Any,
            control: Any,
            logs: Any = None,
            *more: Any,
            **kwargs: Any,
        ) -> None:
            super().on_log(args, state, control, logs=logs, **kwargs)
            for name, value in logs.items():
                if is_no_value(value):
                    logger.warning("%s is no number.", name)


@mutant("VAL-012")
class DropsLogsThatCannotBeRead(Reference):
    callback = drops_logs_with(lambda name, value: is_scalar(value) and is_unreadable(value))


@mutant("VAL-013")
class DropsLogsWithALongName(Reference):
    callback = drops_logs_with(lambda name, value: len(name) > 1000)


@mutant("VAL-014")
class DropsLogsWithALongString(Reference):
    callback = drops_logs_with(lambda name, value: isinstance(value, str) and len(value) > 10_000)


@mutant("VAL-015")
class IsDeafAfterAnEmptyLog(Reference):
    class callback(ReferenceCallback):
        deaf = False

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.deaf = False
            super().on_train_begin(*args, **kwargs)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, *more: Any, **kwargs: Any
        ) -> None:
            self.deaf = self.deaf or not logs
            if not self.deaf:
                super().on_log(args, state, control, logs=logs, **kwargs)


@mutant("LIM-009")
class DropsOddNames(Reference):
    callback = hears_no(lambda name, value: bool(set("()@%=&,") & set(name)))


@mutant("LIM-010")
class DropsNamesInOtherScripts(Reference):
    callback = hears_no(lambda name, value: not name.isascii())
