"""Mutants of the rules about what trackers are told, the journal, replay and other processes.

Each is wrong in what one of these rules looks at. Where the callback could be wrong in ways that
several rules see, it is so only in the circumstances of one.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from time import sleep
from typing import Any, ClassVar

from mutants import mutant
from reference_tracker import ReferenceCallback, Whole

from callback_contract._heard import HANGS, Heard
from callback_core import NotConfigured

PID = os.getpid()
Patches = dict[str, Callable[[Any], Any]]


class Rewording:
    """Makes warnings say `new` in place of `old`."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def __call__(self, kept: Any) -> Any:
        """Return what `Logger.warning` becomes."""

        def warning(logger: Any, message: str, *args: Any, **kwargs: Any) -> None:
            text = (message % args if args else message).replace(self.old, self.new)
            kept(logger, text.replace("%", "%%") % (), **kwargs)

        return warning


def logs(old: str, new: str) -> Patches:
    """Return what makes warnings say `new` in place of `old`."""
    return {"logging:Logger.warning": Rewording(old, new)}


def says(old: str, new: str) -> Patches:
    """Return what makes the command say `new` in place of `old`."""

    def made(kept: Any) -> Any:
        def main(arguments: list[str] | None = None) -> int:
            with contextlib.redirect_stdout(io.StringIO()) as output:
                code: int = kept(arguments)
            print(output.getvalue().replace(old, new), end="")
            return code

        return main

    return {"callback_core.tracking.replay:main": made}


class Wrong(Whole):
    __test__ = False
    patches: ClassVar[Patches] = {}


class Meddling(ReferenceCallback):
    """Does something else where its tracker is one of a rule, and one that `meets` its case."""

    def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
        raise NotImplementedError

    def meddle(self, heard: Heard) -> None:
        """Do it."""

    @property
    def met(self) -> bool:
        heard: Any = self.tracker
        return isinstance(heard, Heard) and self.meets(heard, heard._settings)

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        if self.met:
            self.meddle(self.tracker)  # type: ignore[arg-type]
        super().on_train_begin(*args, **kwargs)


def fails(how: dict[str, Any], **expected: Any) -> bool:
    """Return whether a rule's tracker is to fail just so."""
    return bool(how["fails"] == expected)


def hangs(how: dict[str, Any], call: str) -> bool:
    """Return whether a rule's tracker is to hang in this call alone, until it lets it come back."""
    found = how["fails"] or {}
    return [*found] == [call] and {*found[call]} == {"seconds", "until"}


@mutant("TRK-001")
class OpensAtTheFirstLog(Wrong):
    patience = 10.0

    class callback(ReferenceCallback):
        def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
            """Do nothing."""


@mutant("TRK-002")
class DeliversItself(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return (
                hangs(how, "log_metrics") and how["named"] == "heard" and self.delivery == "thread"
            )

        def meddle(self, heard: Heard) -> None:
            self.delivery = "inline"


@mutant("TRK-003")
class DoesNotDeliverItself(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return fails(how, log_metrics={"error": "ConnectionError", "times": 1})

        def meddle(self, heard: Heard) -> None:
            self.delivery = "thread"


@mutant("TRK-004")
class SendsMoreThanIsTaken(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return heard.limits.batch_size == 4

        def meddle(self, heard: Heard) -> None:
            heard.limits = replace(heard.limits, batch_size=5)


@mutant("TRK-005")
class CutsNamesShorter(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return heard.limits.key_length == 12

        def meddle(self, heard: Heard) -> None:
            heard.limits = replace(heard.limits, key_length=11)


@mutant("TRK-006")
class CutsParametersShorter(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return heard.limits.parameter_length == 10

        def meddle(self, heard: Heard) -> None:
            heard.limits = replace(heard.limits, parameter_length=9)


@mutant("TRK-007")
class ForgetsTheEpoch(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.batches:Point": lambda kept: (
            lambda name, value, step, time, epoch: kept(name, value, step, time)
        )
    }


@mutant("TRK-008")
class ForgetsTheTrial(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.consumer:Opening": lambda kept: (
            lambda **how: kept(**{**how, "trial_name": None})
        )
    }


@mutant("TRK-009")
class DropsWhatFailsOnce(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return "close" in (how["fails"] or {}) and "log_text" in how["fails"]

        def meddle(self, heard: Heard) -> None:
            heard.limits = replace(heard.limits, text=False)


@mutant("TRK-010")
class DoesNotSayThatItWasRejected(Wrong):
    patches = logs("train/b: rejected: ", "train/b: ")


@mutant("TRK-011")
class DoesNotNameWhatFails(Wrong):
    patches = logs("train/b: failed", "a point failed")


@mutant("TRK-012")
class BlamesThePoints(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            of_metrics = (how["fails"] or {}).get("log_metrics", {})
            return {*of_metrics} == {"error", "until"} and self.delivery == "inline"

        def meddle(self, heard: Heard) -> None:
            heard._settings["fails"]["log_metrics"]["error"] = "Rejected"


@mutant("TRK-013")
class DoesNotNameTheParameters(Wrong):
    patches = logs("parameters: failed", "some failed")


@mutant("TRK-014")
class DoesNotSayWhatHangs(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            of_metrics = (how["fails"] or {}).get("log_metrics", {})
            return {*of_metrics} == {"seconds", "until", "point"}

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            if self.met:
                self.flush_limit = 4 * HANGS
            super().on_train_end(*args, **kwargs)


@mutant("TRK-015")
class DoesNotSayThatItDoesNotOpen(Wrong):
    patches = logs("has not opened its run in", "is slow:")


@mutant("TRK-016")
class OpensARunOfItsOwn(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return how["adopts"] == "the user's" and self.delivery != "process"

        def meddle(self, heard: Heard) -> None:
            heard.adopt = lambda: None  # type: ignore[method-assign]


@mutant("TRK-017")
class WritesThoughItIsOff(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return heard.disabled

        def meddle(self, heard: Heard) -> None:
            (Path(heard.path).parent / "output/tracking").mkdir()


@mutant("TRK-018")
class DoesNotSayThatItIsText(Wrong):
    patches = logs("it is text", "it is not taken")


@mutant("TRK-019")
class TheSecondOfANameIsDeaf(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return heard.name != how["named"]

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            if not self.met:
                super().on_train_begin(*args, **kwargs)

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            if not self.met:
                super().on_log(*args, **kwargs)


@mutant("TRK-020")
class WaitsForEachTracker(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return how["named"] == "number 2"

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            if self.met:
                sleep(6.0)
            super().on_train_end(*args, **kwargs)


@mutant("TRK-021")
class FinishesByAnEvaluation(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return self._recording is not None and self._recording.ended == "failed"

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            if self.met and self._recording is not None:
                self._recording.ended = "finished"
            super().on_log(*args, **kwargs)


@mutant("TRK-022")
class UploadsFromWhereItWas(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return bool(how["checkpoints"]) and hangs(how, "open") and how["named"] == "again"

        def on_save(self, *args: Any, **kwargs: Any) -> None:
            if not self.met:
                super().on_save(*args, **kwargs)


@mutant("TRK-023")
class TakesAnyDelivery(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.callback:DELIVERY_KINDS": lambda kept: (*kept, "post")
    }


@mutant("TRK-024")
class RedactsOnlyWhatItKnows(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.redaction:Redaction.extend": lambda kept: lambda self, names: None
    }


@mutant("TRK-025")
class DoesNotSayWhereItFailed(Wrong):
    patches = logs("failed in on_log", "failed")


@mutant("TRK-026")
class DoesNotWaitForOneThatIsSlow(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return fails(how, log_metrics={"seconds": 0.1}, close={"seconds": 0.1})

        def meddle(self, heard: Heard) -> None:
            self.flush_limit = 0.05


@mutant("TRK-027")
class DoesNotNameWhatIsMute(Wrong):
    patches = logs("_Mute", "something")


@mutant("TRK-028")
class RedactsWithTheQuotes(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.redaction:_without_value": lambda kept: (
            lambda found: kept(found).replace("'[redacted]'", "[redacted]")
        )
    }


@mutant("TRK-035")
class WaitsForOneThatIsNotConfigured(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return fails(how, open={"error": "NotConfigured"})

        def meddle(self, heard: Heard) -> None:
            def wait(*_: Any) -> str:
                sleep(HANGS)
                raise NotConfigured("open is to fail")

            heard.open = wait  # type: ignore[method-assign]


@mutant("TRK-030")
class StaysInThisProcess(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            plain = how["fails"] is None and how["adopts"] is None
            return plain and self.delivery == "process" and os.getpid() == PID

        def meddle(self, heard: Heard) -> None:
            self.delivery = "thread"


@mutant("TRK-031")
class WaitsForOneThatHangs(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return self.delivery == "process" and hangs(how, "log_metrics")

        def meddle(self, heard: Heard) -> None:
            self.open_limit = 40 * HANGS


@mutant("TRK-032")
class DiesWithTheTraining(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            killed = how["named"] in ("heard", "away")
            return killed and self.delivery == "process" and os.getpid() != PID

        def meddle(self, heard: Heard) -> None:
            self.delivery = "thread"


@mutant("TRK-033")
class DoesNotSayThatItsProcessWasEnded(Wrong):
    patches = logs("its process did not come to an end", "it was ended")


@mutant("TRK-034")
class DoesNotSayThatAThreadDelivers(Wrong):
    patches = logs("by a thread", "otherwise")


@mutant("JRN-001")
class DoesNotNoteCheckpoints(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.recording:Recording.saved": lambda kept: (
            lambda self, member, step: (
                kept(self, member, step) if member.tracker.takes_checkpoints else None
            )
        )
    }


@mutant("JRN-002")
class WritesBehindHalfARecord(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.journal:whole_size": lambda kept: lambda path: path.stat().st_size
    }


@mutant("JRN-003")
class DoesNotNameWhatIsDamaged(Wrong):
    patches = says("a damaged line", "left out")


@mutant("JRN-004")
class SendsAgainWhatIsTheSame(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.past:Past.news": lambda kept: (
            lambda self, name, value, step, time: (
                kept(self, name, value, step, time) or ((value, time) if value != value else None)
            )
        )
    }


@mutant("JRN-005")
class SendsNoCheckpointOfAKilledRun(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.consumer:Consumer._upload": lambda kept: (
            lambda self, record: (
                None
                if "left" in self.folder.path.parts and self.name == "heard"
                else kept(self, record)
            )
        )
    }


def rewinds_otherwise(step: int, to: Callable[[int], int | None]) -> Patches:
    """Return what has a rule's tracker told of another step where it goes on at `step`."""

    def made(kept: Any) -> Any:
        @wraps(kept)  # its name is what is said of it where it does not come back
        def opening(self: Any, told: Any) -> str:
            if told.rewind_to is not None and told.step == step:
                told = replace(told, rewind_to=to(told.rewind_to))
            opened: str = kept(self, told)
            return opened

        return opening

    return {"callback_contract._heard:Heard.open": made}


@mutant("JRN-006")
class RewindsTooLittle(Wrong):
    patches = rewinds_otherwise(2, lambda to: to + 1)


@mutant("JRN-007")
class DoesNotRewindWhatIsDoubtful(Wrong):
    patches = rewinds_otherwise(3, lambda to: None)


@mutant("JRN-022")
class RewindsToTheFirstStepAtMost(Wrong):
    patches = rewinds_otherwise(4, lambda to: max(1, to))


def takes_what_is_held(kept: Any) -> Any:
    def lock(self: Any, path: Path) -> None:
        try:
            kept(self, path)
        except BlockingIOError:
            if not path.with_suffix(".log").exists():  # as where a process delivers
                raise
            self._path, self._file = path, None

    return lock


@mutant("JRN-023")
class SendsWhatAnotherDoes(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.lock:FileLock.__init__": takes_what_is_held
    }


@mutant("JRN-008")
class FindsNoRunWithoutAState(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.recording:folder_of_run": lambda kept: (
            lambda output_dir, run, resumed: kept(output_dir, run, resumed and run is not None)
        )
    }


@mutant("JRN-009")
class DoesNotSayThatThereIsAnother(Wrong):
    patches = logs("Another training writes", "Something is written")


@mutant("JRN-010")
class DoesNotSayThatARunIsPending(Wrong):
    patches = logs("earlier runs", "ones")


@mutant("JRN-011")
class DoesNotSayWhereItIsKept(Wrong):
    patches = logs("It is kept in", "See")


@mutant("JRN-012")
class KeepsNothingInMemory(Wrong):
    patches: ClassVar[Patches] = {
        "callback_contract.rules.journal:_FULL": lambda kept: kept.replace(
            "import logging\n",
            "import logging, callback_core.tracking.journal as j; j.MOST_WAITING = 1\n",
        )
    }


@mutant("JRN-013")
class LeavesRunsOpenAtTheEnd(Wrong):
    patches: ClassVar[Patches] = {
        "callback_contract.rules.journal:_UNENDED": lambda kept: (
            "import atexit, callback_core.tracking.recording as r\n"
            "atexit.unregister(r._end_what_goes_on)\n" + kept
        )
    }


@mutant("JRN-014")
class ClosesInEachProcess(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return os.getpid() != PID and self.delivery == "thread"

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            if self.met:
                self.tracker.close("failed")
            super().on_train_end(*args, **kwargs)


@mutant("RPL-001")
class DoesNotSayThatAllIsThere(Wrong):
    patches = says("has everything already", "is done")


@mutant("RPL-002")
class DoesNotSayThatItFailed(Wrong):
    patches = says("closed as failed", "closed")


@mutant("RPL-003")
class DoesNotSayHowMuchFailed(Wrong):
    patches = says("6 points failed", "some points failed")


@mutant("RPL-004")
class ReturnsNothingForNoRun(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.replay:main": lambda kept: (
            lambda arguments: 0 if (code := kept(arguments)) == 2 else code
        )
    }


@mutant("RPL-005")
class DeliversAllRuns(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.replay:main": lambda kept: (
            lambda arguments: (
                kept(
                    arguments
                    if "other" in arguments
                    else [a for a in arguments if not a.startswith("2")][:1]
                )
                if "--run" in arguments
                else kept(arguments)
            )
        )
    }


@mutant("RPL-006")
class DoesNotSayThatItCannotBeMade(Wrong):
    patches = says("cannot be delivered", "is skipped")


@mutant("RPL-007")
class DoesNotSayThatItsTrainingRuns(Wrong):
    patches = says("still running", "there")


@mutant("RPL-008")
class DoesNotSayWhatWasCut(Wrong):
    patches = says("  run_name: ", "  ")


def forgetful(kept: Any) -> Any:
    """Return a command that forgets which run it has begun to deliver."""

    def main(arguments: list[str]) -> int:
        for file in Path(arguments[0]).glob("tracking/*/heard.progress.json"):
            progress = json.loads(file.read_text())
            if progress["run_id"] is not None and progress["status"] is None:
                file.write_text(json.dumps({**progress, "run_id": None}))
        code: int = kept(arguments)
        return code

    return main


@mutant("RPL-009")
class OpensAnotherRunEachTime(Wrong):
    patches: ClassVar[Patches] = {"callback_core.tracking.replay:main": forgetful}


@mutant("RPL-010")
class DoesNotSayWhichCallHangs(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.replay:_deliver": lambda kept: (
            lambda *args: (
                failure.replace("has not come back", "is slow")
                if (failure := kept(*args))
                else None
            )
        )
    }


@mutant("JRN-015")
class GoesOnInTheNewestRun(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.recording:folder_of_run": lambda kept: (
            lambda output_dir, run, resumed: kept(
                output_dir, None if len([*output_dir.glob("tracking/*")]) > 1 else run, resumed
            )
        )
    }


@mutant("TRK-036")
class TriesWithoutAPause(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return heard.name == "inline"

        def meddle(self, heard: Heard) -> None:
            opened = heard.open

            def again(opening: Any) -> str:
                for _ in range(10):
                    with contextlib.suppress(ConnectionError):
                        return opened(opening)
                return opened(opening)

            heard.open = again  # type: ignore[method-assign]


@mutant("TRK-037")
class SleepsThroughTheEnd(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return heard.limits.retry_after == 8 * HANGS and how["named"] == "heard"

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            if self.met:
                sleep(HANGS)
            super().on_train_end(*args, **kwargs)


@mutant("TRK-038")
class SaysNothingOfWhatIsGone(Wrong):
    patches = logs("its files are gone", "left out")


@mutant("TRK-039")
class LetsItsProcessDoze(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return self.delivery == "process" and bool(how["checkpoints"])

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            heard: Any = self.tracker
            if not self.met or not Path(heard.path).exists():
                super().on_log(*args, **kwargs)


@mutant("TRK-040")
class WarnsInEveryProcess(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.met and not state.is_world_process_zero:
                logging.getLogger("callback_core.tracking").warning("not the main process")
            super().on_save(args, state, control, **kwargs)


@mutant("JRN-016")
class OpensAFileEachTime(Wrong):
    left: ClassVar[list[Any]] = []
    patches: ClassVar[Patches] = {
        "callback_core.tracking.lock:FileLock.__init__": lambda kept: (
            lambda self, path: (
                OpensAFileEachTime.left.append(path.open("a"))
                if path.name == "heard.lock" and "left" in path.parts
                else None,
                kept(self, path),
            )[1]
        )
    }


@mutant("JRN-017")
class SaysThatEachTime(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return True

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            super().on_log(*args, **kwargs)
            if self.met and self._delivery is not None:
                self._delivery.consumer._said_unsaved = False


@mutant("JRN-018")
class TakesAllForSent(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.consumer:Consumer._pass_over": lambda kept: (
            lambda self, record: self._remove(record) if record.kind == "upload" else None
        )
    }


def is_sent(folder: Any) -> bool:
    size = folder.journal.stat().st_size
    return all(folder.read_progress(name).get("offset") == size for name in folder.trackers())


@mutant("JRN-019")
class NamesOnlyWhatIsNotSent(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.folder:RunFolder.is_pending": lambda kept: (
            lambda self: kept(self) and not ("left" in self.path.parts and is_sent(self))
        )
    }


@mutant("TRK-041")
class BeginsWithTheFirstEpoch(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return self._delivery is not None and not self._delivery.started

        def end(self, status: Any) -> None:
            if not self.met:
                super().end(status)


@mutant("JRN-020")
class SendsEachTime(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.past:is_measured": lambda kept: lambda name: False
    }


@mutant("TRK-042")
class WaitsForOneAfterAnother(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.callback:TrackerCallback.hurry": lambda kept: (
            lambda self, recording: None if len(recording.members) > 1 else kept(self, recording)
        )
    }


@mutant("TRK-043")
class NamesNothingOfAProcess(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return self.delivery == "process" and "Rejected" in str(how["fails"])

        def end(self, status: Any) -> None:
            if self.met and self._delivery is not None:
                self._delivery.trouble = lambda: None  # type: ignore[method-assign]
            super().end(status)


@mutant("JRN-021")
class ForgetsTheRunInTheTracker(Wrong):
    class callback(Meddling):
        def meets(self, heard: Heard, how: dict[str, Any]) -> bool:
            return True

        def on_train_begin(self, args: Any, *rest: Any, **kwargs: Any) -> None:
            if self.met and args.output_dir.endswith("elsewhere"):
                self._resumed.pop("run_id", None)
            super().on_train_begin(args, *rest, **kwargs)


def without_what_is_beside(start: Any) -> Any:
    def started(self: Any) -> None:
        whole = sys.path[:]
        sys.path[:] = [path for path in whole if not path.endswith("beside")]
        try:
            start(self)
        finally:
            sys.path[:] = whole

    return started


@mutant("TRK-044")
class TellsTheProcessNothing(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.delivery:Delivery.start": without_what_is_beside
    }


@mutant("TRK-045")
class LeavesOpenWhatIsGone(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.recording:Recording.is_replaced_in": lambda kept: lambda *_: False
    }


@mutant("TRK-046")
class KnowsNotHowItEnds(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.recording:Recording.before_end": lambda kept: (
            lambda self, call: kept(self, lambda: (setattr(self, "ending", None), call())[1])
        )
    }


@mutant("TRK-047")
class KeepsCheckpointsForNobody(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.tracker:Tracker.takes_checkpoints": lambda kept: True
    }


@mutant("RPL-011")
class ForgetsEachTime(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.consumer:Consumer._close": lambda kept: (
            lambda self, status: (kept(self, status), setattr(self, "_rewound", False))[0]
        )
    }


@mutant("RPL-012")
class ShowsNoBar(Wrong):
    patches: ClassVar[Patches] = {"tqdm:tqdm.update": lambda kept: lambda *_: None}


@mutant("TRK-048")
class TakesTheMiddleForAFailure(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.recording:Recording.how_it_ended": lambda kept: (
            lambda self: kept(self) if self._begins else "failed"
        )
    }


def only_what_goes_on(kept: Any) -> Any:
    def of(cls: Any, state: Any) -> Any:
        found = kept.__func__(cls, state)
        return found if found and not found.ended else None

    return classmethod(of)


@mutant("TRK-049")
class DoesNotFindWhatHasEnded(Wrong):
    patches: ClassVar[Patches] = {
        "callback_core.tracking.recording:Recording.of": only_what_goes_on
    }


@mutant("TRK-050")
class KeepsWhatIsOver(Wrong):
    kept: ClassVar[list[Any]] = []
    patches: ClassVar[Patches] = {
        "callback_core.tracking.recording:Recording.begin": lambda kept: (
            lambda self: (KeepsWhatIsOver.kept.append(self), kept(self))[1]
        )
    }
