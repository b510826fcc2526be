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
from trainer_torch.finite import is_finite, parts_not_finite
from trainer_torch.messages import listed
from trainer_torch.plan import Plan
from trainer_torch.run import TrainingRun
from trainer_torch.seeding import generators_file, read_generators, rng_state
from trainer_torch.structure import describe
from trainer_torch.transformers_checkpoint import (
    check_scheduler,
    is_of_transformers,
    missing_part,
    read_precision,
    read_progress,
    read_structure,
    without_empty_groups,
)
from trainer_torch.values import json_value, loadable, restored
from trainer_torch.weights import MODEL, save_model
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

_IMPLEMENTATION: Final = ("fused", "foreach", "capturable", "differentiable", "maximize")
"""The options of an optimizer that say how it computes, and not what."""

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
    With `save_on_each_node`, the first process of each machine writes the same. With
    `save_only_model`, only the weights and the state of the training are written.

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
        "non_finite": {"steps": run.guard.steps, "rollbacks": run.guard.rollbacks},
    }
    notes = run.world.gather(
        (rng_state(), run.epoch_rng_state, is_finite(run.model, run.optimizer))
    )
    rng_states = [generators_file(now, epoch_begin) for now, epoch_begin, _ in notes]
    data_states = run.world.gather(run.position.data_state_dict())
    finite = all(one for *_, one in notes)

    def write() -> Path:
        return _write_checkpoint(run, progress, rng_states, data_states, finite)

    saved = run.on_writers(write)
    run.saved_step = run.state.global_step
    if finite:
        run.guard.checkpoint = saved
    elif run.guard.steps == 0:  # otherwise it has been told
        _tell_what_is_not_finite(run, saved)
    return saved


def _tell_what_is_not_finite(run: TrainingRun, saved: Path) -> None:
    """Tell what in the checkpoint `saved` is not finite, although each step was."""
    gathered = run.world.gather(parts_not_finite(run.model, run.optimizer))
    names = listed(dict.fromkeys(name for names in gathered for name in names))
    run.warn_once(
        f"{saved} has values that are not finite: {names}. The loss and the gradient of each step "
        "were finite, so on_non_finite does nothing about it. The newest checkpoint that is finite "
        "is kept.",
        about="values of a checkpoint that are not finite",
    )


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
    finite: bool,
) -> Path:
    final = checkpoint_path(run.args.output_dir, run.state.global_step)
    part, replaced = (final.with_name(f".{final.name}.{kind}") for kind in ("part", "replaced"))
    for leftover in (part, replaced):  # of a process that was killed while saving
        if leftover.exists():
            shutil.rmtree(leftover)
    try:
        save_model(run.model, part)
        for callback in run.loop_callbacks:
            callback.save_files(run.model, part)
        if not run.args.save_only_model:
            _write_resumable(run, part, progress, rng_states)
            _write_data(run, part, data_states)
        _write_state(run, part)
        _write_manifest(part, finite)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if final.exists():
        final.rename(replaced)
    part.rename(final)
    if replaced.exists():
        shutil.rmtree(replaced)
    return final


def _write_resumable(
    run: TrainingRun, part: Path, progress: dict[str, Any], rng_states: list[dict[str, Any]]
) -> None:
    """Write what resuming needs besides the weights and the state."""
    torch.save(loadable(run.optimizer.state_dict(), "The optimizer's state"), part / OPTIMIZER)
    torch.save(loadable(run.lr_scheduler.state_dict(), "The scheduler's state"), part / SCHEDULER)
    for rank, state in enumerate(rng_states):
        torch.save(state, part / (RNG if len(rng_states) == 1 else RNG_OF_RANK.format(rank)))
    _write_json(part / PROGRESS, progress)
    _write_json(part / STRUCTURE, describe(run.model, run.optimizer, run.lr_scheduler))


def _write_state(run: TrainingRun, part: Path) -> None:
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

    Raises:
        ValueError: The checkpoint is one of transformers and has another kind of schedule.
    """
    schedule = _load(checkpoint / SCHEDULER, run.args.device)
    state = load_optimizer_state(run, checkpoint)
    is_other = is_of_transformers(checkpoint)
    if is_other:
        check_scheduler(run.lr_scheduler, schedule)
    groups = getattr(run.optimizer, "param_groups", ())
    for group, own in zip(state.get("param_groups", ()), groups, strict=False):
        names = _IMPLEMENTATION if is_other else ("fused",)
        group |= {name: own[name] for name in names if name in own}
    run.optimizer.load_state_dict(state)
    run.lr_scheduler.load_state_dict(schedule)


def load_optimizer_state(run: TrainingRun, checkpoint: Path) -> dict[str, Any]:
    """Return the state of the optimizer in `checkpoint`."""
    state: dict[str, Any] = _load(checkpoint / OPTIMIZER, run.args.device)
    return without_empty_groups(state) if is_of_transformers(checkpoint) else state


def load_progress(run: TrainingRun, plan: Plan, checkpoint: Path) -> dict[str, Any]:
    """Return the position in the data, the step and the arguments of `checkpoint`."""
    if is_of_transformers(checkpoint):
        return read_progress(run, plan, checkpoint, count_ranks(checkpoint))
    progress: dict[str, Any] = _read_json(checkpoint / PROGRESS)
    return progress


def load_precision(checkpoint: Path) -> dict[str, Any]:
    """Return the state of the mixed precision in `checkpoint`."""
    if is_of_transformers(checkpoint):
        return read_precision(checkpoint)
    precision: dict[str, Any] = _read_json(checkpoint / PROGRESS)["precision"]
    return precision


def load_arguments(checkpoint: Path) -> dict[str, Any]:
    """Return the arguments that `checkpoint` keeps: none if it is one of transformers."""
    if is_of_transformers(checkpoint):
        return {}
    arguments: dict[str, Any] = _read_json(checkpoint / PROGRESS)["arguments"]
    return arguments


def load_structure(run: TrainingRun, checkpoint: Path) -> dict[str, Any]:
    """Return what `trainer_torch.structure.describe` returned when `checkpoint` was saved."""
    if is_of_transformers(checkpoint):
        return read_structure(run, load_optimizer_state(run, checkpoint))
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

    Returns `None` if another number of processes saved it, or if it has none.
    """
    name = RNG if world.size == 1 else RNG_OF_RANK.format(world.rank)
    if count_ranks(checkpoint) != world.size or not (checkpoint / name).exists():
        return None
    return read_generators(checkpoint / name)


def load_data_state(checkpoint: Path, world: World) -> dict[str, Any] | None:
    """Return the state of this rank's data in `checkpoint`, with its number of workers.

    Returns `None` if there is none, or another number of processes saved it.
    """
    path = checkpoint / DATA.format(world.rank)
    if count_ranks(checkpoint) != world.size or not path.is_file():
        return None
    state: dict[str, Any] = _load(path, torch.device("cpu"))
    return state


def find_fault(checkpoint: Path) -> str | None:
    """Return why `checkpoint` is not complete, according to its manifest, or `None` if it is.

    A checkpoint of transformers has no manifest: it is complete if it has all files.
    """
    if not checkpoint.is_dir():
        return "there is no such directory"
    if is_of_transformers(checkpoint):
        return missing_part(checkpoint)
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
    paths = Path(output_dir).glob("checkpoint-*")
    found = [path for path in paths if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: (_written(path), checkpoint_step(path)))


def has_finite_weights(checkpoint: Path) -> bool:
    """Return whether the weights in `checkpoint` are finite, as far as it says so."""
    manifest = _manifest(checkpoint)
    return bool(manifest.get("finite", True)) if manifest else is_of_transformers(checkpoint)


def has_only_model(checkpoint: Path) -> bool:
    """Return whether `checkpoint` was saved with `save_only_model`, so that nothing can resume."""
    files = _manifest(checkpoint).get("files", {})
    return MODEL in files and OPTIMIZER not in files


def _load(path: Path, device: torch.device) -> Any:
    """Return what `path` has: on `device` what was not on the CPU, such as the steps of AdamW."""

    def place(storage: Any, location: str) -> Any:
        place = "cpu" if location == "cpu" else str(device)
        return torch.serialization.default_restore_location(storage, place)

    return restored(torch.load(path, map_location=place, weights_only=True))


def _digest(value: Any) -> dict[str, str]:
    return {"sha256": hashlib.sha256(json.dumps(value).encode()).hexdigest()}


def _manifest(checkpoint: Path) -> dict[str, Any]:
    """Return the manifest of `checkpoint`, or nothing if it has none that is valid."""
    try:
        return dict(_read_json(checkpoint / MANIFEST))
    except (OSError, ValueError, TypeError):
        return {}


def _write_manifest(directory: Path, finite: bool) -> None:
    entries = {path.name: _entry(path) for path in sorted(directory.iterdir())}
    manifest = {"written": time.time(), "finite": finite, "files": entries}
    _write_json(directory / MANIFEST, manifest)
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
