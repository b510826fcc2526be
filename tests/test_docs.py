"""The guides match the code: events, the tracker of an example, and the commands that help."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from callback_core import COMMON_KEYWORDS, EVENTS, TrainerCallback
from callback_tensorboard import TensorBoardCallback
from trainer_torch.testing import small_trainer

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "events.md"


def code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def test_the_page_of_events_has_the_rows_of_the_table_in_its_order() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## In the loop")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `on_")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells == [
        [f"`{event.name}`", event.when, code(event.passes), code(event.resets)]
        for event in EVENTS.values()
    ]


def test_the_page_of_events_names_every_common_keyword() -> None:
    introduction = PAGE.read_text(encoding="utf-8").partition("| event |")[0]
    assert all(f"`{name}`" in introduction for name in COMMON_KEYWORDS)


def test_the_tracker_of_the_guide_keeps_a_training(tmp_path: Path) -> None:
    guide = (DOCS / "tracking.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(guide.partition("```python\n")[2].partition("```")[0], names)
    path = tmp_path / "runs.jsonl"
    small_trainer(tmp_path / "run", names["LinesCallback"](str(path)), max_steps=2).train()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    points = [point for line in lines for point in line.get("points", [])]
    assert [step for name, _, step, *_ in points if name == "train/loss"] == [1, 2]
    assert lines[-1]["status"] == "finished"


def blocks(page: str) -> list[str]:
    """Return the Python code of a page of the docs, a block each."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [part.partition("```")[0] for part in text.split("```python\n")[1:]]


def added_lines(before: str, after: str) -> list[str]:
    """Return the lines of code that `after` has and `before` has not, at any indentation."""
    lines = [
        [line.strip() for line in text.splitlines() if line.strip()] for text in (before, after)
    ]
    return [line[2:] for line in difflib.ndiff(*lines) if line.startswith("+ ")]


def test_a_loop_of_one_s_own_gets_callbacks_by_at_most_ten_lines_and_trains_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bare, with_callbacks, _ = blocks("loops.md")
    results: list[dict[str, Any]] = [{}, {}]
    exec(bare, results[0])
    exec(with_callbacks, results[1])
    assert len(added_lines(bare, with_callbacks)) <= 10
    assert results[0]["accuracy"] == results[1]["accuracy"]
    assert list(tmp_path.glob("digits_output/runs/*/events*"))


def test_a_tracker_in_transformers_trainer_takes_at_most_ten_lines() -> None:
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    assert "TrainingArguments" in example
    assert len(added_lines("", example)) <= 10


def test_the_functions_of_the_guide_save_and_resume_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, with_callbacks, functions = blocks("loops.md")
    for epochs in (1, 3):
        names: dict[str, Any] = {}
        exec(with_callbacks.partition("with Loop(")[0], names)
        names["args"]["num_train_epochs"] = epochs
        exec(functions, names)
        with names["loop"] as loop:
            done = sum(1 for _ in loop.steps())
    assert done == 60
    assert loop.state.global_step == 90


def commands(page: str) -> list[str]:
    """Return the commands of a page: its indented lines."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.startswith("    ")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output directory of a training whose tracker takes checkpoints."""
    output_dir = tmp_path_factory.mktemp("troubleshooting") / "out"
    small_trainer(output_dir, TensorBoardCallback, save_strategy="epoch").train()
    kept = next(output_dir.glob("tracking/*")) / "files" / "checkpoint-4"
    kept.mkdir(parents=True)
    return output_dir


@pytest.mark.parametrize("command", dict.fromkeys(commands("troubleshooting.md")))
def test_a_command_of_the_troubleshooting_page_shows_something(trained: Path, command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = command.replace("OUTPUT_DIR", str(trained)).replace("python", sys.executable, 1)
    done = subprocess.run(
        command, shell=True, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_troubleshooting_page_names_what_exists(trained: Path) -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    callback = TensorBoardCallback()
    trainer = small_trainer(trained.parent / "names", callback)
    trainer.train()
    values: dict[str, Any] = {"callback": callback, "trainer": trainer}
    for expression in re.findall(r"`((?:callback|trainer)\.[\w.]+)", page):
        assert eval(expression, values) is not None
    packages = DOCS.parent / "packages"
    readmes = "".join(path.read_text(encoding="utf-8") for path in packages.glob("*/README.md"))
    for name in re.findall(r"`(log_\w+|sync_\w+|[A-Z]+_[A-Z_]+)\b", page):
        assert name in readmes, name


class Lines(TrainerCallback):
    """Stores each logged number as a line."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lines.json"

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for name, value in logs.items():
                split, _, rest = name.partition("_")
                tracked = f"eval/{rest}" if split == "eval" else f"train/{name}"
                file.write(json.dumps([tracked, state.global_step, value]) + "\n")

    def points(self) -> dict[tuple[str, int], float]:
        lines = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
        return {(name, step): value for name, step, value in lines}


def test_the_examples_of_the_trainer_s_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = DOCS.parent / "packages" / "trainer-torch" / "README.md"
    examples = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {"tmp_path": tmp_path, "MyCallback": lambda: Lines(tmp_path), "MyStore": Lines}
    for example in examples:
        exec(example, names)
    assert (tmp_path / "best" / "model.safetensors").exists()
    assert (tmp_path / "run" / "train_results.json").exists()
