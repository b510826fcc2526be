"""The names of transformers: those that it has dropped, and what users read from the arguments."""

from __future__ import annotations

import json
import logging
import pickle
import re
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from resuming import EVERY_STEP
from small import arguments, logged, net, trainer

import callback_core
import trainer_torch
from trainer_torch import ParallelMode, Trainer, TrainingArguments
from trainer_torch.arguments.dropped_arguments import DROPPED
from trainer_torch.arguments.kept_arguments import WITHOUT_EFFECT, KeptArguments
from trainer_torch.arguments.unsupported_arguments import INSTEAD, UnsupportedArguments
from trainer_torch.loop.announcement import tell_arguments

NAMES = {item.name for item in fields(TrainingArguments)}


@pytest.mark.parametrize(
    ("dropped", "new"),
    [
        ("evaluation_strategy", "eval_strategy"),
        ("no_cuda", "use_cpu"),
        ("per_gpu_train_batch_size", "per_device_train_batch_size"),
        ("warmup_ratio", "warmup_steps"),
        ("adafactor", "optim"),
        ("group_by_length", "train_sampling_strategy"),
        ("logging_dir", "TENSORBOARD_LOGGING_DIR"),
    ],
)
def test_a_name_that_transformers_has_dropped_says_what_to_write_now(
    dropped: str, new: str
) -> None:
    with pytest.raises(TypeError) as error:
        TrainingArguments(**{dropped: 1})  # type: ignore[arg-type]
    assert f"'{dropped}'" in str(error.value)
    assert new in str(error.value)


@pytest.mark.parametrize("dropped", sorted(DROPPED))
def test_no_argument_has_a_name_that_is_listed_as_dropped(dropped: str) -> None:
    assert dropped not in NAMES


def test_a_dropped_argument_of_the_trainer_says_what_to_write_now() -> None:
    with pytest.raises(TypeError, match=r"tokenizer.*processing_class"):
        Trainer(net(), tokenizer="tokenizer")  # type: ignore[call-arg]


def test_a_misspelt_argument_of_the_trainer_names_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"train_datasets.*'train_dataset'"):
        Trainer(net(), train_datasets=[1])  # type: ignore[call-arg]


def test_a_trainer_with_arguments_of_its_own_takes_them(tmp_path: Path) -> None:
    class Own(Trainer):
        def __init__(self, *args: Any, tokenizer: str, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.tokenizer = tokenizer

    assert Own(net(), arguments(tmp_path), tokenizer="mine").tokenizer == "mine"


def test_what_the_tables_name_are_arguments() -> None:
    assert set(WITHOUT_EFFECT) == {item.name for item in fields(KeptArguments)}
    assert set(INSTEAD) <= {item.name for item in fields(UnsupportedArguments)}


def other_value(default: Any) -> Any:
    """Return a value of the same kind as `default`, but another one."""
    if default is None:
        return "other"
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, (int, float)) else "other"


@pytest.mark.parametrize("field", fields(UnsupportedArguments), ids=lambda field: field.name)
def test_an_unsupported_argument_is_refused_by_name(field: Any) -> None:
    value = other_value(field.default)
    with pytest.raises(ValueError, match=f"{field.name} is {value!r}"):
        TrainingArguments(**{field.name: value})


def test_every_other_argument_is_read_somewhere() -> None:
    idle = {item.name for item in (*fields(UnsupportedArguments), *fields(KeptArguments))}
    of_arguments = ("*arguments.py", "argument_*.py", "command_line.py")
    sources = [
        path
        for package in (trainer_torch, callback_core)
        for path in Path(str(package.__file__)).parent.rglob("*.py")
        if not any(path.match(pattern) for pattern in of_arguments)
    ]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    read = set(re.findall(r"\.(\w+)|\"(\w+)\"", code))
    names = {name for pair in read for name in pair}
    # get_warmup_steps and chosen_log_level read them.
    by_method = {"warmup_steps", "log_level", "log_level_replica"}
    old = {"gradient_checkpointing", "gradient_checkpointing_kwargs"}  # the new names are read
    assert NAMES - idle - names - by_method - old == set()


def test_a_single_process_is_the_main_one() -> None:
    args = TrainingArguments(use_cpu=True, per_device_train_batch_size=3)
    assert (args.world_size, args.process_index, args.local_process_index) == (1, 0, 0)
    assert (args.n_gpu, args.train_batch_size, args.eval_batch_size) == (0, 3, 8)
    assert (args.should_log, args.should_save) == (True, True)
    assert args.parallel_mode is ParallelMode.NOT_PARALLEL
    assert args.ddp_timeout_delta == timedelta(seconds=1800)
    with args.main_process_first(local=False, desc="reading"):
        pass


@pytest.fixture
def second_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what torchrun sets for the second process of the second machine."""
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("second_of_torchrun")
def test_the_process_is_known_before_the_processes_are_connected() -> None:
    args = TrainingArguments(use_cpu=True)
    assert (args.world_size, args.process_index, args.local_process_index) == (4, 3, 1)
    assert (args.should_log, args.should_save) == (False, False)
    assert args.parallel_mode is ParallelMode.DISTRIBUTED


@pytest.mark.usefixtures("second_of_torchrun")
def test_a_local_rank_other_than_the_environment_s_is_refused() -> None:
    assert TrainingArguments(local_rank=1).local_rank == 1
    with pytest.raises(ValueError, match="local_rank is 0"):
        TrainingArguments(local_rank=0)


class Stays(TrainingArguments):
    """Arguments that leave the model where it is."""

    @property
    def place_model_on_device(self) -> bool:
        return False


def test_the_arguments_may_leave_the_model_on_its_device() -> None:
    model = net().to("meta")
    args = Stays(use_cpu=True, report_to="none")
    assert next(Trainer(model, args).model.parameters()).device.type == "meta"


def test_sanitized_arguments_are_plain_values() -> None:
    sanitized = TrainingArguments(label_names=["y"], use_cpu=True).to_sanitized_dict()
    assert {type(value) for value in sanitized.values()} <= {bool, int, float, str}
    assert (sanitized["label_names"], sanitized["train_batch_size"]) == ("['y']", 8)


def test_the_setters_set_what_they_name() -> None:
    args = TrainingArguments("run", report_to="none", eval_strategy="epoch")
    same = (
        args.set_training(1e-3, batch_size=2, num_epochs=1, seed=5)
        .set_evaluate("steps", steps=7, batch_size=3)
        .set_testing(batch_size=4)
        .set_save("epoch", total_limit=2)
        .set_optimizer(beta1=0.8, learning_rate=0.1)
        .set_lr_scheduler("cosine", max_steps=9, warmup_steps=0.5)
        .set_dataloader(16, num_workers=2, sampler_seed=6)
    )
    assert same is args
    assert (
        args.changed()
        == TrainingArguments(
            "run",
            report_to="none",
            do_train=True,
            do_predict=True,
            eval_strategy="steps",
            eval_steps=7,
            save_strategy="epoch",
            save_total_limit=2,
            learning_rate=0.1,
            adam_beta1=0.8,
            optim="adamw_torch",
            lr_scheduler_type="cosine",
            max_steps=9,
            warmup_steps=0.5,
            per_device_train_batch_size=16,
            dataloader_num_workers=2,
            data_seed=6,
            seed=5,
        ).changed()
    )


def test_a_setter_with_a_wrong_value_changes_nothing() -> None:
    args = TrainingArguments()
    with pytest.raises(ValueError, match="max_steps"):
        args.set_training(learning_rate=0.1, max_steps=0)
    assert args == TrainingArguments()


def test_setting_an_evaluation_strategy_decides_do_eval() -> None:
    args = TrainingArguments(eval_strategy="epoch")
    assert args.do_eval
    assert not args.set_evaluate("no").do_eval


@dataclass
class OwnArguments(TrainingArguments):
    """Arguments with another default and an own one."""

    learning_rate: float = 0.1
    layers: int = 2
    api_key: str = ""


class FromPath(TrainingArguments):
    """Arguments with another constructor."""

    def __init__(self, path: str) -> None:
        super().__init__(output_dir=path, report_to="none", use_cpu=True)


def test_changed_arguments_are_those_that_differ_from_the_defaults() -> None:
    assert TrainingArguments().changed() == {}
    args = TrainingArguments(seed=3, report_to="none", eval_strategy="steps", project="mine")
    assert args.changed() == {
        "seed": 3,
        "report_to": [],
        "eval_strategy": "steps",
        "eval_steps": 500,
        "do_eval": True,
        "project": "mine",
    }


def test_changed_arguments_of_a_subclass_are_compared_with_its_own_defaults() -> None:
    assert OwnArguments().changed() == {}
    assert OwnArguments(layers=3, learning_rate=5e-5).changed() == {
        "layers": 3,
        "learning_rate": 5e-5,
    }
    assert FromPath("run").changed() == {"output_dir": "run", "report_to": [], "use_cpu": True}


def test_changed_arguments_are_logged_when_a_training_begins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = OwnArguments(str(tmp_path), api_key="sk-" + "a1" * 20, layers=3, use_cpu=True)
    made = trainer(tmp_path)
    made.args = args
    with caplog.at_level(logging.INFO, "trainer_torch"):
        tell_arguments(made.run)
    [line] = [record.getMessage() for record in caplog.records if "layers=3" in record.getMessage()]
    assert "a1a1" not in line
    assert "learning_rate" not in line


def test_arguments_without_effect_are_kept_and_shown_if_they_were_set() -> None:
    args = TrainingArguments(do_train=True, project="mine", remove_unused_columns=False)
    written = json.loads(args.to_json_string())
    assert (written["do_train"], written["project"]) == (True, "mine")
    assert "trackio_space_id" not in written
    assert TrainingArguments(**written) == args


def test_a_project_that_no_callback_reads_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, project="mine", max_steps=1).train()
    assert any("project" in record.getMessage() for record in caplog.records)
    caplog.clear()
    trainer(tmp_path, max_steps=1).train()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_training_resumes_from_what_the_arguments_name(tmp_path: Path) -> None:
    trainer(tmp_path, max_steps=3, **EVERY_STEP).train()
    made = trainer(tmp_path, max_steps=5, resume_from_checkpoint=True, **EVERY_STEP)
    made.train()
    assert made.run.resumed_from == tmp_path / "checkpoint-3"
    named = trainer(
        tmp_path, max_steps=5, resume_from_checkpoint=tmp_path / "checkpoint-2", **EVERY_STEP
    )
    named.train(resume_from_checkpoint=False)
    assert len(logged(named, "loss")) == 5
    named.train()
    assert named.run.resumed_from == tmp_path / "checkpoint-2"


def test_resuming_by_argument_is_no_difference_from_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, max_steps=3, **EVERY_STEP).train()
    trainer(tmp_path, max_steps=3, resume_from_checkpoint=True, **EVERY_STEP).train()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("wrong", [3, "", b"run"])
def test_a_checkpoint_that_is_no_path_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="resume_from_checkpoint"):
        TrainingArguments(resume_from_checkpoint=wrong)


def test_arguments_survive_pickling() -> None:
    args = OwnArguments(layers=3, do_train=True)
    assert pickle.loads(pickle.dumps(args)) == args
