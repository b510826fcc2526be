# ruff: noqa: RUF012
"""Trackers from scratch that are wrong in one way each, which share a file of events."""

import json
import uuid
from pathlib import Path

from second_specimens import faulty

from callback_contract import RecordedRun, TrackerContract
from callback_core import TrainerCallback


class RunFile(TrainerCallback):
    """Appends what happens in a training to a file, a line of JSON for each event."""

    on_error = "isolate"

    def __init__(self, path):
        self.path = Path(path)
        self.run = None
        self.resumed = None
        self.is_open = False
        self.status = "finished"

    def state_dict(self):
        return {"run": self.run}

    def load_state_dict(self, state):
        self.resumed = state["run"]

    def on_train_begin(self, args, state, control, **kwargs):
        if not self.is_main(state):
            return
        if self.is_open:  # the training before has ended without a word
            self.write("close", "failed")
        self.status = "finished"
        self.begin_run(state)
        self.is_open = True
        self.write("parameters", self.parameters(args))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not self.is_main(state) or not logs:
            return
        if self.run is not None:
            self.write_points(logs, state)
            return
        self.run = uuid.uuid4().hex  # an evaluation before any training
        self.write("open")
        self.write_points(logs, state)
        self.write("close", "finished")
        self.run = None

    def on_exception(self, args, state, control, exception=None, **kwargs):
        self.status = "failed" if isinstance(exception, Exception) else "interrupted"

    def on_train_end(self, args, state, control, **kwargs):
        if self.is_open:
            self.is_open = False
            self.write("close", self.status)

    def is_main(self, state):
        return state.is_world_process_zero

    def begin_run(self, state):
        goes_on = state.global_step > 0 and self.resumed is not None
        self.run = self.resumed if goes_on else uuid.uuid4().hex
        self.resumed = None
        self.write("open")
        if goes_on:
            self.write("rewind", state.global_step)

    def parameters(self, args):
        return args.to_dict()

    def write_points(self, values, state):
        numbers = {n: float(v) for n, v in values.items() if isinstance(v, int | float)}
        self.write("points", [state.global_step, numbers])

    def write(self, event, content=None):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps([self.run, event, content], default=str) + "\n")


def read_events(path):
    """Return the runs of a file of events."""
    runs = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        run_id, event, content = json.loads(line)
        run = runs.setdefault(run_id, RecordedRun(run_id, {}, {}))
        if event == "open":
            run.status = "running"
        elif event == "close":
            run.status = content
        elif event == "parameters":
            run.parameters.update(content)
        elif event == "rewind":
            for points in run.points.values():
                points[:] = [point for point in points if point[0] <= content]
        else:
            for name, value in content[1].items():
                run.points.setdefault(name, []).append((content[0], value))
    return list(runs.values())


class InFile(TrackerContract):
    """What the suites have in common whose store is a file of events."""

    __test__ = False
    contract = (2, 0)
    capabilities = {"state", "resume", "rewinds", "status", "parameters", "non_finite"}
    callback = RunFile

    def make(self, output_dir):
        return self.callback(output_dir / "events.jsonl")

    def stored_name(self, name):
        return name

    def read(self, output_dir):
        return read_events(output_dir / "events.jsonl")


class OneHandle(RunFile):
    """Keeps the file open in a training."""

    file = None

    def on_train_begin(self, args, state, control, **kwargs):
        if self.is_main(state):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a", buffering=1)
        super().on_train_begin(args, state, control, **kwargs)

    def on_train_end(self, args, state, control, **kwargs):
        super().on_train_end(args, state, control, **kwargs)
        if self.file is not None:
            self.file.close()

    def write(self, event, content=None):
        self.file.write(json.dumps([self.run, event, content], default=str) + "\n")


@faulty(
    "an evaluation after the training, or before it, is lost: its file is not open then",
    source="huggingface/transformers#35074",
)
class LosesLaterEvaluations(InFile):
    __test__ = False
    callback = OneHandle


class FreshFile(RunFile):
    """Begins with an empty file."""

    def begin_run(self, state):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("")
        super().begin_run(state)


@faulty(
    "a resumed training begins with an empty file, so that what there was is gone",
    source="roboflow/rf-detr#1325",
)
class WipesOnResume(InFile):
    __test__ = False
    callback = FreshFile


class Discreet(RunFile):
    """Keeps secrets to itself."""

    def parameters(self, args):
        return {
            name: "***" if name.lower().endswith("token") else value
            for name, value in super().parameters(args).items()
        }


@faulty(
    "redacts tokens, and neither passwords nor keys",
    source="mosaicml/composer#242",
)
class RedactsTokensOnly(InFile):
    __test__ = False
    capabilities = InFile.capabilities | {"redacts"}
    callback = Discreet


class MachineWide(RunFile):
    """Writes once on each machine."""

    def is_main(self, state):
        return state.is_local_process_zero


@faulty(
    "each machine of a training writes a run of its own",
    source="ultralytics/ultralytics#22868",
)
class WritesOnEachMachine(InFile):
    __test__ = False
    callback = MachineWide


class Remembering(RunFile):
    """Keeps for good that something has failed."""

    def on_train_begin(self, args, state, control, **kwargs):
        before = self.status
        super().on_train_begin(args, state, control, **kwargs)
        self.status = before


@faulty("after a training that failed, the next one is kept as failed too")
class StatusSticks(InFile):
    __test__ = False
    callback = Remembering


class Thorough(RunFile):
    """Keeps the metrics of evaluations too."""

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if self.is_main(state) and self.run is not None and metrics:
            self.write_points(metrics, state)


@faulty("has each evaluation twice: once as it is logged, once as it is evaluated")
class HasEvaluationsTwice(InFile):
    __test__ = False
    callback = Thorough


class Completed(RunFile):
    """Closes the run when all steps are done."""

    def on_train_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            super().on_train_end(args, state, control, **kwargs)


@faulty(
    "a training that ends before its last step stays open",
    source="huggingface/transformers#30333",
)
class OnlyClosesWhenComplete(InFile):
    __test__ = False
    callback = Completed


class OneRun(RunFile):
    """Keeps its run for as long as it lives."""

    def load_state_dict(self, state):
        self.run = state["run"]

    def begin_run(self, state):
        if self.run is None:
            self.run = uuid.uuid4().hex
        self.write("open")
        if state.global_step > 0:
            self.write("rewind", state.global_step)


@faulty("a second training, which is no resumed one, goes on in the run of the first")
class SecondTrainingInSameRun(InFile):
    __test__ = False
    callback = OneRun
