"""Smaller batches when memory runs out, with as many samples in an update step as before."""

from __future__ import annotations

import copy
import logging
from itertools import islice
from pathlib import Path
from typing import Any

from callback_core import number_of_batches
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.checkpoints.checkpoint_loading import load_arguments
from trainer_torch.data.reading import (
    batch_size_of_loader,
    batches_of,
    begin_epoch,
    can_start_anywhere,
)
from trainer_torch.hardware.devices import free_memory, is_out_of_memory
from trainer_torch.hardware.seeding import rng_state, set_rng_state
from trainer_torch.loop.hooks import LoopHooks
from trainer_torch.model.sharding import forget_call
from trainer_torch.optimizers.gradients import drop_gradients
from trainer_torch.run.divergence import copy_buffers, restore_buffers
from trainer_torch.run.plan import Plan
from trainer_torch.run.training_run import TrainingRun

logger = logging.getLogger(__name__)


def check_batch_finding(run: TrainingRun) -> None:
    """Check that `auto_find_batch_size` is possible.

    Raises:
        ValueError: There are several processes.
    """
    if run.args.auto_find_batch_size and run.world.size > 1:
        raise ValueError(
            f"auto_find_batch_size is True, but there are {run.world.size} processes. One that "
            "runs out of memory cannot tell the others, which wait for its gradients. Find the "
            "batch size in one process, and set per_device_train_batch_size."
        )


def adopt_batch_size(run: TrainingRun, checkpoint: Path | None) -> None:
    """Continue with the batch size that the training had found at `checkpoint`, if it had."""
    args = run.args
    if checkpoint is None or not args.auto_find_batch_size:
        return
    if not (before := load_arguments(checkpoint)):
        return
    size = before["per_device_train_batch_size"]
    accumulation = before["gradient_accumulation_steps"]
    samples = args.per_device_train_batch_size * args.gradient_accumulation_steps
    if size < args.per_device_train_batch_size and size * accumulation == samples:
        run.args = _with_batches(args, size, accumulation)
        logger.info(
            "Batches have %d samples, as the training had found before the checkpoint.", size
        )


class StepStart:
    """What an update step starts from, to begin it again with smaller batches.

    Args:
        run: The training, before the batches of the step are loaded.
    """

    def __init__(self, run: TrainingRun) -> None:
        self._position = run.position.batches, run.position.samples
        self._data_state = run.position.data_state_dict()
        self._samples = run.samples
        self._rng_state = rng_state()
        self._buffers = copy_buffers(run.model)

    def can_shrink(self, run: TrainingRun, error: Exception) -> bool:
        """Return whether smaller batches may avoid `error`. If not, a note in it says why."""
        if not is_out_of_memory(error):
            return False
        size, of_loader = run.args.per_device_train_batch_size, run.position.batch_size
        if of_loader != size:
            error.add_note(
                "auto_find_batch_size cannot make smaller batches, because the batches of the "
                f"loader are not those of per_device_train_batch_size ({size}): make the loader in "
                "get_train_dataloader with self.args.per_device_train_batch_size."
            )
        elif size == 1:
            error.add_note("auto_find_batch_size cannot make batches of fewer than one sample.")
        return size == of_loader and size > 1

    def shrink(self, run: TrainingRun, plan: Plan, hooks: LoopHooks) -> list[Any]:
        """Go back to the start of the step, and return its samples in smaller batches.

        The batches of the epoch that follow, `run.batches`, are as small, and so are those of later
        epochs. `plan` gets their number.

        Raises:
            RuntimeError: The loader cannot be made with smaller batches.
        """
        args, position = run.args, run.position
        size, accumulation = _next_smaller(args)
        run.warn_once(
            f"Memory ran out in step {run.state.global_step + 1} with batches of "
            f"{args.per_device_train_batch_size} samples. The step is repeated. From now on, a "
            f"step takes {accumulation} batches of {size}."
        )
        self._go_back(run)
        run.args = _with_batches(args, size, accumulation)
        run.state.train_batch_size = size
        run.batches = iter(())  # ends the workers of the loader
        loader = run.train_dataloader = hooks.get_train_dataloader()
        run.callback_handler.train_dataloader = loader
        run.signals.protect_workers(loader)
        samples = position.samples
        if batch_size_of_loader(loader) != size or (
            samples % size and not can_start_anywhere(loader)
        ):
            raise RuntimeError(
                f"Memory ran out, and the loader cannot continue after {samples} samples with "
                f"batches of {size}. Set per_device_train_batch_size to {size}, and "
                f"gradient_accumulation_steps to {accumulation}."
            )
        position.read_size = args.per_device_train_batch_size
        if self._data_state is not None and can_start_anywhere(loader):
            position.data_state = self._data_state["state"]
        position.batch_size, position.batches = size, batches_of(loader, samples, size)
        length = number_of_batches(loader) if plan.has_length else None
        position.length = length
        plan.batches_per_epoch = length or plan.max_steps * accumulation
        set_rng_state(run.epoch_rng_state)
        run.batches = begin_epoch(loader, run.args, position)
        set_rng_state(self._rng_state)
        return next_batches(run)

    def _go_back(self, run: TrainingRun) -> None:
        forget_call(run.model)
        drop_gradients(run.model, run.optimizer)
        run.position.batches, run.position.samples = self._position
        run.samples = self._samples
        restore_buffers(run.model, self._buffers)
        free_memory(run.args.device)


def next_batches(run: TrainingRun) -> list[Any]:
    """Return the batches of the next update step; none at the end of the epoch."""
    if run.args.auto_find_batch_size:
        run.step_start = StepStart(run)
    number = run.args.gradient_accumulation_steps
    batches = run.usage.waited_for(lambda: list(islice(run.batches, number)))
    return run.world.trim_to_shortest(batches)


def _next_smaller(args: TrainingArguments) -> tuple[int, int]:
    """Return the next smaller batch size for as many samples in a step, and its batches."""
    samples = args.per_device_train_batch_size * args.gradient_accumulation_steps
    sizes = range(args.per_device_train_batch_size - 1, 0, -1)
    size = next(size for size in sizes if samples % size == 0)
    return size, samples // size


def _with_batches(args: TrainingArguments, size: int, accumulation: int) -> TrainingArguments:
    """Return a copy of `args`: those of the user stay as they are."""
    changed = copy.copy(args)
    changed.per_device_train_batch_size = size
    changed.gradient_accumulation_steps = accumulation
    return changed
