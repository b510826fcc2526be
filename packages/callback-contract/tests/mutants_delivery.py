"""Trackers that are wrong in one way each: about what is delivered, and where the service is not.

A mutant is the reference with one thing changed, in what it hears (`callback`) or in what it stores
(`tracker`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import sleep
from typing import Any, ClassVar

from mutants import mutant
from reference_tracker import DOWN, FileTracker, Reference, ReferenceCallback

from callback_contract.rules.outage import LONGEST_EVENT
from callback_core.tracking import Opening, Point, Status, Upload

logger = logging.getLogger(__name__)


def is_down(callback: ReferenceCallback) -> bool:
    assert isinstance(callback.tracker, FileTracker)
    return (callback.tracker.store / DOWN).exists()


@mutant("DEL-001")
class ThinsOutLongCurves(Reference):
    class tracker(FileTracker):
        def log_metrics(self, points: Sequence[Point]) -> None:
            super().log_metrics([p for p in points if p.step < 1000 or p.step % 10 == 0])


@mutant("DEL-002")
class StoresTheNewestFirst(Reference):
    class tracker(FileTracker):
        def log_metrics(self, points: Sequence[Point]) -> None:
            before, self.run["points"] = self.run["points"], []
            super().log_metrics(points[::-1])
            self.run["points"] += before
            self.save()


@mutant("DEL-003")
class SendsTheFirstTwice(Reference):
    class tracker(FileTracker):
        def log_metrics(self, points: Sequence[Point]) -> None:
            super().log_metrics(points)
            super().log_metrics([p for p in points if p.name == "train/loss" and p.step == 1])


@mutant("DEL-004")
class GoesOnInTheRunBefore(Reference):
    class tracker(FileTracker):
        finished: str | None = None

        def open(self, opening: Opening) -> str:
            return super().open(replace(opening, run_id=opening.run_id or self.finished))

        def close(self, status: Status | None) -> None:
            super().close(status)
            self.finished = self.run["id"] if status == "finished" else None


@mutant("DEL-005")
class IsDeafAfterTheEnd(Reference):
    patience = 10.0

    class callback(ReferenceCallback):
        ended = False

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.ended = False
            super().on_train_begin(*args, **kwargs)

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_train_end(*args, **kwargs)
            self.ended = True

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            if not self.ended:
                super().on_log(*args, **kwargs)


@mutant("DEL-006")
class OpensAnotherRunAfterTheEnd(Reference):
    class tracker(FileTracker):
        def open(self, opening: Opening) -> str:
            if opening.step == 0:
                opening = replace(opening, run_id=None)
            return super().open(opening)


@mutant("DEL-007")
class IsDeafBeforeTheBeginning(Reference):
    patience = 10.0

    class callback(ReferenceCallback):
        begun = False

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.begun = True
            super().on_train_begin(*args, **kwargs)

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            if self.begun:
                super().on_log(*args, **kwargs)


@mutant("DEL-008")
class KeepsNoFloatsAmongTheArguments(Reference):
    class tracker(FileTracker):
        def log_parameters(self, parameters: Mapping[str, Any]) -> None:
            super().log_parameters(
                {name: v for name, v in parameters.items() if not isinstance(v, float)}
            )


@mutant("DEL-009")
class HasNoSummary(Reference):
    class tracker(FileTracker):
        def log_summary(self, points: Sequence[Point]) -> None:
            pass


@mutant("DEL-010")
class TakesTheFirstThousandOfABatch(Reference):
    class tracker(FileTracker):
        limits = replace(FileTracker.limits, batch_size=5000)

        def log_metrics(self, points: Sequence[Point]) -> None:
            super().log_metrics(points[:1000])


@mutant("DEL-011")
class HearsOneLogOfAStep(Reference):
    class callback(ReferenceCallback):
        heard: int | None = None

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.heard = None
            super().on_train_begin(*args, **kwargs)

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_train_end(*args, **kwargs)
            self.heard = None

        def on_log(self, args: Any, state: Any, control: Any, *more: Any, **kwargs: Any) -> None:
            if self.heard != state.global_step:
                super().on_log(args, state, control, **kwargs)
            self.heard = state.global_step


@mutant("DEL-012")
class KeepsCheckpointsAtTheEnd(Reference):
    class tracker(FileTracker):
        def open(self, opening: Opening) -> str:
            self.output_dir, self.uploads = opening.output_dir, list[Upload]()
            return super().open(opening)

        def log_files(self, upload: Upload) -> None:
            self.uploads.append(upload._replace(path=self.output_dir / upload.name))

        def close(self, status: Status | None) -> None:
            for upload in self.uploads:
                super().log_files(upload)
            super().close(status)


@mutant("DEL-013")
class SendsToTheRunThatIsCurrent(Reference):
    class tracker(FileTracker):
        current: ClassVar[str] = ""

        def open(self, opening: Opening) -> str:
            type(self).current = super().open(opening)
            return self.current

        def log_metrics(self, points: Sequence[Point]) -> None:
            own = self.run
            if self.current != own["id"]:
                self.run = json.loads(self.file_of(self.current).read_text())
            super().log_metrics(points)
            self.run = own

    class callback(ReferenceCallback):
        def __init__(self, tracker: FileTracker, **kwargs: Any) -> None:
            super().__init__(tracker, delivery="inline", **kwargs)


@mutant("DEL-014")
class ReadsScalarsAtTheEnd(Reference):
    class callback(ReferenceCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.unread: list[tuple[int, dict[str, Any]]] = []
            super().on_train_begin(*args, **kwargs)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, *more: Any, **kwargs: Any
        ) -> None:
            scalars = {n: v for n, v in logs.items() if getattr(v, "shape", None) == ()}
            if scalars:
                self.unread.append((state.global_step, scalars))
            others = {name: value for name, value in logs.items() if name not in scalars}
            super().on_log(args, state, control, logs=others, **kwargs)

        def on_train_end(
            self, args: Any, state: Any, control: Any, *more: Any, **kwargs: Any
        ) -> None:
            now = state.global_step
            for state.global_step, logs in getattr(self, "unread", ()):
                super().on_log(args, state, control, logs=logs)
            state.global_step = now
            super().on_train_end(args, state, control, **kwargs)


@mutant("DEL-015")
class WaitsForTheService(Reference):
    class callback(ReferenceCallback):
        def on_log(self, args: Any, state: Any, control: Any, *more: Any, **kwargs: Any) -> None:
            super().on_log(args, state, control, **kwargs)
            if is_down(self) and state.global_step == 2:
                sleep(LONGEST_EVENT + 1.0)


@mutant("DEL-016")
class WaitsForTheServiceAtTheEnd(Reference):
    class callback(ReferenceCallback):
        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_train_end(*args, **kwargs)
            if is_down(self):
                sleep(LONGEST_EVENT + 1.0)


@mutant("DEL-017")
class SaysNothing(Reference):
    class callback(ReferenceCallback):
        loggers = logging.getLogger("callback_core.tracking")

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            if is_down(self):
                self.loggers.setLevel(logging.CRITICAL)
            super().on_train_begin(*args, **kwargs)

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_train_end(*args, **kwargs)
            self.loggers.setLevel(logging.NOTSET)


@mutant("DEL-018")
class SaysItAtEachLog(Reference):
    class callback(ReferenceCallback):
        def on_log(self, *args: Any, **kwargs: Any) -> None:
            super().on_log(*args, **kwargs)
            if is_down(self):
                logger.warning("The service is not there.")


@mutant("DEL-019")
class DeliversElsewhereLater(Reference):
    class tracker(FileTracker):
        def settings(self) -> dict[str, Any] | None:
            return {"store": f"{self.store}-of-later"}
