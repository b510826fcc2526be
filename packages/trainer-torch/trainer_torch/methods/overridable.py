"""The methods that a subclass of the Trainer may override, and how they are called."""

from __future__ import annotations

from typing import Final

from trainer_torch.overrides import check_overrides

_CALLED_WITH: Final = {
    "compute_loss": 2,
    "training_step": 2,
    "prediction_step": 3,
    "evaluate": 0,
    "evaluation_loop": 2,
    "get_batch_size": 2,
    "get_eval_dataloader": 1,
    "get_test_dataloader": 1,
    "get_train_dataloader": 0,
    "get_decay_parameter_names": 1,
    "create_optimizer": 0,
    "save_checkpoint": 0,
    "floating_point_ops": 1,
    "count_items": 2,
    "log": 1,
}
"""The methods, with the number of their arguments by position."""

_CALLED_WITH_STEPS: Final = {"create_scheduler": 0, "create_optimizer_and_scheduler": 0}
"""Likewise, those that are also called with `num_training_steps` by keyword."""


def check_overridden(trainer: object, base: type, *, evaluates_several: bool) -> None:
    """Check that the Trainer can call each method that the class of `trainer` overrides.

    Args:
        trainer: The Trainer.
        base: The class whose methods may be overridden.
        evaluates_several: Whether `evaluate` is called for each of several datasets.

    Raises:
        TypeError: A method does not take its arguments. The message says how it is called.
    """
    check_overrides(trainer, base, _CALLED_WITH)
    check_overrides(trainer, base, _CALLED_WITH_STEPS, ["num_training_steps"])
    if evaluates_several:
        check_overrides(trainer, base, {"evaluate": 1}, ["metric_key_prefix"])
