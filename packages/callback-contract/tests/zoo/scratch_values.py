"""Trackers without `callback_core.tracking` that do not keep what is logged."""

import csv
import json
import math
import time
import uuid
from pathlib import Path

from callback_contract import TrackerContract
from callback_core import TrainerCallback
from zoo import reading
from zoo.runlogs import (
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


class NonZeroLog(JournalLog):
    def log(self, logs, step):
        points = []
        for name, value in logs.items():
            if value := plain(value):
                points.append((tracked(name), self.kept(value, name), step))
        self.write(points=points)


@faulty("A value of zero counts as none and is dropped.")
class ZeroIsNothing(JournalSuite):
    __test__ = False
    log = NonZeroLog


class SixDigitsLog(DatabaseLog):
    def row(self, name, step, value):
        return tracked(name), step, json.dumps(round(value, 6) if math.isfinite(value) else value)


@faulty("Values are rounded to six decimals, so that a learning rate of 3e-7 is zero.")
class RoundedToSixDecimals(DatabaseLogSuite):
    __test__ = False
    log = SixDigitsLog


class AsFloatLog(DatabaseLog):
    def row(self, name, step, value):
        return tracked(name), step, json.dumps(float(value))


@faulty("Whole numbers go through a float, which has not room for all of them.")
class TokensAsFloats(DatabaseLogSuite):
    __test__ = False
    precision = "exact"
    log = AsFloatLog


class FloatsLog(JournalLog):
    """Every value is a number: that is what a metric is."""

    def log(self, logs, step):
        self.write(points=[(tracked(name), float(value), step) for name, value in logs.items()])


@faulty("A string in the logs is an error, and the numbers beside it are lost with it.")
class StringLosesTheRest(JournalSuite):
    __test__ = False
    capabilities = JournalSuite.capabilities - {"text"}
    log = FloatsLog


class NullLog(JournalLog):
    def kept(self, value, name):
        if isinstance(value, float) and not math.isfinite(value):
            return None  # which is what JSON has for it
        return super().kept(value, name)


@faulty(
    "NaN is written as null, and is read back as no value.",
    source="metaspace2020/metaspace#1079",
)
class NullAgain(JournalSuite):
    __test__ = False
    log = NullLog

    def read(self, output_dir):
        runs = super().read(output_dir)
        for run in runs:
            for name, points in run.points.items():
                run.points[name] = [point for point in points if point[1] is not None]
        return runs


class CallCountLog(JournalLog):
    """Counts the logs itself: some trainers have no step."""

    def __init__(self, directory):
        super().__init__(directory)
        self.calls = 0

    def state_dict(self):
        return {**super().state_dict(), "calls": self.calls}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.calls = state["calls"]

    def begin(self):
        self.calls = 0
        super().begin()

    def log(self, logs, step):
        self.calls += 1
        super().log(logs, self.calls)


@faulty(
    "The step is the number of logs so far.",
    source="ThilinaRajapakse/simpletransformers#628",
)
class CallsAsSteps(JournalSuite):
    __test__ = False
    log = CallCountLog


class MonotonicLog(DatabaseLog):
    def new_id(self, args):
        self.last_step = -1
        return super().new_id(args)

    def forget(self, rows, step):
        super().forget(rows, step)
        self.last_step = step

    def log(self, logs, step):
        if step > self.last_step:  # a curve goes from left to right
            super().log(logs, step)
            self.last_step = step


@faulty(
    "A second log at a step, which mostly is the evaluation's, is dropped.",
    source="fastai/fastai#3066",
)
class OneLogAStep(DatabaseLogSuite):
    __test__ = False
    log = MonotonicLog


class TwiceLog(JournalLog):
    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.on_log(args, state, control, logs=metrics, **kwargs)


@faulty("Metrics of an evaluation are written at `on_log` and once more at `on_evaluate`.")
class MetricsTwice(JournalSuite):
    __test__ = False
    log = TwiceLog


class LastWordLog(DatabaseLog):
    """`eval_loss` is the loss of the evaluation, and so on."""

    def row(self, name, step, value):
        if name.startswith("eval_"):
            return f"eval/{name.split('_')[-1]}", step, json.dumps(value)
        return super().row(name, step, value)


@faulty("Of an evaluation's names only the last word is kept, also where there are several sets.")
class LastWordOfAName(DatabaseLogSuite):
    __test__ = False
    log = LastWordLog


class TableLog(TrainerCallback):
    """Writes a table with a column for each name, as pandas likes to read it."""

    on_error = "isolate"

    def __init__(self, directory):
        self.directory = Path(directory)
        self.run = self.columns = None
        self.status = "finished"

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.status = "finished"
            self.begin(args)

    def begin(self, args):
        self.run, self.columns = self.directory / uuid.uuid4().hex, None
        self.run.mkdir(parents=True)
        self.parameters = {"began": time.time(), "parameters": redacted(args.to_dict())}
        self.describe("running")

    def describe(self, status):
        kept = {**self.parameters, "status": status}
        (self.run / "run.json").write_text(json.dumps(kept, default=str))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        if self.run is None:
            self.begin(args)
            self.describe(self.status)
        values = {tracked(name): plain(value) for name, value in logs.items()}
        numbers = {n: v for n, v in values.items() if v is not None and not isinstance(v, str)}
        self.write({"step": state.global_step, **numbers})

    def write(self, row):
        path = self.run / "table.csv"
        if self.columns is None:
            self.columns = list(row)
            path.write_text(",".join(self.columns) + "\n")
        with path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, extrasaction="ignore").writerow(row)

    def on_exception(self, args, state, control, exception=None, **kwargs):
        self.status = "failed" if isinstance(exception, Exception) else "interrupted"

    def on_train_end(self, args, state, control, **kwargs):
        if self.run is not None and state.is_world_process_zero:
            self.describe(self.status)


@faulty(
    "The columns are those of the first log; what is logged under later names is left out.",
    source="BenchLab-io/benchlab-pytools#11",
)
class ColumnsOfTheFirstLog(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"status", "parameters", "redacts", "non_finite"}

    def make(self, output_dir):
        return TableLog(output_dir / "runs")

    def read(self, output_dir):
        runs = reading.read_tables(output_dir / "runs")
        for run in runs:
            table = output_dir / "runs" / run.id / "table.csv"
            rows = csv.DictReader(table.read_text().splitlines()) if table.exists() else ()
            for row in rows:
                step = int(row.pop("step"))
                for name, value in row.items():
                    if value:
                        point = (step, reading.number(value))
                        run.points.setdefault(name, []).append(point)
        return runs


class LateFilesLog(FilesLog):
    """Copies when the training is over, so that it does not wait for the disk."""

    def begin(self):
        self.saved = []
        super().begin()

    def go_on(self, run, size):
        self.saved = []
        super().go_on(run, size)

    def keep(self, directory):
        self.saved.append(directory)

    def end(self, status):
        saved, self.saved = self.saved, []
        for directory in saved:
            if directory.is_dir():
                super().keep(directory)
        super().end(status)


@faulty("Checkpoints are copied when training ends; those that were rotated by then are missing.")
class FilesAtTheEnd(FilesLogSuite):
    __test__ = False
    log = LateFilesLog


class LargestFilesLog(FilesLog):
    def keep(self, directory):
        """Keep the model; the rest is for resuming, which is done from the checkpoint itself."""
        super().keep(directory)
        target = self.directory / "files" / self.run / directory.name
        for path in target.iterdir():
            if path.name.startswith(("optimizer", "scheduler", "rng_state", "trainer_state")):
                path.unlink()


@faulty("A checkpoint is kept without what it takes to resume from it.")
class FilesWithoutTheOptimizer(FilesLogSuite):
    __test__ = False
    log = LargestFilesLog


class RowTextLog(JournalLog):
    def kept(self, value, name):
        return value


@faulty("Arguments are redacted, strings that are logged are not.")
class SecretsInText(JournalSuite):
    __test__ = False
    log = RowTextLog


SECRET_ARGUMENTS = {"token", "password", "secret", "api_key"}


class ListedSecretsLog(JournalLog):
    def parameters(self, args):
        return self.without_secrets(args.to_dict())

    def without_secrets(self, value, name=""):
        if isinstance(value, dict):
            return {key: self.without_secrets(part, key) for key, part in value.items()}
        return "***" if name in SECRET_ARGUMENTS else redacted(value)


@faulty(
    "Secrets are known by a list of whole names, in which `hub_token` is not.",
    source="huggingface/diffusers#6916",
)
class HubTokenIsKept(JournalSuite):
    __test__ = False
    log = ListedSecretsLog


class StringsLog(JournalLog):
    """Looks for secrets where they can be: in strings."""

    def parameters(self, args):
        return self.without_secrets(args.to_dict())

    def without_secrets(self, value, name=""):
        if isinstance(value, dict):
            return {key: self.without_secrets(part, str(key)) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.without_secrets(part, name) for part in value]
        return redacted(value, name) if isinstance(value, str) else value


@faulty("An object is no string when secrets are taken out, and is one when it is written.")
class SecretsInObjects(JournalSuite):
    __test__ = False
    log = StringsLog


class CautiousLog(JournalLog):
    """Keeps whatever is called a token or a key to itself."""

    def parameters(self, args):
        return {
            name: "***" if "token" in name or "key" in name else value
            for name, value in super().parameters(args).items()
        }


@faulty("`num_tokens` and `pad_token` count as secrets, since they have `token` in their names.")
class NumberOfTokensIsSecret(JournalSuite):
    __test__ = False
    log = CautiousLog


class AttributesLog(JournalLog):
    """Writes an object as what it has."""

    def parameters(self, args):
        return args.to_dict()

    def write(self, **event):
        self.file.write(json.dumps({"run": self.run, **event}, default=vars) + "\n")
        self.file.flush()
        self.size = self.file.tell()


@faulty(
    "A path or a set among the arguments is a TypeError: JSON does not know it, nor does `vars`.",
    source="huggingface/transformers#37518",
)
class ArgumentsThatJsonDoesNotKnow(JournalSuite):
    __test__ = False
    capabilities = JournalSuite.capabilities - {"redacts"}
    log = AttributesLog


class NextLogLog(JournalLog):
    """Reads the values of a log at the next one, when the GPU has long had them."""

    def __init__(self, directory):
        super().__init__(directory)
        self.unread = None

    def state_dict(self):
        self.catch_up()
        return super().state_dict()

    def log(self, logs, step):
        self.catch_up()
        self.unread = logs, step

    def end(self, status):
        self.catch_up()
        super().end(status)

    def catch_up(self):
        if self.unread is not None:
            (logs, step), self.unread = self.unread, None
            super().log(logs, step)


@faulty("Scalars are read a log later, when the loop has changed them in place.")
class ScalarsAreReadLater(JournalSuite):
    __test__ = False
    log = NextLogLog


class OneStatementLog(DatabaseLog):
    """Inserts the values of a log by one statement, which is faster than one for each."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero:
            return
        outside = self.database is None
        if outside:
            self.connect()
            if self.run is None:
                self.run = self.new_id(args)
                self.say("finished", args.run_name)
        try:
            self.log(logs, state.global_step)
        finally:
            if outside:
                self.database.close()
                self.database = None

    def log(self, logs, step):
        values = {name: plain(value) for name, value in logs.items()}
        numbers = {n: v for n, v in values.items() if isinstance(v, (int, float))}
        cells = []
        for number, (name, value) in enumerate(numbers.items(), self.rows):
            cells += (self.run, number, *self.row(name, step, value))
        rows = ", ".join(["(?, ?, ?, ?, ?)"] * len(numbers))
        with self.database:
            self.database.execute(f"INSERT INTO points VALUES {rows}", cells)
        self.rows += len(numbers)


@faulty("A log without any value is an INSERT without a row, which is an error.")
class EmptyLogIsAnError(DatabaseLogSuite):
    __test__ = False
    log = OneStatementLog
