"""Training callbacks for any loop: events, state, control and the handler that calls them."""

from __future__ import annotations

from callback_core._json import json_value, scalar
from callback_core.arguments import (
    CallbackArguments,
    IntervalStrategy,
    best_metric_key,
    is_greater_better,
    is_number,
    missing_metric,
    output_directory,
    share_of_steps,
)
from callback_core.best_metric import deciding_metric, is_best_checkpoint, update_best_metric
from callback_core.callback import TrainerCallback
from callback_core.callbacks.default_flow import DefaultFlowCallback
from callback_core.callbacks.early_stopping import EarlyStoppingCallback
from callback_core.callbacks.printer import PrinterCallback
from callback_core.callbacks.progress_bar import ProgressCallback, open_bar
from callback_core.callbacks.standard_callbacks import with_standard_callbacks
from callback_core.callbacks.time_limit import TimeLimit
from callback_core.checkpoint_paths import saved_checkpoint
from callback_core.control import FLAGS, Request, TrainerControl, request_stop
from callback_core.data_length import number_of_batches
from callback_core.driver.loop import Loop
from callback_core.driver.loop_arguments import LoopArguments
from callback_core.driver.loop_checkpoint import get_last_checkpoint
from callback_core.events import COMMON_KEYWORDS, EVENTS, Event
from callback_core.handler import CallbackHandler
from callback_core.integrations import (
    NotConfigured,
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
    make_reporting_integration_callbacks,
)
from callback_core.persistence import ExportableState, export_states, restore_states
from callback_core.processes import (
    FLAG_BITS,
    Processes,
    combine_requests,
    flag_bits,
    flags_differ,
)
from callback_core.spelling import nearest_name
from callback_core.state import TrainerState
from callback_core.validation import list_callbacks
from callback_core.value_logging import log_values

__all__ = [
    "COMMON_KEYWORDS",
    "EVENTS",
    "FLAGS",
    "FLAG_BITS",
    "CallbackArguments",
    "CallbackHandler",
    "DefaultFlowCallback",
    "EarlyStoppingCallback",
    "Event",
    "ExportableState",
    "IntervalStrategy",
    "Loop",
    "LoopArguments",
    "NotConfigured",
    "PrinterCallback",
    "Processes",
    "ProgressCallback",
    "Request",
    "TimeLimit",
    "TrainerCallback",
    "TrainerControl",
    "TrainerState",
    "best_metric_key",
    "combine_requests",
    "deciding_metric",
    "export_states",
    "flag_bits",
    "flags_differ",
    "get_available_reporting_integrations",
    "get_last_checkpoint",
    "get_reporting_integration_callbacks",
    "is_best_checkpoint",
    "is_greater_better",
    "is_number",
    "json_value",
    "list_callbacks",
    "log_values",
    "make_reporting_integration_callbacks",
    "missing_metric",
    "nearest_name",
    "number_of_batches",
    "open_bar",
    "output_directory",
    "request_stop",
    "restore_states",
    "saved_checkpoint",
    "scalar",
    "share_of_steps",
    "update_best_metric",
    "with_standard_callbacks",
]
