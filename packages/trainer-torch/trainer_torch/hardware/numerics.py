"""Settings of torch that change results: TensorFloat-32, and deterministic algorithms."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch

from trainer_torch.hardware.devices import has_tf32

logger = logging.getLogger(__name__)

_CUBLAS: Final = "CUBLAS_WORKSPACE_CONFIG"
_DETERMINISTIC_CUBLAS: Final = (":4096:8", ":16:8")
"""The values with which cuBLAS is deterministic, by torch's notes on randomness."""

_FLASH: Final = "FLASH_ATTENTION_DETERMINISTIC"


def prepare_numerics(args: Any) -> None:
    """Check `tf32` and `full_determinism`, and set the variables that the latter needs.

    This must come before the first operation on a GPU. The variables stay set.

    Raises:
        ValueError: The device has no TensorFloat-32, or a variable is set to what contradicts
            `full_determinism`.
    """
    if args.tf32 and not has_tf32(args.device):
        raise ValueError(
            f"tf32 is True, but the device {args.device} has no TensorFloat-32: only NVIDIA's GPUs "
            "have it, from Ampere on. Leave it out."
        )
    if not args.full_determinism:
        return
    for name, allowed in ((_CUBLAS, _DETERMINISTIC_CUBLAS), (_FLASH, ("1",))):
        if os.environ.setdefault(name, allowed[0]) not in allowed:
            raise ValueError(
                f"full_determinism is True, but the environment variable {name} is "
                f"{os.environ[name]!r}. Unset it, or set it to {' or '.join(allowed)}."
            )
    if torch.backends.cudnn.benchmark:
        logger.warning(
            "full_determinism turns torch.backends.cudnn.benchmark off while the Trainer trains or "
            "evaluates. You have turned it on."
        )


@contextmanager
def numeric_settings(args: Any) -> Iterator[None]:
    """Compute with the settings that `args` ask for. Restores the previous ones on exit."""
    with ExitStack() as settings:
        if args.tf32 is not None:
            settings.enter_context(_tf32(args.tf32))
        if args.full_determinism:
            settings.enter_context(_deterministic())
        yield


@contextmanager
def _tf32(is_on: bool) -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    try:
        before = matmul.allow_tf32, cudnn.allow_tf32
    except RuntimeError as error:  # torch does not read the old settings after setting the new ones
        raise ValueError(
            "tf32 is set, and so is fp32_precision in torch.backends. Set only one of them."
        ) from error
    matmul.allow_tf32 = cudnn.allow_tf32 = is_on
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def _deterministic() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
    )
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = before[2:]
