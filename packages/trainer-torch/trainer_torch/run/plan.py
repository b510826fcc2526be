"""`Plan`: the length of a training; and `DataLength`, which compares it with the data."""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import dataclass, replace
from typing import Any

from callback_core import number_of_batches, share_of_steps
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.data.position import LoopPosition
from trainer_torch.ranks.world import SINGLE_PROCESS, World

logger = logging.getLogger(__name__)


@dataclass
class Plan:
    """The length of a training.

    Attributes:
        max_steps: The number of update steps.
        num_train_epochs: The number of epochs. The last one may be incomplete.
        batches_per_epoch: The number of batches of each rank in an epoch. It grows when batches
            become smaller because memory has run out.
    """

    max_steps: int
    num_train_epochs: int
    batches_per_epoch: int

    @property
    def has_length(self) -> bool:
        """Whether the data has a length. Otherwise, all of the training counts as one epoch."""
        return self.num_train_epochs < sys.maxsize


def plan_training(args: TrainingArguments, dataloader: Any, world: World = SINGLE_PROCESS) -> Plan:
    """Return the length of a training with `dataloader`. The rank with the fewest batches decides.

    Raises:
        ValueError: There is no batch, or the data has no length and `args.max_steps` is not set.
    """
    accumulation = args.gradient_accumulation_steps
    length = number_of_batches(dataloader)
    if length is None:
        if args.max_steps < 0:
            raise ValueError(
                "train_dataset has no length, so num_train_epochs is not enough: set max_steps."
            )
        # As in transformers: without a length, all of the training counts as one epoch.
        return Plan(args.max_steps, sys.maxsize, args.max_steps * accumulation)
    batches = min(world.gather(length))
    if batches == 0:
        raise ValueError(
            "There is no batch to train on: train_dataset is empty, or dataloader_drop_last drops "
            "its only, incomplete batch (per_device_train_batch_size is "
            f"{args.per_device_train_batch_size}, in each of {world.size} process(es))."
        )
    steps = math.ceil(batches / accumulation)
    if args.max_steps > 0:
        return Plan(args.max_steps, math.ceil(args.max_steps / steps), batches)
    total = share_of_steps(args.num_train_epochs, steps)
    return Plan(total, math.ceil(args.num_train_epochs), batches)


def continued_plan(
    plan: Plan, args: TrainingArguments, position: LoopPosition, global_step: int
) -> Plan:
    """Return `plan` for a training that has done `global_step` steps of another size.

    The steps that are left are counted in the new size. With `args.max_steps`, the number of epochs
    follows from it, otherwise the number of steps from the number of epochs.

    Args:
        plan: The length of a training that is not resumed.
        args: The arguments of the training.
        position: The position in the data, in batches of the new size.
        global_step: The number of steps done.
    """
    accumulation, batches = args.gradient_accumulation_steps, plan.batches_per_epoch
    if not plan.has_length:
        left = max(0, args.max_steps - global_step) * accumulation
        return replace(plan, batches_per_epoch=position.batches + left)
    steps = math.ceil(batches / accumulation)
    left_in_epoch = 0
    if not position.epoch_ended:
        left_in_epoch = math.ceil(max(0, batches - position.batches) / accumulation)
    if args.max_steps > 0:
        later = max(0, args.max_steps - global_step - left_in_epoch)
        return replace(plan, num_train_epochs=position.epoch + 1 + math.ceil(later / steps))
    done = (position.epoch + 1) * steps - left_in_epoch
    return replace(plan, max_steps=global_step + max(0, plan.max_steps - done))


class DataLength:
    """Compares the length of the training data with the batches that it yields.

    Args:
        plan: The length of the training, which was made from the length of the data.
        is_main: Whether this process warns of a difference.

    Attributes:
        is_short: Whether an epoch had fewer batches than the plan.
    """

    def __init__(self, plan: Plan, is_main: bool) -> None:
        self.is_short = False
        self._plan = plan
        self._is_main = is_main
        self._told = False

    def check(self, epoch: int, batches: int, by_steps: bool) -> None:
        """Note an epoch that came to its end, and warn once if its length is not the plan's.

        Args:
            epoch: The epoch, from 0.
            batches: The number of batches that the data yielded in it.
            by_steps: Whether the user gave the number of steps, not that of epochs.
        """
        plan = self._plan
        self.is_short |= plan.has_length and batches < plan.batches_per_epoch
        if not self._is_main:
            return
        if batches == 0:
            logger.warning("Training stops: train_dataset yielded nothing in epoch %d.", epoch)
        elif plan.has_length and batches != plan.batches_per_epoch and not self._told:
            self._told = True
            if by_steps:
                consequence = f"Training still takes the {plan.max_steps} steps of max_steps"
            elif batches < plan.batches_per_epoch:
                consequence = (
                    f"Training ends after {plan.num_train_epochs} epochs, with fewer than the "
                    f"{plan.max_steps} steps that the learning rate is planned for"
                )
            else:
                consequence = f"Training ends after {plan.max_steps} steps, with fewer epochs"
            logger.warning(
                "The training data yielded %d batches in epoch %d, but its length is %d. %s. "
                "Correct its length, or set max_steps.",
                batches,
                epoch,
                plan.batches_per_epoch,
                consequence,
            )
