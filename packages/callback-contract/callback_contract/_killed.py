"""What a kill leaves of a training, and how another goes on from there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from callback_contract._case import DIED, Case, Training
from callback_contract._heard import Told, heard
from callback_contract._python import environment
from callback_contract._rule import require
from callback_contract._stored import in_time
from callback_core import TrainerState


def begin_anew(case: Case) -> None:
    """Take away what a case has left so far."""
    for each in case.output_dir.parent.glob("*"):
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    case.output_dir.mkdir()


def journal_of(output_dir: Path) -> Path:
    """Return the only journal below `output_dir`."""
    found = sorted(output_dir.glob("tracking/*/journal.jsonl"))
    require(len(found) == 1, f"there are {len(found)} journals in {output_dir.name}/tracking")
    return found[0]


def records_of(journal: Path) -> list[dict[str, Any]]:
    """Return the records of a journal, in order."""
    return [json.loads(line) for line in journal.read_text("utf-8").splitlines()]


def training_in(
    case: Case, callback: Any, output_dir: Path, step: int = 0, **args: Any
) -> Training:
    """Return a training that goes on at `step` in `output_dir`."""
    state = TrainerState(global_step=step, epoch=step / 2, max_steps=8, num_train_epochs=4)
    arguments = case.arguments(**args)
    arguments.output_dir = str(output_dir)
    return case.training(callback, args=arguments, state=state)


def killed(
    case: Case,
    losses: Sequence[float | None],
    save_at: int = 0,
    *,
    besides: Mapping[int, Sequence[dict[str, Any]]] | None = None,
    late: dict[str, Any] | None = None,
    later_save_at: int = 0,
    **options: Any,
) -> tuple[Path, Any, Told]:
    """Train, and return what a kill leaves: the output directory as it is, and the state saved.

    The training itself is ended afterwards, in the directory that it has.

    Args:
        case: The case.
        losses: The loss of each step; none is logged where it is `None`.
        save_at: The step at which the checkpoint is saved that the state is of.
        besides: What is logged besides, by the step.
        late: What is logged once the checkpoint is saved, at its step.
        later_save_at: The step of another checkpoint.
        options: Those of `heard`.
    """
    besides = besides or {}
    callback, told = heard(case, **options)
    training = training_in(case, callback, case.output_dir)
    training.begin()
    training.fire("on_epoch_begin")
    for values in besides.get(0, ()):
        training.log(values)
    state = None
    for step, loss in enumerate(losses, 1):
        training.step(None if loss is None else {"loss": loss})
        for values in besides.get(step, ()):
            training.log(values)
        if step == later_save_at:
            training.save()
        if step == save_at:
            if callback.tracker.settings()["fails"] is None:
                in_time(lambda: callback.state_dict()["run_id"] is not None)
            training.save()
            state = json.loads(json.dumps(callback.state_dict()))
            if late is not None:
                training.log(late)
    state = state or json.loads(json.dumps(callback.state_dict()))
    failing = callback.tracker.settings()["fails"] or {}
    if failing.keys().isdisjoint(("open", "log_metrics")):
        in_time(lambda: told.points()[-1:] == [(len(losses), losses[-1])])
    if failing:
        in_time(lambda: told.calls(*failing, failed=True))
    else:
        in_time(lambda: is_noted(case.output_dir))
    left = case.output_dir.parent / "left"
    shutil.copytree(case.output_dir, left)
    for lock in left.rglob("*.lock"):
        lock.unlink()
    callback.flush_limit = 0.0
    calls = told.path.read_bytes() if told.path.exists() else b""
    training.end(DIED)
    if calls:  # what followed the kill has not happened
        told.path.write_bytes(calls)
    elif told.path.exists():
        told.path.unlink()
    return left, state, told


def is_noted(output_dir: Path) -> bool:
    """Return whether it is noted that all of the journal is delivered."""
    journal = journal_of(output_dir)
    progress = [json.loads(p.read_text()) for p in journal.parent.glob("*.progress.json")]
    return any(p["offset"] >= journal.stat().st_size for p in progress)


def again(case: Case, told: Told, **options: Any) -> Any:
    """Return a new callback that sends to where the one of `told` did."""
    callback, _ = heard(case, told.path.stem, **options)
    return callback


@contextmanager
def held_elsewhere(lock: Path) -> Iterator[None]:
    """Have another process hold a lock, which nobody here may hold."""
    holds = (
        "import sys; from pathlib import Path; from callback_core.tracking.lock import FileLock;"
        "lock = FileLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holds, str(lock)],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    held = other.stdout.readline()
    try:
        require(held, f"{lock.name} is still held here")
        yield
    finally:
        other.communicate(timeout=60)


def goes_on(case: Case, callback: Any, left: Path, step: int, *losses: float, **args: Any) -> None:
    """Train a step for each of `losses`, from `step` on in `left`, to the end."""
    training = training_in(case, callback, left, step, **args)
    training.begin()
    training.fire("on_epoch_begin")
    for loss in losses:
        training.step({"loss": loss})
    training.end()
