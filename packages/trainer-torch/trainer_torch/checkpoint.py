"""Checkpoints on disk: written under a temporary name, published in one rename, verified."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import torch

from callback_core import TrainerState, export_states
from callback_core.tracking import Redaction
from trainer_torch.arguments import TrainingArguments
from trainer_torch.run import TrainingRun
from trainer_torch.seeding import rng_state
from trainer_torch.structure import describe
from trainer_torch.values import json_value, loadable, restored
from trainer_torch.weights import save_model
from trainer_torch.world import World

logger = logging.getLogger(__name__)

OPTIMIZER: Final = "optimizer.pt"
SCHEDULER: Final = "scheduler.pt"
RNG: Final = "rng_state.pth"
RNG_OF_RANK: Final = "rng_state_{}.pth"
DATA: Final = "data_state_{}.pt"
PROGRESS: Final = "progress.json"
STRUCTURE: Final = "structure.json"
STATE: Final = "trainer_state.json"
MANIFEST: Final = "manifest.json"

_NAME: Final = re.compile(r"checkpoint-\d+")


def checkpoint_path(output_dir: str | Path, step: int) -> Path:
    """Return the path of the checkpoint of `step`."""
    return Path(output_dir) / f"checkpoint-{step}"


def checkpoint_step(checkpoint: str | Path) -> int:
    """Return the step in the name of `checkpoint`."""
    return int(Path(checkpoint).name.rpartition("-")[2])


def save_checkpoint(run: TrainingRun) -> Path:
    """Write everything that resuming needs. The checkpoint appears complete or not at all.

    The main process writes, including the random number generators of each rank. The others wait.

    Raises:
        TypeError: Something in a state could not be loaded again. The message says what.
    """
    if run.usage is not None:
        run.usage.publish(run.state)
    progress = {
        **run.position.state_dict(),
        "global_step": run.state.global_step,
        "step_logs": json_value(run.step_logs),
        "precision": run.precision.state_dict(),
        "accumulation": run.args.gradient_accumulation_steps,
        "arguments": arguments_to_keep(run.args),
        "given_options": run.given_options(),
    }
    rng_states = run.world.gather({"now": rng_state(), "epoch_begin": run.epoch_rng_state})
    data_states = run.world.gather(run.position.data_state_dict())
    saved = run.world.on_main(lambda: _write_checkpoint(run, progress, rng_states, data_states))
    run.saved_step = run.state.global_step
    return saved


def arguments_to_keep(args: TrainingArguments) -> dict[str, Any]:
    """Return the arguments as a checkpoint keeps them, to compare them when resuming.

    Secrets are removed. An argument that only a subclass has may be one in disguise, so only a
    digest of it is kept.
    """
    own = {field.name for field in fields(TrainingArguments)}
    return {
        name: Redaction().of(value, name) if name in own else _digest(value)
        for name, value in args.to_dict().items()
        if name != "resume_from_checkpoint"  # it differs whenever a training is resumed
    }


def _write_checkpoint(
    run: TrainingRun,
    progress: dict[str, Any],
    rng_states: list[dict[str, Any]],
    data_states: list[dict[str, Any] | None],
) -> Path:
    final = checkpoint_path(run.args.output_dir, run.state.global_step)
    part, replaced = (final.with_name(f".{final.name}.{kind}") for kind in ("part", "replaced"))
    for leftover in (part, replaced):  # of a process that was killed while saving
        if leftover.exists():
            shutil.rmtree(leftover)
    try:
        _write_files(run, part, progress, rng_states)
        _write_data(run, part, data_states)
        _write_manifest(part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if final.exists():
        final.rename(replaced)
    part.rename(final)
    if replaced.exists():
        shutil.rmtree(replaced)
    return final


def _write_files(
    run: TrainingRun, part: Path, progress: dict[str, Any], rng_states: list[dict[str, Any]]
) -> None:
    save_model(run.model, part)
    torch.save(loadable(run.optimizer.state_dict(), "The optimizer's state"), part / OPTIMIZER)
    torch.save(loadable(run.lr_scheduler.state_dict(), "The scheduler's state"), part / SCHEDULER)
    for rank, state in enumerate(rng_states):
        torch.save(state, part / (RNG if len(rng_states) == 1 else RNG_OF_RANK.format(rank)))
    for callback in run.loop_callbacks:
        callback.save_files(run.model, part)
    _write_json(part / PROGRESS, progress)
    _write_json(part / STRUCTURE, describe(run.model, run.optimizer, run.lr_scheduler))
    run.state.stateful_callbacks = export_states(
        [*run.callback_handler.callbacks, run.control], run.state.stateful_callbacks
    )
    run.state.save_to_json(part / STATE)


def _write_data(run: TrainingRun, part: Path, states: list[dict[str, Any] | None]) -> None:
    """Write the state of each rank's data, if there is one and it can be loaded again."""
    for rank, state in enumerate(states):
        try:
            written = loadable(state, "The state of the training data")
        except TypeError as error:
            run.warn_once(f"{error} A resumed training reads the data again instead.")
            return
        if state is not None:
            torch.save(written, part / DATA.format(rank))


def load_optimizer(run: TrainingRun, checkpoint: Path) -> None:
    """Load the optimizer and the schedule of `run` from `checkpoint`.

    Whether the optimizer is fused is no state: it is as it was made.
    """
    state = _load(checkpoint / OPTIMIZER, run.args.device)
    groups = getattr(run.optimizer, "param_groups", ())
    for group, own in zip(state.get("param_groups", ()), groups, strict=False):
        if "fused" in own:
            group["fused"] = own["fused"]
    run.optimizer.load_state_dict(state)
    run.lr_scheduler.load_state_dict(_load(checkpoint / SCHEDULER, run.args.device))


def load_progress(checkpoint: Path) -> dict[str, Any]:
    """Return the position in the data, the step and the arguments of `checkpoint`."""
    progress: dict[str, Any] = _read_json(checkpoint / PROGRESS)
    return progress


def load_structure(checkpoint: Path) -> dict[str, Any]:
    """Return what `trainer_torch.structure.describe` returned when `checkpoint` was saved."""
    described: dict[str, Any] = _read_json(checkpoint / STRUCTURE)
    return described


def load_state(checkpoint: Path) -> TrainerState:
    """Return the state of the training in `checkpoint`.

    The best checkpoint is looked for beside it, because the folder may have been moved.
    """
    state = TrainerState.load_from_json(checkpoint / STATE)
    if state.best_model_checkpoint is not None:
        best = checkpoint.parent / Path(state.best_model_checkpoint).name
        state.best_model_checkpoint = str(best)
        if find_fault(best):
            state.best_model_checkpoint = None
            logger.warning(
                "The best checkpoint so far, %s, is missing or incomplete and is ignored.", best
            )
    return state


def count_ranks(checkpoint: Path) -> int:
    """Return the number of processes that saved `checkpoint`."""
    return len(list(checkpoint.glob(RNG_OF_RANK.format("*")))) or 1


def load_rng_states(checkpoint: Path, world: World) -> tuple[Any, Any] | None:
    """Return the random generators of this rank in `checkpoint`: there, and as its epoch began.

    Returns `None` if another number of processes saved it.
    """
    if count_ranks(checkpoint) != world.size:
        return None
    name = RNG if world.size == 1 else RNG_OF_RANK.format(world.rank)
    states = _load(checkpoint / name, torch.device("cpu"))
    return states["now"], states["epoch_begin"]


def load_data_state(checkpoint: Path, world: World) -> dict[str, Any] | None:
    """Return the state of this rank's data in `checkpoint`, with its number of workers.

    Returns `None` if there is none, or another number of processes saved it.
    """
    path = checkpoint / DATA.format(world.rank)
    if count_ranks(checkpoint) != world.size or not path.is_file():
        return None
    state: dict[str, Any] = _load(path, torch.device("cpu"))
    return state


def find_checkpoint(resume_from: str | Path | bool, output_dir: str | Path) -> Path:
    """Return the complete checkpoint that `resume_from` names.

    Args:
        resume_from: A checkpoint; or a directory of checkpoints, for its newest complete one; or
            `True` for the newest complete one in `output_dir`.
        output_dir: The directory of this run's checkpoints.

    Raises:
        FileNotFoundError: There is no complete checkpoint. The message says what is wrong.
    """
    directory = Path(output_dir if resume_from is True else str(resume_from)).expanduser()
    found = list_checkpoints(directory)
    if resume_from is not True and not found:
        if fault := find_fault(directory):
            raise FileNotFoundError(f"Cannot resume from {directory}: {fault}.")
        return directory
    for checkpoint in reversed(found):
        if not (fault := find_fault(checkpoint)):
            return checkpoint
        logger.warning("Skipped the incomplete checkpoint %s: %s.", checkpoint, fault)
    raise FileNotFoundError(
        f"Cannot resume: there is no complete checkpoint in {directory.absolute()}. Train "
        "without resume_from_checkpoint to start from the beginning."
    )


def find_fault(checkpoint: Path) -> str | None:
    """Return why `checkpoint` is not complete, according to its manifest, or `None` if it is."""
    if not checkpoint.is_dir():
        return "there is no such directory"
    try:
        listed = dict(_read_json(checkpoint / MANIFEST)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"it has no valid {MANIFEST}, so writing it was not finished"
    for name, entry in listed.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if _entry(checkpoint / name) != entry:
            return f"{name} differs from what was written"
    return None


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Return the checkpoints in `output_dir`, complete or not, the oldest first.

    Time decides, not the step: a new run may write to the directory of an older, longer one.
    """
    found = [path for path in Path(output_dir).glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (_written(path), checkpoint_step(path)))


def rotate_checkpoints(run: TrainingRun, *keep: Path) -> None:
    """Delete the oldest checkpoints over `save_total_limit`, but neither `keep` nor the best."""
    limit, best = run.args.save_total_limit, run.state.best_model_checkpoint
    if limit is None:
        return
    kept = {checkpoint.name for checkpoint in keep}
    if best is not None:
        kept.add(Path(best).name)
    run.world.on_main(lambda: _delete_oldest(run.args.output_dir, limit, kept))


def _delete_oldest(output_dir: str | Path, limit: int, kept: set[str]) -> None:
    found = list_checkpoints(output_dir)
    surplus = max(0, len(found) - limit)
    for checkpoint in [checkpoint for checkpoint in found if checkpoint.name not in kept][:surplus]:
        shutil.rmtree(checkpoint)


def _load(path: Path, device: torch.device) -> Any:
    """Return what `path` has: on `device` what was not on the CPU, such as the steps of AdamW."""

    def place(storage: Any, location: str) -> Any:
        place = "cpu" if location == "cpu" else str(device)
        return torch.serialization.default_restore_location(storage, place)

    return restored(torch.load(path, map_location=place, weights_only=True))


def _digest(value: Any) -> dict[str, str]:
    return {"sha256": hashlib.sha256(json.dumps(value).encode()).hexdigest()}


def _write_manifest(directory: Path) -> None:
    entries = {path.name: _entry(path) for path in sorted(directory.iterdir())}
    _write_json(directory / MANIFEST, {"written": time.time(), "files": entries})
    for path in directory.iterdir():
        _sync(path)


def _written(checkpoint: Path) -> float:
    """Return the time at which `checkpoint` was written, in seconds since 1970."""
    try:
        return float(_read_json(checkpoint / MANIFEST)["written"])
    except (OSError, ValueError, KeyError, TypeError):
        return checkpoint.stat().st_mtime


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def _sync(path: Path) -> None:
    """Flush `path` to disk, so that the rename does not publish an incomplete file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
