"""The examples of `docs/ignite-and-keras.md`, as users run them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callback_contract.testing import PreparedPython, environment

PAGE = Path(__file__).parents[2] / "docs" / "ignite-and-keras.md"
MOST_LINES = 10
STEPS_OF_EPOCH, EPOCHS = 8, 3

STOP = """
from callback_core import TrainerCallback
class Stop(TrainerCallback):
    def {event}(self, args, state, control, **kwargs):
        {how}
"""


def example(framework: str) -> list[str]:
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {framework}\n")[1]
    found = re.search(r"^```diff\n(.*?)^```", section, re.M | re.S)
    assert found is not None
    return found[1].splitlines()


@pytest.fixture(scope="module")
def prepared() -> Iterator[PreparedPython]:
    """Return what runs an example in a process of its own, with both frameworks imported."""
    with PreparedPython(["ignite.engine", "keras"], environment(KERAS_BACKEND="torch")) as running:
        yield running


def run(
    prepared: PreparedPython,
    framework: str,
    folder: Path,
    mark: str = "+",
    how: str = "",
    event: str = "on_step_end",
) -> int:
    """Run the example without its lines of the other mark, and return the exit code."""
    code = "\n".join(line[1:] for line in example(framework) if line[:1] in (" ", mark, ""))
    if how:
        code = STOP.format(how=how, event=event) + code.replace(
            "[TensorBoardCallback()]", "[TensorBoardCallback(), Stop]"
        )
    script = folder / "example.py"
    script.write_text(code, "utf-8")
    done = prepared.run(script, cwd=folder)
    assert how or done.returncode == 0, done.stderr
    return done.returncode


def steps(folder: Path, name: str) -> list[int]:
    (written,) = (folder / "out" / "runs").iterdir()
    return [event.step for event in EventAccumulator(str(written)).Reload().Scalars(name)]


def status(folder: Path) -> str:
    (journal,) = (folder / "out" / "tracking").glob("*/journal.jsonl")
    (found,) = re.findall(r'"status": ?"(\w+)"', journal.read_text())
    return found


frameworks = pytest.mark.parametrize("framework", ["Ignite", "Keras"])


@frameworks
def test_ten_lines_do_it(framework: str) -> None:
    assert 0 < len([line for line in example(framework) if line[:1] == "+"]) <= MOST_LINES


@frameworks
@pytest.mark.slow
def test_the_example_runs_without_these_lines(
    prepared: PreparedPython, framework: str, tmp_path: Path
) -> None:
    assert run(prepared, framework, tmp_path, "-") == 0


@frameworks
@pytest.mark.slow
def test_each_step_and_each_evaluation_is_logged(
    prepared: PreparedPython, framework: str, tmp_path: Path
) -> None:
    run(prepared, framework, tmp_path)
    last = STEPS_OF_EPOCH * EPOCHS
    assert steps(tmp_path, "train/loss") == list(range(1, last + 1))
    assert steps(tmp_path, "eval/loss") == list(range(STEPS_OF_EPOCH, last + 1, STEPS_OF_EPOCH))
    assert status(tmp_path) == "finished"


@frameworks
@pytest.mark.slow
def test_a_callback_stops_the_training(
    prepared: PreparedPython, framework: str, tmp_path: Path
) -> None:
    how = "control.should_training_stop = state.global_step == 10"
    assert run(prepared, framework, tmp_path, how=how) == 0
    assert steps(tmp_path, "train/loss") == list(range(1, 11))


@frameworks
@pytest.mark.slow
def test_a_callback_that_stops_at_an_evaluation_stops_before_the_next_step(
    prepared: PreparedPython, framework: str, tmp_path: Path
) -> None:
    how = "control.should_training_stop = True"
    assert run(prepared, framework, tmp_path, how=how, event="on_evaluate") == 0
    assert steps(tmp_path, "train/loss") == list(range(1, STEPS_OF_EPOCH + 1))


@frameworks
@pytest.mark.slow
def test_an_error_ends_the_run_as_failed(
    prepared: PreparedPython, framework: str, tmp_path: Path
) -> None:
    how = 'if state.global_step == 10: raise ValueError("broken")'
    assert run(prepared, framework, tmp_path, how=how) != 0
    assert status(tmp_path) == "failed"
