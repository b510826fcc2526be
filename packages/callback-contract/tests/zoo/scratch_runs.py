"""Trackers without `callback_core.tracking` that are wrong about runs and how they live."""

import json
import resource
import shutil
import sys
import threading
import time
import uuid
from pathlib import Path

from callback_core import TrainerCallback
from zoo.runlogs import (
    AdoptingLog,
    AdoptingLogSuite,
    DatabaseLog,
    DatabaseLogSuite,
    FilesLog,
    FilesLogSuite,
    JournalLog,
    JournalSuite,
    plain,
    redacted,
    tracked,
)
from zoo.specimens import faulty


class RewritingLog(JournalLog):
    def go_on(self, run, size):
        self.run = run
        self.path(run).unlink(missing_ok=True)
        self.reopen()
        self.write(began=time.time())


@faulty(
    "The file of a run that goes on is begun anew, without what was there.",
    source="roboflow/rf-detr#1325",
)
class OverwrittenOnResume(JournalSuite):
    __test__ = False
    log = RewritingLog


class HomeboundLog(JournalLog):
    """Knows from a checkpoint where its training was."""

    home = None
    is_away = False

    def state_dict(self):
        return {**super().state_dict(), "home": self.home}

    def on_train_begin(self, args, state, control, **kwargs):
        home, self.home = (self.resumed or {}).get("home"), str(args.output_dir)
        self.is_away = home not in (None, self.home)
        if not self.is_away:
            super().on_train_begin(args, state, control, **kwargs)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not self.is_away:
            super().on_log(args, state, control, logs=logs, **kwargs)


@faulty("A training that resumes in another directory is stored nowhere.")
class OnlyWhereItWas(JournalSuite):
    __test__ = False
    log = HomeboundLog


class AppendingLog(JournalLog):
    def go_on(self, run, size):
        self.run = run
        self.reopen()


@faulty("What the killed training had logged behind the checkpoint stays, beside what replaces it.")
class KeepsWhatWasReplaced(JournalSuite):
    __test__ = False
    log = AppendingLog


class StepwiseLog(DatabaseLog):
    def forget(self, rows, step):
        with self.database:
            self.database.execute(
                "DELETE FROM points WHERE run = ? AND step >= ?", (self.run, step)
            )
        self.rows = rows


@faulty("Resuming from step s also deletes what was logged at s, which does not come again.")
class ForgetsTheCheckpointsStep(DatabaseLogSuite):
    __test__ = False
    log = StepwiseLog


class BufferedLog(JournalLog):
    """Writes large pieces: a file system over the network is slow."""

    def reopen(self):
        path = self.path(self.run)
        self.file = path.open("a", buffering=1 << 20)
        self.size = path.stat().st_size

    def write(self, **event):
        line = json.dumps({"run": self.run, **event}, default=str) + "\n"
        self.file.write(line)
        self.size += len(line.encode())

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if self.file is not None:
            self.file.flush()

    def state_dict(self):
        if self.file is not None:
            self.file.flush()
        return super().state_dict()


@faulty("Logs are in a buffer until a checkpoint is saved, and gone where training is killed.")
class BufferOfAMegabyte(JournalSuite):
    __test__ = False
    log = BufferedLog


class LocalJournalLog(JournalLog):
    """Writes by the main process."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.resumed, resumed = None, self.resumed
        if not state.is_local_process_zero:
            return
        if self.file is not None:
            self.end("failed")
        self.status = "finished"
        if state.global_step > 0 and resumed is not None and resumed["run"] is not None:
            self.go_on(resumed["run"], resumed["size"])
        else:
            self.begin()
        self.write(status="running", parameters=self.parameters(args))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_local_process_zero or not logs:
            return
        outside = self.file is None
        if outside:
            self.reopen() if self.run is not None else self.begin()
        self.log(logs, state.global_step)
        if outside:
            self.end(self.status)


@faulty(
    "The main process of each machine logs a run, not only the main one of all.",
    source="Lightning-AI/pytorch-lightning#13639",
)
class RunOfEachMachine(JournalSuite):
    __test__ = False
    log = LocalJournalLog


class MemoryLog(JournalLog):
    """Logs how much memory the process has used; a thread looks every now and then."""

    watcher = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.stop()  # of a training that died without a word
        super().on_train_begin(args, state, control, **kwargs)
        self.most, self.over = 0, threading.Event()
        self.watcher = threading.Thread(target=self.watch, args=(self.over,), daemon=True)
        self.watcher.start()

    def watch(self, over):
        while not over.wait(0.02):
            self.most = max(self.most, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    def log(self, logs, step):
        super().log(logs if self.watcher is None else {**logs, "memory": self.most}, step)

    def on_train_end(self, args, state, control, **kwargs):
        self.stop()
        super().on_train_end(args, state, control, **kwargs)

    def stop(self):
        if self.watcher is not None:
            self.over.set()
            self.watcher.join()
            self.watcher = None


@faulty("Every process has the thread that watches, though only the main one logs what it sees.")
class EachProcessWatches(JournalSuite):
    __test__ = False
    log = MemoryLog


class NoExceptionLog(DatabaseLog):
    def on_exception(self, args, state, control, exception=None, **kwargs):
        """Leave it to `on_train_end`, which comes in any case."""


@faulty(
    "A training that fails is closed as finished.",
    source="huggingface/transformers#30333",
)
class FailedIsFinished(DatabaseLogSuite):
    __test__ = False
    log = NoExceptionLog


class AnyErrorLog(JournalLog):
    def on_exception(self, args, state, control, exception=None, **kwargs):
        self.status = "failed"


@faulty("Ctrl-C counts as a failure.", source="mlflow/mlflow#1832")
class CtrlCIsFailure(JournalSuite):
    __test__ = False
    log = AnyErrorLog


class OneRunLog(JournalLog):
    def begin(self):
        if self.run is None:
            super().begin()
        else:
            self.reopen()


@faulty(
    "An object has one run, so that its second training is added to the first.",
    source="Project-MONAI/MONAI#5649",
)
class SecondTrainingInTheFirst(JournalSuite):
    __test__ = False
    log = OneRunLog


class LooseEndLog(JournalLog):
    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        if self.file is None:
            self.begin()
            self.log(logs, state.global_step)
            self.end("finished")
        else:
            self.log(logs, state.global_step)


@faulty(
    "An evaluation after training goes to a run of its own, away from its training.",
    source="huggingface/transformers#35074",
)
class EvaluationInARunOfItsOwn(JournalSuite):
    __test__ = False
    log = LooseEndLog


class TrainingOnlyLog(DatabaseLog):
    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.database is not None:
            super().on_log(args, state, control, logs=logs, **kwargs)


@faulty("What is evaluated before and after training is not logged.")
class OnlyWhileTraining(DatabaseLogSuite):
    __test__ = False
    log = TrainingOnlyLog


class PossessiveLog(AdoptingLog):
    def end(self, status):
        JournalLog.end(self, status)


@faulty(
    "The run that the user has open is closed with the training.",
    source="ludwig-ai/ludwig#2201",
)
class ClosesWhatItAdopts(AdoptingLogSuite):
    __test__ = False
    log = PossessiveLog


class SecondLog(DatabaseLog):
    def new_id(self, args):
        super().new_id(args)
        return time.strftime(f"{args.run_name}-%Y%m%d-%H%M%S")


@faulty("Two trainings that begin within a second share a run.")
class OneRunASecond(DatabaseLogSuite):
    __test__ = False
    log = SecondLog


class EarlyEndLog(JournalLog):
    def on_train_end(self, args, state, control, **kwargs):
        if self.file is None:
            return
        if self.status == "finished" and state.global_step < state.max_steps:
            self.status = "interrupted"  # it was not to end here
        self.end(self.status)


@faulty("A training that a callback has stopped early counts as interrupted.")
class EarlyStopIsInterruption(JournalSuite):
    __test__ = False
    log = EarlyEndLog


class HookLog(JournalLog):
    """Takes from the interpreter how a training ended: some loops do not say it."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if self.file is not None:
            self.hook = sys.excepthook
            sys.excepthook = self.fail

    def fail(self, kind, error, traceback):
        if self.file is not None:
            self.end("failed")
        self.hook(kind, error, traceback)


@faulty("`sys.excepthook` is replaced when training begins and never put back.")
class ExceptHookStays(JournalSuite):
    __test__ = False
    log = HookLog


class OneModelLog(FilesLog):
    def keep(self, directory):
        target = self.directory / "files" / self.run / "model"
        shutil.copytree(directory, target, dirs_exist_ok=True)


@faulty("Each checkpoint is copied over the one before, under one name.")
class FilesUnderOneName(FilesLogSuite):
    __test__ = False
    log = OneModelLog


class EachProcessLog(TrainerCallback):
    """Rewrites a file with all that was logged in a training, which then is whole at any time."""

    on_error = "isolate"

    def __init__(self, directory):
        self.directory = Path(directory)
        self.kept = None
        self.status = "finished"

    def on_train_begin(self, args, state, control, **kwargs):
        self.begin(args)
        self.status = "finished"
        self.write("running")

    def begin(self, args):
        parameters = redacted(args.to_dict())
        self.kept = {"run": uuid.uuid4().hex, "began": time.time(), "parameters": parameters}
        self.kept["points"] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.kept is None:
            self.begin(args)
        for name, value in (logs or {}).items():
            value = plain(value)
            if value is not None and not isinstance(value, str):
                self.kept["points"].append((tracked(name), value, state.global_step))
        self.write(self.kept.get("status", "finished"))

    def on_exception(self, args, state, control, exception=None, **kwargs):
        self.status = "failed" if isinstance(exception, Exception) else "interrupted"

    def on_train_end(self, args, state, control, **kwargs):
        if self.kept is not None:
            self.write(self.status)

    def write(self, status):
        self.kept["status"] = status
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{self.kept['run']}.jsonl"
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(self.kept, default=str) + "\n")
        beside.replace(path)


@faulty("Every process writes a run, since none asks which one it is.")
class RunOfEachProcess(JournalSuite):
    __test__ = False
    capabilities = {"status", "parameters", "redacts", "non_finite"}
    log = EachProcessLog


class OpenedRunLog(JournalLog):
    """Knows which run it has opened."""

    opened = None

    def begin(self):
        super().begin()
        self.opened = self.run

    def state_dict(self):
        return {**super().state_dict(), "run": self.opened}


@faulty("A resumed training saves no run, so that the next one that resumes opens another.")
class ResumesOnlyOnce(JournalSuite):
    __test__ = False
    log = OpenedRunLog


class LastStepLog(JournalLog):
    """Draws a log that has no step where the training was last."""

    last = 0

    def log(self, logs, step):
        self.last = step or self.last
        super().log(logs, self.last)


@faulty("A log before the first step of a second training is drawn at the end of the first.")
class StepZeroIsNone(JournalSuite):
    __test__ = False
    log = LastStepLog
