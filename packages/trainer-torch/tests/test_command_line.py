"""Arguments from a command line and from files."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer_torch import TrainingArguments


class Colour(Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Nested:
    """A part of the arguments."""

    dtype: torch.dtype = torch.float16
    rank: int = 1


class Opaque:
    """What text cannot express."""


@dataclass
class OwnArguments(TrainingArguments):
    """Arguments of other types.

    Args:
        dtype: The type of the weights, 100 % of them. A second sentence.
    """

    dtype: torch.dtype = torch.bfloat16
    device_of_data: torch.device = torch.device("cpu")  # noqa: RUF009
    cache: Path = Path("cache")
    colour: Colour = Colour.RED
    sizes: list[int] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    nested: Nested = field(default_factory=Nested)
    opaque: Opaque = field(default_factory=Opaque)


def changed(*args: str) -> dict[str, Any]:
    """Return what the command line changes."""
    return TrainingArguments.from_args(args).changed()


def written(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def refusal(capsys: pytest.CaptureFixture[str], *args: str, cls: Any = TrainingArguments) -> str:
    """Return the error that a command line ends with."""
    with pytest.raises(SystemExit) as ended:
        cls.from_args(args)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([], {}),
        (["--learning-rate", "1e-3"], {"learning_rate": 1e-3}),
        (["--learning_rate=1e-3"], {"learning_rate": 1e-3}),
        (["--max_steps", "7", "--seed=3"], {"max_steps": 7, "seed": 3}),
        (["--use-cpu"], {"use_cpu": True}),
        (["--use-cpu", "--seed", "3"], {"use_cpu": True, "seed": 3}),
        (["--use_cpu", "true"], {"use_cpu": True}),
        (["--use_cpu=1"], {"use_cpu": True}),
        (["--use_cpu", "False"], {}),
        (["--dataloader-pin-memory", "0"], {"dataloader_pin_memory": False}),
        (["--no-dataloader-pin-memory"], {"dataloader_pin_memory": False}),
        (["--greater-is-better"], {"greater_is_better": True}),
        (["--greater-is-better", "None"], {}),
        (["--save-total-limit", "None"], {}),
        (["--save-total-limit", "2"], {"save_total_limit": 2}),
        (["--run-name", "3"], {"run_name": "3"}),
        (["--run-name", "null"], {}),
        (["--report-to", "none"], {"report_to": []}),
        (["--report-to", "mlflow"], {"report_to": ["mlflow"]}),
        (["--report-to", "mlflow", "wandb"], {"report_to": ["mlflow", "wandb"]}),
        (["--report-to", '["mlflow", "wandb"]'], {"report_to": ["mlflow", "wandb"]}),
        (["--label-names", "a"], {"label_names": ["a"]}),
        (["--label-names", "a", "b"], {"label_names": ["a", "b"]}),
        (["--warmup-steps", "0.1"], {"warmup_steps": 0.1}),
        (["--resume-from-checkpoint", "true"], {"resume_from_checkpoint": True}),
        (["--resume-from-checkpoint", "run/2"], {"resume_from_checkpoint": "run/2"}),
    ],
)
def test_a_command_line_is_read(line: list[str], expected: dict[str, Any]) -> None:
    assert changed(*line) == expected


def test_without_a_command_line_it_is_that_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--seed", "3"])
    assert TrainingArguments.from_args().seed == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.yaml", "learning_rate: 1e-3\nreport-to: [mlflow]\nsave_total_limit: None\nseed: 3\n"),
        ("run.json", '{"learning_rate": 1e-3,\t"report_to": ["mlflow"], "seed": 3}'),
    ],
)
def test_a_file_is_read(tmp_path: Path, name: str, content: str) -> None:
    assert changed("--config", written(tmp_path / name, content)) == {
        "learning_rate": 1e-3,
        "report_to": ["mlflow"],
        "seed": 3,
    }


def test_a_word_that_yaml_could_take_for_a_truth_value_is_text_where_text_belongs(
    tmp_path: Path,
) -> None:
    content = "save_strategy: no\nrun_name: off\nuse_cpu: yes\nlogging_first_step: true\n"
    assert changed("--config", written(tmp_path / "run.yaml", content)) == {
        "save_strategy": "no",
        "run_name": "off",
        "use_cpu": True,
        "logging_first_step": True,
    }


def test_the_command_line_wins_over_files_and_later_files_over_earlier_ones(tmp_path: Path) -> None:
    first = written(tmp_path / "a.yaml", "seed: 1\nmax_steps: 1\nlogging_steps: 1\n")
    second = written(tmp_path / "b.yaml", "max_steps: 2\nlogging_steps: 2\n")
    expected = {"seed": 1, "max_steps": 2, "logging_steps": 3}
    assert changed("--logging-steps=3", "--config", first, f"--config={second}") == expected


def test_written_arguments_are_read_back(tmp_path: Path) -> None:
    args = OwnArguments(
        learning_rate=0.1,
        colour=Colour.BLUE,
        dtype=torch.float16,
        sizes=[1, 2],
        weights={"a": 0.5},
        nested=Nested(rank=4),
        resume_from_checkpoint=True,
    )
    content = args.to_dict()
    del content["opaque"]
    path = written(tmp_path / "run.json", json.dumps(content))
    read = OwnArguments.from_args(["--config", path])
    for item in fields(args):
        if item.name != "opaque":
            assert getattr(read, item.name) == getattr(args, item.name), item.name


def test_arguments_of_a_subclass_are_read() -> None:
    args = OwnArguments.from_args(
        [
            *("--dtype", "float16", "--device-of-data", "cuda:0", "--cache", "/tmp/x"),
            *("--colour", "blue", "--sizes", "1", "2", "--weights", '{"a": 0.5}'),
            *("--nested.rank", "4"),
        ]
    )
    assert (args.dtype, args.device_of_data) == (torch.float16, torch.device("cuda:0"))
    assert (args.cache, args.colour, args.sizes) == (Path("/tmp/x"), Colour.BLUE, [1, 2])
    assert (args.weights, args.nested) == ({"a": 0.5}, Nested(rank=4))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (["--learning-rat", "1"], ["learning_rat", "'learning_rate'"]),
        (["--warmup-ratio", "0.1"], ["warmup_ratio", "warmup_steps"]),
        (["--seed", "many"], ["seed", "int", "many"]),
        (["--use-cpu", "maybe"], ["use_cpu", "maybe"]),
        (["--lr-scheduler-type", "steep"], ["lr_scheduler_type", "steep"]),
        (["--deepspeed", "ds.json"], ["deepspeed", "ds.json"]),
        (["--run-name"], ["run_name"]),
        (["run"], ["run"]),
    ],
)
def test_a_wrong_command_line_ends_the_program_with_what_is_wrong(
    capsys: pytest.CaptureFixture[str], line: list[str], named: list[str]
) -> None:
    error = refusal(capsys, *line)
    assert all(name in error for name in named)
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("learning_rat: 1", ["learning_rat", "'learning_rate'"]),
        ("no_cuda: true", ["no_cuda", "use_cpu"]),
        ("seed: many", ["seed", "int", "many"]),
        ("- seed", ["seed"]),
        ("seed: [", ["seed"]),
    ],
)
def test_an_error_names_the_file_that_it_is_in(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, named: list[str]
) -> None:
    path = written(tmp_path / "run.yaml", content)
    error = refusal(capsys, "--config", path)
    assert all(name in error for name in (path, *named))


def test_a_file_that_does_not_exist_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "none.yaml" in refusal(capsys, "--config", str(tmp_path / "none.yaml"))


def test_an_argument_that_text_cannot_express_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Opaque" in refusal(capsys, "--opaque", "3", cls=OwnArguments)


def test_without_the_extra_an_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trainer_torch.arguments.command_line", raising=False)
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    with pytest.raises(ImportError, match=r"jsonargparse.*trainer-torch\[cli\]"):
        TrainingArguments.from_args([])


@dataclass(kw_only=True)
class Required(TrainingArguments):
    """Arguments, one without a default."""

    corpus: str


def test_an_argument_without_default_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert Required.from_args(["--corpus", "c"]).changed() == {"corpus": "c"}
    assert "corpus" in refusal(capsys, "--seed", "3", cls=Required)


def test_the_help_shows_each_argument_with_its_default_and_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        OwnArguments.from_args(["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for item in fields(TrainingArguments):
        assert f"--{item.name} " in shown
    assert "The type of the weights, 100 % of them. (type" in shown
    assert "A second sentence" not in shown
    assert "default: 5e-05" in shown


def test_every_argument_has_a_sentence_in_the_help() -> None:
    from trainer_torch.arguments.command_line import help_texts

    texts = help_texts(TrainingArguments)
    assert [item.name for item in fields(TrainingArguments) if not texts.get(item.name)] == []
