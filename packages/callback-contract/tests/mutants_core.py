"""Mutants of the rules about flow, patience, printing, bars and settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from configurations import Configured, Settled
from mutants import mutant
from test_core_callbacks import TestDefaultFlow as Flow
from test_core_callbacks import TestEarlyStopping as Stopping
from test_core_callbacks import TestPrinter as Printing
from test_core_callbacks import TestProgress as Bars

from callback_core import (
    DefaultFlowCallback,
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerControl,
)


class OfFlow(DefaultFlowCallback):
    """Sees other arguments than there are."""

    changes: ClassVar[dict[str, Any]] = {}

    def changed(self, args: Any) -> Any:
        return replace(args, **self.changes)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> TrainerControl:
        return super().on_step_end(self.changed(args), state, control, **kwargs)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> TrainerControl:
        return super().on_epoch_end(self.changed(args), state, control, **kwargs)


class FlowSuite(Flow):
    __test__ = False
    callback: ClassVar[type[DefaultFlowCallback]]

    def make(self, output_dir: Path) -> Any:
        return self.callback()


@mutant("FLW-001")
class LogsAStepLater(FlowSuite):
    class callback(DefaultFlowCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> TrainerControl:
            before = control.should_log
            super().on_step_end(args, state, control, **kw)
            if state.logging_steps == 2 and not before:
                control.should_log = state.global_step % 2 == 1
            return control


@mutant("FLW-002")
class DoesNotLogTheFirstStep(FlowSuite):
    class callback(OfFlow):
        changes: ClassVar[dict[str, Any]] = {"logging_first_step": False}


@mutant("FLW-003")
class DoesNotEvaluateTheLastStep(FlowSuite):
    class callback(DefaultFlowCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> TrainerControl:
            was = control.should_evaluate
            super().on_step_end(args, state, control, **kw)
            if args.eval_delay == 0 and state.global_step % (state.eval_steps or 1):
                control.should_evaluate = was
            return control


@mutant("FLW-004")
class DelaysByOneMore(FlowSuite):
    class callback(OfFlow):
        def changed(self, args: Any) -> Any:
            return replace(args, eval_delay=args.eval_delay + (args.eval_delay > 1))


@mutant("FLW-005")
class SavesNothingAtTheEnd(FlowSuite):
    class callback(DefaultFlowCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> TrainerControl:
            was = control.should_save
            super().on_step_end(args, state, control, **kw)
            if state.save_steps == 0:
                control.should_save = was
            return control


@mutant("FLW-006")
class NeverEnds(FlowSuite):
    class callback(DefaultFlowCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> TrainerControl:
            was = control.should_training_stop
            super().on_step_end(args, state, control, **kw)
            if not was:
                control.should_training_stop = False
            return control


@mutant("FLW-007")
class SavesNoEpochs(FlowSuite):
    class callback(OfFlow):
        def changed(self, args: Any) -> Any:
            return replace(args, save_strategy=args.save_strategy.replace("epoch", "no"))


@mutant("FLW-008")
class NeedsANumberOfTheEpoch(FlowSuite):
    class callback(DefaultFlowCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **kw: Any) -> TrainerControl:
            if state.epoch is not None or args.eval_delay:
                return super().on_epoch_end(args, state, control, **kw)
            return super().on_epoch_end(replace(args, eval_delay=1), state, control, **kw)


class StoppingSuite(Stopping):
    __test__ = False
    callback: ClassVar[type[EarlyStoppingCallback]]

    def make(self, output_dir: Path) -> Any:
        return self.callback(early_stopping_patience=2)

    def make_patient(self, output_dir: Path, patience: int, threshold: float) -> Any:
        return self.callback(patience, threshold)


@mutant("PAT-001")
class IsAlwaysPatient(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def check_metric_value(self, args: Any, state: Any, control: Any, value: Any) -> None:
            super().check_metric_value(args, state, control, value)
            if self.early_stopping_patience == 2 and value == 2.0:
                self.early_stopping_patience_counter = 0


@mutant("PAT-002")
class DoesNotBeginAnew(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def check_metric_value(self, args: Any, state: Any, control: Any, value: Any) -> None:
            before = self.early_stopping_patience_counter
            super().check_metric_value(args, state, control, value)
            self.early_stopping_patience_counter = max(before, self.early_stopping_patience_counter)


@mutant("PAT-003")
class IsContentWithTheThreshold(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def __init__(self, patience: int = 1, threshold: float | None = 0.0, **named: Any) -> None:
            super().__init__(named.get("early_stopping_patience", patience), threshold)
            if threshold == 0.25:
                self.early_stopping_threshold = 0.2


@mutant("PAT-004")
class LikesLess(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def check_metric_value(self, args: Any, state: Any, control: Any, value: Any) -> None:
            args = replace(args, greater_is_better=False)
            super().check_metric_value(args, state, control, value)


@mutant("PAT-005")
class LikesNaN(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def check_metric_value(self, args: Any, state: Any, control: Any, value: Any) -> None:
            nan = value != value and self.early_stopping_patience == 2
            super().check_metric_value(args, state, control, 0.0 if nan else value)


@mutant("PAT-006")
class TakesAnyPatience(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def __init__(self, patience: int = 1, threshold: float | None = 0.0, **named: Any) -> None:
            super().__init__(max(1, named.get("early_stopping_patience", patience)), threshold)


@mutant("PAT-007")
class NeedsNoEvaluations(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if args.eval_strategy != "no":
                super().on_train_begin(args, state, control, **kwargs)


@mutant("PAT-008")
class AlwaysWarns(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            args = replace(args, load_best_model_at_end=False)
            super().on_train_begin(args, state, control, **kwargs)


@mutant("PAT-009")
class DoesNotMissTheMetric(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def _refuse(self, key: str, reported: set[str]) -> Any:
            if "eval_two_loss" not in reported:
                super()._refuse(key, reported)


@mutant("PAT-010")
class JudgesAfterTheEnd(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if args.metric_for_best_model != "accuracy":
                super().on_train_end(args, state, control, **kwargs)


@mutant("PAT-011")
class BeginsAnewWhenResumed(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_train_begin(args, state, control, **kwargs)
            if state.best_metric is not None:
                self.early_stopping_patience_counter = 0


@mutant("PAT-012")
class GivesAReasonThatSaysNothing(StoppingSuite):
    class callback(EarlyStoppingCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, *more: Any, **kw: Any) -> None:
            asked = TrainerControl()
            super().on_evaluate(args, state, asked, *more, **kw)
            if asked.should_training_stop:
                control.request_stop("no better")


class PrintingSuite(Printing):
    __test__ = False
    callback: ClassVar[type[PrinterCallback]] = PrinterCallback
    patches: ClassVar[dict[str, Callable[[Any], Any]]] = {}

    def make(self, output_dir: Path) -> Any:
        return self.callback()


def prints(change: Callable[[str], str]) -> dict[str, Callable[[Any], Any]]:
    """Return what makes the printer write other lines."""
    return {"callback_core.printer:printable": lambda kept: lambda text: change(kept(text))}


@mutant("PRN-001")
class PrintsOnOneLine(PrintingSuite):
    patches = prints(lambda text: text.replace("'epoch'", "'ep'"))


@mutant("PRN-002")
class PrintsThreeDigits(PrintingSuite):
    patches = prints(lambda text: text.replace("12345.7", "12346.0"))


@mutant("PRN-003")
class PrintsAllArrays(PrintingSuite):
    patches = prints(lambda text: text.replace("(101,)", "101"))


@mutant("PRN-004")
class PrintsTheOperations(PrintingSuite):
    class callback(PrinterCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kw: Any) -> None:
            logs = {("total_flos_" if n == "total_flos" else n): v for n, v in logs.items()}
            super().on_log(args, state, control, logs, **kw)


@mutant("PRN-005")
class DoesNotSayOfHowMany(PrintingSuite):
    patches = prints(lambda text: text.replace(" of 4", ""))


@mutant("PRN-006")
class SaysItAtTheLastStepToo(PrintingSuite):
    class callback(PrinterCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if any(request.reason == "before" for request in control.requests):
                self._in_training = True
            super().on_train_end(args, state, control, **kwargs)


@mutant("PRN-007")
class PrintsControlCharacters(PrintingSuite):
    patches = prints(lambda text: text.replace("\\x1b", "\x1b"))


@mutant("PRN-008")
class PrintsToABuffer(PrintingSuite):
    class callback(PrinterCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kw: Any) -> None:
            if state.is_local_process_zero:
                printer: Any = import_module("callback_core.printer")
                print(printer.printable(str(printer.readable_logs(logs))))


class BarsSuite(Bars):
    __test__ = False
    callback: ClassVar[type[ProgressCallback]] = ProgressCallback
    patches: ClassVar[dict[str, Callable[[Any], Any]]] = {}

    def make(self, output_dir: Path) -> Any:
        return self.callback()


def bars(changed: Callable[..., dict[str, Any]]) -> dict[str, Callable[[Any], Any]]:
    """Return what makes bars with other arguments."""

    def made(kept: Any) -> Any:
        def bar(total: Any, initial: int = 0, below: Any = None) -> Any:
            asked: dict[str, Any] = {"total": total, "initial": initial, "below": below}
            return kept(**{**asked, **changed(**asked)})

        return bar

    return {"callback_core.progress:_bar": made}


@mutant("BAR-001")
class CountsEventsAndNotSteps(BarsSuite):
    class callback(ProgressCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.current_step = max(self.current_step, state.global_step - 1)
            super().on_step_end(args, state, control, **kwargs)


@mutant("BAR-002")
class BeginsAtNothing(BarsSuite):
    patches = bars(lambda total, initial, below: {"initial": initial if initial < 50 else 0})


@mutant("BAR-003")
class HasAnEndWithoutOne(BarsSuite):
    class callback(ProgressCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_train_begin(args, state, control, **kwargs)
            if self.training_bar is not None and self.training_bar.total is None:
                self.training_bar.total = 100


@mutant("BAR-004")
class GoesOnWithTheBarBefore(BarsSuite):
    patches = bars(lambda total, initial, below: {"initial": initial + (total == 30 and not below)})


@mutant("BAR-005")
class DoesNotSeeThatOneFailed(BarsSuite):
    patches = bars(lambda total, initial, below: {"initial": initial + (total == 20)})


@mutant("BAR-006")
class NeedsALength(BarsSuite):
    patches: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "callback_core.progress:_length": lambda kept: lambda loader: kept(loader) or 100
    }


@mutant("BAR-007")
class DrawsInEachProcess(BarsSuite):
    class callback(ProgressCallback):
        def on_prediction_step(self, args: Any, state: Any, *more: Any, **kwargs: Any) -> None:
            if not state.is_world_process_zero:
                print("evaluates", end="", file=sys.stderr)
            super().on_prediction_step(args, state, *more, **kwargs)


@mutant("BAR-008")
class IsNotSwitchedOff(BarsSuite):
    class callback(ProgressCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            disabled = os.environ.pop("TQDM_DISABLE", None)
            super().on_train_begin(args, state, control, **kwargs)
            if disabled is not None:
                os.environ["TQDM_DISABLE"] = disabled


@mutant("BAR-009")
class LeavesTheBarOfAnEvaluation(BarsSuite):
    class callback(ProgressCallback):
        def on_prediction_step(self, args: Any, state: Any, *more: Any, **kwargs: Any) -> None:
            super().on_prediction_step(args, state, *more, **kwargs)
            bar = self.prediction_bar
            if bar is not None and bar.n == bar.total:
                bar.leave = True


@mutant("BAR-010")
class WritesLongStringsOut(BarsSuite):
    def make(self, output_dir: Path) -> Any:
        return ProgressCallback(max_str_len=200)


@mutant("BAR-011")
class DrawsTwoBarsInANotebook(BarsSuite):
    patches: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "callback_core.progress:_in_notebook": lambda kept: lambda: False
    }


class Settles(Configured):
    callback: ClassVar[type[Settled]] = Settled

    def make_with(self, output_dir: Path, **arguments: Any) -> Any:
        return self.callback(**arguments)


@mutant("CFG-001")
class HasADefaultOfItsOwn(Settles):
    class callback(Settled):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.mode = self.mode or "off"


@mutant("CFG-002")
class KnowsNoYes(Settles):
    class callback(Settled):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            if os.environ.get("CONTRACT_ASKED", "").strip() == "yes":
                self.asked = None


@mutant("CFG-003")
class DoesNotNameTheVariable(Settles):
    class callback(Settled):
        def __init__(self, **given: Any) -> None:
            try:
                super().__init__(**given)
            except ValueError as error:
                raise ValueError(str(error).replace("CONTRACT_MODE", "the mode")) from error


@mutant("CFG-004")
class TakesAnyFlag(Settles):
    class callback(Settled):
        def __init__(self, **given: Any) -> None:
            asked = given.get("asked")
            super().__init__(**{**given, "asked": bool(asked) if asked is not None else None})
