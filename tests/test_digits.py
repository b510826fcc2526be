"""The main job, `docs/examples/digits.py`, as a user runs it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import digits
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from callback_core import TrainerState
from callback_tensorboard import TensorBoardCallback

SEED, BATCH, WARMUP = 42, 32, 20


def command(output_dir: Path, *options: str) -> dict:
    """Return what starts the example in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return {
        "args": [sys.executable, digits.__file__, "--output-dir", str(output_dir), *options],
        "env": environment,
    }


def run(output_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        **command(output_dir, *options), capture_output=True, text=True, check=True
    )


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
def test_the_example_reads_96_of_100_digits_stops_early_and_shows_its_curves(
    tmp_path: Path,
) -> None:
    output = run(tmp_path).stdout
    [accuracy] = [line for line in output.splitlines() if line.startswith("Test accuracy: ")]
    assert float(accuracy.split()[2].rstrip("%")) >= 96
    assert "EarlyStoppingCallback: eval_accuracy has not improved for 5 evaluations" in output
    assert f"tensorboard --logdir {tmp_path / 'runs'}" in output
    state = TrainerState.load_from_json(list_checkpoints(tmp_path)[-1] / "trainer_state.json")
    logged = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
    written = scalars(tmp_path, "train/loss")
    assert [step for step, _ in written] == [step for step, _ in logged]
    assert [loss for _, loss in written] == pytest.approx([loss for _, loss in logged])
    assert len(list_checkpoints(tmp_path)) == 2


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights_and_the_same_curve(tmp_path: Path) -> None:
    epochs = ("--epochs", "4")
    run(tmp_path / "whole", *epochs)
    with subprocess.Popen(
        **command(tmp_path / "killed", *epochs), stdout=subprocess.DEVNULL
    ) as process:
        while not list_checkpoints(tmp_path / "killed") and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    before, last = (list_checkpoints(tmp_path / name)[-1].name for name in ("killed", "whole"))
    assert before != last  # it was killed in the middle
    run(tmp_path / "killed", "--resume", *epochs)
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


def test_the_loss_curve_is_that_of_a_hand_written_loop(tmp_path: Path) -> None:
    trainer = digits.make_trainer(tmp_path, epochs=2, report_to="none")
    trainer.args.logging_steps = 1
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    dataset, _, _ = digits.digits()
    torch.manual_seed(0)
    model, losses = digits.DigitNet(), []
    optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
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
