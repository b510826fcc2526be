"""The length of a training that a `Loop` drives, and the position in its data."""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

from callback_core.data_length import number_of_batches
from callback_core.driver.loop_arguments import LoopArguments


class Position:
    """The position in the data, which a checkpoint keeps.

    Attributes:
        epoch: The current epoch, from 0.
        batches: The number of batches done in it.
        is_left: Whether a callback has asked to leave it.
        has_ended: Whether it has ended. An epoch within which the training stopped has not.
        best_step: The step of the best checkpoint, which may be a directory of any name.
        length: The number of batches of an epoch; `None` if unknown.
        unlogged: The sums and counts of what was reported between the last log and the checkpoint.
    """

    def __init__(self) -> None:
        self.epoch, self.batches, self.has_ended = 0, 0, False
        self.best_step: int | None = None
        self.length: int | None = None
        self.is_left = False
        self.unlogged: dict[str, Any] = {}

    def begin_epoch(self) -> None:
        """Begin the next epoch if the current one has ended. Otherwise, continue that."""
        if self.has_ended:
            self.epoch, self.batches, self.has_ended = self.epoch + 1, 0, False
            self.is_left = False

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the position."""
        vars(self).update({name: state[name] for name in vars(self)})


class LoopLength(NamedTuple):
    """The length of a training, as far as it is known.

    Attributes:
        batches_per_epoch: Batches in an epoch; `None` if unknown.
        max_steps: Update steps; -1 if unknown.
        num_train_epochs: Epochs.
        ends_by_steps: Whether the number of steps decides the length, rather than that of epochs.
    """

    batches_per_epoch: int | None
    max_steps: int
    num_train_epochs: int
    ends_by_steps: bool

    @classmethod
    def of(cls, args: LoopArguments, train_dataloader: Any) -> LoopLength:
        """Return the length that follows from the arguments and the data.

        Raises:
            ValueError: An argument is a share of a number that is unknown.
        """
        batches = number_of_batches(train_dataloader)
        steps = None if batches is None else -(-batches // args.gradient_accumulation_steps)
        ends_by_steps = args.max_steps > 0
        if ends_by_steps:
            epochs = sys.maxsize if not steps else math.ceil(args.max_steps / steps)
            return cls(batches, args.max_steps, epochs, ends_by_steps)
        shares = ["num_train_epochs"] if args.num_train_epochs % 1 else []
        shares += [name for name in _STEPS if 0 < (getattr(args, name) or 0) < 1]
        if steps is None and shares:
            raise ValueError(
                f"{shares[0]} is {getattr(args, shares[0])}, a share of a number of steps that is "
                "unknown. Set max_steps, or pass a train_dataloader that has a length."
            )
        total = -1 if steps is None else math.ceil(args.num_train_epochs * steps)
        return cls(batches, total, math.ceil(args.num_train_epochs), ends_by_steps)

    def epoch_at(self, position: Position) -> float:
        """Return the number of epochs done, with the fraction of the current one."""
        batches = self.batches_per_epoch
        share = position.batches / batches if batches else float(position.has_ended)
        return position.epoch + share


_STEPS = ("logging_steps", "eval_steps", "save_steps")
