"""Trackers that are wrong in one way each: about runs that go on, and how they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mutants import mutant
from reference_tracker import FileTracker, Reference, ReferenceCallback

from callback_core.tracking import Opening, Point, Status


class LeavesRuns(FileTracker):
    """Opens another run where a resumed training's was closed with a status."""

    left: Status

    def open(self, opening: Opening) -> str:
        if opening.run_id is not None and opening.step > 0:
            super().open(replace(opening, rewind_to=None))
            status = self.run["closed_as"]
            super().close(status)
            if status == self.left:
                opening = replace(opening, run_id=None, rewind_to=None)
        return super().open(opening)

    def close(self, status: Status | None) -> None:
        self.run["closed_as"] = status
        super().close(status)


@mutant("RES-001")
class LeavesARunThatFailed(Reference):
    class tracker(LeavesRuns):
        left = "failed"


@mutant("RES-009")
class LeavesARunThatFinished(Reference):
    class tracker(LeavesRuns):
        left = "finished"


@mutant("RES-002")
class RewindsAStepTooFar(Reference):
    class tracker(FileTracker):
        def rewind(self, step: int) -> None:
            super().rewind(step - 1)


class RewindsHalf(FileTracker):
    """Replaces at some openings only what comes out otherwise, and adds what does not."""

    halves: range

    def open(self, opening: Opening) -> str:
        self.half = False
        return super().open(opening)

    def rewind(self, step: int) -> None:
        self.run["rewound"] = self.run.get("rewound", 0) + 1
        self.half = self.run["rewound"] in self.halves
        if not self.half:
            super().rewind(step)

    def log_metrics(self, points: Sequence[Point]) -> None:
        if self.half:
            news = {(point.name, point.step): point.value for point in points}
            self.run["points"] = [
                kept for kept in self.run["points"] if news.get((*kept[:2],), kept[2]) == kept[2]
            ]
        super().log_metrics(points)


@mutant("RES-003")
class StoresTwiceWhatIsRepeated(Reference):
    class tracker(RewindsHalf):
        halves = range(1, 2)


@mutant("RES-008")
class StoresTwiceWhatIsRepeatedAgain(Reference):
    class tracker(RewindsHalf):
        halves = range(2, 9)


@mutant("RES-004")
class DoesNotRewind(Reference):
    class tracker(FileTracker):
        rewinds = False


@mutant("RES-005")
class StaysFailed(Reference):
    class tracker(FileTracker):
        def close(self, status: Status | None) -> None:
            self.run["has_failed"] = status == "failed" or self.run.get("has_failed", False)
            super().close("failed" if self.run["has_failed"] else status)


@mutant("RES-006")
class TakesNothingAfterOtherParameters(Reference):
    class tracker(FileTracker):
        offended = False

        def log_parameters(self, parameters: Mapping[str, Any]) -> None:
            known = self.run["parameters"]
            self.offended = any(known.get(name, v) != v for name, v in parameters.items())
            if not self.offended:
                super().log_parameters(parameters)

        def log_metrics(self, points: Sequence[Point]) -> None:
            if not self.offended:
                super().log_metrics(points)


@mutant("RES-007")
class GoesOnWithItsStateOnly(Reference):
    class callback(ReferenceCallback):
        loaded = deaf = False

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.loaded = True
            super().load_state_dict(state)

        def on_train_begin(
            self, args: Any, state: Any, control: Any, *more: Any, **kwargs: Any
        ) -> None:
            self.deaf = state.global_step > 0 and not self.loaded
            if not self.deaf:
                super().on_train_begin(args, state, control, **kwargs)

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            if not self.deaf:
                super().on_log(*args, **kwargs)


@mutant("STS-001")
class HasAStatusOfItsOwn(Reference):
    class tracker(FileTracker):
        def close(self, status: Status | None) -> None:
            super().close(status)
            self.run["status"] = "done" if status == "finished" else status
            self.save()


@mutant("STS-002")
class FinishesByAnError(Reference):
    class callback(ReferenceCallback):
        def on_exception(
            self, args: Any, state: Any, control: Any, exception: Any = None, **kwargs: Any
        ) -> None:
            if not isinstance(exception, Exception):
                super().on_exception(args, state, control, exception, **kwargs)


@mutant("STS-003")
class FailsByAPerson(Reference):
    class callback(ReferenceCallback):
        def on_exception(
            self, args: Any, state: Any, control: Any, exception: Any = None, **kwargs: Any
        ) -> None:
            if isinstance(exception, KeyboardInterrupt):
                exception = RuntimeError(exception)
            super().on_exception(args, state, control, exception, **kwargs)


@mutant("STS-004")
class FinishesByASignal(Reference):
    class callback(ReferenceCallback):
        def on_exception(
            self, args: Any, state: Any, control: Any, exception: Any = None, **kwargs: Any
        ) -> None:
            if not isinstance(exception, SystemExit):
                super().on_exception(args, state, control, exception, **kwargs)


@mutant("STS-005")
class FinishesWhatWasNotEnded(Reference):
    class callback(ReferenceCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.end("finished")
            super().on_train_begin(*args, **kwargs)


@mutant("STS-006")
class RemembersAFailure(Reference):
    class callback(ReferenceCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            before = self._status
            super().on_train_begin(*args, **kwargs)
            self._status = before


@mutant("STS-007")
class LeavesItOpenAfterAnEvaluation(Reference):
    patience = 10.0

    class tracker(FileTracker):
        evaluates = False

        def open(self, opening: Opening) -> str:
            self.evaluates = opening.run_id is not None and opening.step == 0
            return super().open(opening)

        def close(self, status: Status | None) -> None:
            super().close(None if self.evaluates else status)


@mutant("STS-008")
class LeavesItOpenWithoutATraining(Reference):
    patience = 10.0

    class tracker(FileTracker):
        alone = True

        def close(self, status: Status | None) -> None:
            super().close(None if self.alone else status)

    class callback(ReferenceCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            assert isinstance(self.tracker, LeavesItOpenWithoutATraining.tracker)
            self.tracker.alone = False
            super().on_train_begin(*args, **kwargs)
