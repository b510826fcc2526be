"""Callbacks that are wrong with what they share with the loop: control, state, arguments, logs."""

import shutil
import time
from pathlib import Path

from callback_contract import CallbackContract
from callback_core import TrainerCallback, TrainerControl
from zoo.specimens import faulty


class SaveBestCallback(TrainerCallback):
    """Saves a checkpoint when `eval_loss` is the best so far."""

    def __init__(self):
        self.best = None

    def state_dict(self):
        return {"best": self.best}

    def load_state_dict(self, state):
        self.best = state["best"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.best = None

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        value = (metrics or {}).get("eval_loss")
        improved = isinstance(value, (int, float)) and (self.best is None or value < self.best)
        if improved:
            self.best = value
        control.should_save = improved


@faulty("A flag that others have set is switched off where this callback does not ask for it.")
class SwitchesOffTheOthersSave(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"steers", "state"}

    def make(self, output_dir):
        return SaveBestCallback()


class DivergenceCallback(TrainerCallback):
    """Stops when the loss is beyond a limit."""

    def __init__(self, limit=50.0):
        self.limit = limit

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if isinstance(loss, (int, float)) and not loss < self.limit:
            return TrainerControl(should_training_stop=True)
        return control


@faulty("It returns a control of its own, in which nothing is on that others have asked for.")
class ReturnsAFreshControl(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops"}

    def make(self, output_dir):
        return DivergenceCallback()

    def train_until_it_stops(self, training):
        training.begin()
        training.step({"loss": 0.5})
        training.step({"loss": 80.0})
        training.end()


class LogEveryCallback(TrainerCallback):
    """Logs more often in the beginning, when the loss changes most."""

    def __init__(self, until=100):
        self.until = until

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log = state.global_step <= self.until or state.global_step % 10 == 0


@faulty("It overwrites the wish of the arguments to log, where it has none itself.")
class OverwritesTheWishToLog(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"steers"}

    def make(self, output_dir):
        return LogEveryCallback(until=2)


class SmoothedBestCallback(TrainerCallback):
    """Judges the best model by a smoothed metric, since evaluations are noisy."""

    def __init__(self, decay=0.6):
        self.decay = decay
        self.smooth = None

    def state_dict(self):
        return {"smooth": self.smooth}

    def load_state_dict(self, state):
        self.smooth = state["smooth"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.smooth = None

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        value = (metrics or {}).get("eval_loss")
        if not isinstance(value, (int, float)):
            return
        before = value if self.smooth is None else self.smooth
        self.smooth = self.decay * before + (1 - self.decay) * value
        state.best_metric = self.smooth


@faulty("The state's best metric, which is the loop's, is overwritten.")
class OverwritesTheBestMetric(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state"}

    def make(self, output_dir):
        return SmoothedBestCallback()


class ShortHistoryCallback(TrainerCallback):
    """Keeps the history short: with a log at each step it fills the checkpoints."""

    def __init__(self, keep=3):
        self.keep = keep

    def on_log(self, args, state, control, **kwargs):
        del state.log_history[: -self.keep]


@faulty("Entries of the state's history are deleted, which others read.")
class CutsTheHistory(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return ShortHistoryCallback()


class PerplexityCallback(TrainerCallback):
    """Adds the perplexity to the history, so that it is in the checkpoint and in plots."""

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        value = (metrics or {}).get("eval_loss")
        if isinstance(value, (int, float)) and value < 50 and state.log_history:
            state.log_history[-1]["eval_perplexity"] = 2.718281828459045**value


@faulty("A value is added to the last entry of the state's history.")
class AddsToTheHistory(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return PerplexityCallback()


class RunNameCallback(TrainerCallback):
    """Gives each run a name of its own, before the trackers see it."""

    def on_train_begin(self, args, state, control, **kwargs):
        args.run_name = f"{args.run_name or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}"


@faulty("The arguments are changed, and the name grows with each training.")
class RenamesTheRun(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return RunNameCallback()


class KeepNewestCallback(TrainerCallback):
    """Keeps the newest checkpoints of a training, and deletes older ones."""

    def __init__(self, keep=2):
        self.keep = keep

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            found = sorted(str(path) for path in Path(args.output_dir).glob("checkpoint-*"))
            for path in found[: -self.keep]:
                shutil.rmtree(path, ignore_errors=True)


@faulty("Checkpoints are sorted as strings, so that the 10th is deleted when the 9th is there.")
class DeletesTheNewestCheckpoint(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return KeepNewestCallback()


class SlimCheckpointsCallback(TrainerCallback):
    """Takes out of the checkpoints what inference does not need."""

    def on_save(self, args, state, control, checkpoint_dir=None, **kwargs):
        if state.is_world_process_zero:
            folder = Path(checkpoint_dir or f"{args.output_dir}/checkpoint-{state.global_step}")
            for name in ("optimizer.pt", "scheduler.pt", "trainer_state.json"):
                (folder / name).unlink(missing_ok=True)


@faulty("Files of the loop are deleted from a checkpoint, from which nothing can be resumed then.")
class SlimsTheCheckpoints(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return SlimCheckpointsCallback()


class NotesCallback(TrainerCallback):
    """Notes in each checkpoint how long it took to get there."""

    def __init__(self):
        self.began = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = time.monotonic()

    def on_save(self, args, state, control, checkpoint_dir=None, **kwargs):
        folder = Path(checkpoint_dir or f"{args.output_dir}/checkpoint-{state.global_step}")
        path = folder / "trainer_state.json"
        if state.is_world_process_zero and path.exists():
            text = path.read_text().rstrip()
            seconds = round(time.monotonic() - self.began, 1)
            path.write_text(f"{text}\n// after {seconds} s\n")


@faulty("A comment is added to a checkpoint's JSON file, which nobody can read then.")
class CommentInTheCheckpoint(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return NotesCallback()
