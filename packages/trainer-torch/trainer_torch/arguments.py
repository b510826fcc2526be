"""`TrainingArguments`: the settings of a training, checked on construction."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from numbers import Real
from typing import Any, Final, Self

import numpy as np
import torch

from callback_core import IntervalStrategy, share_of_steps
from trainer_torch.argument_fields import default_of
from trainer_torch.argument_setters import ArgumentSetters
from trainer_torch.devices import find_device
from trainer_torch.dropped_arguments import DROPPED, refuse_unknown
from trainer_torch.hardware_arguments import settle_hardware
from trainer_torch.kept_arguments import KeptArguments
from trainer_torch.optimizer_names import check_optimizer_name
from trainer_torch.process_role import ProcessRole
from trainer_torch.schedules import SCHEDULES, check_options, needs_metric
from trainer_torch.unsupported_arguments import UnsupportedArguments
from trainer_torch.values import json_value
from trainer_torch.verbosity import LEVELS, current_level


@dataclass
class TrainingArguments(KeptArguments, UnsupportedArguments, ProcessRole, ArgumentSetters):
    """The settings of a training, with the names and defaults of transformers 5.24.

    `unsupported_arguments.py` lists those that the Trainer lacks; they are accepted at their
    defaults only. Only the default of `report_to` differs: it is `all`, meaning all installed
    tracker packages. `report_to` is a list after construction, as in transformers: `[]` for `none`.
    But `all` stays `["all"]`, because trackers that are not configured are left out of it.

    `kept_arguments.py` lists those without effect. `docs/arguments.md` has them all.

    In `warmup_steps`, `logging_steps`, `eval_steps` and `save_steps`, a number below 1 is a
    fraction of all update steps.

    Args:
        output_dir: The directory for checkpoints and for files of trackers. `~` is the home
            directory. `None` is the default.
        per_device_train_batch_size: The number of samples in a training batch.
        per_device_eval_batch_size: The number of samples in a batch of evaluation or prediction.
        gradient_accumulation_steps: The number of batches in an update step.
        average_tokens_across_devices: Weight the losses of all processes by their items, such as
            tokens, so that each item counts alike. Otherwise, each process counts alike.
        num_train_epochs: The number of passes over the training data. With a fraction, training
            ends within an epoch.
        max_steps: The number of update steps. Overrides `num_train_epochs` unless it is -1.
        learning_rate: The highest learning rate of the schedule.
        optim: The optimizer: `adamw_torch_fused`, `adamw_torch`, `sgd`, `adagrad`, `rmsprop`,
            `adafactor` or `muon`. They are torch's. AdamW is not fused, with a warning, if a
            parameter is complex. Adafactor trains like that of transformers, but where the root
            mean square of a parameter is above 1, the learning rate is multiplied by it. `muon`,
            which transformers lacks, trains hidden matrices by Muon and the rest by AdamW; see
            `trainer_torch.muon`. With torch 2.6 and 2.7, transformers' default is `adamw_torch`.
        optim_args: Options of the optimizer, as `key=value,...`: `momentum`, `dampening` and
            `nesterov` of `sgd`; `lr_decay` and `eps` of `adagrad`; `momentum`, `alpha`, `eps` and
            `centered` of `rmsprop`; `lr` (of the matrices, instead of `learning_rate`), `momentum`,
            `nesterov`, `ns_steps` and `adjust_lr_fn` of `muon`.
        weight_decay: The optimizer's decay of the parameters that
            `Trainer.get_decay_parameter_names` returns: all but biases and norms.
        adam_beta1: AdamW's first beta.
        adam_beta2: AdamW's second beta.
        adam_epsilon: AdamW's epsilon.
        max_grad_norm: Gradients are clipped to this norm. 0 turns clipping off.
        lr_scheduler_type: `linear`, `cosine`, `cosine_with_restarts`, `polynomial`, `constant`,
            `constant_with_warmup`, `inverse_sqrt`, `cosine_with_min_lr`,
            `cosine_warmup_with_min_lr` or `warmup_stable_decay`, functions of the step that
            `trainer_torch.schedules` describes. `reduce_lr_on_plateau` and `greedy` follow
            `metric_for_best_model`.
        lr_scheduler_kwargs: Options of the schedule: the keyword-only parameters of its function,
            or those of `ReduceLROnPlateau` or `trainer_torch.greedy.GreedyLR`. A dict, or JSON.
        warmup_steps: The number of update steps in which the learning rate rises from 0.
        eval_strategy: When to evaluate: `no`, `steps` (every `eval_steps`) or `epoch`.
        eval_steps: The number of update steps between evaluations. Defaults to `logging_steps`.
        eval_delay: The number of steps or epochs, depending on `eval_strategy`, before the first
            evaluation.
        eval_on_start: Also evaluate before the first step.
        prediction_loss_only: Evaluations and predictions compute the loss only. Then there are no
            predictions, and `compute_metrics` is not called.
        eval_do_concat_batches: Join the predictions of all batches to one array. Otherwise, they
            are a list with those of each batch.
        include_for_metrics: What `compute_metrics` receives besides predictions and labels:
            `inputs`, `loss` or both.
        batch_eval_metrics: Call `compute_metrics` for each batch instead of keeping all predictions
            in memory. `predict` keeps them all the same.
        logging_strategy: When to log: `no`, `steps` (every `logging_steps`) or `epoch`.
        logging_first_step: Also log the first update step.
        logging_steps: The number of update steps between logs.
        log_level: The level of the messages of the Trainer and the callbacks in the main process:
            `debug`, `info`, `warning`, `error`, `critical`, or `passive`, which leaves it to the
            program. It holds during training, evaluations and predictions.
        log_level_replica: The same in the other processes.
        log_on_each_node: Whether `log_level` holds in the main process of each machine, and not
            only in that of the first one.
        include_num_input_tokens_seen: Whether to count the input tokens, `all` or `non_padding`
            ones, in `state.num_input_tokens_seen` and in the logs. `no` does not. True means `all`,
            and False `no`. The input is `input_ids`, or what `main_input_name` of the model says.
        skip_memory_metrics: Leave the memory metrics out of the log at the end of training.
        save_strategy: When to save a checkpoint: `no`, `steps` (every `save_steps`), `epoch`, or
            `best` (whenever an evaluation finds the best metric so far).
        save_steps: The number of update steps between checkpoints.
        save_total_limit: The number of checkpoints to keep. Older ones are deleted, except the best
            one and the newest one with finite weights.
        save_only_model: Checkpoints have the weights and the state that callbacks see, but not the
            optimizer, the schedule and the random generators. Training cannot resume from them.
        save_on_each_node: Each machine saves checkpoints, not only that of the main process. For
            machines without a common disk.
        enable_jit_checkpoint: Save a checkpoint when a signal such as SIGINT or SIGTERM ends the
            training. It ends after the current step.
        load_best_model_at_end: Load the best saved weights when training ends.
        metric_for_best_model: The metric that decides which model is best, with or without its
            prefix `eval_`. Defaults to `loss` with `load_best_model_at_end`, and with a schedule
            that follows it.
        greater_is_better: Whether a greater metric is better. Defaults to false for names that end
            in `loss`, and to true for others.
        on_non_finite: What to do about a step whose loss or gradient is not finite. `warn`: say so,
            once. `skip`: also leave out its update, if the gradient is not finite. `stop`: end the
            training. `rollback`: take the weights of the newest checkpoint that is finite, and go
            on with the data that follows; after three times in a row, end the training.
            The step is found, and training stops or rolls back, at the next log, evaluation or
            checkpoint, because looking at each step would wait for the device. `skip` does so
            unless the optimizer is a fused Adam or AdamW. transformers does not have this argument.
        debug: `underflow_overflow` looks at each step, which waits for the device, and names the
            module in which a step stops being finite. On the CPU this is done anyway. As in
            transformers, a text with words in it, or a list. Unlike there, training goes on, as
            `on_non_finite` says.
        label_names: The names of the labels in a batch that is a mapping, for `compute_metrics`.
            By default `labels`. For several names, the labels are a tuple.
        seed: The seed of the random number generators and of the order of the data.
        data_seed: The seed of the order of the data, instead of `seed`.
        use_cpu: Train on the CPU even if there is an accelerator.
        full_determinism: Use deterministic algorithms only, while the Trainer trains or evaluates;
            an operation that has none raises an error. This also sets `CUBLAS_WORKSPACE_CONFIG` and
            `FLASH_ATTENTION_DETERMINISTIC` for the process.
        bf16: Compute in bfloat16 where autocast does so, with float32 weights; in training and in
            evaluations. The CPU can too.
        fp16: Compute in float16 where autocast does so, with float32 weights and a scaled loss. A
            step whose gradients overflow is left out, and the schedule waits. As in transformers,
            the step is counted, and `grad_norm` shows the overflow.
        bf16_full_eval: Convert the weights and inputs to bfloat16 for `evaluate` and `predict`, but
            not while `train` is running. Afterwards, the weights are those of before, to the bit.
        fp16_full_eval: Convert the weights and inputs to float16 for `evaluate` and `predict`, as
            with `bf16_full_eval`.
        tf32: Multiply float32 matrices on NVIDIA's GPUs in TensorFloat-32, or never do so, while
            the Trainer trains or evaluates. `None` leaves torch's settings as they are, also with
            `torch_compile`.
        activation_checkpointing: Keep only the inputs of the model's blocks for the backward pass,
            and compute their activations a second time. This saves memory, and takes longer.
        activation_checkpointing_kwargs: Options of that, as a dict or as JSON. `modules` is a list
            of the names of classes of blocks; by default, they are found. `every_n_layers` leaves
            out blocks in between. `offload` keeps the inputs in the memory of the CPU. Others are
            those of `torch.utils.checkpoint.checkpoint`; `use_reentrant` is `False` by default. A
            model that has a method `activation_checkpointing_enable` gets all but `modules`.
        gradient_checkpointing: The old name of `activation_checkpointing`.
        gradient_checkpointing_kwargs: The old name of `activation_checkpointing_kwargs`.
        torch_compile: Compile the model in place with `torch.nn.Module.compile`, so that names in
            checkpoints stay as they are. The model stays compiled.
        torch_compile_backend: The backend, by default `inductor`. Setting it sets `torch_compile`.
        torch_compile_mode: The mode, such as `max-autotune`. Setting it sets `torch_compile`.
        torch_empty_cache_steps: Empty the cache of the accelerator's memory after every so many
            update steps. This can prevent running out of memory, and takes time.
        auto_find_batch_size: When memory runs out in a training step, repeat it with smaller
            batches, and more of them in each update step, so that the samples in a step stay the
            same. The batches of evaluations stay as they are. In one process only.
        dataloader_drop_last: Drop the last training batch if it is incomplete.
        dataloader_num_workers: The number of processes that load data. 0 loads in this process.
        dataloader_pin_memory: Load into pinned memory, which is copied to a GPU faster.
        dataloader_persistent_workers: Keep the processes that load data from one epoch, and one
            evaluation, to the next.
        dataloader_prefetch_factor: The number of batches that each of these processes loads ahead.
            Defaults to torch's, 2.
        dataloader_multiprocessing_context: How these processes are started: `fork`, `spawn` or
            `forkserver`. Defaults to Python's choice.
        dataloader_in_order: Yield batches in the order of the data. Otherwise the batch that is
            loaded first comes first, and resuming within an epoch is not exact.
        train_sampling_strategy: The order of the training data: `random`; `sequential`; or
            `group_by_length`, which is random, but keeps samples of similar lengths together.
            Unlike in transformers, evaluations keep the order of their data in any case.
        length_column_name: Where `group_by_length` finds the length of a sample: a column of a
            dataset of Hugging Face, or a name in a sample that is a mapping. Otherwise it is the
            length of the sample's `input_ids`, or of what `processing_class` names first in
            `model_input_names`.
        ignore_data_skip: Resume an epoch at its start, as in transformers. Batches that are done
            are trained again, and training ends after the same number of steps.
        disable_tqdm: Print the logs instead of showing a progress bar.
        ddp_find_unused_parameters: With several processes, search for parameters without a gradient
            in each backward pass. A model needs this if it does not always use all parameters.
        ddp_timeout: The seconds that a process waits for the others.
        ddp_bucket_cap_mb: The size, in MiB, of the buckets in which DistributedDataParallel
            averages gradients.
        ddp_broadcast_buffers: Copy the buffers of the main process to all others in each forward
            pass. `None` means that DistributedDataParallel does so.
        ddp_static_graph: Promise that each step uses the same parameters, so that
            DistributedDataParallel can optimize. It then averages the gradients of each batch, and
            not only once in an update step.
        ddp_backend: The backend of `torch.distributed`, such as `nccl` or `gloo`. By default that
            of torch for the device.
        report_to: The names of the trackers to report to; or `all` installed tracker packages that
            know where to report to; or `none`. With `all`, a tracker among the `callbacks` of the
            Trainer takes the place of the installed one.
        run_name: The name of the run in trackers.
        resume_from_checkpoint: What `train` resumes from if it gets no other value: a checkpoint; a
            directory of checkpoints, for its newest complete one; or `True` for the newest complete
            one in `output_dir`.

    Raises:
        TypeError: There is no argument of that name. The message names the nearest.
        ValueError: A value is not allowed. The message names the argument, the value and what is
            allowed.
    """

    output_dir: str = "trainer_output"
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    average_tokens_across_devices: bool = True
    num_train_epochs: float = 3.0
    max_steps: int = -1
    learning_rate: float = 5e-5
    optim: str = "adamw_torch_fused"
    optim_args: str | None = None
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: dict[str, Any] | str | None = None
    warmup_steps: float = 0
    eval_strategy: str = "no"
    eval_steps: float | None = None
    eval_delay: float = 0
    eval_on_start: bool = False
    prediction_loss_only: bool = False
    eval_do_concat_batches: bool = True
    include_for_metrics: list[str] = field(default_factory=list)
    batch_eval_metrics: bool = False
    logging_strategy: str = "steps"
    logging_first_step: bool = False
    logging_steps: float = 500
    log_level: str = "passive"
    log_level_replica: str = "warning"
    log_on_each_node: bool = True
    include_num_input_tokens_seen: str | bool = "no"
    skip_memory_metrics: bool = True
    save_strategy: str = "steps"
    save_steps: float = 500
    save_total_limit: int | None = None
    save_only_model: bool = False
    save_on_each_node: bool = False
    enable_jit_checkpoint: bool = False
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = None
    greater_is_better: bool | None = None
    on_non_finite: str = "warn"
    debug: str | list[str] = ""
    label_names: list[str] | None = None
    seed: int = 42
    data_seed: int | None = None
    use_cpu: bool = False
    full_determinism: bool = False
    bf16: bool = False
    fp16: bool = False
    bf16_full_eval: bool = False
    fp16_full_eval: bool = False
    tf32: bool | None = None
    activation_checkpointing: bool | None = None
    activation_checkpointing_kwargs: dict[str, Any] | str | None = None
    gradient_checkpointing: bool | None = None
    gradient_checkpointing_kwargs: dict[str, Any] | str | None = None
    torch_compile: bool = False
    torch_compile_backend: str | None = None
    torch_compile_mode: str | None = None
    torch_empty_cache_steps: int | None = None
    auto_find_batch_size: bool = False
    dataloader_drop_last: bool = False
    dataloader_num_workers: int = 0
    dataloader_pin_memory: bool = True
    dataloader_persistent_workers: bool = False
    dataloader_prefetch_factor: int | None = None
    dataloader_multiprocessing_context: str | None = None
    dataloader_in_order: bool = True
    train_sampling_strategy: str = "random"
    length_column_name: str = "length"
    ignore_data_skip: bool = False
    disable_tqdm: bool = False
    ddp_find_unused_parameters: bool | None = None
    ddp_timeout: int = 1800
    ddp_bucket_cap_mb: int | None = None
    ddp_broadcast_buffers: bool | None = None
    ddp_static_graph: bool | None = None
    ddp_backend: str | None = None
    report_to: str | list[str] | None = "all"
    run_name: str | None = None
    resume_from_checkpoint: bool | str | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse arguments that do not exist, before `__init__` would."""
        refuse_unknown(cls, kwargs, DROPPED)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self.check_unsupported()
        self.check_local_rank()
        self.output_dir = _directory(self.output_dir)
        self.resume_from_checkpoint = _checkpoint(self.resume_from_checkpoint)
        self.report_to = _names(self.report_to)
        if isinstance(self.label_names, str):
            raise ValueError(
                f"label_names is {self.label_names!r}, but must be a list: [{self.label_names!r}]."
            )
        for name in ("eval_strategy", "logging_strategy", "save_strategy"):
            setattr(self, name, _strategy(name, getattr(self, name)))
        self.do_eval = self.do_eval or self.eval_strategy != IntervalStrategy.NO
        self.optim = getattr(self.optim, "value", self.optim)  # transformers has enums
        check_optimizer_name(self.optim, self.optim_args)
        self._check_schedule()
        self.debug = _debug_options(self.debug)
        if self.eval_steps is None and self.eval_strategy == IntervalStrategy.STEPS:
            self.eval_steps = self.logging_steps
        self.include_for_metrics = _included(self.include_for_metrics)
        if isinstance(self.include_num_input_tokens_seen, (bool, np.bool_)):
            self.include_num_input_tokens_seen = (
                "all" if self.include_num_input_tokens_seen else "no"
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(_one_of(name, getattr(self, name), choices))
        self._check_numbers()
        self._check_flags()
        settle_hardware(self)
        self._check_loading()
        self._check_saving()
        if self.load_best_model_at_end:
            self._check_best_model()
        if self.load_best_model_at_end or needs_metric(self.lr_scheduler_type):
            self.metric_for_best_model = self.metric_for_best_model or "loss"
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = not self.metric_for_best_model.endswith("loss")

    @property
    def device(self) -> torch.device:
        """The device to train on: the accelerator; or the CPU, without one or with `use_cpu`."""
        return find_device(self.use_cpu)

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Return the number of warm-up steps in `num_training_steps` update steps."""
        return (
            share_of_steps(self.warmup_steps, num_training_steps)
            if self.warmup_steps < 1
            else int(self.warmup_steps)
        )

    def chosen_log_level(self) -> int | None:
        """Return the level that the arguments set in this process; `None` if they set none."""
        return LEVELS[self.log_level if self.should_log else self.log_level_replica]

    def get_process_log_level(self) -> int:
        """Return the level of the messages in this process: a number of `logging`."""
        level = self.chosen_log_level()
        return current_level() if level is None else level

    def to_dict(self) -> dict[str, Any]:
        """Return all arguments that have an effect, as values that JSON can represent.

        Those without effect are among them if they were set. Arguments of a subclass may be of any
        type: enums become their values, dtypes of torch their names, as in transformers, and what
        JSON does not have becomes text.
        """
        left_out = {item.name for item in fields(UnsupportedArguments)} | self.kept_at_default()
        names = [item.name for item in fields(self) if item.name not in left_out]
        return {name: json_value(getattr(self, name)) for name in names}

    def to_sanitized_dict(self) -> dict[str, Any]:
        """Return the arguments and the batch sizes as numbers, truth values and text.

        TensorBoard's `add_hparams` takes these types.
        """
        sizes = {name: getattr(self, name) for name in ("train_batch_size", "eval_batch_size")}
        return {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in {**self.to_dict(), **sizes}.items()
        }

    def changed(self) -> dict[str, Any]:
        """Return the arguments that differ from their defaults, as `to_dict` represents them.

        What follows from another argument is among them, such as `eval_steps` from `logging_steps`.
        """
        plain = TrainingArguments()
        unchanged = {item.name: default_of(item) for item in fields(plain)}
        values: dict[str, Any] = {}
        for item in fields(self):
            value, default = getattr(self, item.name), default_of(item)
            if item.name in unchanged and default == unchanged[item.name]:
                default = getattr(plain, item.name)  # in the form that construction gives it
            if default is MISSING or json_value(value) != json_value(default):
                values[item.name] = json_value(value)
        return values

    @classmethod
    def from_args(cls, args: Sequence[str] | None = None) -> Self:
        """Return the arguments that a command line and files describe.

            TrainingArguments.from_args(["--config", "run.yaml", "--learning-rate", "1e-3"])

        The command line wins over the files, and later files win over earlier ones. A file is YAML
        or JSON. Names may have dashes or underscores. Lists and mappings are JSON. `--use-cpu`
        means true, `--no-use-cpu` false. `--help` shows all arguments. It needs the extra `cli`:
        `pip install 'trainer-torch[cli]'`.

        Args:
            args: The command line, without the name of the program; by default that of this one.

        Raises:
            ImportError: The extra `cli` is not installed.
            SystemExit: The command line is wrong; the error is on standard error. Or it asks for
                help.
        """
        from trainer_torch.command_line import parse  # here, because few programs need it

        return parse(cls, args)

    def to_json_string(self) -> str:
        """Return all arguments as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def _check_schedule(self) -> None:
        """Check `lr_scheduler_type` and its options, which may be JSON."""
        name = self.lr_scheduler_type = getattr(
            self.lr_scheduler_type, "value", self.lr_scheduler_type
        )
        if name not in SCHEDULES:
            raise ValueError(_one_of("lr_scheduler_type", name, SCHEDULES))
        if self.lr_scheduler_kwargs is not None:
            self.lr_scheduler_kwargs = _options("lr_scheduler_kwargs", self.lr_scheduler_kwargs)
        check_options(name, self.lr_scheduler_kwargs or {})
        if needs_metric(name) and self.eval_strategy == IntervalStrategy.NO:
            raise ValueError(
                f"lr_scheduler_type is {name!r}, which follows a metric of evaluations, but "
                "eval_strategy is 'no'. Set it to 'steps' or 'epoch'."
            )

    def _check_numbers(self) -> None:
        """Check the range of all numbers, and convert numpy's to Python's, for checkpoints."""
        for name, least in _WHOLE_NUMBERS.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not _is_number(value) or value != int(value) or value < least:
                raise ValueError(
                    f"{name} is {value!r}, but must be a whole number of at least {least}."
                )
            setattr(self, name, int(value))
        for name, (minimum, limit) in _NUMBERS.items():
            value = getattr(self, name)
            if not _is_number(value) or not minimum <= value < limit:
                below = "" if limit == math.inf else f" and below {limit}"
                raise ValueError(
                    f"{name} is {value!r}, but must be a number of at least {minimum}{below}."
                )
            setattr(self, name, _float(value))
        for name in ("logging_steps", "eval_steps", "save_steps"):
            steps = getattr(self, name)
            if steps is None and name in _OPTIONAL:
                continue
            if not _is_number(steps) or steps <= 0 or (steps > 1 and steps != int(steps)):
                raise ValueError(
                    f"{name} is {steps!r}, but must be a whole number of steps, or a fraction of "
                    "all steps below 1."
                )
            setattr(self, name, _float(steps) if steps < 1 else int(steps))
        if self.max_steps == 0:
            raise ValueError(
                "max_steps is 0, but must be at least 1, or -1 to use num_train_epochs."
            )
        if self.max_steps == -1 and self.num_train_epochs == 0:
            raise ValueError("num_train_epochs is 0, but must be greater.")

    def _check_flags(self) -> None:
        """Check what is true or false: a text from a command line, such as "False", is true."""
        for name in _FLAGS:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not isinstance(value, (bool, np.bool_)) and value not in (0, 1):
                raise ValueError(f"{name} is {value!r}, but must be True or False.")
            setattr(self, name, bool(value))

    def _check_loading(self) -> None:
        """Check what concerns the loading of data."""
        if self.train_sampling_strategy not in SAMPLING_STRATEGIES:
            raise ValueError(
                _one_of(
                    "train_sampling_strategy", self.train_sampling_strategy, SAMPLING_STRATEGIES
                )
            )
        methods = multiprocessing.get_all_start_methods()
        method = self.dataloader_multiprocessing_context
        if method is not None and method not in methods:
            raise ValueError(_one_of("dataloader_multiprocessing_context", method, methods))
        for name in _OF_WORKERS:
            if getattr(self, name) and self.dataloader_num_workers == 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, but there are no processes that load "
                    "data. Set dataloader_num_workers, or leave it out."
                )

    def _check_saving(self) -> None:
        if self.on_non_finite not in _ON_NON_FINITE:
            raise ValueError(_one_of("on_non_finite", self.on_non_finite, _ON_NON_FINITE))
        if self.on_non_finite == "rollback":
            if self.save_strategy == IntervalStrategy.NO:
                raise ValueError(
                    "on_non_finite='rollback' needs checkpoints to go back to, but save_strategy "
                    "is 'no'."
                )
            if self.save_only_model:
                raise ValueError(
                    "on_non_finite='rollback' needs the optimizer in checkpoints, but "
                    "save_only_model is True."
                )
        if self.save_strategy == BEST:
            if self.eval_strategy == IntervalStrategy.NO:
                raise ValueError(
                    "save_strategy='best' saves after an evaluation, but eval_strategy is 'no'. "
                    "Set it to 'steps' or 'epoch'."
                )
            if self.metric_for_best_model is None and not self.load_best_model_at_end:
                raise ValueError(
                    "save_strategy='best' needs metric_for_best_model, for example 'loss'."
                )

    def _check_best_model(self) -> None:
        if self.eval_strategy == IntervalStrategy.NO:
            raise ValueError(
                "load_best_model_at_end needs evaluations to find the best model, but "
                "eval_strategy is 'no'. Set it and save_strategy to 'steps' or 'epoch'."
            )
        if self.save_strategy not in (self.eval_strategy, BEST):
            raise ValueError(
                "load_best_model_at_end needs a checkpoint at every evaluation, but eval_strategy "
                f"is {self.eval_strategy!r} and save_strategy {self.save_strategy!r}. Set both to "
                "the same value."
            )
        if self.save_strategy == IntervalStrategy.STEPS and not _is_multiple(
            self.save_steps, self.eval_steps
        ):
            raise ValueError(
                "load_best_model_at_end needs an evaluation at every checkpoint, but save_steps "
                f"({self.save_steps}) is not a multiple of eval_steps ({self.eval_steps})."
            )


SAMPLING_STRATEGIES: Final = ("random", "sequential", "group_by_length")

_OF_WORKERS: Final = (
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context",
)
"""The arguments that need processes that load data."""

BEST: Final = "best"
"""The `save_strategy` that saves whenever the metric is better."""

_ON_NON_FINITE: Final = ("warn", "skip", "stop", "rollback")

_DEBUG_OPTIONS: Final = ("underflow_overflow",)

_WHOLE_NUMBERS: Final = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "ddp_bucket_cap_mb": 1,
    "max_steps": -1,
    "save_total_limit": 1,
    "seed": 0,
    "data_seed": 0,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": 1,
    "ddp_timeout": 1,
    "torch_empty_cache_steps": 1,
}
"""The arguments that are whole numbers, with their lower bounds."""

_NUMBERS: Final = {
    "num_train_epochs": (0.0, math.inf),
    "learning_rate": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "adam_beta1": (0.0, 1.0),
    "adam_beta2": (0.0, 1.0),
    "adam_epsilon": (0.0, math.inf),
    "max_grad_norm": (0.0, math.inf),
    "warmup_steps": (0.0, math.inf),
    "eval_delay": (0.0, math.inf),
}
"""The arguments that are numbers, with their inclusive lower and exclusive upper bounds."""

_CHOICES: Final = {
    "log_level": tuple(LEVELS),
    "log_level_replica": tuple(LEVELS),
    "include_num_input_tokens_seen": ("no", "all", "non_padding"),
}
"""The arguments that are one of some names."""

_FLAGS: Final = (
    *("do_train", "do_eval", "do_predict", "ddp_broadcast_buffers", "ddp_static_graph"),
    "average_tokens_across_devices",
    "eval_on_start",
    "prediction_loss_only",
    "eval_do_concat_batches",
    "batch_eval_metrics",
    "log_on_each_node",
    "skip_memory_metrics",
    "logging_first_step",
    "enable_jit_checkpoint",
    "load_best_model_at_end",
    "save_only_model",
    "save_on_each_node",
    "greater_is_better",
    *("use_cpu", "full_determinism", "bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "tf32"),
    *("activation_checkpointing", "gradient_checkpointing", "torch_compile"),
    "auto_find_batch_size",
    "dataloader_drop_last",
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
    "dataloader_in_order",
    "ignore_data_skip",
    "disable_tqdm",
    "ddp_find_unused_parameters",
)
"""The arguments that are true or false."""

_OPTIONAL: Final = (
    *("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph"),
    *("save_total_limit", "data_seed", "eval_steps", "dataloader_prefetch_factor"),
    *("greater_is_better", "disable_tqdm", "ddp_find_unused_parameters"),
    *("tf32", "activation_checkpointing", "gradient_checkpointing", "torch_empty_cache_steps"),
)
"""The numbers and flags that may be `None`."""


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _float(value: Any) -> float:
    """Return `value` as Python's float: 0.07 also for numpy's float32 of that number."""
    return float(str(value)) if isinstance(value, np.generic) else float(value)


def _directory(output_dir: Any) -> str:
    if output_dir is None:
        return "trainer_output"
    if not isinstance(output_dir, (str, os.PathLike)) or not os.fspath(output_dir):
        raise ValueError(f"output_dir is {output_dir!r}, but must name a directory.")
    return os.path.expanduser(os.fspath(output_dir))


def _checkpoint(resume_from: Any) -> bool | str | None:
    if resume_from is None or isinstance(resume_from, bool):
        return resume_from
    if not isinstance(resume_from, (str, os.PathLike)) or not os.fspath(resume_from):
        raise ValueError(
            f"resume_from_checkpoint is {resume_from!r}, but must be a path, True, False or None."
        )
    return str(os.fspath(resume_from))


def _names(report_to: Any) -> list[str]:
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    return [] if names == ["none"] else names


def _options(name: str, value: Any) -> dict[str, Any]:
    """Return the mapping `value`, which may be JSON, as a dict."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{name} is {value!r}, but must be a dict, or JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {value!r}, but must be a dict, or JSON of one.")
    return dict(value)


def _included(names: Any) -> list[str]:
    """Return what `include_for_metrics` names, as a list."""
    included = [names] if isinstance(names, str) else list(names or ())
    for name in included:
        if name not in ("inputs", "loss"):
            raise ValueError(_one_of("include_for_metrics", name, ("inputs", "loss")))
    return included


def _strategy(name: str, value: str) -> str:
    """Return the strategy `value`, a string or a member of an enum, as a string."""
    choices = [strategy.value for strategy in IntervalStrategy]
    if name == "save_strategy":
        choices.append(BEST)
    plain = getattr(value, "value", value)
    if plain not in choices:
        raise ValueError(_one_of(name, value, choices))
    return str(plain)


def _debug_options(value: Any) -> list[str]:
    words = value.split() if isinstance(value, str) else list(value or ())
    options = [str(getattr(word, "value", word)) for word in words]
    for option in options:
        if option not in _DEBUG_OPTIONS:
            raise ValueError(f"{_one_of('debug', option, _DEBUG_OPTIONS)} The default is none.")
    return options


def _one_of(name: str, value: object, choices: Any) -> str:
    return f"{name} is {value!r}, but must be one of: {', '.join(choices)}."


def _is_multiple(steps: float, of: float | None) -> bool:
    """Return whether `steps` is a multiple of `of`. Both may be fractions, with rounding errors."""
    if of is None:
        return False
    ratio = steps / of
    return (steps < 1) == (of < 1) and math.isclose(ratio, round(ratio)) and round(ratio) >= 1
