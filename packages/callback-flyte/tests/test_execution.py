"""Tasks in separate processes, run like Flyte's containers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attempts import Attempt, Deck, execute
from tasks import as_documented, with_restored_checkpoint

from trainer_torch.testing import small_trainer


def test_the_documented_example_resumes_an_interrupted_attempt_bit_for_bit(
    tmp_path: Path,
) -> None:
    run = execute(tmp_path, 1, as_documented, step=7, how="raises")
    assert "the machine was taken away" in str(run.attempt.error()), run.output
    assert run.attempt.checkpoints() == ["checkpoint-6"]
    again = execute(tmp_path, 2, as_documented, step=0, how="")
    assert again.attempt.error() is None, again.output
    assert again.attempt.checkpoints() == ["checkpoint-12"]
    losses = check_against_uninterrupted(tmp_path, again.attempt)
    assert losses_in(run.attempt) == {step: losses[step] for step in range(1, 7)}


@pytest.mark.slow
def test_repeatedly_killed_attempts_resume_from_the_same_checkpoint(
    tmp_path: Path,
) -> None:
    for number in (1, 2):  # the second is killed before it saves its own checkpoint
        run = execute(tmp_path, number, with_restored_checkpoint, step=7, how="dies")
        assert run.status == -9, run.output
        assert "checkpoint-6" in run.attempt.checkpoints()
    run = execute(tmp_path, 3, with_restored_checkpoint, step=0, how="")
    assert run.attempt.error() is None, run.output
    check_against_uninterrupted(tmp_path, run.attempt)


def check_against_uninterrupted(folder: Path, one: Attempt) -> dict[int, str]:
    """Check that weights and log match an uninterrupted training; return the losses by step."""
    whole = small_trainer(folder / "undisturbed")
    whole.train()
    resumed = torch.load(one.outputs / "weights.pt", weights_only=True)
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed[name])
    losses = {e["step"]: f"{e['loss']:.6g}" for e in whole.state.log_history if "loss" in e}
    assert losses_in(one) == losses
    return losses


def losses_in(one: Attempt) -> dict[int, str]:
    """Return the losses in the deck of an attempt, by step."""
    html = (one.outputs / "deck.html").read_text("utf-8")
    _, _, ours = html.partition('<div class="callback-flyte">')
    table = Deck(ours.partition("</table>")[0]).table()
    return {int(row["step"]): row["loss"] for row in table if "loss" in row}
