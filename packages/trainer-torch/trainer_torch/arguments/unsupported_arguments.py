"""`UnsupportedArguments`: the arguments of transformers that the Trainer lacks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final


@dataclass(kw_only=True)
class UnsupportedArguments:
    """Accepts arguments at their defaults only, so that scripts which state these keep working."""

    optim_target_modules: str | list[str] | None = None
    label_smoothing_factor: float = 0.0
    use_liger_kernel: bool = False
    liger_kernel_config: dict[str, bool] | None = None
    use_cache: bool = False
    neftune_noise_alpha: float | None = None
    logging_nan_inf_filter: bool = False
    push_to_hub: bool = False
    hub_token: str | None = None
    hub_model_id: str | None = None
    hub_strategy: str = "every_save"
    hub_always_push: bool = False
    hub_revision: str | None = None
    accelerator_config: dict[str, Any] | str | None = None
    parallelism_config: Any = None
    deepspeed: dict[str, Any] | str | None = None

    def check_unsupported(self) -> None:
        """Refuse each of these arguments that has another value than its default.

        Raises:
            ValueError: The message names the argument, and says what to do instead.
        """
        for field in fields(UnsupportedArguments):
            value = getattr(self, field.name)
            if value != field.default:
                raise ValueError(
                    f"{field.name} is {value!r}, but is not supported. {instead_of(field.name)}"
                )


def instead_of(name: str) -> str:
    """Return the sentence that says what to do instead of an unsupported argument."""
    return INSTEAD.get(name, _MISSING)


_MISSING: Final = "Leave it out: this Trainer does not do it."
_PARAMETERS: Final = "Make the optimizer yourself, and pass optimizers=(optimizer, None)."
_HUB: Final = "Write a callback that uploads the checkpoints, on the event on_push_begin."
_NO_ACCELERATE: Final = "Leave it out: this Trainer does not use Accelerate."
_OF_TRANSFORMERS: Final = "It changes models of transformers: change the model before training."

INSTEAD: Final = {
    "optim_target_modules": _PARAMETERS,
    "label_smoothing_factor": "Use it in your loss: cross_entropy(..., label_smoothing=0.1).",
    "use_liger_kernel": _OF_TRANSFORMERS,
    "liger_kernel_config": _OF_TRANSFORMERS,
    "use_cache": "It is a setting of the model: model.config.use_cache.",
    "neftune_noise_alpha": "Add the noise in a forward hook of the model's embeddings.",
    "logging_nan_inf_filter": (
        "A loss that is NaN is logged as NaN, so that it is seen. on_non_finite says what happens "
        "then: 'warn', 'skip', 'stop' or 'rollback'."
    ),
    "push_to_hub": _HUB,
    "hub_token": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
    "accelerator_config": _NO_ACCELERATE,
    "parallelism_config": _NO_ACCELERATE,
    "deepspeed": "Set fsdp=True instead: the model is sharded by torch's FSDP2, not by DeepSpeed.",
}
"""What to do instead of an argument."""
