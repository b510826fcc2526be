"""Two processes agree about a step that is not finite, and about where checkpoints are saved.

Run as `torchrun ... test_non_finite_ranks.py CASE DIRECTORY`, this is what each process does.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from distributed_cases import RANK, Plain, main
from launching import launch, reports
from resuming import EVERY_STEP
from saving_cases import Held
from small import arguments, compute_loss, data
from torch import Tensor, nn

from callback_core import TrainerCallback
from trainer_torch import Trainer
from trainer_torch.checkpoints.checkpoint_saving import finish_save
from trainer_torch.storage.checkpoint import list_checkpoints

pytestmark = pytest.mark.slow


class SpoilsOneRank(Trainer):
    """The loss of rank 1 is not finite at step 3, and with it the gradient of both or of none."""

    with_gradient = True

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        if RANK == 1 and self.state.global_step == 2:
            nan = torch.tensor(float("nan"))
            return loss * nan if self.with_gradient else loss + nan
        return loss


def spoilt(out: Path, with_gradient: bool = True, **changed: Any) -> dict[str, Any]:
    """Train with a loss that is spoilt, and return what a process sees of it."""
    told: list[str] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("trainer_torch.loop.non_finite")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    args = arguments(out, **{"logging_steps": 2, "max_steps": 6, **EVERY_STEP, **changed})
    made = SpoilsOneRank(Plain(norm=True), args, None, data(), compute_loss=compute_loss)
    made.with_gradient = with_gradient
    made.train()
    logger.removeHandler(handler)
    return {
        "told": told,
        "step": made.state.global_step,
        "reasons": [one.reason for one in made.control.requests if one.reason],
        "weights": [one.tolist() for one in made.model.state_dict().values()],
        "checkpoints": [one.name for one in list_checkpoints(out)],
    }


class AsksInOneRank(TrainerCallback):
    """Asks for a checkpoint, and once an earlier one is whole, in one rank, for an evaluation."""

    saves = evaluations = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save |= state.global_step == 3

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saves += 1
        control.should_evaluate |= RANK == 1 and self.saves == 1

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self.evaluations += 1


def asked_in_a_rollback(out: Path) -> dict[str, Any]:
    """Go back to a checkpoint that is still being written when a step is not finite."""
    released = out / "released"

    def release(run: Any) -> None:
        released.touch()
        finish_save(run)

    asks = AsksInOneRank()
    saving = {"save_strategy": "steps", "save_steps": 2, "save_async": True, "max_steps": 3}
    others = {"logging_strategy": "no", "on_non_finite": "rollback", "ddp_timeout": 60}
    args = arguments(out, **saving, **others)
    parts: dict[str, Any] = {"eval_dataset": data(9), "callbacks": [Held(released), asks]}
    made = SpoilsOneRank(Plain(), args, None, data(), compute_loss=compute_loss, **parts)
    with mock.patch("trainer_torch.loop.non_finite.finish_save", release):
        made.train()
    return {"evaluations": asks.evaluations, "rolled back": released.exists()}


def guarded(out: Path) -> dict[str, Any]:
    policies = ("warn", "skip", "stop", "rollback")
    return {
        **{policy: spoilt(out / policy, on_non_finite=policy) for policy in policies},
        "asked": asked_in_a_rollback(out / "asked"),
        "only the loss": spoilt(out / "loss", with_gradient=False, on_non_finite="skip"),
    }


def on_each_node(out: Path) -> dict[str, Any]:
    """Save as two machines with a disk each would."""
    os.environ["LOCAL_RANK"] = "0"
    args = {**EVERY_STEP, "save_on_each_node": True, "save_total_limit": 1, "max_steps": 2}
    model: nn.Module = Plain()
    made = Trainer(
        model, arguments(out / f"node{RANK}", **args), None, data(), compute_loss=compute_loss
    )
    made.train()
    made.save_model()
    [checkpoint] = list_checkpoints(out / f"node{RANK}")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    return {
        "files": manifest["files"],
        "has_model": (out / f"node{RANK}" / "model.safetensors").exists(),
    }


def on_one_disk(out: Path) -> str:
    """Save on each node, although the nodes share a disk."""
    os.environ["LOCAL_RANK"] = "0"
    args = arguments(out / "shared", **EVERY_STEP, save_on_each_node=True, max_steps=2)
    try:
        Trainer(Plain(), args, None, data(), compute_loss=compute_loss).train()
    except ValueError as error:
        return str(error)
    return ""


def saving(out: Path) -> dict[str, Any]:
    return {"each": on_each_node(out), "shared": on_one_disk(out)}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    seen = {}
    for case in ("guarded", "saving"):
        directory = tmp_path_factory.mktemp(case)
        done = launch(__file__, case, directory)
        assert done.returncode == 0, done.stderr
        seen[case] = reports(directory)
    return SimpleNamespace(**seen)


def are_finite(weights: Any) -> bool:
    return all(bool(torch.isfinite(Tensor([one])).all()) for one in _numbers(weights))


def _numbers(nested: Any) -> list[float]:
    return [one for item in nested for one in _numbers(item)] if type(nested) is list else [nested]


@pytest.mark.parametrize("policy", ["skip", "stop", "rollback", "only the loss"])
def test_the_ranks_end_with_the_same_weights(ranks: Any, policy: str) -> None:
    one, other = (rank[policy] for rank in ranks.guarded)
    assert one["step"] == other["step"] == (3 if policy == "stop" else 6)
    assert one["reasons"] == other["reasons"]
    if policy != "stop":
        assert one["weights"][:2] == other["weights"][:2]
        assert are_finite(one["weights"]) and are_finite(other["weights"])


@pytest.mark.parametrize("policy", ["warn", "skip", "stop", "rollback", "only the loss"])
def test_every_rank_knows_of_the_step_of_another(ranks: Any, policy: str) -> None:
    for rank in ranks.guarded:
        assert "step 3" in rank[policy]["told"][0]


def test_what_one_rank_asks_for_in_a_rollback_all_do(ranks: Any) -> None:
    for rank in ranks.guarded:
        assert rank["asked"] == {"evaluations": 1, "rolled back": True}


def test_each_node_saves_the_same(ranks: Any) -> None:
    one, other = (rank["each"] for rank in ranks.saving)
    names = {"optimizer.pt", "model.safetensors", "rng_state_0.pth", "rng_state_1.pth"}
    assert names < set(one["files"])
    assert set(one["files"]) == set(other["files"])
    for name in names:
        assert one["files"][name] == other["files"][name]
    assert one["has_model"] and other["has_model"]


def test_nodes_that_share_a_disk_are_refused_before_they_spoil_a_checkpoint(ranks: Any) -> None:
    assert all("save_on_each_node" in rank["shared"] for rank in ranks.saving)


if __name__ == "__main__":
    main({"guarded": guarded, "saving": saving})
