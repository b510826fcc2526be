"""`Training`: a loop that trains a small model and calls callbacks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from callback_contract._models import make_learner
from callback_contract._violation import FIX_OF_AN_ERROR, ContractViolation, place_of
from callback_core import EVENTS, TrainerControl, TrainerState

OUT_OF_MEMORY: Final = RuntimeError("CUDA out of memory")
"""The error in trainings that die."""

EVAL_LOSSES: Final = (1.0, 0.8, 0.9, 0.85, 0.95, 0.9)
"""The `eval_loss` of each evaluation, in order. It improves at first only."""


@dataclass
class Arguments:
    """The arguments of a training, with the names that transformers uses."""

    output_dir: str
    run_name: str | None = "contract"
    logging_dir: str | None = None
    logging_strategy: str = "steps"
    logging_first_step: bool = False
    logging_steps: int = 1
    eval_strategy: str = "steps"
    eval_steps: int | None = 2
    eval_delay: float = 0.0
    save_strategy: str = "steps"
    save_steps: int = 2
    save_total_limit: int | None = None
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = "loss"
    greater_is_better: bool | None = False
    learning_rate: float = 0.125
    weight_decay: float = 0.0
    num_train_epochs: float = 2.0
    max_steps: int = -1
    gradient_accumulation_steps: int = 2
    per_device_train_batch_size: int = 4
    seed: int = 42
    disable_tqdm: bool = False
    report_to: list[str] = field(default_factory=list)
    process_index: int = 0
    local_rank: int = 0
    world_size: int = 1
    hub_token: str | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return all arguments as plain values, including those in `more`."""
        arguments: dict[str, Any] = asdict(self)
        more: dict[str, Any] = arguments.pop("more")
        return arguments | more

    def to_sanitized_dict(self) -> dict[str, Any]:
        """Return all arguments as bool, int, float or str, as transformers does."""
        plain = (bool, int, float, str)
        return {n: v if type(v) in plain else str(v) for n, v in self.to_dict().items()}

    def to_json_string(self) -> str:
        """Return all arguments as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __getattr__(self, name: str) -> Any:
        more = vars(self).get("more", {})
        if name in more:
            return more[name]
        raise AttributeError(f"the arguments of this training lack {name!r}")


class Training:
    """Trains a small model, and calls callbacks as a loop does.

    If a callback raises an error, it violates the contract.

    Args:
        callbacks: The callbacks, in the order of their calls.
        args: The arguments.
        state: The state at the beginning; by default a new one.
        max_steps: The number of update steps. The state has it once the training begins.
        make_model: Makes the model; returns `None` for the default model.
        extra: Keywords that all events pass besides their own.

    Attributes:
        model: The model.
        control: The requests of the callbacks.
        history: The events so far, each with its step.
    """

    def __init__(
        self,
        callbacks: Iterable[Any],
        args: Arguments,
        state: TrainerState | None = None,
        *,
        max_steps: int = 8,
        make_model: Callable[[], Any] = lambda: None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.callbacks = list(callbacks)
        self.args = args
        self.state = TrainerState() if state is None else state
        self.control = TrainerControl()
        self.max_steps = max_steps
        self.extra = dict(extra or {})
        self.learner = make_learner(make_model)
        self.model = self.learner.model
        self.history: list[tuple[str, int]] = []
        self._evaluations = self.state.global_step // 2
        self._is_built = False
        self._has_begun = False
        self._has_evaluated = False

    def fire(self, event: str, **passed: Any) -> None:
        """Call `event` of each callback that has it."""
        self._is_built = self._is_built or event == "on_init_end"
        self.history.append((event, self.state.global_step))
        for flag in EVENTS[event].resets if event in EVENTS else ():
            setattr(self.control, flag, False)
        keywords = {**self.common(), **passed, **self.extra}
        for callback in self.callbacks:
            given = {n: dict(v) if n in ("logs", "metrics") else v for n, v in keywords.items()}
            self.call(callback, event, given)
        try:
            self.control.pass_logs(self.log_for_callback)
        except RuntimeError as error:  # a callback logs at every on_log
            raise ContractViolation(str(error)) from error

    def log_for_callback(self, logs: Mapping[str, Any]) -> None:
        """Log what a callback logs."""
        is_due = self.control.should_log  # on_log resets it
        self.log(plain_logs(logs))
        self.control.should_log = is_due

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        """Call `event` of a callback, and return its answer; `None` if it lacks the method.

        Rules override this to compare what is before and after the call.
        """
        try:
            answer = self._invoke(callback, event, keywords)
        except Exception as error:
            cause = f"{type(callback).__name__}.{event} raised {place_of(error, callback)}"
            seen = f"{cause}, at step {self.state.global_step}: {error!r}"
            raise ContractViolation(seen, cause, FIX_OF_AN_ERROR) from error
        if isinstance(answer, TrainerControl):
            self.control = answer
        return answer

    def _invoke(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        method = getattr(callback, event, None)
        if method is None:
            return None
        return method(self.args, self.state, self.control, **keywords)

    def common(self) -> dict[str, Any]:
        """Return the keywords of every event.

        Some are `None` until the training begins, or until its first evaluation.
        """
        learner, begun = self.learner, self._has_begun
        return {
            "model": self.model,
            "processing_class": None,
            "tokenizer": None,
            "optimizer": learner.optimizer if begun else None,
            "lr_scheduler": learner.lr_scheduler if begun else None,
            "train_dataloader": learner.train_dataloader if begun else None,
            "eval_dataloader": learner.eval_dataloader if self._has_evaluated else None,
        }

    def begin(self) -> None:
        """Build the trainer if necessary, and begin to train. This sets `state.max_steps`."""
        if not self._is_built:
            self.fire("on_init_end")
        self._has_begun = True
        state = self.state
        state.max_steps = self.max_steps
        state.num_train_epochs = -(-self.max_steps // 2)
        state.epoch = state.epoch or 0.0
        state.logging_steps, state.eval_steps, state.save_steps = 1, 2, 2
        state.train_batch_size = self.args.per_device_train_batch_size
        _set_mode(self.model, True)
        self.fire("on_train_begin")

    def step(
        self,
        logs: Mapping[str, Any] | None = None,
        *,
        evaluates: bool = False,
        saves: bool = False,
    ) -> None:
        """Do an update step of two batches, then log `logs` unless they are `None`.

        What follows the step is on in the control at `on_step_end`, as in a loop whose
        `DefaultFlowCallback` is called first.

        Args:
            logs: The logs.
            evaluates: Whether `evaluate` is called next.
            saves: Whether `save` is called next, or after `evaluate`.
        """
        self.fire("on_step_begin")
        self.fire("on_substep_end", loss=self.learner.backward())
        loss = self.learner.backward()
        self.fire("on_pre_optimizer_step")
        self.learner.step()
        self.fire("on_optimizer_step")
        self.learner.zero_grad()
        self.state.global_step += 1
        self.state.epoch = self.state.global_step / 2
        due = {"should_log": logs is not None, "should_evaluate": evaluates, "should_save": saves}
        for flag in (flag for flag, is_due in due.items() if is_due):
            setattr(self.control, flag, True)
        self.fire("on_step_end", loss=loss)
        if logs is not None:
            self.log(logs)

    def log(self, logs: Mapping[str, Any]) -> None:
        """Log `logs` at the current step."""
        if self.state.epoch is not None:
            logs = {**logs, "epoch": self.state.epoch}
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.fire("on_log", logs=dict(logs))

    def evaluate(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Evaluate two batches, log the metrics and fire the event.

        Args:
            metrics: The metrics; by default a loss of `EVAL_LOSSES`, the accuracy and the runtime.
        """
        if metrics is None:
            loss = EVAL_LOSSES[self._evaluations % len(EVAL_LOSSES)]
            metrics = {"eval_loss": loss, "eval_accuracy": 1 - loss / 2}
            metrics |= {"eval_runtime": 0.1, "eval_samples_per_second": 160.0}
            self._evaluations += 1
        was = _mode(self.model)
        _set_mode(self.model, False)
        self._has_evaluated = True
        for _ in range(2):
            self.fire("on_prediction_step")
        _set_mode(self.model, was)
        self.log(metrics)
        epoch = {} if self.state.epoch is None else {"epoch": self.state.epoch}
        self.fire("on_evaluate", metrics={**metrics, **epoch})
        self._update_best_metric(metrics.get("eval_loss"))

    def predict(self) -> None:
        """Predict two batches and fire the event."""
        self._has_evaluated = True
        for _ in range(2):
            self.fire("on_prediction_step")
        self.fire("on_predict", metrics={"test_loss": 1.0, "test_runtime": 0.1})

    def save(self, folder: str = "") -> Path:
        """Save a checkpoint in `folder` below `output_dir`, and return its path."""
        checkpoint = Path(self.args.output_dir, folder, f"checkpoint-{self.state.global_step}")
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "model.safetensors").write_bytes(bytes(range(64)))
        (checkpoint / "trainer_state.json").write_text('{"global_step": 0}')
        (checkpoint / "nested").mkdir(exist_ok=True)
        (checkpoint / "nested" / "part-1.bin").write_bytes(b"\x00nested")
        self.fire("on_save", checkpoint_dir=str(checkpoint))
        return checkpoint

    def _update_best_metric(self, loss: Any) -> None:
        best = self.state.best_metric
        if isinstance(loss, float) and (loss < best if best is not None else loss == loss):
            self.state.best_metric, self.state.best_global_step = loss, self.state.global_step

    def end(self, error: BaseException | None = None) -> None:
        """End the training, with `error` if there is one."""
        if error is not None:
            self.fire("on_exception", exception=error)
        self.fire("on_train_end")

    def steps(self, *, save: bool = False) -> Iterator[int]:
        """Train to the last step, in epochs of two steps, and yield each step.

        Each step is logged. Each epoch ends with an evaluation and, if `save` is set, a checkpoint.
        The loop also follows the requests of callbacks, such as the end of the training.
        """
        state = self.state
        while state.global_step < self.max_steps and not self.control.should_training_stop:
            if state.global_step % 2 == 0 or self.control.should_epoch_stop:
                self.learner.begin_epoch()
                self.fire("on_epoch_begin")
            step = state.global_step + 1
            ends = step % 2 == 0 or step == self.max_steps
            self.step(_logs_of(step), evaluates=ends, saves=ends and save)
            if ends or self.control.should_evaluate:
                self.evaluate()
            if (ends and save) or self.control.should_save:
                self.save()
            if ends or self.control.should_epoch_stop or self.control.should_training_stop:
                self.fire("on_epoch_end")
            yield state.global_step

    def run(self, *, save: bool = False) -> None:
        """Train from the beginning to the end."""
        self.begin()
        self.complete(save=save)

    def complete(self, *, save: bool = False) -> None:
        """Train from the current step to the last one, and end."""
        for _ in self.steps(save=save):
            pass
        self.finish()

    def finish(self) -> None:
        """Log the totals, and end the training."""
        self.log({"train_runtime": 12.5, "train_loss": 0.375, "total_flos": 1e9})
        self.end()

    def live(self) -> None:
        """Fire every event: build the trainer, train, predict and push."""
        self.run(save=True)
        self.predict()
        self.fire("on_push_begin")

    def summary(self) -> str:
        """Return the events so far, for messages."""
        counts = Counter(event for event, _ in self.history)
        shown = [
            event if counts[event] == 1 else f"{counts[event]} x {event}"
            for event in dict.fromkeys(event for event, _ in self.history)
            if event not in _WITHIN_A_STEP
        ]
        first, last = (self.history[i][1] if self.history else 0 for i in (0, -1))
        return f"from step {first} to {last}: {', '.join(shown)}" if shown else ""


_WITHIN_A_STEP: Final = (
    "on_step_begin",
    "on_substep_end",
    "on_pre_optimizer_step",
    "on_optimizer_step",
    "on_prediction_step",
)


def _logs_of(step: int) -> dict[str, Any]:
    return {"loss": 1 / step, "grad_norm": 1.5, "learning_rate": 0.125 / step}


def plain_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the logs of a callback as a loop logs them: arrays and tensors become numbers."""
    return {name: v.item() if hasattr(v, "item") else v for name, v in logs.items()}


def _mode(model: Any) -> bool:
    return bool(getattr(model, "training", True))


def _set_mode(model: Any, training: bool) -> None:
    """Set the mode to training or evaluation. Frozen modules stay in evaluation mode."""
    if callable(getattr(model, "train", None)):
        model.train(training)
    for module in model.modules() if hasattr(model, "modules") else ():
        weights = [weight.requires_grad for weight in module.parameters()]
        if weights and not any(weights):
            module.eval()
