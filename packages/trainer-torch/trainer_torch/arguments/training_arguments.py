"""`TrainingArguments`: the settings of a training, checked on construction."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self

from callback_core import json_value, share_of_steps
from trainer_torch.arguments.argument_combinations import settle_combinations
from trainer_torch.arguments.argument_forms import ArgumentForms
from trainer_torch.arguments.argument_setters import ArgumentSetters
from trainer_torch.arguments.argument_values import default_of, settle_values
from trainer_torch.arguments.dropped_arguments import DROPPED, refuse_unknown
from trainer_torch.arguments.hardware_arguments import settle_hardware
from trainer_torch.arguments.sharding_arguments import normalize_sharding


@dataclass
class TrainingArguments(ArgumentForms, ArgumentSetters):
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
            directory. `None` is the default. An address of fsspec, such as `s3://bucket/run`,
            becomes `remote_output_dir`, and `output_dir` a directory in the user's cache.
        remote_output_dir: The address to which everything in `output_dir` is uploaded during the
            training. If its newest checkpoint is newer, resuming downloads that. transformers does
            not have this argument.
        upload_timeout: A training that ends waits for uploads until nothing has been uploaded for
            this many seconds. The rest stays in `output_dir`, with a warning. transformers does not
            have this argument.
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
            `trainer_torch.optimizers.muon`. With torch 2.6 and 2.7, transformers' default is
            `adamw_torch`.
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
            `trainer_torch.optimizers.schedules` describes. `reduce_lr_on_plateau` and `greedy`
            follow `metric_for_best_model`.
        lr_scheduler_kwargs: Options of the schedule: the keyword-only parameters of its function,
            or those of `ReduceLROnPlateau` or `trainer_torch.optimizers.greedy.GreedyLR`. A dict,
            or JSON.
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
            `debug`, `info`, `warning`, `error`, `critical`, or `passive`, which keeps the
            program's. It holds during training, evaluations and predictions.
        log_level_replica: The level in the other processes.
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
        save_async: Training waits only until the checkpoint is copied to memory of the CPU, which
            must have room for one copy of the checkpoint. A thread writes it while training
            continues. `on_save` is fired at a later step, once the checkpoint is complete. The next
            save waits for it, and so does the end of training. transformers does not have this
            argument.
        save_on_exception: Save a checkpoint when an error ends the training, unless the error comes
            from within an update. The checkpoint holds the state after the last update. If the
            error comes from the next step, resuming repeats that step. If it comes from a log, an
            evaluation or an event after the update, the rest of that is not repeated. With several
            processes, all must fail at the same step. This copies the buffers and the states of
            callbacks twice in each step. transformers does not have this argument.
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
            training. `rollback`: take the weights of the newest checkpoint that is finite, and
            continue with the data that follows; after three times in a row, end the training.
            The step is found, and training stops or rolls back, at the next log, evaluation or
            checkpoint, because looking at each step would wait for the device. `skip` does so
            unless the optimizer is a fused Adam or AdamW. transformers does not have this argument.
        debug: `underflow_overflow` looks at each step, which waits for the device, and names the
            module in which a step stops being finite. On the CPU this is done anyway. As in
            transformers, this is a text of words, or a list of them. Unlike there, training
            continues or stops as `on_non_finite` says.
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
            not while `train` is running. Afterwards, the original weights are put back.
        fp16_full_eval: Convert the weights and inputs to float16 for `evaluate` and `predict`, as
            with `bf16_full_eval`.
        tf32: Multiply float32 matrices on NVIDIA's GPUs in TensorFloat-32, or never do so, while
            the Trainer trains or evaluates. `None` leaves torch's settings as they are, also with
            `torch_compile`.
        activation_checkpointing: Keep only the inputs of the model's blocks for the backward pass,
            and compute their activations a second time. This saves memory, and takes longer.
        activation_checkpointing_kwargs: Options of it, as a dict or as JSON. `modules` is a list
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
        remove_unused_columns: Leave items out of samples that are mappings if the model's `forward`
            does not take them.
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
        ddp_timeout: The seconds that a process waits for the others. After that, all processes end
            and say which one is late.
        ddp_bucket_cap_mb: The size, in MiB, of the buckets in which DistributedDataParallel
            averages gradients.
        ddp_broadcast_buffers: Copy the buffers of the main process to all others in each forward
            pass. `None` means that DistributedDataParallel does so.
        ddp_static_graph: Promise that each step uses the same parameters, so that
            DistributedDataParallel can optimize. It then averages the gradients of each batch, and
            not only once in an update step.
        ddp_backend: The backend of `torch.distributed`, such as `nccl` or `gloo`. By default that
            of torch for the device.
        fsdp: Shard the model over the processes with torch's FSDP2: each process keeps its part of
            the weights, the gradients and the state of the optimizer. The strings that transformers
            had, such as `full_shard auto_wrap offload`, are accepted if FSDP2 has what they name.
        fsdp_config: Options of `fsdp`: a dict, JSON, or the path of a JSON file.
            `auto_wrap_policy` chooses the units, modules whose weights are gathered together.
            `TRANSFORMER_BASED_WRAP`, the default, takes the classes in
            `transformer_layer_cls_to_wrap`, or else the blocks that `activation_checkpointing`
            finds; `SIZE_BASED_WRAP` takes modules with at least `min_num_params` elements;
            `NO_WRAP` takes the whole model as one unit. A function gets the name of a module and
            the module, and returns whether it is a unit. `reshard_after_forward=False` keeps
            gathered weights until the backward pass. `cpu_offload` keeps shards and the state of
            the optimizer in the memory of the CPU. `mixed_precision_policy` has the `param_dtype`,
            `reduce_dtype`, `output_dtype` and `cast_forward_inputs` of torch's
            `MixedPrecisionPolicy`. `activation_checkpointing` sets the argument of that name.
        report_to: The names of the trackers to report to; or `all` installed tracker packages that
            know where to report to; or `none`. With `all`, a tracker among the `callbacks` of the
            Trainer takes the place of the installed one.
        run_name: The name of the run in trackers.
        resume_from_checkpoint: What `train` resumes from if it gets no other value: a checkpoint; a
            directory of checkpoints, for its newest complete one; `True` for the newest complete
            one in `output_dir` and at `remote_output_dir`; or `auto` for the same if there is a
            checkpoint, and otherwise for a start from the beginning. The first two may be
            addresses.

    Raises:
        ModuleNotFoundError: An address needs a package that is not installed.
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
    save_async: bool = False
    save_on_exception: bool = False
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
    remove_unused_columns: bool = True
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
    fsdp: bool | str | None = None
    fsdp_config: dict[str, Any] | str | None = None
    report_to: str | list[str] | None = "all"
    run_name: str | None = None
    resume_from_checkpoint: bool | str | None = None
    remote_output_dir: str | None = None
    upload_timeout: float = 600.0

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse arguments that do not exist, before `__init__` would."""
        refuse_unknown(cls, kwargs, DROPPED)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self.check_unsupported()
        self.check_local_rank()
        settle_values(self)
        normalize_sharding(self)
        settle_hardware(self)
        settle_combinations(self)

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Return the number of warm-up steps in `num_training_steps` update steps."""
        return (
            share_of_steps(self.warmup_steps, num_training_steps)
            if self.warmup_steps < 1
            else int(self.warmup_steps)
        )

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
