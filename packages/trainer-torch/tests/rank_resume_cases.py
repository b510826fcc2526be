"""Trainings in four processes: undisturbed, and resumed.

Run as `torchrun ... rank_resume_cases.py resumed DIRECTORY`, like `distributed_cases.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from distributed_cases import RANK
from small import compute_loss, data, trainer
from torch import nn

PROCESSES = 4
KINDS: dict[str, dict[str, Any]] = {"DDP": {}, "FSDP": {"fsdp": True}}


def deep() -> nn.Module:
    """Return a network with several weights, whose training draws no random numbers."""
    torch.manual_seed(1)
    layers = [part for _ in range(4) for part in (nn.Linear(4, 4), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(4, 3))


def trained(out: Path, steps: int, resume: bool = False, **changed: Any) -> list[list[float]]:
    """Return the gathered weights after so many steps, with a checkpoint after the third."""
    given = {"model": deep(), "train_dataset": data(96), "compute_loss": compute_loss}
    saves = {"save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "constant"}
    made = trainer(out, given=given, max_steps=steps, **saves, **changed)
    made.train(resume_from_checkpoint=resume)
    weights = [one.detach() for one in made.model.parameters()]
    whole = [one.full_tensor() if hasattr(one, "full_tensor") else one for one in weights]
    return [one.flatten().tolist() for one in whole]


def resumed(out: Path) -> dict[str, bool]:
    """Return for each kind whether a resumed training ends like an undisturbed one, to the bit."""
    are_equal = {}
    for kind, changed in KINDS.items():
        undisturbed = trained(out / kind / "whole", 6, **changed)
        trained(out / kind / "parts", 3, **changed)
        again = trained(out / kind / "parts", 6, resume=True, **changed)
        are_equal[kind] = again == undisturbed
    return are_equal


if __name__ == "__main__":
    directory = Path(sys.argv[2])
    report = resumed(directory)
    (directory / f"rank{RANK}.json").write_text(json.dumps(report))
