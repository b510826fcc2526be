"""Callbacks that expect more of logs, metrics and keywords than they are promised."""

import json
import math
from pathlib import Path

from callback_contract import CallbackContract
from callback_core import TrainerCallback
from zoo.specimens import faulty


class NaNGuardCallback(TrainerCallback):
    """Stops when the loss is no number any more. The specimens say how they look at it."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.is_lost(logs or {}):
            control.request_stop("the loss is not a number")


class GuardSuite(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops", "reasons"}

    def make(self, output_dir):
        return self.callback()

    def train_until_it_stops(self, training):
        training.begin()
        training.step({"loss": 0.5})
        training.step({"loss": float("nan")})
        training.end()


class LossKeyCallback(NaNGuardCallback):
    def is_lost(self, logs):
        return math.isnan(logs["loss"])


@faulty("Logs without a loss, such as those of an evaluation, are a KeyError.")
class LogWithoutLoss(GuardSuite):
    __test__ = False
    callback = LossKeyCallback


class AnyNaNCallback(NaNGuardCallback):
    def is_lost(self, logs):
        return any(math.isnan(value) for value in logs.values())


@faulty("A string among the logs is a TypeError.")
class StringAmongLogs(GuardSuite):
    __test__ = False
    callback = AnyNaNCallback


class FinalLossCallback(TrainerCallback):
    """Writes the last loss of a training to a file."""

    def __init__(self, path):
        self.path = Path(path)

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            last = {"loss": losses[-1], "step": state.global_step}
            self.path.write_text(json.dumps(last, default=str))


@faulty("A training that ends before its first log is an IndexError.")
class NothingWasLogged(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return FinalLossCallback(output_dir / "final.json")


class PercentCallback(TrainerCallback):
    """Prints how far a training is with each log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            percent = 100 * state.global_step / state.max_steps
            names = ", ".join(logs or {})
            print(f"{percent:.0f} % ({state.global_step} of {state.max_steps} steps): {names}")


@faulty("An evaluation before training, when `max_steps` is 0, is a ZeroDivisionError.")
class PercentOfNoSteps(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"prints"}

    def make(self, output_dir):
        return PercentCallback()


class LearningRateCallback(TrainerCallback):
    """Writes the learning rate at each log."""

    def __init__(self, path):
        self.path = Path(path)

    def on_log(self, args, state, control, lr_scheduler=None, optimizer=None, **kwargs):
        if state.is_world_process_zero:
            rate = optimizer.param_groups[0]["lr"]
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, "rate": float(rate)}) + "\n")


@faulty("Where there is no optimizer, as in an evaluation without a training, it fails.")
class NoOptimizerYet(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return LearningRateCallback(output_dir / "rates.jsonl")


class ConfigCallback(TrainerCallback):
    """Writes the model's configuration beside the checkpoints."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if state.is_world_process_zero:
            path = Path(args.output_dir) / "model_config.json"
            path.write_text(json.dumps(model.config.to_dict(), default=str, indent=2))


@faulty("A model without a `config`, as any of torch's own, is an AttributeError.")
class ModelWithoutConfig(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return ConfigCallback()


class JsonLogCallback(TrainerCallback):
    """Writes each log as a line of JSON."""

    def __init__(self, path):
        self.path = Path(path)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            line = json.dumps({"step": state.global_step, **(logs or {})})
            with self.path.open("a") as file:
                file.write(line + "\n")


@faulty(
    "Scalars of numpy or torch in the logs are a TypeError, since JSON does not know them.",
    source="E3SM-Project/e3sm_diags#584",
)
class ScalarsOfNumpy(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return JsonLogCallback(output_dir / "logs.jsonl")


class EpochPrinterCallback(TrainerCallback):
    """Prints a line for each epoch."""

    def on_epoch_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            last = state.log_history[-1]
            loss = f"loss {last['loss']:.4f}" if "loss" in last else "no loss yet"
            print(f"epoch {state.epoch:.1f}: {loss}")


@faulty("An epoch in which nothing has been logged yet is an IndexError.")
class EpochBeforeTheFirstLog(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"prints"}

    def make(self, output_dir):
        return EpochPrinterCallback()


class SpeedCallback(TrainerCallback):
    """Prints what an evaluation took."""

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if state.is_world_process_zero:
            print(f"evaluated in {metrics['eval_runtime']:.2f} s")


@faulty("It takes `eval_runtime` for granted, which other sets report under other names.")
class RuntimeOfAnotherSet(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"prints"}

    def make(self, output_dir):
        return SpeedCallback()


class BeginTimeCallback(TrainerCallback):
    """Writes a table of what each step logged, made when the training begins."""

    def __init__(self, path):
        self.path = Path(path)
        self.file = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.file = self.path.open("a") if state.is_world_process_zero else None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            self.file.write(f"{state.global_step} {sorted(logs or {})}\n")
            self.file.flush()

    def on_train_end(self, args, state, control, **kwargs):
        if self.file is not None:
            self.file.close()


@faulty("An evaluation before or after training meets a file that is not open.")
class ClosedOutsideOfTraining(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return BeginTimeCallback(output_dir / "names.txt")


class LocalTableCallback(TrainerCallback):
    """Writes the losses to a table, by the main process."""

    def __init__(self, path):
        self.path = Path(path)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_local_process_zero and "loss" in (logs or {}):
            with self.path.open("a") as file:
                file.write(f"{state.global_step},{logs['loss']!r}\n")


@faulty(
    "The main process of each machine writes, to one file.",
    source="vllm-project/speculators#619",
)
class EachMachineWrites(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return LocalTableCallback(output_dir / "loss.csv")


class EveryRankPrintsCallback(TrainerCallback):
    """Prints the logs."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        values = (f"{name}={value}" for name, value in (logs or {}).items())
        print(f"step {state.global_step}: {' '.join(values)}")


@faulty("Every process prints.", source="alex-hh/profam#129")
class EachProcessPrints(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"prints"}

    def make(self, output_dir):
        return EveryRankPrintsCallback()


class MeanLossCallback(TrainerCallback):
    """Keeps the mean loss of each interval of logs."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.means, self.losses = [], []

    def on_step_end(self, args, state, control, loss=None, **kwargs):
        self.losses.append(float(loss))
        if state.global_step % int(args.logging_steps) == 0:
            self.means.append(sum(self.losses) / len(self.losses))
            self.losses = []


@faulty("It divides by an interval in the arguments, which may be a share and then becomes 0.")
class DividesByAShare(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return MeanLossCallback()
