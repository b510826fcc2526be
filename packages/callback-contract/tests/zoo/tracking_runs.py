"""Trackers on `callback_core.tracking` that are wrong about runs: which, whose, how they end."""

import time
import uuid
from dataclasses import replace
from pathlib import Path

from callback_core.tracking import TrackerCallback
from zoo.specimens import faulty
from zoo.stores import (
    AdoptingSuite,
    AdoptingTracker,
    DatabaseSuite,
    DatabaseTracker,
    LinesSuite,
    LinesTracker,
    PostSuite,
    TablesSuite,
    TablesTracker,
)


class AlwaysNewTracker(LinesTracker):
    def open(self, opening):
        self.run = uuid.uuid4().hex
        self.file = open(self.path, "a")
        self.file.write("\n")
        self.write(name=opening.name, status="running")
        return self.run


@faulty("`open` begins a new run each time, also where it is told which to go on with.")
class ResumesInANewRun(LinesSuite):
    __test__ = False
    tracker = AlwaysNewTracker


class NamedRunTracker(DatabaseTracker):
    def begin_run(self, opening):
        run = opening.run_id or opening.name or "training"
        self.database.execute(
            "INSERT INTO runs VALUES (?, ?, 'running') "
            "ON CONFLICT (id) DO UPDATE SET status = 'running'",
            (run, opening.name),
        )
        return run


@faulty(
    "A run's id is its name, so that a second training goes on in the first one's run.",
    source="Project-MONAI/MONAI#5649",
)
class RunIdIsItsName(DatabaseSuite):
    __test__ = False
    tracker = NamedRunTracker


class TimeNamedTracker(TablesTracker):
    def open(self, opening):
        run = opening.run_id or time.strftime("%Y%m%d-%H%M%S")
        return super().open(replace(opening, run_id=run))


@faulty("A run's id is the second that it began in, which another training can share.")
class RunIdIsTheSecond(TablesSuite):
    __test__ = False
    tracker = TimeNamedTracker


class FreshDescriptionTracker(TablesTracker):
    def open(self, opening):
        if opening.run_id is not None:
            Path(self.directory, opening.run_id, "run.json").unlink(missing_ok=True)
        return super().open(opening)


@faulty("A run that is opened again loses the arguments that it had.")
class ReopenedWithoutArguments(TablesSuite):
    __test__ = False
    tracker = FreshDescriptionTracker


class OptimistTracker(LinesTracker):
    def close(self, status):
        super().close(None if status is None else "finished")


@faulty(
    "Every run is closed as finished, also where its training failed.",
    source="huggingface/transformers#30333",
)
class AllRunsFinish(LinesSuite):
    __test__ = False
    tracker = OptimistTracker


class TwoStatusesTracker(DatabaseTracker):
    STATUS = {"finished": "finished", None: None}

    def close(self, status):
        super().close(self.STATUS.get(status, "failed"))


@faulty("A training that was interrupted is closed as failed.", source="mlflow/mlflow#1832")
class InterruptedIsFailed(DatabaseSuite):
    __test__ = False
    tracker = TwoStatusesTracker


class ClosingTracker(AdoptingTracker):
    def close(self, status):
        super().close(status or "finished")


@faulty(
    "The run that the user has opened is closed with the training.",
    source="ludwig-ai/ludwig#2201",
)
class ClosesTheUsersRun(AdoptingSuite):
    __test__ = False
    tracker = ClosingTracker


class AdoptsBlindlyTracker(AdoptingTracker):
    def open(self, opening):
        run = super().open(opening)
        if opening.adopted:
            with self.database:
                self.database.execute("DELETE FROM points WHERE run = ?", (run,))
        return run


@faulty("What the user had logged into the run that is adopted is deleted.")
class EmptiesTheUsersRun(AdoptingSuite):
    __test__ = False
    tracker = AdoptsBlindlyTracker


class RewindsInNameTracker(DatabaseTracker):
    def forget_from(self, step):
        """The points are replaced when they come again."""


@faulty("`rewinds` is promised, and what the killed training had logged stays where it differs.")
class RewindsInNameOnly(DatabaseSuite):
    __test__ = False
    tracker = RewindsInNameTracker


class RewindsTooFewTracker(DatabaseTracker):
    def forget_from(self, step):
        self.database.execute("DELETE FROM points WHERE run = ? AND step > ?", (self.run, step))


@faulty("Points are forgotten behind the step that is named, not from that step on.")
class RewindsOneStepTooFew(DatabaseSuite):
    __test__ = False
    tracker = RewindsTooFewTracker


class RewindsAllRunsTracker(DatabaseTracker):
    def forget_from(self, step):
        self.database.execute("DELETE FROM points WHERE step >= ?", (step,))


@faulty("Points of all runs in the store are forgotten, not only those of the run that goes on.")
class RewindsOtherRunsToo(DatabaseSuite):
    __test__ = False
    tracker = RewindsAllRunsTracker


class FixedParametersTracker(DatabaseTracker):
    """Parameters are what a run is, and never change."""

    def log_parameters(self, parameters):
        found = self.database.execute("SELECT 1 FROM parameters WHERE run = ?", (self.run,))
        if found.fetchone():
            raise ValueError(f"the parameters of run {self.run} cannot be changed")
        super().log_parameters(parameters)


@faulty("A resumed training with other arguments fails for its parameters, again and again.")
class ParametersOnlyOnce(DatabaseSuite):
    __test__ = False
    tracker = FixedParametersTracker


class SharedFileTracker(LinesTracker):
    files = {}  # of all trackers in this process, so that their lines do not mix

    def open(self, opening):
        self.run = opening.run_id or uuid.uuid4().hex
        if self.path not in self.files:
            self.files[self.path] = open(self.path, "a")
        self.file = self.files[self.path]
        self.write(name=opening.name, status="running")
        return self.run

    def close(self, status):
        super().close(status)
        self.files.pop(self.path, None)


@faulty("Two trackers of one file share a handle, which the first that ends closes for both.")
class SharedHandle(LinesSuite):
    __test__ = False
    tracker = SharedFileTracker


class StillOpenTracker(DatabaseTracker):
    def close(self, status):
        with self.database:
            self.database.execute("UPDATE runs SET status = ? WHERE id = ?", (status, self.run))
        self.earlier = [*getattr(self, "earlier", []), self.database]  # a later run may need it


@faulty("The connection to the database is never closed.")
class ConnectionStaysOpen(DatabaseSuite):
    __test__ = False
    tracker = StillOpenTracker


class ForgetfulCallback(TrackerCallback):
    """Sends a training to a service, whose run is in the journal in any case."""

    def load_state_dict(self, state):
        """There is nothing to take over: the journal is in the output directory."""


@faulty("Which run a checkpoint belongs to is not taken over: the newest in the directory goes on.")
class StateIsNotRestored(PostSuite):
    __test__ = False

    def make(self, output_dir):
        callback = super().make(output_dir)
        return ForgetfulCallback(callback.tracker)


class EarlyStatusTracker(TablesTracker):
    def open(self, opening):
        run = super().open(opening)
        self.describe(status="finished")  # and something else if it comes to that
        return run


@faulty("A run that goes on stands in the store as finished.")
class FinishedFromTheStart(TablesSuite):
    __test__ = False
    tracker = EarlyStatusTracker


class CountingTracker(TablesTracker):
    """Numbers the runs: how many there are stands in a file."""

    def open(self, opening):
        if opening.run_id is None:
            counter = Path(self.directory) / "count"
            counter.parent.mkdir(parents=True, exist_ok=True)
            number = int(counter.read_text()) if counter.exists() else 0
            opening = replace(opening, run_id=f"run-{number}")
        return super().open(opening)

    def close(self, status):
        super().close(status)
        counter = Path(self.directory) / "count"
        counter.write_text(str(int(counter.read_text()) + 1 if counter.exists() else 1))


@faulty("Runs are numbered when they end, so that two that go on at once have the same number.")
class NumberedAtTheEnd(TablesSuite):
    __test__ = False
    tracker = CountingTracker
