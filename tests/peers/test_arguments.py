"""Each argument of transformers has its effect here, is refused, or is listed as without effect."""

from __future__ import annotations

import dataclasses
import inspect
import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import transformers
from small_training import build

import trainer_torch

PAGE = Path(__file__).parents[2] / "docs" / "arguments.md"

DEFAULTS = {
    "output_dir": "None becomes the same directory in both",
    "disable_tqdm": "None means false here, and transformers' default is false in effect",
    "report_to": "all that is installed and configured, not none",
    "logging_nan_inf_filter": "a loss that is NaN is logged as NaN",
    "optim": "transformers' depends on the version of torch",
    "include_for_metrics": "an empty list and None are the same",
}
"""The arguments whose default differs, with the reason."""

MISSING: dict[str, str] = {}
"""The public members of transformers' arguments that ours lack, with the reason."""

THEIRS = {field.name: field for field in dataclasses.fields(transformers.TrainingArguments)}
OURS = {field.name: field for field in dataclasses.fields(trainer_torch.TrainingArguments)}
SETTERS = sorted(name for name in vars(transformers.TrainingArguments) if name.startswith("set_"))


def default(field: Any) -> Any:
    made = field.default_factory is not dataclasses.MISSING
    value = field.default_factory() if made else field.default
    return value.value if isinstance(value, Enum) else value


def rows() -> dict[str, list[str]]:
    """Return the cells of the page: the defaults, the status and the sentence of each argument."""
    found = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    return {name: cells.split(" | ") for name, cells in found}


def test_every_argument_of_transformers_is_one_of_ours() -> None:
    assert [name for name in THEIRS if name not in OURS] == []


def test_the_page_has_every_argument_of_transformers_in_its_order() -> None:
    assert list(rows()) == list(THEIRS)


def test_the_page_has_the_defaults_of_transformers() -> None:
    shown = {name: cells[0] for name, cells in rows().items()}
    assert shown == {
        name: shown["optim"] if name == "optim" else f"`{default(field)!r}`"
        for name, field in THEIRS.items()
    }


def test_every_argument_has_a_status_and_a_sentence() -> None:
    for name, (_, _, status, sentence) in rows().items():
        assert status in ("have", "differs", "no effect", "refused"), name
        assert sentence.endswith("."), name


def test_only_defaults_with_a_reason_differ() -> None:
    differ = [name for name in THEIRS if default(THEIRS[name]) != default(OURS[name])]
    assert [name for name in differ if name not in DEFAULTS] == []


def members(cls: type) -> dict[str, Any]:
    """Return the public methods and properties of arguments."""
    return {
        name: value
        for name, value in inspect.getmembers(cls)
        if not name.startswith("_")
        and name not in THEIRS
        and (inspect.isfunction(value) or isinstance(value, property))
    }


def test_only_members_with_a_reason_are_missing() -> None:
    ours = members(trainer_torch.TrainingArguments)
    missing = [name for name in members(transformers.TrainingArguments) if name not in ours]
    assert [name for name in missing if name not in MISSING] == []


@pytest.mark.parametrize("name", [*SETTERS, "main_process_first", "get_warmup_steps"])
def test_methods_have_the_same_parameters_with_the_same_defaults(name: str) -> None:
    def parameters(cls: type) -> list[tuple[str, Any]]:
        found = inspect.signature(getattr(cls, name)).parameters.values()
        return [(one.name, one.default) for one in found]

    assert parameters(trainer_torch.TrainingArguments) == parameters(transformers.TrainingArguments)


CALLS: dict[str, dict[str, Any]] = {
    "set_training": {"learning_rate": 1e-3, "batch_size": 3, "num_epochs": 2, "max_steps": 4},
    "set_evaluate": {"strategy": "steps", "steps": 7, "batch_size": 3, "delay": 2},
    "set_testing": {"batch_size": 4},
    "set_save": {"strategy": "epoch", "steps": 9, "total_limit": 2},
    "set_logging": {
        "strategy": "epoch",
        "first_step": True,
        "on_each_node": True,
        "replica_level": "warning",
    },
    "set_optimizer": {"beta1": 0.8, "epsilon": 1e-7, "weight_decay": 0.1},
    "set_lr_scheduler": {"name": "cosine", "num_epochs": 2, "warmup_steps": 0.1},
    "set_dataloader": {"train_batch_size": 2, "drop_last": True, "sampler_seed": 4},
}


@pytest.mark.parametrize("name", CALLS)
def test_setters_set_the_same_arguments(name: str, tmp_path: Path) -> None:
    def called(module: Any) -> tuple[set[str], dict[str, Any]]:
        """Return the names of the arguments that change, and the values of all."""
        args = module.TrainingArguments(str(tmp_path), use_cpu=True)
        before = dict(vars(args))
        assert getattr(args, name)(**CALLS[name]) is args
        values = {key: getattr(args, key) for key in THEIRS}
        return {key for key in THEIRS if values[key] != before[key]}, values

    (ours, our_values), (theirs, their_values) = called(trainer_torch), called(transformers)
    for key in ours | theirs:
        assert plain(our_values[key]) == plain(their_values[key]), key


def plain(value: Any) -> Any:
    """Return `value` without what differs: names of strategies, and a tracker as a list."""
    if isinstance(value, Enum):
        return value.value
    return [] if value == "none" else value


def test_what_the_process_is_agrees(tmp_path: Path) -> None:
    def seen(module: Any) -> list[Any]:
        args = module.TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
        names = ("world_size", "process_index", "local_process_index", "n_gpu", "train_batch_size")
        more = ("eval_batch_size", "should_log", "should_save", "ddp_timeout_delta")
        values = [getattr(args, name) for name in (*names, *more, "place_model_on_device")]
        return [*values, args.parallel_mode.value, str(args.device)]

    assert seen(trainer_torch) == seen(transformers)


def test_sanitized_arguments_agree_where_both_have_them(tmp_path: Path) -> None:
    args = [
        module.TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", do_train=True)
        for module in (trainer_torch, transformers)
    ]
    ours, theirs = (one.to_sanitized_dict() for one in args)
    differ = {name for name in ours if name not in theirs or ours[name] != theirs[name]}
    saves = {"remote_output_dir", "save_async", "save_on_exception", "upload_timeout"}
    own = {"on_non_finite", *saves}
    other = {"disable_tqdm", "greater_is_better", "dataloader_pin_memory", "fsdp"}
    assert differ - own <= other


@pytest.mark.parametrize("trainer", ["transformers", "ours"])
def test_evaluation_makes_do_eval_true(trainer: str, tmp_path: Path) -> None:
    assert build(trainer, tmp_path, eval_strategy="epoch").args.do_eval
    assert not build(trainer, tmp_path).args.do_eval


def test_each_method_of_transformers_trainer_is_there_or_says_what_to_use(tmp_path: Path) -> None:
    made = build("ours", tmp_path)
    methods = [
        name
        for name, value in vars(transformers.Trainer).items()
        if inspect.isfunction(value) and not name.startswith("__")
    ]
    for name in methods:
        if not hasattr(made, name):
            with pytest.raises(AttributeError) as raised:
                getattr(made, name)
            usual = f"{type(made).__name__!r} object has no attribute {name!r}"
            assert len(str(raised.value)) > len(usual), name
