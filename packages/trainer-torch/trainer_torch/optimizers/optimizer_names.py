"""The values of `optim`, and the options in `optim_args` that each of them takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from callback_core import nearest_name

_FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_ADJUSTMENTS: Final = ("original", "match_rms_adamw")


def _flag(text: str) -> bool:
    return _FLAGS[text.lower()]


def _adjustment(text: str) -> str:
    return _ADJUSTMENTS[_ADJUSTMENTS.index(text)]


OPTIMIZERS: Final[Mapping[str, Mapping[str, Callable[[str], Any]]]] = {
    "adamw_torch_fused": {},
    "adamw_torch": {},
    "sgd": {"momentum": float, "dampening": float, "nesterov": _flag},
    "adagrad": {"lr_decay": float, "eps": float},
    "rmsprop": {"momentum": float, "alpha": float, "eps": float, "centered": _flag},
    "adafactor": {},
    "muon": {
        "lr": float,
        "momentum": float,
        "nesterov": _flag,
        "ns_steps": int,
        "adjust_lr_fn": _adjustment,
    },
}
"""The values of `optim`, each with the options that `optim_args` may set."""

_OF_OTHER_PACKAGES: Final = (
    *("adamw_torch_xla", "adamw_torch_npu_fused", "adamw_anyprecision"),
    *("adamw_torch_4bit", "adamw_torch_8bit", "adamw_8bit", "adamw_bnb_8bit"),
    *("ademamix", "ademamix_8bit", "lion_32bit", "lion_8bit"),
    *("paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit"),
    *("paged_lion_32bit", "paged_lion_8bit"),
    *("rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"),
    *("galore_adamw", "galore_adamw_8bit", "galore_adafactor", "apollo_adamw"),
    *("grokadamw", "stable_adamw"),
)
"""The other values that `optim` has in transformers, but for the following."""

_OF_OTHER_LOOPS: Final = (
    *("galore_adamw_layerwise", "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise"),
    *("apollo_adamw_layerwise", "lomo", "adalomo"),
    *("schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd"),
)
"""Values in transformers of optimizers that step within the backward pass, or that have modes."""


def check_optimizer_name(optim: str, optim_args: str | None) -> None:
    """Check the arguments `optim` and `optim_args`.

    Raises:
        ValueError: There is no such optimizer, torch lacks it, or it has no such option.
    """
    if optim in _OF_OTHER_PACKAGES:
        raise ValueError(
            f"optim is {optim!r}, which is not an optimizer of torch. Make it with its own "
            "package, and pass it as optimizers=(optimizer, None)."
        )
    if optim in _OF_OTHER_LOOPS:
        raise ValueError(
            f"optim is {optim!r}, which needs a loop made for it: one that steps within the "
            "backward pass, or that switches the optimizer's mode for evaluations. Choose one of: "
            f"{', '.join(OPTIMIZERS)}; or pass another one as optimizers=(optimizer, None)."
        )
    if optim not in OPTIMIZERS:
        nearest = nearest_name(str(optim), [*OPTIMIZERS, *_OF_OTHER_PACKAGES, *_OF_OTHER_LOOPS])
        hint = f" Did you mean {nearest!r}?" if nearest else ""
        raise ValueError(
            f"optim is {optim!r}, but must be one of: {', '.join(OPTIMIZERS)}.{hint} Pass another "
            "optimizer as optimizers=(optimizer, None)."
        )
    if optim == "muon" and not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f"optim is 'muon', which torch has from 2.9 on, but this is {torch.__version__}."
        )
    parse_options(optim, optim_args)


def parse_options(optim: str, optim_args: str | None) -> dict[str, Any]:
    """Return the options for the optimizer `optim` in `optim_args`, such as "momentum=0.9".

    Raises:
        ValueError: `optim_args` is not "key=value,...", or the optimizer has no such option.
    """
    if optim_args is None or optim_args == "":
        return {}
    if not isinstance(optim_args, str):
        raise ValueError(f'optim_args is {optim_args!r}, but must be text: "key=value,...".')
    taken, options = OPTIMIZERS[optim], {}
    for pair in optim_args.replace(" ", "").split(","):
        name, _, text = pair.partition("=")
        if name not in taken:
            raise ValueError(
                f"optim_args has {name!r}, but {optim!r} takes these: {', '.join(taken) or 'none'}."
                " The learning rate, the weight decay, and AdamW's betas and epsilon are arguments "
                "of their own."
            )
        try:
            options[name] = taken[name](text)
        except (KeyError, ValueError):
            raise ValueError(
                f"{name} in optim_args is {text!r}, which is not a value of this option. Write it "
                'as in "momentum=0.9,nesterov=true".'
            ) from None
    return options
