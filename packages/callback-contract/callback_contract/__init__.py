"""The contract of training callbacks: rules with stable ids for any callback."""

from typing import TYPE_CHECKING

from callback_contract._registry import GROUPS, RULES, Rule
from callback_contract._result import Outcome, Result
from callback_contract._subject import (
    CAPABILITIES,
    TRACKER_CAPABILITIES,
    Deviation,
    RecordedRun,
    Setting,
    Subject,
)
from callback_contract._suite import CallbackContract, TrackerContract, check
from callback_contract._training import Training
from callback_contract._violation import ContractViolation

if TYPE_CHECKING:
    # Pants includes what is imported, and the pytest entry point needs the plugin.
    from callback_contract import plugin as _plugin  # noqa: F401

__all__ = [
    "CAPABILITIES",
    "GROUPS",
    "RULES",
    "TRACKER_CAPABILITIES",
    "CallbackContract",
    "ContractViolation",
    "Deviation",
    "Outcome",
    "RecordedRun",
    "Result",
    "Rule",
    "Setting",
    "Subject",
    "TrackerContract",
    "Training",
    "check",
]
