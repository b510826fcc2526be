"""The record of a journal that says that a training begins, and with which parameters."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from callback_core.arguments import CallbackArguments
from callback_core.state import TrainerState

logger = logging.getLogger(__name__)


def begin_record(args: CallbackArguments, state: TrainerState, model: Any) -> dict[str, Any]:
    """Return the record, which holds the arguments and the model's configuration."""
    config: Any = getattr(model, "config", None)
    trial = state.is_hyper_param_search
    return {
        "kind": "begin",
        "step": state.global_step,
        "time": time.time(),
        "run_name": args.run_name,
        "trial_name": state.trial_name if trial else None,
        "trial_parameters": state.trial_params if trial else None,
        "arguments": _dict_of(args),
        "model_config": _dict_of(config),
    }


def _dict_of(owner: Any) -> dict[str, Any]:
    """Return what `owner.to_dict()` returns; an empty dict if that fails."""
    try:
        found = owner.to_dict() if hasattr(owner, "to_dict") else {}
        json.dumps(found, default=str, skipkeys=True)
        return dict(found)
    except Exception:
        logger.warning("Trackers get no parameters of %s.", type(owner).__name__, exc_info=True)
        return {}
