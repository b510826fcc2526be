"""Trainings that CodeCarbon measures, read from its own file and from TensorBoard's."""

from __future__ import annotations

import csv
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callback_codecarbon import CodeCarbonCallback
from callback_contract.testing import environment, run_python, wait_until
from callback_tensorboard import TensorBoardCallback
from trainer_torch.testing import At, raising, small_trainer


def meter(**changed: Any) -> CodeCarbonCallback:
    """Return a callback that avoids the network, and measures five times a second."""
    given = {"country_iso_code": "SWE", "measure_power_secs": 0.2, "stop_limit": 60}
    return CodeCarbonCallback(**{**given, **changed})


def rows(output_dir: Path) -> list[dict[str, str]]:
    """Return the rows of CodeCarbon's file."""
    with (output_dir / "emissions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def curve(output_dir: Path, tag: str) -> list[tuple[int, float]]:
    """Return steps and values of a curve in the only TensorBoard run; none if it has no curve."""
    [run] = (output_dir / "runs").iterdir()
    found = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    if tag not in found.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in found.Scalars(tag)]


def measured_twice(callback: CodeCarbonCallback) -> At:
    """Return a callback that waits, in the third step, for two measurements."""

    def wait() -> None:
        seen = {callback.state_dict()["energy_kwh"]}

        def is_new() -> bool:
            seen.add(callback.state_dict()["energy_kwh"])
            return len(seen) > 2

        wait_until(is_new)

    return At(3, wait)


@pytest.mark.parametrize("first", [True, False])
def test_trackers_receive_measurements_and_totals(
    first: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = meter()
    both = [callback, TensorBoardCallback(delivery="inline")]
    ordered = both if first else both[::-1]
    made = small_trainer(tmp_path / "out", *ordered, measured_twice(callback))
    with caplog.at_level(logging.INFO, "callback_codecarbon"):
        made.train()
    [row] = rows(tmp_path / "out")
    assert row["country_iso_code"] == "SWE"
    total = float(row["emissions"])
    assert total > 0
    assert float(row["energy_consumed"]) > 0
    steps, values = zip(*curve(tmp_path / "out", "train/emissions_kg"), strict=True)
    assert 3 in steps
    assert list(values) == sorted(values)
    assert values[-1] <= total * (1 + 1e-6)
    assert curve(tmp_path / "out", "train/total_emissions_kg") == [
        (12, pytest.approx(total, rel=1e-5))
    ]
    assert curve(tmp_path / "out", "train/total_energy_kwh") == [
        (12, pytest.approx(float(row["energy_consumed"]), rel=1e-5))
    ]
    assert curve(tmp_path / "out", "train/power_watts")[0][1] > 0
    assert [step for step, _ in curve(tmp_path / "out", "train/loss")] == list(range(1, 13))
    assert "kWh" in caplog.text
    assert not any("emissions" in name for entry in made.state.log_history for name in entry)


def test_nothing_starts_before_the_training_or_remains_after_it(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    made = small_trainer(tmp_path / "out", meter())
    assert set(threading.enumerate()) == before
    assert not (tmp_path / "out" / "emissions.csv").exists()
    made.train()
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_a_second_training_is_measured_from_zero(tmp_path: Path) -> None:
    made = small_trainer(tmp_path / "out", meter())
    made.train()
    made.train()
    first, second = rows(tmp_path / "out")
    assert first["run_id"] != second["run_id"]
    assert abs(float(second["duration"]) - float(first["duration"])) < 30


@pytest.mark.parametrize("raised", [ArithmeticError("broken"), KeyboardInterrupt()])
def test_a_training_that_raises_has_its_totals(raised: BaseException, tmp_path: Path) -> None:
    callback = meter()
    tracker = TensorBoardCallback(delivery="inline")
    made = small_trainer(
        tmp_path / "out", tracker, callback, measured_twice(callback), At(5, raising(raised))
    )
    with pytest.raises(type(raised)):
        made.train()
    [row] = rows(tmp_path / "out")
    assert curve(tmp_path / "out", "train/total_emissions_kg") == [
        (5, pytest.approx(float(row["emissions"]), rel=1e-5))
    ]


def test_a_resumed_training_adds_to_its_totals(tmp_path: Path) -> None:
    callback = meter()
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4}
    tracker = TensorBoardCallback
    made = small_trainer(
        tmp_path / "out",
        tracker,
        callback,
        measured_twice(callback),
        At(6, raising(ArithmeticError())),
        **saving,
    )
    with pytest.raises(ArithmeticError):
        made.train()
    resumed = meter()
    small_trainer(tmp_path / "out", resumed, tracker, **saving).train(resume_from_checkpoint=True)
    _, second = rows(tmp_path / "out")
    [*_, (step, total)] = curve(tmp_path / "out", "train/total_emissions_kg")
    assert step == 12
    assert total > float(second["emissions"])  # includes the emissions up to the checkpoint
    assert resumed.state_dict()["emissions_kg"] == pytest.approx(total, rel=1e-5)


def test_only_the_first_process_of_a_machine_measures(tmp_path: Path) -> None:
    callback = meter()
    made = small_trainer(tmp_path / "out", callback)
    made.state.is_local_process_zero = False
    callback.on_train_begin(made.args, made.state, made.control)
    callback.on_train_end(made.args, made.state, made.control)
    assert not (tmp_path / "out").exists()


def test_the_training_does_not_wait_for_codecarbon_to_start(tmp_path: Path) -> None:
    code = """
import time
from pathlib import Path
from callback_codecarbon import CodeCarbonCallback
from trainer_torch.testing import At, small_trainer
small_trainer(Path("warm")).train()
times = []
look = At(12, lambda: times.append(time.monotonic()))
made = small_trainer(Path("out"), CodeCarbonCallback(country_iso_code="SWE", stop_limit=60), look)
begun = time.monotonic()
made.train()
print((times[0] - begun) / (time.monotonic() - begun))
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 0.5  # CodeCarbon's start takes most of the time
    assert len(rows(tmp_path / "out")) == 1


def test_a_loop_that_raises_without_an_event_is_measured_until_the_process_exits(
    tmp_path: Path,
) -> None:
    code = """
import time
from types import SimpleNamespace
from callback_codecarbon import CodeCarbonCallback
from callback_core import TrainerControl, TrainerState
callback = CodeCarbonCallback(country_iso_code="SWE", measure_power_secs=0.2)
callback.on_train_begin(SimpleNamespace(output_dir="out", run_name="lost"), TrainerState(),
                        TrainerControl())
while callback.state_dict()["energy_kwh"] == 0:
    time.sleep(0.1)
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    [row] = rows(tmp_path / "out")
    assert row["project_name"] == "lost"


def test_an_online_meter_works_without_a_network(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from callback_codecarbon import CodeCarbonCallback
from trainer_torch.testing import small_trainer
small_trainer(Path("out"), CodeCarbonCallback(stop_limit=60)).train()
"""
    unreachable = "http://127.0.0.1:9"
    proxies = {"http_proxy": unreachable, "https_proxy": unreachable, "no_proxy": ""}
    done = run_python("-c", code, variables=proxies)
    assert done.returncode == 0, done.stderr
    [row] = rows(tmp_path / "out")
    assert float(row["energy_consumed"]) >= 0
    assert row["country_iso_code"]


def test_codecarbons_own_settings_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("CODECARBON_OUTPUT_DIR", str(tmp_path / "mine"))
    (tmp_path / ".codecarbon.config").write_text("[codecarbon]\nproject_name = of the file\n")
    callback = meter(settings={"experiment_id": "seventh"})
    small_trainer(tmp_path / "out", callback, run_name="of the arguments").train()
    [row] = rows(tmp_path / "mine")
    assert (row["project_name"], row["experiment_id"]) == ("of the file", "seventh")
    assert not (tmp_path / "out" / "emissions.csv").exists()


def test_a_tilde_in_codecarbons_directory_is_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    small_trainer(tmp_path / "out", meter(settings={"output_dir": "~/mine"})).train()
    assert len(rows(tmp_path / "mine")) == 1


def test_a_broken_meter_is_reported_and_training_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path / "out", meter(settings={"measure": "everything"}))
    made.train()
    assert made.state.global_step == 12
    assert "CodeCarbon" in caplog.text


def test_a_killed_process_does_not_affect_the_next_training(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from callback_codecarbon import CodeCarbonCallback
from trainer_torch.testing import At, small_trainer
import time
small_trainer(Path("out"), CodeCarbonCallback(country_iso_code="SWE"),
        At(2, lambda: print("there", flush=True)), At(3, lambda: time.sleep(600))).train()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True
    )
    output = child.stdout
    assert output is not None
    wait_until(lambda: "there" in output.readline())
    os.kill(child.pid, 9)
    child.wait()
    begun = time.monotonic()
    small_trainer(tmp_path / "out", meter()).train()
    assert len(rows(tmp_path / "out")) == 1
    assert time.monotonic() - begun < 300


def test_a_copy_measures_nothing_before_a_training_begins_with_it(tmp_path: Path) -> None:
    callback, copies = meter(), []
    copying = At(6, lambda: copies.append(pickle.loads(pickle.dumps(callback))))
    small_trainer(tmp_path / "out", callback, copying).train()
    [copied] = copies
    small_trainer(tmp_path / "copied", copied).train()
    assert len(rows(tmp_path / "out")) == 1
    assert len(rows(tmp_path / "copied")) == 1
