"""Mixed precision: autocast and scaled losses; and evaluations in half precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn

from trainer_torch.data.batches import map_leaves
from trainer_torch.hardware.devices import can_compute_in
from trainer_torch.wrapping import is_sharded


class MixedPrecision:
    """Computes in bfloat16 or float16 where that is safe, with float32 weights.

    In float16, small gradients would become 0. The loss is therefore scaled up, and the gradients
    scaled down before they are clipped. A step whose gradients overflow is not made, and the scale
    is halved; after 2000 steps without one, it is doubled. These are the rules of
    `torch.amp.GradScaler`, which transformers uses too.

    Args:
        device: The device of the training.
        dtype: `torch.bfloat16`, `torch.float16`, or `None` for no mixed precision.
        warn: Logs a warning, unless it has been logged before.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype | None, warn: Callable[[str], None]
    ) -> None:
        self._device = device
        self._dtype = dtype
        self._warn = warn
        self._is_used = False
        self._scaler = torch.amp.GradScaler(device.type) if dtype is torch.float16 else None
        self._scale = self._scaler.get_scale() if self._scaler else 1.0
        self._has_scaled = False

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which the model and the loss are computed in mixed precision."""
        if self._dtype is None:
            return nullcontext()
        self._is_used = True
        return torch.autocast(self._device.type, self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled if that is needed."""
        if self._scaler is not None:
            self._has_scaled = True
            loss = self._scaler.scale(loss)
        loss.backward()

    def unscale(self, model: nn.Module, optimizer: Any) -> None:
        """Scale the gradients of an update step back. Does not wait for the device.

        Raises:
            RuntimeError: Gradients were added without `backward`.
        """
        if self._scaler is None:
            return
        if not self._has_scaled:
            raise RuntimeError(
                "training_step has called loss.backward() itself. With fp16, the loss must be "
                "scaled: call self.accelerator.backward(loss) in its place."
            )
        self._scaler.unscale_(optimizer)
        optimized = {id(one) for group in optimizer.param_groups for one in group["params"]}
        for parameter in model.parameters():  # the norm of all gradients is what is clipped
            if parameter.grad is not None and id(parameter) not in optimized:
                parameter.grad.mul_(1 / self._scale)

    @property
    def skips_overflows(self) -> bool:
        """Whether gradients may overflow while the scale adapts. `step` then skips them."""
        return self._scaler is not None

    def step(self, optimizer: Any) -> bool:
        """Let `optimizer` make its step, unless gradients have overflowed. Return whether it did.

        With float16, this waits for the device.
        """
        if self._dtype is not None and not self._is_used:
            self._warn(
                "training_step computes the loss outside of self.compute_loss_context_manager(), "
                f"so the loss is not computed in {self._dtype}, unless it calls autocast itself."
            )
        if self._scaler is None:
            optimizer.step()
            return True
        before = self._scale
        self._scaler.step(optimizer)
        self._scaler.update()
        self._scale, self._has_scaled = self._scaler.get_scale(), False
        if self._scale < 1 <= before:
            self._warn(
                "Gradients overflow in float16 even though the loss is no longer scaled up. Steps "
                "that overflow are left out, so the model hardly trains. Look for a loss or "
                "weights that are not finite, or use bf16."
            )
        return self._scale >= before

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and what it depends on, as numbers. Waits for the device."""
        return self._scaler.state_dict() if self._scaler else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the scale of `state`. A state without a scale changes nothing."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)
            self._scale = self._scaler.get_scale()


def mixed_precision(args: Any, warn: Callable[[str], None]) -> MixedPrecision:
    """Return the mixed precision that `args` ask for. `warn` logs a warning once."""
    dtype = torch.float16 if args.fp16 else torch.bfloat16 if args.bf16 else None
    return MixedPrecision(args.device, dtype, warn)


def evaluation_dtype(args: Any) -> torch.dtype | None:
    """Return the type of the weights in evaluations that `args` ask for, if it is another one."""
    return torch.float16 if args.fp16_full_eval else torch.bfloat16 if args.bf16_full_eval else None


def check_precision(args: Any, model: nn.Module) -> None:
    """Check that the device can compute in the types that `args` ask for.

    Raises:
        ValueError: It cannot; or weights are in float16, so their gradients cannot be scaled.
    """
    for name, dtype in _ARGUMENTS.items():
        can_scale = name != "fp16" or not args.fp16 or _can_scale(args.device)
        if getattr(args, name) and not (can_scale and can_compute_in(dtype, args.device)):
            raise ValueError(
                f"{name} is True, but the device {args.device} cannot compute in {dtype}. Leave it "
                "out, use the other of bf16 and fp16, or train with use_cpu=True."
            )
    halves = [
        name
        for name, one in model.named_parameters()
        if one.requires_grad and one.dtype is torch.float16
    ]
    if args.fp16 and halves:
        raise ValueError(
            f"fp16 is True, but weights are float16 already, such as {halves[0]}. Mixed precision "
            "needs float32 weights: call model.float() before training."
        )


def _can_scale(device: torch.device) -> bool:
    """Return whether a loss on `device` can be scaled, and its gradients scaled back."""
    parameter = nn.Parameter(torch.ones(1, device=device))
    scaler = torch.amp.GradScaler(device.type)
    try:
        scaler.scale(parameter.sum()).backward()
        scaler.unscale_(torch.optim.SGD([parameter]))
    except (RuntimeError, NotImplementedError):
        return False
    return True


_ARGUMENTS: Final = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "bf16_full_eval": torch.bfloat16,
    "fp16_full_eval": torch.float16,
}
"""The arguments that need a device which can compute in this type."""


@contextmanager
def weights_in(dtype: torch.dtype | None, model: nn.Module) -> Iterator[None]:
    """Convert the floating point weights, buffers and inputs of `model` to `dtype`.

    The original weights and buffers stay in memory, and are put back on exit.

    Raises:
        ValueError: The model is sharded. FSDP2 would still compute with its own shards.
    """
    if dtype is None:
        yield
        return
    if is_sharded(model):
        raise ValueError(
            f"The weights of a sharded model cannot be converted to {dtype} for an evaluation. "
            "Leave bf16_full_eval and fp16_full_eval out; bf16=True holds in evaluations too."
        )
    tensors = {id(one): one for one in (*model.parameters(), *model.buffers())}
    before = [(one, one.data) for one in tensors.values() if one.is_floating_point()]

    def convert(value: Any) -> Any:
        is_float = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(dtype) if is_float else value

    def convert_inputs(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return map_leaves(convert, args), map_leaves(convert, kwargs)

    hook = model.register_forward_pre_hook(convert_inputs, with_kwargs=True)
    try:
        for one, data in before:
            one.data = data.to(dtype)
        yield
    finally:
        hook.remove()
        for one, data in before:
            one.data = data
