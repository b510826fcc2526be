"""Reads facts about a model, and saves its weights, in the training's thread."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from callback_core.tracking import Redaction


def facts_of(model: Any) -> dict[str, Any]:
    """Return the number of a model's parameters, and the configuration of its adapters."""
    facts: dict[str, Any] = {}
    count = _count(model)
    if count is not None:
        facts["model/num_parameters"] = count
    adapters = getattr(model, "peft_config", None)
    if isinstance(adapters, Mapping):
        facts["peft_config"] = Redaction().of(
            {
                name: config.to_dict() if hasattr(config, "to_dict") else config
                for name, config in adapters.items()
            }
        )
    return facts


def _count(model: Any) -> int | None:
    try:
        if hasattr(model, "num_parameters"):
            return int(model.num_parameters())
        return sum(part.numel() for part in model.parameters())
    except Exception:  # not a model, or its parameters have no size yet
        return None


def is_in_one_piece(model: Any) -> bool:
    """Return whether this process has all weights, and can save them on its own."""
    if not hasattr(model, "parameters"):
        return False
    classes = {cls.__name__ for part in model.modules() for cls in type(part).__mro__}
    if "FullyShardedDataParallel" in classes:
        return False
    return not any(hasattr(part, "full_tensor") or part.is_meta for part in model.parameters())


def save(model: Any, processing_class: Any, directory: Path) -> None:
    """Write the weights of `model`, and its configuration and tokenizer if there are any."""
    directory.mkdir()
    model = getattr(model, "module", model) if _is_wrapper(model) else model
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(str(directory))
    else:
        sys.modules["torch"].save(model.state_dict(), directory / "model.pt")
    if hasattr(processing_class, "save_pretrained"):
        processing_class.save_pretrained(str(directory))


def _is_wrapper(model: Any) -> bool:
    return type(model).__name__ in ("DataParallel", "DistributedDataParallel")
