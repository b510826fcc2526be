"""The memory of an evaluation does not grow with its samples, unless metrics need all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="it says the peak"),
]

FLOATS = 1000
"""Predictions of each sample. All those of 20 000 samples are 80 MB."""

SCRIPT = f"""
import sys, tempfile
import torch
from torch import nn
from trainer_torch import Trainer, TrainingArguments

samples, how = int(sys.argv[1]), sys.argv[2]


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return samples

    def __getitem__(self, index):
        return torch.full((4,), index / samples), torch.tensor(index % 2)


class Metric:
    def reset(self):
        self.samples = 0

    def update(self, predictions, labels):
        self.samples += len(predictions)

    def compute(self):
        return torch.tensor(self.samples)

    def __call__(self, evaluated, compute_result=True):
        self.samples += len(evaluated.label_ids)
        return {{"Metric": self.samples}}


metric = Metric()
metric.reset()
given = {{
    "by batch": {{"compute_metrics": metric.__call__}},
    "with state": {{"compute_metrics": metric}},
    "preprocessed": {{
        "compute_metrics": metric.__call__,
        "preprocess_logits_for_metrics": lambda logits, labels: logits[:, 0],
    }},
    "loss only": {{}},
    "all": {{"compute_metrics": metric.__call__}},
}}[how]
trainer = Trainer(
    nn.Linear(4, {FLOATS}),
    TrainingArguments(
        tempfile.mkdtemp(),
        per_device_eval_batch_size=50,
        batch_eval_metrics=how == "by batch",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    ),
    eval_dataset=Data(),
    compute_loss=lambda model, batch: ((s := model(batch[0])).mean(), s),
    **given,
)
metrics = trainer.evaluate()
assert metrics.get("eval_Metric", samples) == samples
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) // 1024)  # getrusage's is at least that of the parent
"""


def peak(samples: int, how: str, directory: Path) -> int:
    """Return the largest resident memory of an evaluation, in MB."""
    script = directory / "evaluates.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(samples), how],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The memory of an evaluation of one batch."""
    return peak(50, "loss only", tmp_path_factory.mktemp("least"))


@pytest.mark.parametrize("how", ["by batch", "with state", "preprocessed", "loss only"])
def test_memory_does_not_grow_with_the_samples(tmp_path: Path, least: int, how: str) -> None:
    assert peak(20_000, how, tmp_path) - least < 40


def test_the_measurement_notices_predictions_that_are_kept(tmp_path: Path, least: int) -> None:
    assert peak(20_000, "all", tmp_path) - least > 70
