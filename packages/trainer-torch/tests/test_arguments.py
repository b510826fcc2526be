"""What the arguments accept, refuse and work out."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer_torch import TrainingArguments

BEST = {"load_best_model_at_end": True}


def test_the_defaults_are_transformers() -> None:
    args = TrainingArguments()
    assert (args.per_device_train_batch_size, args.num_train_epochs, args.max_steps) == (8, 3.0, -1)
    assert (args.learning_rate, args.max_grad_norm, args.lr_scheduler_type) == (5e-5, 1.0, "linear")
    assert (args.logging_strategy, args.eval_strategy, args.save_strategy) == (
        "steps",
        "no",
        "steps",
    )
    assert (args.logging_steps, args.save_steps, args.seed) == (500, 500, 42)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"eval_strategy": "daily"},
            "eval_strategy is 'daily'.* no, steps, epoch",
        ),
        ({"logging_strategy": "always"}, "logging_strategy is 'always'"),
        ({"save_strategy": ""}, "save_strategy is ''"),
        (
            {"lr_scheduler_type": "exponential"},
            "lr_scheduler_type is 'exponential'.* linear, cosine, .* constant, .* greedy",
        ),
        ({"logging_steps": -1}, "logging_steps is -1"),
        ({"logging_steps": 0}, "logging_steps is 0"),
        ({"eval_steps": 2.5}, "eval_steps is 2.5"),
        ({"save_steps": -500}, "save_steps is -500"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"max_steps": -5}, "max_steps is -5"),
        ({"num_train_epochs": -1}, "num_train_epochs is -1"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"save_total_limit": 0}, "save_total_limit is 0"),
        ({"save_total_limit": 1.5}, "save_total_limit is 1.5"),
        ({"per_device_train_batch_size": "8"}, "per_device_train_batch_size is '8'"),
        ({"seed": None}, "seed is None"),
        ({"logging_steps": float("nan")}, "logging_steps is nan"),
        ({"logging_steps": float("inf")}, "logging_steps is inf"),
        ({"max_steps": 2.5}, "max_steps is 2.5"),
        ({"max_grad_norm": None}, "max_grad_norm is None"),
        ({"adam_beta1": 1.0}, "adam_beta1 is 1.0.* 0.0 .* 1.0"),
        ({"num_train_epochs": 0}, "num_train_epochs is 0"),
        ({"output_dir": ""}, "output_dir is ''"),
        ({"greater_is_better": "False"}, "greater_is_better is 'False'"),
        ({"load_best_model_at_end": "no"}, "load_best_model_at_end is 'no'"),
        ({"use_cpu": "false"}, "use_cpu is 'false'"),
        ({"dataloader_drop_last": None}, "dataloader_drop_last is None"),
        ({"eval_on_start": 2}, "eval_on_start is 2"),
        ({**BEST}, "eval_strategy is 'no'"),
        ({**BEST, "eval_strategy": "epoch"}, "eval_strategy .*'epoch'.* save_strategy .*'steps'"),
        (
            {**BEST, "eval_strategy": "steps", "eval_steps": 3, "save_steps": 4},
            "save_steps .4.* eval_steps .3",
        ),
        (
            {**BEST, "eval_strategy": "steps", "eval_steps": 0.1, "save_steps": 4},
            "save_steps .4.* eval_steps .0.1",
        ),
    ],
)
def test_a_wrong_value_is_an_error_that_names_it_and_what_it_may_be(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingArguments(**wrong)


@pytest.mark.parametrize("yes", [True, 1, np.True_])
def test_what_is_true_or_false_may_be_a_number(yes: Any) -> None:
    assert TrainingArguments(use_cpu=yes).use_cpu is True
    assert TrainingArguments(greater_is_better=yes).greater_is_better is True


def test_evaluation_steps_follow_the_logging_steps() -> None:
    assert TrainingArguments(eval_strategy="steps", logging_steps=7).eval_steps == 7


@pytest.mark.parametrize("eval_steps", [0.1, 0.05, 0.3])
def test_a_fraction_may_be_a_multiple_of_a_fraction(eval_steps: float) -> None:
    TrainingArguments(**BEST, eval_strategy="steps", eval_steps=eval_steps, save_steps=0.3)


@pytest.mark.parametrize(
    ("metric", "greater"),
    [(None, False), ("loss", False), ("eval_loss", False), ("accuracy", True)],
)
def test_greater_is_better_but_for_a_loss(metric: str | None, greater: bool) -> None:
    args = TrainingArguments(
        **BEST, eval_strategy="epoch", save_strategy="epoch", metric_for_best_model=metric
    )
    assert args.greater_is_better is greater


@pytest.mark.parametrize(
    ("warmup_steps", "steps"), [(0, 0), (0.1, 10), (0.101, 11), (1, 1), (20, 20)]
)
def test_warmup_is_a_number_of_steps_or_a_share_of_all(warmup_steps: float, steps: int) -> None:
    assert TrainingArguments(warmup_steps=warmup_steps).get_warmup_steps(100) == steps


def test_arguments_are_json_and_strategies_are_plain_strings() -> None:
    args = TrainingArguments(eval_strategy="epoch")
    assert json.loads(args.to_json_string()) == args.to_dict()
    assert args.to_dict()["eval_strategy"] == "epoch"
    assert str(args.eval_strategy) == "epoch"


def test_numbers_of_numpy_and_paths_become_plain_values() -> None:
    args = TrainingArguments(
        output_dir=Path("run"), learning_rate=np.float64(0.1), seed=np.int64(3)
    )  # type: ignore[arg-type]
    assert json.loads(args.to_json_string())["output_dir"] == "run"
    assert (type(args.learning_rate), type(args.seed)) == (float, int)


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [
        ("learning_rat", "learning_rate"),
        ("outputdir", "output_dir"),
        ("gradient_acumulation_steps", "gradient_accumulation_steps"),
        ("epochs", "num_train_epochs"),
        ("batch_size", "per_device_train_batch_size"),
    ],
)
def test_a_misspelt_argument_is_an_error_that_names_the_nearest(
    misspelt: str, nearest: str
) -> None:
    with pytest.raises(TypeError) as error:
        TrainingArguments(**{misspelt: 1})
    assert misspelt in str(error.value)
    assert f"'{nearest}'" in str(error.value)


def test_an_argument_that_is_like_no_other_is_named() -> None:
    with pytest.raises(TypeError, match="xyzzy"):
        TrainingArguments(xyzzy=1)  # type: ignore[call-arg]


class Colour(Enum):
    """A choice."""

    RED = "red"


@dataclass
class Nested:
    """A part of the arguments."""

    dtype: torch.dtype = torch.float16


@dataclass
class OwnArguments(TrainingArguments):
    """Arguments of types that JSON does not have."""

    dtype: torch.dtype = torch.bfloat16
    device_of_data: torch.device = torch.device("cpu")  # noqa: RUF009
    cache: Path = Path("cache")
    colour: Colour = Colour.RED
    nested: Nested = field(default_factory=Nested)
    weights: Any = field(default_factory=lambda: {1: np.float32(0.5), "all": np.arange(2)})
    layers: Any = field(default_factory=lambda: {"b", "a"})
    shape: Any = (1, 2)


def test_arguments_of_a_subclass_are_json_whatever_their_types() -> None:
    args = OwnArguments()
    written = json.loads(args.to_json_string())
    assert written == args.to_dict()
    assert {name: written[name] for name in ("dtype", "device_of_data", "cache", "colour")} == {
        "dtype": "bfloat16",
        "device_of_data": "cpu",
        "cache": "cache",
        "colour": "red",
    }
    assert written["nested"] == {"dtype": "float16"}
    assert written["weights"] == {"1": 0.5, "all": [0, 1]}
    assert (written["layers"], written["shape"]) == (["a", "b"], [1, 2])
    assert args.dtype is torch.bfloat16


def test_a_misspelt_argument_of_a_subclass_names_one_of_its_own() -> None:
    with pytest.raises(TypeError, match=r"OwnArguments.*'dtype'"):
        OwnArguments(dtyp=torch.float16)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("none", []),
        (["none"], []),
        (None, []),
        ([], []),
        ("mlflow", ["mlflow"]),
        (("mlflow", "wandb"), ["mlflow", "wandb"]),
        ("all", ["all"]),
    ],
)
def test_report_to_becomes_a_list(given: Any, names: list[str]) -> None:
    assert TrainingArguments(report_to=given).report_to == names


def test_no_output_directory_is_the_default_one() -> None:
    assert TrainingArguments(output_dir=None).output_dir == "trainer_output"  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["~/run", Path("~/run")])
def test_a_tilde_in_the_output_directory_is_the_home_directory(
    given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert TrainingArguments(output_dir=given).output_dir == str(tmp_path / "run")


@pytest.mark.parametrize("wrong", [b"run", 3, ["run"]])
def test_an_output_directory_that_is_no_path_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="output_dir"):
        TrainingArguments(output_dir=wrong)


@pytest.mark.parametrize("share", [0.07, np.float32(0.07), np.float64(0.07)])
def test_a_share_of_the_steps_is_exact(share: Any) -> None:
    args = TrainingArguments(warmup_steps=share, logging_steps=share)
    assert args.get_warmup_steps(100) == 7
    assert args.logging_steps == 0.07


def test_copies_of_arguments_are_equal() -> None:
    args = TrainingArguments(seed=3)
    assert copy.deepcopy(args) == pickle.loads(pickle.dumps(args)) == args
    assert replace(args, seed=4).seed == 4


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("label_smoothing_factor", 0.1, "cross_entropy"),
        ("deepspeed", "ds.json", "DeepSpeed"),
        ("push_to_hub", True, "on_push_begin"),
    ],
)
def test_an_argument_of_transformers_that_is_not_supported_says_what_to_do_instead(
    name: str, value: Any, instead: str
) -> None:
    with pytest.raises(ValueError, match=f"{name} is .*{instead}"):
        TrainingArguments(**{name: value})


def test_a_script_may_state_the_default_of_an_argument_that_is_not_supported() -> None:
    args = TrainingArguments(push_to_hub=False, deepspeed=None, label_smoothing_factor=0.0)
    assert args.deepspeed is None
    assert "deepspeed" not in args.to_dict()
