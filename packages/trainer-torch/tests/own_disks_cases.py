"""What each process of the tests of machines with a disk each does, and reports.

Each process is the first of a machine, and has a working directory of its own. Run like
`distributed_cases.py`.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed_cases import PATIENCE, RANK, main
from resuming import EVERY_STEP
from safetensors.torch import load_file
from saving_cases import Fault, Raises
from small import net, trainer

from trainer_torch import Trainer
from trainer_torch.checkpoints.selection import find_checkpoint
from trainer_torch.storage.verification import find_fault_together

OUT = "run"  # relative, so that each machine has a directory of its own


def made(*callbacks: Any, **changed: Any) -> Trainer:
    """Return a trainer that saves each step on each machine."""
    usual: dict[str, Any] = {**EVERY_STEP, "ddp_timeout": PATIENCE, "max_steps": 4}
    return trainer(OUT, *callbacks, given={"model": net()}, **{**usual, **changed})


def end(resumed: Trainer) -> Any:
    """Resume, and return from which checkpoint, and the weights at the end; or the error."""
    try:
        resumed.train(resume_from_checkpoint=True)
    except FileNotFoundError as error:
        return type(error).__name__
    weights = [one.tolist() for one in resumed.model.parameters()]
    return [str(resumed.run.resumed_from), weights]


def damaged(trained: Trainer) -> dict[str, bool]:
    """Return for each file whether the processes notice that the second machine's is damaged."""
    found = {}
    world, checkpoint = trained.run.world, Path(OUT, "checkpoint-4")
    assert find_fault_together(world, checkpoint) is None
    for path in sorted(checkpoint.iterdir()):
        before = path.read_bytes()
        if RANK == 1:
            path.write_bytes(before[:-6] + bytes([before[-6] ^ 1]) + before[-5:])
        found[path.name] = find_fault_together(world, checkpoint) is not None
        world.gather(None)
        path.write_bytes(before)
        world.gather(None)
    return found


def each_node() -> dict[str, Any]:
    """Save on each machine, and resume with checkpoints that are damaged or of other trainings."""
    each = {"save_on_each_node": True}
    trained = made(**each)
    trained.train()
    report: dict[str, Any] = {"damaged": damaged(trained)}
    report["whole"] = end(made(**each, max_steps=6))
    shutil.rmtree(Path(OUT, "checkpoint-6"))
    if RANK == 1:
        weights = Path(OUT, "checkpoint-5", "model.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    report["older"] = end(made(**each, max_steps=6))
    shutil.move(OUT, "before")
    made(**each, seed=3).train()
    if RANK == 1:  # as from a backup of another training
        shutil.rmtree(OUT)
        shutil.move("before", OUT)
    report["other"] = end(made(**each))
    return report


def stale(address: str) -> list[Any]:
    """Start over at an address, when the second machine still has a checkpoint from before.

    Returns what is then resumed from, and the sums of its weights.
    """
    remote = {"remote_output_dir": address}
    first = made(**remote, max_steps=3)
    first.train()
    find_checkpoint(True, OUT, first.run.world, address)  # downloads it to the second machine
    second = made(Raises(0, 1), **remote, seed=3)
    with suppress(Fault):
        second.train()
    found = find_checkpoint(True, OUT, second.run.world, address)
    weights = load_file(found / "model.safetensors")
    return [str(found), {name: one.sum().item() for name, one in weights.items()}]


def own_disks(out: Path) -> dict[str, Any]:
    os.environ["LOCAL_RANK"] = "0"
    report = {}
    for name in ("each_node", "stale"):
        directory = out / name / str(RANK)
        directory.mkdir(parents=True)
        os.chdir(directory)
        report[name] = each_node() if name == "each_node" else stale(f"file://{out}/store")
    return report


if __name__ == "__main__":
    main({"own_disks": own_disks})
