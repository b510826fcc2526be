"""Trackers without `callback_core.tracking` that are correct and write to the disk."""

import csv
import json
import logging
import math
import os
import time
import uuid
from datetime import datetime
from pathlib import Path

from callback_contract import RecordedRun, Setting, TrackerContract
from callback_core import ExportableState, TrainerCallback
from zoo import reading
from zoo.runlogs import (
    AdoptingLogSuite,
    DatabaseLogSuite,
    FilesLogSuite,
    JournalLog,
    JournalSuite,
    plain,
    redacted,
    tracked,
)
from zoo.specimens import correct

logger = logging.getLogger(__name__)


@correct("A file of JSON lines for each run, cut back to the checkpoint when it is resumed.")
class Journal(JournalSuite):
    __test__ = False


@correct("A database, a transaction for each log.")
class DatabaseRuns(DatabaseLogSuite):
    __test__ = False


@correct("A journal, and the checkpoints beside it.")
class JournalWithFiles(FilesLogSuite):
    __test__ = False


@correct("A journal that is written into the run that the user has open.")
class JournalOfTheUser(AdoptingLogSuite):
    __test__ = False


class CSVRuns:
    """Duck-typed: has the methods of a callback and no base.

    Each training is a file of its own, named by when it began. Nothing is resumed.
    """

    def __init__(self, directory):
        self.directory = directory
        self.path = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.path = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero:
            return
        rows = []
        for name, value in (logs or {}).items():
            value = plain(value)
            if value is not None and not isinstance(value, str):
                rows.append((name, state.global_step, repr(value)))
        try:
            self._append(rows)
        except OSError:
            logger.warning("logs of step %s are not kept", state.global_step, exc_info=True)

    def _append(self, rows):
        if self.path is None:
            now = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
            os.makedirs(self.directory, exist_ok=True)
            self.path = os.path.join(self.directory, f"{now}-{uuid.uuid4().hex[:6]}.csv")
        with open(self.path, "a", newline="") as file:
            csv.writer(file).writerows(rows)


@correct("A class without a base, with a file of CSV for each training, and nothing else.")
class DuckTyped(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"non_finite"}

    def make(self, output_dir):
        return CSVRuns(output_dir / "csv")

    def stored_name(self, name):
        return name

    def read(self, output_dir):
        runs = []
        for path in sorted((output_dir / "csv").glob("*.csv")):
            run = RecordedRun(id=path.stem, points={})
            for name, step, value in csv.reader(path.read_text().splitlines()):
                run.points.setdefault(name, []).append((int(step), reading.number(value)))
            runs.append(run)
        return runs


class IntegrationCallback(TrainerCallback):
    """Built like the integrations of transformers, with a lazy `setup` and no state."""

    def __init__(self, directory):
        self._directory = Path(directory)
        self._initialized = False
        self._file = None

    def setup(self, args, state, model):
        self._initialized = True
        if state.is_world_process_zero:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._run = f"{args.run_name or 'run'}-{uuid.uuid4().hex[:8]}"
            parameters = redacted({**args.to_dict()})
            if getattr(model, "config", None) is not None and hasattr(model.config, "to_dict"):
                parameters = {**redacted(model.config.to_dict()), **parameters}
            self._path = self._directory / f"{self._run}.jsonl"
            self._write({"began": time.time(), "parameters": parameters})

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._try(self.setup, args, state, model)

    def on_log(self, args, state, control, logs=None, model=None, **kwargs):
        self._try(self._log, args, state, model, logs or {})

    def _log(self, args, state, model, logs):
        if not self._initialized:
            self.setup(args, state, model)
        if state.is_world_process_zero:
            values = {tracked(name): plain(value) for name, value in logs.items()}
            self._write(
                {
                    "points": [
                        (name, value, state.global_step)
                        for name, value in values.items()
                        if isinstance(value, (int, float))
                    ]
                }
            )

    def _write(self, event):
        with self._path.open("a") as file:
            file.write(json.dumps({"run": self._run, **event}, default=str) + "\n")

    def _try(self, call, *arguments):
        try:
            call(*arguments)
        except Exception as error:
            logger.warning("%s failed: %s", type(self).__name__, error)


@correct("Built like the integrations of transformers: lazy, without a state, errors are its own.")
class LikeAnIntegration(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"parameters", "redacts", "non_finite"}

    def make(self, output_dir):
        return IntegrationCallback(output_dir / "runs")

    def read(self, output_dir):
        return reading.read_journals(output_dir / "runs")


class DocumentCallback(TrainerCallback, ExportableState):
    """Keeps each run as one JSON document, which is replaced as a whole.

    Its state is exported as transformers does it. Which points a resumed training repeats is told
    by how many there were.
    """

    on_error = "isolate"

    def __init__(self, directory):
        self.directory = str(directory)
        self.kept_run, self.kept_points = None, 0
        self.document = None
        self.training = False

    def state(self):
        points = 0 if self.document is None else len(self.document["points"])
        run = None if self.document is None else self.document["run"]
        return {
            "args": {"directory": self.directory},
            "attributes": {"kept_run": run, "kept_points": points},
        }

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        if self.training:
            self.save(status="failed")
        run, self.kept_run = self.kept_run, None
        path = None if run is None else Path(self.directory, f"{run}.json")
        if state.global_step > 0 and path is not None and path.exists():
            self.document = json.loads(path.read_text())
            del self.document["points"][self.kept_points :]
        else:
            self.document = self.blank()
        self.training = True
        self.save(status="running", parameters=redacted(args.to_dict()))

    def blank(self):
        return {"run": uuid.uuid4().hex, "began": time.time(), "points": [], "status": "finished"}

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        if self.document is None:
            self.document = self.blank()
        points = []
        for name, value in logs.items():
            value = plain(value)
            if isinstance(value, (int, float)) and math.isfinite(value):
                points.append([tracked(name), value, state.global_step])
        self.save(points=self.document["points"] + points)

    def on_exception(self, args, state, control, exception=None, **kwargs):
        if self.training:
            self.training = False
            self.save(status="failed" if isinstance(exception, Exception) else "interrupted")

    def on_train_end(self, args, state, control, **kwargs):
        if self.training:
            self.training = False
            self.save(status="finished")

    def save(self, **changed):
        os.makedirs(self.directory, exist_ok=True)
        path = Path(self.directory, f"{self.document['run']}.json")
        document = {**self.document, **changed}
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(document, default=str))
        os.replace(beside, path)
        self.document = document


@correct("A document of JSON for each run; its state is an `ExportableState`.")
class Documents(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state", "resume", "rewinds", "status", "parameters", "redacts"}

    def make(self, output_dir):
        return DocumentCallback(output_dir / "documents")

    def read(self, output_dir):
        paths = (output_dir / "documents").glob("*.json")
        documents = sorted((json.loads(path.read_text()) for path in paths), key=_began)
        return reading.runs_of_events(documents)


def _began(document):
    return document["began"]


class ChosenLog(JournalLog):
    """A journal with settings: where to, and whether at all."""

    def __init__(self, directory=None, disabled=None):
        if directory is None:
            directory = os.environ.get("ZOO_DIRECTORY", "").strip() or "runs"
        if not isinstance(directory, (str, os.PathLike)) or not str(directory).strip():
            raise ValueError(f"directory is {directory!r}, it must be a path")
        super().__init__(directory)
        self.disabled = _flag("disabled", disabled, "ZOO_LOG_OFF")

    def on_train_begin(self, args, state, control, **kwargs):
        if not self.disabled:
            super().on_train_begin(args, state, control, **kwargs)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not self.disabled:
            super().on_log(args, state, control, logs=logs, **kwargs)


YES, NO = ("1", "ON", "YES", "TRUE"), ("0", "OFF", "NO", "FALSE")


def _flag(name, given, variable):
    """Return whether something is on: by the argument, or else by the variable."""
    if isinstance(given, bool):
        return given
    if given is not None:
        raise ValueError(f"{name} is {given!r}, it must be one of: True, False")
    text = os.environ.get(variable, "").strip()
    if text and text.upper() not in (*YES, *NO):
        raise ValueError(f"{variable} is {text!r}, it must be one of: {', '.join((*YES, *NO))}")
    return text.upper() in YES


@correct("A journal that is switched off by an argument or by a variable.")
class JournalWithSettings(JournalSuite):
    __test__ = False
    capabilities = {*JournalSuite.capabilities, "settings"}
    log = ChosenLog
    settings = [Setting.flag("disabled", "ZOO_LOG_OFF")]

    def make_with(self, output_dir, **arguments):
        return ChosenLog(output_dir / "runs", **arguments)
