"""`OptimizerMethods`: the methods of the Trainer that create and describe its optimizer."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.messages import listed
from trainer_torch.optimizers.muon import MuonWithAdamW
from trainer_torch.run.optimizer_creation import (
    can_be_fused,
    create_optimizer,
    create_scheduler,
    decay_parameter_names,
    optimizer_class,
)
from trainer_torch.run.training_run import TrainingRun

logger = logging.getLogger(__name__)


class OptimizerMethods:
    """Creates the optimizer and the scheduler, and describes them. The names are transformers'.

    Attributes:
        run: The training.
        optimizer_cls_and_kwargs: A class of optimizers and its arguments, to use instead of those
            that `args` describes.
    """

    run: TrainingRun
    optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None

    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        """Create what the user has not given. `train` calls this, also when it resumes.

        Override it, or one of the two methods that it calls, to make others: set `self.optimizer`
        and `self.lr_scheduler`. Both are `None` before, unless the user gave them.

        Args:
            num_training_steps: The number of update steps.
        """
        self.create_optimizer()
        self.create_scheduler(num_training_steps=num_training_steps)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Set `self.optimizer` to the one that the arguments describe, unless it is set; return it.

        Args:
            model: The model to train, by default that of the Trainer.

        Raises:
            ValueError: No parameter requires a gradient, or some have sparse gradients, which the
                optimizer does not support.
        """
        run = self.run
        if run.optimizer is None:
            model = run.model if model is None else model
            cls, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(
                run.args, model
            )
            decayed = self.get_decay_parameter_names(model)
            run.optimizer = create_optimizer(
                model, decayed, run.args.weight_decay, cls, dict(options)
            )
            self._tell_of_optimizer(model)
        optimizer: Optimizer = run.optimizer
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> LRScheduler:
        """Set `self.lr_scheduler` to the schedule of the arguments, unless it is set; return it.

        Args:
            num_training_steps: The number of update steps.
            optimizer: The optimizer, by default that of the Trainer.

        Raises:
            ValueError: The options of the schedule do not fit, or there is no optimizer yet.
        """
        run = self.run
        if run.lr_scheduler is None:
            optimizer = run.optimizer if optimizer is None else optimizer
            if optimizer is None:
                raise ValueError(
                    "There is no optimizer to schedule. create_optimizer must set self.optimizer, "
                    "not only return it, before create_scheduler is called."
                )
            run.lr_scheduler = create_scheduler(
                optimizer, run.args, num_training_steps, run.warn_once
            )
            # If the user calls this before train(), its number of steps may be another.
            run.given.note_created(run.lr_scheduler)
        scheduler: LRScheduler = run.lr_scheduler
        return scheduler

    @staticmethod
    def get_optimizer_cls_and_kwargs(
        args: TrainingArguments, model: nn.Module | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Return the class of the optimizer `args.optim` and its arguments besides the parameters.

        For `muon`, they have the `matrices` that Muon trains.

        Args:
            args: The arguments.
            model: The model to train. `muon` needs it.
        """
        return optimizer_class(args, model)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the names of the parameters that are decayed: all but biases and norms."""
        return decay_parameter_names(model)

    def get_learning_rates(self) -> list[float]:
        """Return the learning rate of each parameter group.

        Raises:
            ValueError: There is no optimizer yet.
        """
        rates = [group["lr"] for group in self._groups()]
        return [rate.item() if isinstance(rate, Tensor) else rate for rate in rates]

    def get_num_trainable_parameters(self) -> int:
        """Return the number of elements of all parameters that require a gradient."""
        return sum(one.numel() for one in self.run.model.parameters() if one.requires_grad)

    def get_optimizer_group(self, param: str | nn.Parameter | None = None) -> Any:
        """Return the parameter group of `param`; without one, the parameters of each group.

        Args:
            param: A parameter of the model, or its name.

        Raises:
            ValueError: There is no optimizer yet, or the parameter is in none of its groups.
        """
        groups = self._groups()
        if param is None:
            return [group["params"] for group in groups]
        named = dict(self.run.model.named_parameters(remove_duplicate=False))
        wanted = named.get(param) if isinstance(param, str) else param
        for group in groups:
            if any(one is wanted for one in group["params"]):
                return group
        what = repr(param) if isinstance(param, str) else "this parameter"
        raise ValueError(f"The optimizer has no {what}.")

    def _groups(self) -> list[dict[str, Any]]:
        if self.run.optimizer is None:
            raise ValueError(
                "There is no optimizer before training: call create_optimizer or train first."
            )
        groups: list[dict[str, Any]] = self.run.optimizer.param_groups
        return groups

    def _tell_of_optimizer(self, model: nn.Module) -> None:
        """Warn of what the created optimizer does not do, and name what Muon trains."""
        run, optimizer = self.run, self.run.optimizer
        if self.optimizer_cls_and_kwargs is not None:
            if "lr" not in self.optimizer_cls_and_kwargs[1] and "lr" in optimizer.defaults:
                run.warn_once(
                    "optimizer_cls_and_kwargs has no lr, so the learning rate is that of the "
                    f"class, {optimizer.defaults['lr']}, and not learning_rate."
                )
        elif run.args.optim == "adamw_torch_fused" and not can_be_fused(model):
            run.warn_once(
                "AdamW is not fused, because a parameter is complex or its device has no fused "
                "AdamW. The results are the same; a step takes longer."
            )
        if isinstance(optimizer, MuonWithAdamW) and run.world.is_main:
            names = {id(parameter): name for name, parameter in model.named_parameters()}
            by_muon: list[str] = []
            by_adamw: list[str] = []
            for group in optimizer.param_groups:
                chosen = by_muon if group["use_muon"] else by_adamw
                chosen += [names[id(one)] for one in group["params"] if one.ndim == 2]
            logger.log(
                logging.INFO if by_muon else logging.WARNING,
                "Muon trains %d matrices: %s. AdamW trains all others: %s.",
                len(by_muon),
                listed(by_muon) or "none",
                listed(by_adamw) or "none",
            )
