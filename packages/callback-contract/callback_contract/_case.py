"""`Case`: what one rule is checked with, and `Training`: a loop that fires events at callbacks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from callback_contract._ending import end_trainings
from callback_contract._rule import ContractViolation, require
from callback_contract._subject import RecordedRun, Subject
from callback_core import EVENTS, TrainerControl, TrainerState

DIED: Final = RuntimeError("CUDA out of memory")
"""What trainings of the rules die of."""

OVER: Final = "the rule is over"
"""The file in a case's folder that says so, to trackers that fail or hang as long as it goes on."""


@dataclass
class Arguments:
    """The arguments of a training, under transformers' names, with a secret among them."""

    output_dir: str
    run_name: str | None = "contract"
    logging_strategy: str = "steps"
    logging_first_step: bool = False
    logging_steps: int = 1
    eval_strategy: str = "no"
    eval_steps: int | None = None
    eval_delay: float = 0.0
    save_strategy: str = "no"
    save_steps: int = 1
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = "loss"
    greater_is_better: bool | None = False
    learning_rate: float = 0.125
    num_train_epochs: float = 2.0
    disable_tqdm: bool = False
    report_to: list[str] = field(default_factory=list)
    hub_token: str | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return all arguments as plain values; `more` as arguments of their own."""
        arguments: dict[str, Any] = asdict(self)
        more: dict[str, Any] = arguments.pop("more")
        return arguments | more

    def to_json_string(self) -> str:
        """Return all arguments as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)


class Config:
    """A model's configuration."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return dict(self.values)

    def to_json_string(self) -> str:
        """Return it as indented JSON."""
        return json.dumps(self.values, indent=2)


class Model:
    """What callbacks may look at in a model, without any framework."""

    def __init__(self) -> None:
        self.training = True
        self.config = Config(hidden_size=8)
        self.weights = [0.5, -0.25]

    def train(self, mode: bool = True) -> Model:
        """Choose the mode of training or of evaluation."""
        self.training = mode
        return self

    def eval(self) -> Model:
        """Choose the mode of evaluation."""
        return self.train(False)


class Training:
    """Fires events at callbacks as a loop does. An error of a callback is a violation.

    Args:
        callbacks: Whom to call, in this order.
        args: The arguments.
        state: The state; a new one where it is not given.
        extra: Keywords that events pass on top of their own.
    """

    def __init__(
        self,
        callbacks: Iterable[Any],
        args: Arguments,
        state: TrainerState | None = None,
        **extra: Any,
    ) -> None:
        self.callbacks = list(callbacks)
        self.args = args
        self.state = state or TrainerState(epoch=0.0, max_steps=4, num_train_epochs=2)
        self.control = TrainerControl()
        self.model = Model()
        self.extra = extra
        self._built = False

    def fire(self, event: str, **passed: Any) -> None:
        """Call `event` of each callback that has it."""
        self._built = self._built or event == "on_init_end"
        for flag in EVENTS[event].resets if event in EVENTS else ():
            setattr(self.control, flag, False)
        common: dict[str, Any] = {"model": self.model, "processing_class": None, "tokenizer": None}
        common |= {"optimizer": None, "lr_scheduler": None}
        common |= {"train_dataloader": [0, 1], "eval_dataloader": [0]}
        for callback in self.callbacks:
            given = {n: dict(v) if n in ("logs", "metrics") else v for n, v in passed.items()}
            self.call(callback, event, {**common, **given, **self.extra})

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        """Call `event` of a callback that has it, and return its answer.

        Rules override this to look before and after.
        """
        answer = None
        try:
            method = getattr(callback, event, None)
            if method is not None:
                answer = method(self.args, self.state, self.control, **keywords)
        except Exception as error:
            raise ContractViolation(
                f"{type(callback).__name__}.{event} raised {error!r}"
            ) from error
        if isinstance(answer, TrainerControl):
            self.control = answer
        return answer

    def begin(self) -> None:
        """Begin a training, of a trainer that has been built."""
        if not self._built:
            self.fire("on_init_end")
        self.fire("on_train_begin")

    def step(self, logs: Mapping[str, Any] | None = None) -> None:
        """Do an update step, and log `logs` at its end where there are any."""
        self.fire("on_step_begin")
        self.fire("on_substep_end", loss=0.5)
        self.fire("on_pre_optimizer_step")
        self.fire("on_optimizer_step")
        self.state.global_step += 1
        self.state.epoch = self.state.global_step / 2
        self.fire("on_step_end", loss=0.5)
        if logs is not None:
            self.log(logs)

    def log(self, logs: Mapping[str, Any]) -> None:
        """Log `logs` at the current step."""
        logs = {**logs, "epoch": self.state.epoch}
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.fire("on_log", logs=logs)

    def evaluate(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Evaluate: a batch, the log and the event."""
        metrics = {"eval_loss": 1.0, "eval_runtime": 0.1} if metrics is None else dict(metrics)
        self.fire("on_prediction_step")
        self.log(metrics)
        self.fire("on_evaluate", metrics={**metrics, "epoch": self.state.epoch})
        self._note_the_best(metrics.get("eval_loss"))

    def predict(self) -> None:
        """Predict: a batch and the event."""
        self.fire("on_prediction_step")
        self.fire("on_predict", metrics={"test_loss": 1.0, "test_runtime": 0.1})

    def save(self) -> Path:
        """Save a checkpoint, and return it."""
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "model.safetensors").write_bytes(bytes(range(64)))
        (checkpoint / "trainer_state.json").write_text("{}")
        self.fire("on_save", checkpoint_dir=str(checkpoint))
        return checkpoint

    def _note_the_best(self, loss: Any) -> None:
        best = self.state.best_metric
        if isinstance(loss, float) and (best is None or loss < best):
            self.state.best_metric, self.state.best_global_step = loss, self.state.global_step

    def end(self, error: BaseException | None = None) -> None:
        """End the training, by `error` where it is given."""
        if error is not None:
            self.fire("on_exception", exception=error)
        self.fire("on_train_end")

    def run(self, steps: int = 4, *, evaluate: bool = True, save: bool = False) -> None:
        """Train for `steps` steps, two to an epoch, logging each."""
        self.begin()
        for number in range(1, steps + 1):
            if number % 2:
                self.fire("on_epoch_begin")
            self.step({"loss": 1 / number, "learning_rate": 0.125})
            if number % 2 == 0 or number == steps:
                if evaluate:
                    self.evaluate()
                if save:
                    self.save()
                self.fire("on_epoch_end")
        self.log({"train_runtime": 0.5, "train_loss": 0.25})
        self.end()

    def live(self) -> None:
        """Go through every event: the trainer is built, trains, predicts and pushes."""
        self.fire("on_init_end")
        self.run(save=True)
        self.predict()
        self.fire("on_push_begin")


class Case:
    """What one rule is checked with.

    Args:
        subject: What is checked.
        folder: An empty directory.

    Attributes:
        output_dir: Where the trainings of this case write to.
    """

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject = subject
        self.output_dir = folder / "output"
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self._trained: list[Any] = []

    def make(self) -> Any:
        """Return a new callback."""
        return self.subject.make(self.output_dir)

    def arguments(self, **changed: Any) -> Arguments:
        """Return the arguments of a training that writes to `output_dir`."""
        return Arguments(str(self.output_dir), **{**self.subject.arguments, **changed})

    def training(
        self,
        *callbacks: Any,
        args: Arguments | None = None,
        state: TrainerState | None = None,
        **extra: Any,
    ) -> Training:
        """Return a training with `callbacks`; with a new one where none is given."""
        callbacks = callbacks or (self.make(),)
        self._trained += callbacks
        return Training(callbacks, args or self.arguments(), state, **extra)

    def let_go(self) -> None:
        """Keep nothing of the trainings so far, which have ended."""
        self._trained.clear()

    def end(self) -> None:
        """End what its trainings have begun and not ended: the next case is to hear nothing."""
        (self.output_dir.parent / OVER).touch()
        end_trainings(self._trained)

    def runs(self) -> list[RecordedRun]:
        """Return what the store holds of the trainings of this case."""
        return self.subject.read(self.output_dir)

    def run(self) -> RecordedRun:
        """Return the only run that the store holds."""
        runs = self.runs()
        require(len(runs) == 1, f"the store holds {len(runs)} runs of one training")
        return runs[0]
