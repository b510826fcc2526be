"""What transformers' Trainer has and this one lacks, and what to use instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from torch import Tensor

from trainer_torch.run.training_run import TrainingRun

_SHARDED: Final = "Leave it out: this Trainer shards models by FSDP2 only, as args.fsdp says."
_HUB: Final = "This Trainer does not upload: call save_model, then upload the directory."
_PUSH: Final = "Write a callback for the event on_push_begin."
_NO_ACCELERATE: Final = "Leave it out: this Trainer does not use Accelerate."
_TRAIN_LOADER: Final = "Override get_train_dataloader."
_EVAL_LOADER: Final = "Override get_eval_dataloader."
_LOOP: Final = "Override training_step, or write a callback."
_NO_COLUMNS: Final = "Only the default collator removes columns. Pass a data_collator instead."
_SAVING: Final = "Override save_checkpoint. To add files to a checkpoint, write a LoopCallback."
_LOADING: Final = "To read files of a checkpoint, write a LoopCallback."
_SEARCHING: Final = "Pass hp_space, hp_name or callbacks to hyperparameter_search."
_CLIPPING: Final = "Set max_grad_norm=0, and clip in a callback's on_pre_optimizer_step."
_ITEMS: Final = "Override count_items, which is called for each batch."

NEVER_CALLED: Final = {
    "_build_accelerator_args": _NO_ACCELERATE,
    "_clip_grad_norm": _CLIPPING,
    "_defer_fsdp_gradient_reduction": _SHARDED,
    "_determine_best_metric": "Set metric_for_best_model and greater_is_better.",
    "_evaluate": "Override evaluate.",
    "_finalize_training": _LOOP,
    "_finish_current_push": _PUSH,
    "_get_collator_with_removed_columns": _NO_COLUMNS,
    "_get_dataloader": f"{_TRAIN_LOADER} {_EVAL_LOADER}",
    "_get_eval_sampler": "Make the sampler in get_eval_dataloader.",
    "_get_grad_norm": _CLIPPING,
    "_get_learning_rate": "The logged rate is that of the first group. Log others in a callback.",
    "_get_num_items_in_batch": _ITEMS,
    "_get_output_dir": _SEARCHING,
    "_get_train_sampler": "Make the sampler in get_train_dataloader.",
    "_has_mixed_mesh_grads": _SHARDED,
    "_hp_search_setup": _SEARCHING,
    "_init_training_state": _LOOP,
    "_inner_training_loop": _LOOP,
    "_issue_warnings_after_load": _LOADING,
    "_load_best_model": "To change the last weights, write a LoopCallback with finish.",
    "_load_callback_state": "Give the callback a state_dict and a load_state_dict.",
    "_load_from_checkpoint": _LOADING,
    "_load_optimizer_and_scheduler": _LOADING,
    "_load_rng_state": _LOADING,
    "_load_scaler": _LOADING,
    "_maybe_log_save_evaluate": "Override log, evaluate or save_checkpoint, or write a callback.",
    "_mixed_mesh_grad_norm": _SHARDED,
    "_move_model_to_device": "Let a subclass of the arguments return False as "
    "place_model_on_device, and move the model yourself.",
    "_prepare_context_parallel_inputs": _SHARDED,
    "_prepare_for_training": _LOOP,
    "_prepare_input": "Override _prepare_inputs.",
    "_push_from_checkpoint": _PUSH,
    "_remove_unused_columns": _NO_COLUMNS,
    "_report_to_hp_search": _SEARCHING,
    "_rotate_checkpoints": _SAVING,
    "_run_epoch": _LOOP,
    "_save": _SAVING,
    "_save_checkpoint": _SAVING,
    "_save_optimizer_and_scheduler": _SAVING,
    "_save_rng_state": _SAVING,
    "_save_scaler": _SAVING,
    "_set_signature_columns_if_needed": _NO_COLUMNS,
    "_sync_replicated_trainable_parameters": _SHARDED,
    "_track_num_input_tokens": _LOOP,
    "_tune_save_checkpoint": _SAVING,
    "_update_auto_batch_size": _LOOP,
    "_validate_args": "Override __init__.",
    "_wrap_model": "Wrap the model before you pass it to the Trainer.",
    "autocast_smart_context_manager": "Override compute_loss_context_manager.",
    "call_model_init": "Pass model_init to the Trainer.",
    "create_accelerator_and_postprocess": _NO_ACCELERATE,
    "get_batch_samples": _ITEMS,
    "get_cp_size": _SHARDED,
    "get_sp_size": _SHARDED,
    "get_total_train_batch_size": _LOOP,
    "get_tp_size": _SHARDED,
    "prediction_loop": "Override evaluation_loop.",
    "set_initial_training_values": _LOOP,
    "store_flos": "Override floating_point_ops.",
}
"""Methods of transformers' Trainer that subclasses override, and that nothing calls here."""

ABSENT: Final = {
    "_signature_columns": _NO_COLUMNS,
    "_train_batch_size": "Read args.train_batch_size.",
    "can_return_loss": "Leave it out: evaluations look for a loss in what the model returns.",
    "create_model_card": _HUB,
    "current_flos": "Read state.total_flos.",
    "deepspeed": _SHARDED,
    "end": "Leave it out: trackers and processes end with the program.",
    "gather_function": "Leave it out: evaluations gather the outputs of all processes.",
    "hp_search_backend": "It would always be optuna.",
    "init_hf_repo": _HUB,
    "is_deepspeed_enabled": _SHARDED,
    "is_fsdp_enabled": "Read args.fsdp, which also says so in a single process.",
    "is_fsdp_xla_enabled": _SHARDED,
    "is_in_train": "Look at model.training, which is False in evaluations.",
    "is_model_parallel": _SHARDED,
    "is_tp_enabled": _SHARDED,
    "label_names": "Read args.label_names. None stands for ['labels'].",
    "label_smoother": "Use it in your loss: cross_entropy(..., label_smoothing=0.1).",
    "metrics_format": "Call log_metrics, which formats the metrics that it prints.",
    "place_model_on_device": "Read args.place_model_on_device.",
    "push_to_hub": _HUB,
    "tokenizer": "Use processing_class.",
    "use_apex": "Leave it out: it would always be False.",
}
"""Other attributes of transformers' Trainer, which nothing sets here."""

_OF_ACCELERATE: Final = {
    "autocast": "self.compute_loss_context_manager()",
    "clip_grad_norm_": "args.max_grad_norm",
    "device": "args.device",
    "distributed_type": "args.parallel_mode",
    "gather_for_metrics": "evaluate or predict, which gather by themselves",
    "is_local_main_process": "self.is_local_process_zero()",
    "is_main_process": "self.is_world_process_zero()",
    "local_process_index": "args.local_process_index",
    "num_processes": "args.world_size",
    "prepare": "the object itself. With several processes, a loader of your own divides the data",
    "process_index": "args.process_index",
    "unwrap_model": "self.model, which is never wrapped",
    "wait_for_everyone": "torch.distributed.barrier()",
}
"""What to use instead of an attribute of Accelerate's Accelerator."""


class Accelerator:
    """What a `training_step` for transformers uses of Accelerate: `backward`, and nothing else."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`; with `fp16`, of the scaled loss."""
        self._run.precision.backward(loss)

    if not TYPE_CHECKING:  # which would take every name for an attribute

        def __getattr__(self, name: str) -> NoReturn:
            """Say what to use instead of an attribute of Accelerate.

            Raises:
                AttributeError: Always.
            """
            instead = _OF_ACCELERATE.get(name)
            advice = f" Use {instead}." if instead else ""
            raise AttributeError(
                f"The accelerator of this Trainer has no {name!r}, only backward, because it is "
                f"not Accelerate's.{advice}",
                name=name,
                obj=self,
            )


class TransformersNames:
    """Attributes that subclasses for transformers' Trainer read, and advice for what is absent."""

    run: TrainingRun

    @property
    def accelerator(self) -> Accelerator:
        """Has the method `backward`, which a `training_step` of your own calls with the loss."""
        return Accelerator(self.run)

    @property
    def processing_class(self) -> Any:
        """The tokenizer or the like that the Trainer was given."""
        return self.run.callback_handler.processing_class

    @processing_class.setter
    def processing_class(self, value: Any) -> None:
        self.run.callback_handler.processing_class = value

    if not TYPE_CHECKING:  # which would take every name for an attribute

        def __getattr__(self, name: str) -> NoReturn:
            """Say what to use instead of an attribute that only transformers' Trainer has.

            Raises:
                AttributeError: Always.
            """
            advice = ABSENT.get(name) or NEVER_CALLED.get(name)
            hint = f", unlike transformers' Trainer. {advice}" if advice else ""
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{hint}",
                name=name,
                obj=self,
            )


def refuse_ignored_overrides(cls: type) -> None:
    """Refuse a subclass that overrides what transformers' Trainer calls and this one does not.

    Raises:
        TypeError: The message names the method, and what to override instead.
    """
    for name, advice in NEVER_CALLED.items():
        if hasattr(cls, name):
            raise TypeError(
                f"{cls.__name__} overrides {name}, which this Trainer never calls, unlike that of "
                f"transformers. {advice}"
            )
