"""The runs whose events are compared with transformers', and how events are written down.

The same code runs both trainers: `run` is handed the classes of the one or the other. What
transformers fired stands in `event_sequences/<group>.txt`, which
`tools/peers/record_event_sequences.py` writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

SEQUENCES: Final = Path(__file__).parent / "event_sequences"

FLAG_LETTERS: Final = {
    "should_training_stop": "T",
    "should_epoch_stop": "E",
    "should_save": "S",
    "should_evaluate": "V",
    "should_log": "L",
}

FIRED_WHILE_TRAINING: Final = (
    "on_train_begin",
    "on_epoch_begin",
    "on_step_begin",
    "on_substep_end",
    "on_pre_optimizer_step",
    "on_optimizer_step",
    "on_step_end",
    "on_log",
    "on_prediction_step",
    "on_evaluate",
    "on_save",
    "on_epoch_end",
    "on_train_end",
)


@dataclass(frozen=True)
class Action:
    """Switch `flag` on once: the first time that `event` fires at `global_step` `step` or later."""

    flag: str
    event: str
    step: int


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        name: What the run is about; unique.
        group: The file that its events stand in.
        arguments: Keywords of `TrainingArguments`.
        batches: Batches in an epoch of training.
        eval_datasets: Names of the datasets to evaluate on; empty for one without a name.
        calls: The methods of the trainer that are called, in this order; `resume` is `train` from
            the newest checkpoint.
        action: What the callback does besides recording.
    """

    name: str
    group: str
    arguments: Mapping[str, Any]
    batches: int = 5
    eval_datasets: tuple[str, ...] = ()
    calls: tuple[str, ...] = ("train",)
    action: Action | None = None


def steps(logging: float, evaluation: float, saving: float) -> dict[str, Any]:
    """Return the arguments that log, evaluate and save at an interval of steps."""
    return {
        "logging_strategy": "steps",
        "logging_steps": logging,
        "eval_strategy": "steps",
        "eval_steps": evaluation,
        "save_strategy": "steps",
        "save_steps": saving,
    }


def strategies(logging: str, evaluation: str, saving: str) -> dict[str, Any]:
    """Return the arguments that log, evaluate and save by these strategies, steps being two."""
    return {
        **steps(2, 2, 2),
        "logging_strategy": logging,
        "eval_strategy": evaluation,
        "save_strategy": saving,
    }


QUIET: Final = strategies("no", "no", "no")
TWO_EPOCHS: Final = {"num_train_epochs": 2}
ACCUMULATE_2: Final = {"gradient_accumulation_steps": 2, **TWO_EPOCHS}


def _accumulation_cases() -> Iterable[Case]:
    group = "accumulation"
    first = {"logging_first_step": True}
    yield Case("accumulate_2_of_5", group, {**ACCUMULATE_2, **steps(2, 2, 4), **first})
    yield Case(
        "accumulate_3_of_4",
        group,
        {**ACCUMULATE_2, **steps(1, 2, 3), "gradient_accumulation_steps": 3},
        4,
    )
    yield Case("accumulate_2_of_4", group, {**ACCUMULATE_2, **steps(2, 2, 4)}, 4)
    yield Case("accumulate_more_than_an_epoch", group, {**ACCUMULATE_2, **steps(1, 1, 1)}, 1)
    yield Case("no_accumulation", group, {**TWO_EPOCHS, **steps(2, 3, 4)})
    yield Case("one_step", group, {"max_steps": 1, **steps(2, 2, 2)})


def _length_cases() -> Iterable[Case]:
    group = "length"
    middle = {"gradient_accumulation_steps": 2, **steps(2, 2, 2)}
    yield Case("max_steps_in_the_middle_of_an_epoch", group, {**middle, "max_steps": 4})
    yield Case("max_steps_not_due", group, {**middle, "max_steps": 5})
    yield Case("max_steps_at_the_end_of_an_epoch", group, {**middle, "max_steps": 3})
    yield Case(
        "max_steps_by_epochs", group, {**strategies("epoch", "epoch", "epoch"), "max_steps": 7}
    )
    yield Case(
        "one_and_a_half_epochs", group, {**ACCUMULATE_2, **steps(2, 2, 2), "num_train_epochs": 1.5}
    )
    yield Case("half_an_epoch", group, {**steps(2, 2, 2), "num_train_epochs": 0.5})
    yield Case("steps_beyond_the_end", group, {**TWO_EPOCHS, **steps(100, 100, 100)})
    yield Case("steps_are_a_quarter", group, {**TWO_EPOCHS, **steps(0.25, 0.25, 0.25)})
    yield Case("steps_are_three_fractions", group, {**TWO_EPOCHS, **steps(0.15, 0.3, 0.45)})
    yield Case("fractions_of_max_steps", group, {**steps(0.1, 0.34, 0.5), "max_steps": 7})
    yield Case("fractions_of_accumulated_steps", group, {**ACCUMULATE_2, **steps(0.25, 0.25, 0.5)})


def _strategy_cases() -> Iterable[Case]:
    group = "strategies"
    base = ACCUMULATE_2
    yield Case("nothing", group, {**base, **QUIET})
    yield Case("first_step_only", group, {**base, **QUIET, "logging_first_step": True})
    yield Case(
        "first_step_and_epochs",
        group,
        {**base, **strategies("epoch", "no", "no"), "logging_first_step": True},
    )
    for strategy in ("steps", "epoch"):
        yield Case(f"log_{strategy}", group, {**base, **strategies(strategy, "no", "no")})
        yield Case(f"evaluate_{strategy}", group, {**base, **strategies("no", strategy, "no")})
        yield Case(f"save_{strategy}", group, {**base, **strategies("no", "no", strategy)})
        yield Case(f"all_{strategy}", group, {**base, **strategies(strategy, strategy, strategy)})
        other = "steps" if strategy == "epoch" else "epoch"
        for name, varied in (
            ("log", strategies(strategy, other, other)),
            ("evaluate", strategies(other, strategy, other)),
            ("save", strategies(other, other, strategy)),
        ):
            yield Case(f"{name}_{strategy}_others_{other}", group, {**base, **varied})
    yield Case(
        "eval_steps_from_logging_steps", group, {**base, **steps(2, 2, 2), "eval_steps": None}
    )


def _evaluation_cases() -> Iterable[Case]:
    group = "evaluation"
    by_steps, by_epochs = steps(2, 2, 2), strategies("epoch", "epoch", "epoch")
    best = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
    }
    three = {"num_train_epochs": 3}
    a_and_b = ("a", "b")
    yield Case("on_start", group, {**TWO_EPOCHS, **by_steps, "eval_on_start": True})
    yield Case("on_start_by_epochs", group, {**TWO_EPOCHS, **by_epochs, "eval_on_start": True})
    yield Case("delay_in_steps", group, {**TWO_EPOCHS, **by_steps, "eval_delay": 5})
    yield Case("delay_at_a_due_step", group, {**TWO_EPOCHS, **by_steps, "eval_delay": 4})
    yield Case("delay_beyond_the_end", group, {**TWO_EPOCHS, **by_steps, "eval_delay": 11})
    yield Case("delay_in_epochs", group, {**three, **by_epochs, "eval_delay": 2})
    yield Case("delay_in_parts_of_epochs", group, {**three, **by_epochs, "eval_delay": 1.5})
    yield Case("best_by_steps", group, {**TWO_EPOCHS, **by_steps, **best})
    yield Case("best_by_epochs", group, {**TWO_EPOCHS, **by_epochs, **best})
    yield Case("best_of_one_kept", group, {**TWO_EPOCHS, **by_steps, **best, "save_total_limit": 1})
    yield Case("two_kept", group, {**TWO_EPOCHS, **by_steps, "save_total_limit": 2})
    yield Case("two_datasets", group, {**TWO_EPOCHS, **by_steps}, eval_datasets=a_and_b)
    best_of_a = {**best, "metric_for_best_model": "a_loss", "save_total_limit": 1}
    both = {**TWO_EPOCHS, **by_steps, **best_of_a}
    yield Case("best_of_two_datasets", group, both, eval_datasets=a_and_b)
    yield Case(
        "two_datasets_on_start", group, {**by_epochs, "eval_on_start": True}, eval_datasets=a_and_b
    )
    yield Case(
        "two_datasets_evaluated_alone", group, QUIET, eval_datasets=a_and_b, calls=("evaluate",)
    )


def _call_cases() -> Iterable[Case]:
    group = "calls"
    arguments = {"max_steps": 3, **steps(2, 2, 3)}
    yield Case(
        "evaluate_and_predict_after", group, arguments, calls=("train", "evaluate", "predict")
    )
    yield Case(
        "predict_and_evaluate_after", group, arguments, calls=("train", "predict", "evaluate")
    )
    yield Case("evaluate_before", group, arguments, calls=("evaluate", "train"))
    yield Case("predict_before", group, arguments, calls=("predict", "train"))
    yield Case("evaluate_only", group, arguments, calls=("evaluate", "evaluate"))
    yield Case("predict_only", group, arguments, calls=("predict",))
    yield Case("train_twice", group, arguments, calls=("train", "train"))
    later = ("evaluate", "predict", "train")
    for flag in FLAG_LETTERS:
        for event, calls in (
            ("on_init_end", later),
            ("on_predict", later),
            ("on_train_end", ("train", *later)),
        ):
            name = f"{flag}_at_{event}"
            yield Case(name, group, arguments, calls=calls, action=Action(flag, event, 0))


def _resume_cases() -> Iterable[Case]:
    """Stop, then resume from the newest checkpoint.

    Cases are left out in which transformers 5.23.0 does not continue as the training would have
    continued. It counts epochs by steps, so after an epoch that was cut short it repeats what was
    done, and after `max_steps` within an epoch it trains beyond them. After a checkpoint at the
    last step of an epoch, including the last step of all, it never fires `on_epoch_end` for that
    epoch. It repeats the evaluation on start at every resumption.
    """
    group = "resume"
    twice = ("train", "resume")
    for name, saved, stop in (
        ("in_an_epoch", 2, Action("should_training_stop", "on_step_end", 3)),
        ("in_a_step", 2, Action("should_training_stop", "on_substep_end", 2)),
        ("after_one_step", 1, Action("should_training_stop", "on_step_begin", 1)),
    ):
        arguments = {**ACCUMULATE_2, **steps(1, 2, saved)}
        yield Case(name, group, arguments, calls=twice, action=stop)
    by_epochs = {**ACCUMULATE_2, **strategies("epoch", "epoch", "epoch")}
    stop = Action("should_training_stop", "on_step_end", 4)
    yield Case("by_epochs", group, by_epochs, calls=twice, action=stop)


ACTION_ARGUMENTS: Final = {**ACCUMULATE_2, **steps(2, 3, 5)}
"""Six steps in two epochs, every third of one batch only; log 2, 4, 6, evaluate 3, 6, save 5, 6."""


def _action_cases(flag: str) -> Iterable[Case]:
    """Switch `flag` on at each event of a training: after its first step, and in its last one."""
    for event in FIRED_WHILE_TRAINING:
        step = 0 if event == "on_train_begin" else 1
        yield Case(f"{flag}_at_{event}", flag, ACTION_ARGUMENTS, action=Action(flag, event, step))
    for event in ("on_step_begin", "on_step_end", "on_log", "on_evaluate", "on_save"):
        step = 5 if event == "on_step_begin" else 6
        name = f"{flag}_at_{event}_of_last_step"
        yield Case(name, flag, ACTION_ARGUMENTS, action=Action(flag, event, step))
    arguments = {**ACCUMULATE_2, **QUIET, "logging_first_step": True}
    for event in ("on_substep_end", "on_step_end", "on_log", "on_epoch_end"):
        name = f"{flag}_at_{event}_without_strategies"
        yield Case(name, flag, arguments, action=Action(flag, event, 1))
    on_start = {**arguments, "eval_on_start": True}
    yield Case(
        f"{flag}_at_on_evaluate_on_start", flag, on_start, action=Action(flag, "on_evaluate", 0)
    )


CASES: Final = (
    *_accumulation_cases(),
    *_length_cases(),
    *_strategy_cases(),
    *_evaluation_cases(),
    *_call_cases(),
    *_resume_cases(),
    *(case for flag in FLAG_LETTERS for case in _action_cases(flag)),
)


class TinyModel(nn.Module):
    """A regression on two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.linear(x)
        return {"loss": nn.functional.mse_loss(logits, labels), "logits": logits}


class TinyDataset(Dataset[dict[str, Tensor]]):
    """So many samples, the same ones each time."""

    def __init__(self, samples: int) -> None:
        self.x = torch.linspace(-1, 1, 2 * samples).reshape(samples, 2)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.x[index].sum().reshape(1)}


class _Recorder:
    """The part of the recording callback that does not depend on whose callback it is."""

    def __init__(self, action: Action | None) -> None:
        self.lines: list[str] = []
        self._action = action

    def record(self, event: str, state: Any, control: Any) -> None:
        """Write down the event and the flags that it finds, then do what is due."""
        letters = "".join(letter for flag, letter in FLAG_LETTERS.items() if getattr(control, flag))
        self.lines.append(f"{event} {state.global_step} {letters or '-'}")
        action = self._action
        if action is not None and action.event == event and action.step <= state.global_step:
            setattr(control, action.flag, True)
            self._action = None


def recording_callback(base: type, action: Action | None) -> Any:
    """Return a callback of class `base` that keeps a line `event step flags` of every event."""

    def method(event: str) -> Any:
        def on_event(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.record(event, state, control)

        return on_event

    methods = {name: method(name) for name in dir(base) if name.startswith("on_")}
    return type("EventRecorder", (_Recorder, base), methods)(action)


def run(
    case: Case, trainer: Any, arguments: Any, callback: type, output_dir: Path, **more: Any
) -> list[str]:
    """Run `case` and return its events.

    Args:
        case: What to run.
        trainer: The class `Trainer`.
        arguments: The class `TrainingArguments`.
        callback: The class `TrainerCallback`.
        output_dir: Where checkpoints go.
        more: Arguments that only this trainer needs.
    """
    torch.manual_seed(0)
    recorder = recording_callback(callback, case.action)
    lines: list[str] = recorder.lines
    two_batches = TinyDataset(4)
    args = arguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        **case.arguments,
        **more,
    )
    running = trainer(
        model=TinyModel(),
        args=args,
        train_dataset=TinyDataset(2 * case.batches),
        eval_dataset=dict.fromkeys(case.eval_datasets, two_batches) or two_batches,
        callbacks=[recorder],
    )
    for call in case.calls:
        if call == "predict":
            running.predict(two_batches)
        elif call == "resume":
            running.train(resume_from_checkpoint=True)
        else:
            getattr(running, call)()
    return lines


def read_sequences() -> dict[tuple[str, str], list[str]]:
    """Return the recorded events by group and name of the case."""
    sequences: dict[tuple[str, str], list[str]] = {}
    for path in sorted(SEQUENCES.glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("["):
                lines = sequences.setdefault((path.stem, line.strip("[]")), [])
            elif line:
                lines.append(line)
    return sequences


def write_sequences(sequences: Mapping[tuple[str, str], Iterable[str]]) -> None:
    """Replace the recorded events by these: a file for a group, a section for a case."""
    SEQUENCES.mkdir(exist_ok=True)
    for path in SEQUENCES.glob("*.txt"):
        path.unlink()
    for group in dict.fromkeys(group for group, _ in sequences):
        sections = [
            "\n".join([f"[{name}]", *lines])
            for (of, name), lines in sequences.items()
            if of == group
        ]
        (SEQUENCES / f"{group}.txt").write_text("\n\n".join(sections) + "\n", encoding="utf-8")
