"""The main example, `docs/examples/digits.py`, as users run it."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import digits
import look
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from callback_contract.testing import PreparedPython, environment, wait_until
from callback_core import TrainerState
from callback_tensorboard import TensorBoardCallback

SEED, BATCH, WARMUP = 42, 32, 20


def variables() -> dict[str, str]:
    """Return the environment variables of the example."""
    found = environment()
    found.pop("PEX_EXTRA_SYS_PATH", None)  # the example would think that Pants runs it
    return found


@pytest.fixture(scope="module")
def prepared() -> Iterator[PreparedPython]:
    """Return what runs the example in a process of its own, with what it needs imported."""
    with PreparedPython(["digits", "callback_tensorboard"], variables()) as running:
        yield running


def run(
    prepared: PreparedPython, output_dir: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    done = prepared.run(digits.__file__, "--output-dir", str(output_dir), *options)
    assert done.returncode == 0, done.stderr
    return done


def list_checkpoints(output_dir: Path) -> list[Path]:
    return sorted(
        output_dir.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2])
    )


def scalars(output_dir: Path, tag: str) -> list[tuple[int, float]]:
    [directory] = (output_dir / "runs").iterdir()
    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


@pytest.mark.slow
def test_the_example_reads_96_of_100_digits_stops_early_and_logs_its_curves(
    prepared: PreparedPython, tmp_path: Path
) -> None:
    output = run(prepared, tmp_path).stdout
    [accuracy] = [line for line in output.splitlines() if line.startswith("Test accuracy: ")]
    assert float(accuracy.split()[2].rstrip("%")) >= 96
    assert "EarlyStoppingCallback" in output  # it says who stopped the training
    state = TrainerState.load_from_json(list_checkpoints(tmp_path)[-1] / "trainer_state.json")
    logged = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
    written = scalars(tmp_path, "train/loss")
    # The log of the end, with the loss of the last steps, comes after the last checkpoint.
    assert [step for step, _ in written] == [*(step for step, _ in logged), state.global_step]
    assert [loss for _, loss in written[:-1]] == pytest.approx([loss for _, loss in logged])
    assert len(list_checkpoints(tmp_path)) == 2


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights_and_the_same_curve(
    prepared: PreparedPython, tmp_path: Path
) -> None:
    epochs = ("--epochs", "4")
    run(prepared, tmp_path / "whole", *epochs)
    killed = tmp_path / "killed"
    process = prepared.start(digits.__file__, "--output-dir", str(killed), *epochs)
    wait_until(lambda: list_checkpoints(killed) or prepared.has_ended())
    if not prepared.has_ended():
        os.kill(process, signal.SIGKILL)
    assert prepared.wait().returncode == -signal.SIGKILL
    before, last = (list_checkpoints(tmp_path / name)[-1].name for name in ("killed", "whole"))
    assert before != last  # it was killed before the end
    run(prepared, tmp_path / "killed", "--resume", *epochs)
    whole, resumed = (list_checkpoints(tmp_path / name)[-1] for name in ("whole", "killed"))
    assert whole.name == resumed.name
    assert (whole / "model.safetensors").read_bytes() == (
        resumed / "model.safetensors"
    ).read_bytes()
    curves = [
        [entry["loss"] for entry in state.log_history if "loss" in entry]
        for state in (
            TrainerState.load_from_json(path / "trainer_state.json") for path in (whole, resumed)
        )
    ]
    assert curves[0] == curves[1]


def test_the_loss_curve_matches_that_of_a_hand_written_loop(tmp_path: Path) -> None:
    trainer = digits.make_trainer(tmp_path, epochs=2, report_to="none")
    trainer.args.logging_steps = 1
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    dataset, _, _ = digits.digits()
    torch.manual_seed(0)
    model, losses = digits.DigitNet(), []
    optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.0, fused=True)
    total = len(logged)

    def factor(step: int) -> float:
        cosine = math.cos(math.pi * (step - WARMUP) / (total - WARMUP))
        return step / WARMUP if step < WARMUP else (1 + cosine) / 2

    schedule = LambdaLR(optimizer, factor)
    torch.manual_seed(SEED)
    for epoch in range(2):
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(SEED + epoch))
        for batch in order.split(BATCH):
            loss, _ = digits.compute_loss(model, list(dataset[batch]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert logged == pytest.approx(losses, rel=1e-5)


def test_an_installed_tracker_is_found_by_its_name(tmp_path: Path) -> None:
    callbacks = digits.make_trainer(tmp_path, report_to="tensorboard").callback_handler.callbacks
    assert any(isinstance(callback, TensorBoardCallback) for callback in callbacks)


@pytest.mark.slow
def test_the_last_command_that_the_example_prints_serves_its_curves_until_ctrl_c(
    prepared: PreparedPython, tmp_path: Path
) -> None:
    printed = run(prepared, tmp_path, "--max-steps", "2").stdout
    [called] = re.findall(rf"python ({re.escape(digits.__file__)} .*)", printed)
    process = subprocess.Popen(
        [sys.executable, *shlex.split(called)],
        env=variables(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    address = next(filter(None, (re.search(r"http://[\d.:]+/", line) for line in process.stderr)))
    runs: list[str] = []
    while not runs and process.poll() is None:  # TensorBoard reads the files while it serves
        with urllib.request.urlopen(f"{address[0]}data/runs") as answer:
            runs = json.load(answer)
    assert runs == [path.name for path in (tmp_path / "runs").iterdir()]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
    process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--report-to", "nonsense"),
        ("--report-to", "mlflow"),
        ("--report-to", "all", "tensorboard"),
        ("--max-steps", "0"),
        ("--max-steps", "many"),
        ("--epochs", "0"),
        ("--epochs", "nan"),
        ("--output-dir", digits.__file__),
        ("--output-dir", f"{digits.__file__}/below"),
        ("--resume",),
        ("--show",),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_written(
    tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    output_dir = tmp_path / "run"
    with pytest.raises(SystemExit) as ended:
        digits.main(["--output-dir", str(output_dir), *options])
    assert ended.value.code == 2
    assert options[0] in capsys.readouterr().err
    assert not output_dir.exists()


@pytest.mark.slow
def test_a_complete_run_is_not_trained_again_when_it_is_resumed(
    prepared: PreparedPython, tmp_path: Path
) -> None:
    run(prepared, tmp_path, "--max-steps", "2")
    [checkpoint] = list_checkpoints(tmp_path)
    weights = (checkpoint / "model.safetensors").read_bytes()
    resumed = run(prepared, tmp_path, "--max-steps", "2", "--resume")
    assert list_checkpoints(tmp_path) == [checkpoint]
    assert (checkpoint / "model.safetensors").read_bytes() == weights
    assert str(checkpoint) in resumed.stderr


def test_the_example_knows_every_tracker_of_the_repository_by_name() -> None:
    declared = {
        name: path.parent.name
        for path in Path("packages").glob("*/pyproject.toml")
        for name in re.findall(
            r'^\[project.entry-points."callback_core.integrations"\]\n(\w+) =',
            path.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    }
    assert {name: kept.package for name, kept in look.TRACKERS.items()} == declared


def test_the_error_for_a_missing_tracker_has_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["docs/examples/digits.py", "--report-to", "mlflow"])
    monkeypatch.delenv("PEX_EXTRA_SYS_PATH", raising=False)
    assert look.command("--show") == "python docs/examples/digits.py --show"
    monkeypatch.setenv("PEX_EXTRA_SYS_PATH", "docs/examples")
    called = "tools/pants run docs/examples/digits.py -- --report-to mlflow"
    assert (look.find_problem(["mlflow"]) or "").endswith(f"TRACKER=mlflow {called}")
    monkeypatch.setenv("TRACKER", "wandb")
    assert look.command("--show") == (
        "TRACKER=wandb tools/pants run docs/examples/digits.py -- --show"
    )
