"""Both of Lightning's packages work, also if the program has only one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning_for_tests import runs_in

from callback_contract.testing import run_python

CODE = """
import sys
from pathlib import Path
{before}
import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel
from callback_lightning import LightningCallbacks, TrackerLogger
{after}
import lightning_for_tests as helpers


class Module(BoringModel):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)["loss"]
        self.log("train_loss", loss)
        return loss


for way in ("callbacks", "logger"):
    lines, recorder = helpers.LinesCallback(Path(way + ".jsonl")), helpers.Recorder()
    callbacks = [LightningCallbacks([recorder, lines])] if way == "callbacks" else []
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[*callbacks, pl.callbacks.ModelCheckpoint("kept")],
        log_every_n_steps=1,
        logger=TrackerLogger(lines) if way == "logger" else False,
        max_steps=3,
    )
    trainer.fit(Module())
"""


@pytest.mark.slow
@pytest.mark.parametrize("has_both", [False, True])
def test_the_older_package_works(has_both: bool, tmp_path: Path) -> None:
    both = "import lightning.pytorch" if has_both else ""
    only = "" if has_both else "assert 'lightning.pytorch' not in sys.modules"
    code = CODE.format(before=both, after=only)
    done = run_python("-W", "ignore", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for way in ("callbacks", "logger"):
        (run,) = runs_in(tmp_path / f"{way}.jsonl")
        assert (run.steps("train/loss"), run.status) == ([1, 2, 3], "finished")
