"""`TrainingArguments`: everything about a run that is a plain value, checked when it is made."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Final

import torch

from callback_core import IntervalStrategy
from trainer_torch.schedules import SCHEDULES


@dataclass
class TrainingArguments:
    """The settings of a training, under the names and with the defaults of transformers 5.23.

    Only `report_to` differs: it is `all`, and means the tracker packages that are installed.

    Where a number of steps is a fraction below 1, it is that fraction of all update steps.

    Args:
        output_dir: Where checkpoints and what trackers keep on disk are written.
        per_device_train_batch_size: Samples in a batch of training.
        per_device_eval_batch_size: Samples in a batch of evaluation and prediction.
        gradient_accumulation_steps: Batches that make one update step.
        num_train_epochs: How often to go through the training data; a fraction ends within an
            epoch.
        max_steps: Update steps to do; overrides `num_train_epochs` when it is not -1.
        learning_rate: The highest learning rate of the schedule.
        weight_decay: AdamW's decay of matrices and higher; biases and norms, being vectors, are not
            decayed.
        adam_beta1: AdamW's first beta.
        adam_beta2: AdamW's second beta.
        adam_epsilon: AdamW's epsilon.
        max_grad_norm: Clip the gradient to this norm; 0 does not clip.
        lr_scheduler_type: `linear`, `cosine`, `constant` or `constant_with_warmup`.
        warmup_steps: Update steps in which the learning rate rises from 0.
        eval_strategy: Evaluate `no`, each `eval_steps` `steps`, or each `epoch`.
        eval_steps: Update steps between evaluations; as `logging_steps` where it is not given.
        eval_delay: Steps or epochs, as `eval_strategy` counts, before the first evaluation.
        eval_on_start: Evaluate before the first step too.
        logging_strategy: Log `no`, each `logging_steps` `steps`, or each `epoch`.
        logging_first_step: Log the first update step whatever the strategy.
        logging_steps: Update steps between logs.
        save_strategy: Save a checkpoint `no`, each `save_steps` `steps`, or each `epoch`.
        save_steps: Update steps between checkpoints.
        save_total_limit: Keep so many checkpoints: the newest and the best one, older ones are
            deleted.
        enable_jit_checkpoint: Save a checkpoint when SIGINT or SIGTERM ends the training, which it
            does after the step that it is in.
        load_best_model_at_end: Load the best saved weights when training ends.
        metric_for_best_model: The metric that tells which is best, with or without its `eval_`
            prefix; `loss` where it is not given and the best model is to be loaded.
        greater_is_better: Whether a greater metric is better; where it is not given, unless its
            name ends in `loss`.
        seed: Seeds weights made later, dropout and the order of the data.
        data_seed: Seeds the order of the data instead of `seed`.
        use_cpu: Stay on the CPU although there is a GPU.
        dataloader_drop_last: Leave out a last batch that is not full.
        dataloader_num_workers: Processes that load data; 0 loads in the training process.
        dataloader_pin_memory: Load into pinned memory, from which a GPU copies faster.
        disable_tqdm: Print the logs instead of showing a progress bar.
        ddp_find_unused_parameters: Under several processes, look in each backward pass for
            parameters without a gradient, which a model that leaves out some of its parts needs.
        ddp_timeout: Seconds that one of several processes waits for the others.
        report_to: Trackers to report to, by name; `all` is every tracker package that is installed
            and knows where to send to, `none` no one.
        run_name: The name of the run in trackers.

    Raises:
        ValueError: A value that cannot be; the message names the argument, the value and what it
            may be.
    """

    output_dir: str = "trainer_output"
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    num_train_epochs: float = 3.0
    max_steps: int = -1
    learning_rate: float = 5e-5
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    lr_scheduler_type: str = "linear"
    warmup_steps: float = 0
    eval_strategy: str = "no"
    eval_steps: float | None = None
    eval_delay: float = 0
    eval_on_start: bool = False
    logging_strategy: str = "steps"
    logging_first_step: bool = False
    logging_steps: float = 500
    save_strategy: str = "steps"
    save_steps: float = 500
    save_total_limit: int | None = None
    enable_jit_checkpoint: bool = False
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = None
    greater_is_better: bool | None = None
    seed: int = 42
    data_seed: int | None = None
    use_cpu: bool = False
    dataloader_drop_last: bool = False
    dataloader_num_workers: int = 0
    dataloader_pin_memory: bool = True
    disable_tqdm: bool = False
    ddp_find_unused_parameters: bool | None = None
    ddp_timeout: int = 1800
    report_to: str | list[str] = "all"
    run_name: str | None = None

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise ValueError(f"output_dir is {self.output_dir!r}, it must name a directory.")
        self.output_dir = os.fspath(self.output_dir)
        for name in ("eval_strategy", "logging_strategy", "save_strategy"):
            setattr(self, name, _strategy(name, getattr(self, name)))
        if self.lr_scheduler_type not in SCHEDULES:
            raise ValueError(_one_of("lr_scheduler_type", self.lr_scheduler_type, SCHEDULES))
        if self.eval_steps is None and self.eval_strategy == IntervalStrategy.STEPS:
            self.eval_steps = self.logging_steps
        self._check_numbers()
        if self.load_best_model_at_end:
            self._check_best_model()
            self.metric_for_best_model = self.metric_for_best_model or "loss"
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = not self.metric_for_best_model.endswith("loss")

    @property
    def device(self) -> torch.device:
        """The device that is trained on: the current GPU where there is one, unless `use_cpu`."""
        return torch.device("cuda" if torch.cuda.is_available() and not self.use_cpu else "cpu")

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Return how many of `num_training_steps` update steps are warm-up."""
        return (
            math.ceil(num_training_steps * self.warmup_steps)
            if self.warmup_steps < 1
            else int(self.warmup_steps)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all arguments as values that JSON knows."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def to_json_string(self) -> str:
        """Return all arguments as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def _check_numbers(self) -> None:
        """Refuse numbers that cannot be, and make numpy's Python's, which checkpoints can hold."""
        for name, least in _WHOLE_NUMBERS.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not _is_number(value) or value != int(value) or value < least:
                raise ValueError(
                    f"{name} is {value!r}, it must be a whole number, at least {least}."
                )
            setattr(self, name, int(value))
        for name, (lowest, most) in _NUMBERS.items():
            value = getattr(self, name)
            if not _is_number(value) or not lowest <= value < most:
                until = "" if most == math.inf else f" and less than {most}"
                raise ValueError(
                    f"{name} is {value!r}, it must be a number, at least {lowest}{until}."
                )
            setattr(self, name, float(value))
        for name in ("logging_steps", "eval_steps", "save_steps"):
            steps = getattr(self, name)
            if steps is None and name in _OPTIONAL:
                continue
            if not _is_number(steps) or steps <= 0 or (steps > 1 and steps != int(steps)):
                raise ValueError(
                    f"{name} is {steps!r}, it must be a whole number of steps or a share below 1."
                )
            setattr(self, name, float(steps) if steps < 1 else int(steps))
        if self.max_steps == 0:
            raise ValueError("max_steps is 0, it must be at least 1, or -1 for num_train_epochs.")
        if self.max_steps == -1 and self.num_train_epochs == 0:
            raise ValueError("num_train_epochs is 0, it must be greater.")

    def _check_best_model(self) -> None:
        if self.eval_strategy == IntervalStrategy.NO:
            raise ValueError(
                "load_best_model_at_end needs evaluations to tell which model is best, but "
                "eval_strategy is 'no'. Set it to 'steps' or 'epoch', and save_strategy likewise."
            )
        if self.save_strategy != self.eval_strategy:
            raise ValueError(
                "load_best_model_at_end needs a checkpoint wherever the best model may be, but "
                f"eval_strategy is {self.eval_strategy!r} and save_strategy "
                f"{self.save_strategy!r}. Make them the same."
            )
        if self.save_strategy == IntervalStrategy.STEPS and not _is_multiple(
            self.save_steps, self.eval_steps
        ):
            raise ValueError(
                "load_best_model_at_end needs every checkpoint to be evaluated, but save_steps "
                f"({self.save_steps}) is not a multiple of eval_steps ({self.eval_steps})."
            )


_WHOLE_NUMBERS: Final = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_steps": -1,
    "save_total_limit": 1,
    "seed": 0,
    "data_seed": 0,
    "dataloader_num_workers": 0,
    "ddp_timeout": 1,
}
"""Arguments that are whole numbers, and the least that each may be."""

_NUMBERS: Final = {
    "num_train_epochs": (0.0, math.inf),
    "learning_rate": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "adam_beta1": (0.0, 1.0),
    "adam_beta2": (0.0, 1.0),
    "adam_epsilon": (0.0, math.inf),
    "max_grad_norm": (0.0, math.inf),
    "warmup_steps": (0.0, math.inf),
    "eval_delay": (0.0, math.inf),
}
"""Arguments that are numbers, the least that each may be and what it must be below."""

_OPTIONAL: Final = ("save_total_limit", "data_seed", "eval_steps")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _strategy(name: str, value: str) -> str:
    """Return the string of the strategy `value`, which may be transformers' member too."""
    try:
        return IntervalStrategy(value).value
    except ValueError:
        raise ValueError(
            _one_of(name, value, [strategy.value for strategy in IntervalStrategy])
        ) from None


def _one_of(name: str, value: object, choices: Any) -> str:
    return f"{name} is {value!r}, it must be one of: {', '.join(choices)}."


def _is_multiple(steps: float, of: float | None) -> bool:
    """Return whether `steps` is a multiple, also where both are fractions and neither is exact."""
    if of is None:
        return False
    ratio = steps / of
    return (steps < 1) == (of < 1) and math.isclose(ratio, round(ratio)) and round(ratio) >= 1
