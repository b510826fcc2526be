"""Trackers on `callback_core.tracking` that do not keep what they are given."""

import json
import os
import re
import shutil
import struct
from pathlib import Path

from callback_core.tracking import Limits
from zoo.specimens import faulty
from zoo.stores import (
    DatabaseSuite,
    DatabaseTracker,
    LinesSuite,
    LinesTracker,
    PostSuite,
    PostTracker,
    TablesSuite,
    TablesTracker,
)


class FloatsOnlyTracker(LinesTracker):
    def log_metrics(self, points):
        numbers = [point for point in points if isinstance(point.value, float)]
        if numbers:
            super().log_metrics(numbers)

    def log_text(self, points):
        super().log_metrics(points)


@faulty("Whole numbers are taken for no metrics and dropped.")
class FloatsOnly(LinesSuite):
    __test__ = False
    tracker = FloatsOnlyTracker


class RoundingTracker(TablesTracker):
    def written(self, value):
        return f"{value:.6g}"  # keeps the table readable


@faulty("Values are written with six digits.")
class RoundedTable(TablesSuite):
    __test__ = False
    tracker = RoundingTracker


class Float32Tracker(DatabaseTracker):
    """Keeps numbers in half the space: a curve does not show more than single precision."""

    def encoded(self, value):
        if isinstance(value, float) and abs(value) < 3e38:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        return json.dumps(value)


@faulty("Values are narrowed to single precision on their way into the store.")
class SinglePrecision(DatabaseSuite):
    __test__ = False
    tracker = Float32Tracker


class RealColumnTracker(DatabaseTracker):
    def encoded(self, value):
        return json.dumps(value if isinstance(value, str) else float(value))


@faulty("All numbers become floats, so that large counters lose their last digits.")
class CountersAsFloats(DatabaseSuite):
    __test__ = False
    precision = "exact"
    tracker = RealColumnTracker


class RowNumberTracker(LinesTracker):
    """Numbers the points of each curve one after another, as its x axis wants them."""

    def open(self, opening):
        self.rows = {}
        return super().open(opening)

    def log_metrics(self, points):
        numbered = []
        for point in points:
            row = self.rows.get(point.name, 0) + 1
            self.rows[point.name] = row
            numbered.append(point._replace(step=row))
        super().log_metrics(numbered)


@faulty(
    "The step of a point is how often its name was logged, not the update step.",
    source="ThilinaRajapakse/simpletransformers#628",
)
class LogCountAsStep(LinesSuite):
    __test__ = False
    tracker = RowNumberTracker


class IncreasingStepsTracker(DatabaseTracker):
    """Sends rows, of which the store wants the steps to increase."""

    def open(self, opening):
        self.last_step = -1
        return super().open(opening)

    def log_metrics(self, points):
        rows = {}
        for point in points:
            rows.setdefault((point.time, point.step), []).append(point)
        for (_, step), row in rows.items():
            if step > self.last_step:
                super().log_metrics(row)
                self.last_step = step


@faulty(
    "What is logged at a step that was sent before, such as an evaluation's metrics, is dropped.",
    source="fastai/fastai#3066",
)
class OnlyNewSteps(DatabaseSuite):
    __test__ = False
    tracker = IncreasingStepsTracker


class LastWordTracker(LinesTracker):
    def log_metrics(self, points):
        short = [point._replace(name=point.name.rpartition("/")[2]) for point in points]
        super().log_metrics(short)


@faulty("The split is cut off the names, so that the losses of training and evaluation are mixed.")
class NamesWithoutSplit(LinesSuite):
    __test__ = False
    tracker = LastWordTracker

    def stored_name(self, name):
        return name.removeprefix("eval_").removeprefix("test_")


class NullTracker(LinesTracker):
    """Writes strict JSON, which other tools read too."""

    def write(self, **event):
        if "points" in event:
            event["points"] = [
                (name, value if isinstance(value, str) or value - value == 0 else None, step, time)
                for name, value, step, time in event["points"]
            ]
        super().write(**event)


@faulty(
    "NaN and infinities are written as null, although the tracker is said to keep them.",
    source="determined-ai/determined#3101",
)
class NullForNaN(LinesSuite):
    __test__ = False
    tracker = NullTracker

    def read(self, output_dir):
        runs = super().read(output_dir)
        for run in runs:
            for name, points in run.points.items():
                run.points[name] = [point for point in points if point[1] is not None]
        return runs


class StrictJsonTracker(LinesTracker):
    def write(self, **event):
        line = json.dumps({"run": self.run, **event}, default=str, allow_nan=False)
        self.file.write(line + "\n")
        self.file.flush()


@faulty(
    "The store takes no NaN, `limits` does not say so, and the whole batch fails for one.",
    source="metaspace2020/metaspace#1079",
)
class NaNFailsTheBatch(LinesSuite):
    __test__ = False
    capabilities = LinesSuite.capabilities - {"non_finite"}
    tracker = StrictJsonTracker


class ShortNamesTracker(DatabaseTracker):
    """The table's column for names is CHAR(24)."""

    def log_metrics(self, points):
        super().log_metrics([point._replace(name=point.name[:24]) for point in points])


@faulty("Names are cut to 24 characters in the tracker instead of in `limits`, and collide.")
class NamesCutInSilence(DatabaseSuite):
    __test__ = False
    tracker = ShortNamesTracker


class ColumnTracker(LinesTracker):
    def log_metrics(self, points):
        super().log_metrics([point._replace(name=point.name[:250]) for point in points])


@faulty("Names are cut to 250 characters in silence, so that two long ones share a curve.")
class LongNamesCutInSilence(LinesSuite):
    __test__ = False
    tracker = ColumnTracker


class WordNamesTracker(TablesTracker):
    def log_metrics(self, points):
        words = [point._replace(name=re.sub(r"[\W_]+", "_", point.name)) for point in points]
        super().log_metrics(words)


@faulty("Names are reduced to letters and underscores, where `a.b`, `a_b` and `a/b` are one curve.")
class NamesToWords(TablesSuite):
    __test__ = False
    tracker = WordNamesTracker

    def stored_name(self, name):
        return re.sub(r"[\W_]+", "_", super().stored_name(name))


class LastSummaryTracker(LinesTracker):
    def log_summary(self, points):
        """Keep what the training comes to beside its parameters."""
        self.write(parameters={points[-1].name: points[-1].value})


@faulty("Of the values that a training has one of, only the last in a call is kept.")
class LastOfTheSummary(LinesSuite):
    __test__ = False
    tracker = LastSummaryTracker

    def read(self, output_dir):
        runs = super().read(output_dir)
        for run in runs:
            kept = ("train/train_", "train/total_")
            found = {n: v for n, v in run.parameters.items() if n.startswith(kept)}
            run.summary = found
            run.parameters = {n: v for n, v in run.parameters.items() if n not in found}
        return runs


class LatestTextTracker(DatabaseTracker):
    def log_text(self, points):
        with self.database:
            for point in points:
                self.database.execute(
                    "DELETE FROM points WHERE run = ? AND name = ?", (self.run, point.name)
                )
        self.log_metrics(points)


@faulty("A string that is logged again replaces those of the steps before.")
class OnlyTheLatestText(DatabaseSuite):
    __test__ = False
    tracker = LatestTextTracker


class CutParametersTracker(PostTracker):
    def log_parameters(self, parameters):
        self.post(parameters={name: str(value)[:32] for name, value in parameters.items()})


@faulty("Parameters are cut to 32 characters by the tracker itself, which nobody is told.")
class ParametersCutInSilence(PostSuite):
    __test__ = False
    tracker = CutParametersTracker


class OneRequestTracker(PostTracker):
    """The service takes 100 parameters in a request."""

    def log_parameters(self, parameters):
        super().log_parameters(dict(list(parameters.items())[:100]))


@faulty("Of the parameters only the first request is sent, which nobody is told.")
class OneRequestOfParameters(PostSuite):
    __test__ = False
    tracker = OneRequestTracker


class EnvironmentTracker(PostTracker):
    """Keeps with a run what it takes to repeat it."""

    def log_parameters(self, parameters):
        super().log_parameters(parameters)
        self.post(parameters={"environment": dict(os.environ)})


@faulty(
    "The environment is kept with the parameters, with all keys and passwords in it.",
    source="huggingface/diffusers#6916",
)
class EnvironmentAmongParameters(PostSuite):
    __test__ = False
    tracker = EnvironmentTracker


class LinkingTracker(TablesTracker):
    """Saves the space of a copy."""

    def log_files(self, upload):
        target = self.folder / "files" / upload.name
        target.parent.mkdir(exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(upload.path, target_is_directory=True)


@faulty("A checkpoint is kept as a link to a directory that is deleted after the call.")
class CheckpointsAsLinks(TablesSuite):
    __test__ = False
    tracker = LinkingTracker


class FlatFilesTracker(TablesTracker):
    def log_files(self, upload):
        target = self.folder / "files" / upload.name
        target.mkdir(parents=True, exist_ok=True)
        for path in upload.path.iterdir():
            if path.is_file():
                shutil.copy2(path, target)


@faulty("Only the files right in a checkpoint are kept, not those in its folders.")
class CheckpointsWithoutFolders(TablesSuite):
    __test__ = False
    tracker = FlatFilesTracker


class OneFolderTracker(TablesTracker):
    def log_files(self, upload):
        target = Path(self.folder) / "files" / "checkpoint"
        shutil.copytree(upload.path, target, dirs_exist_ok=True)


@faulty("Each checkpoint is kept under the same name, over the one before.")
class CheckpointsOverEachOther(TablesSuite):
    __test__ = False
    tracker = OneFolderTracker


class TextAsNumbersTracker(DatabaseTracker):
    limits = Limits(text=True, non_finite=False, batch_size=200)

    def log_text(self, points):
        """Let what is a number in a string be a curve."""
        numbers = []
        for point in points:
            try:
                numbers.append(point._replace(value=float(point.value)))
            except ValueError:
                continue
        self.log_metrics(numbers)


@faulty("`limits` says that strings are taken, and all but those of numbers are dropped.")
class TextIsDropped(DatabaseSuite):
    __test__ = False
    capabilities = DatabaseSuite.capabilities - {"non_finite"}
    tracker = TextAsNumbersTracker


class ShortParametersTracker(DatabaseTracker):
    def log_parameters(self, parameters):
        numbers = {name: f"{v:g}" for name, v in parameters.items() if isinstance(v, float)}
        super().log_parameters({**parameters, **numbers})


@faulty("Arguments are stored with six digits.")
class ArgumentsAreRounded(DatabaseSuite):
    __test__ = False
    tracker = ShortParametersTracker


class OnlyTrueParametersTracker(DatabaseTracker):
    def log_parameters(self, parameters):
        super().log_parameters({name: value for name, value in parameters.items() if value})


@faulty("It leaves out arguments that are not set, and with them those that are False or 0.")
class FalseArgumentsAreLeftOut(DatabaseSuite):
    __test__ = False
    tracker = OnlyTrueParametersTracker


class OnlySetParametersTracker(DatabaseTracker):
    def log_parameters(self, parameters):
        kept = {n: v for n, v in parameters.items() if v or type(v) in (int, bool)}
        super().log_parameters(kept)


@faulty("It leaves out arguments that are not set, and with them those that are 0.0 or empty.")
class EmptyArgumentsAreLeftOut(DatabaseSuite):
    __test__ = False
    tracker = OnlySetParametersTracker
