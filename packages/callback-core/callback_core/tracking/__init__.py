"""What all experiment trackers share: `TrackerCallback`, and `Tracker`, which a package extends."""

from callback_core.tracking import config
from callback_core.tracking.delivery.base import DeliveryKind
from callback_core.tracking.hard_links import linked_copy
from callback_core.tracking.limits import flattened
from callback_core.tracking.member import Member
from callback_core.tracking.naming import TrainingNumbers, summary_name, tracked_name
from callback_core.tracking.observed_process import training_process
from callback_core.tracking.redaction import Redaction
from callback_core.tracking.retry import backoff
from callback_core.tracking.scrubbing import REDACTED
from callback_core.tracking.sdk import check_sdk, import_sdk
from callback_core.tracking.session import Session, last_error
from callback_core.tracking.sessions import close_open_runs, session_of
from callback_core.tracking.tracker import (
    Limits,
    Opening,
    Point,
    Rejected,
    RunNotFound,
    Status,
    Tracker,
    TrainingSide,
    Upload,
)
from callback_core.tracking.tracker_callback import TrackerCallback

__all__ = [
    "REDACTED",
    "DeliveryKind",
    "Limits",
    "Member",
    "Opening",
    "Point",
    "Redaction",
    "Rejected",
    "RunNotFound",
    "Session",
    "Status",
    "Tracker",
    "TrackerCallback",
    "TrainingNumbers",
    "TrainingSide",
    "Upload",
    "backoff",
    "check_sdk",
    "close_open_runs",
    "config",
    "flattened",
    "import_sdk",
    "last_error",
    "linked_copy",
    "session_of",
    "summary_name",
    "tracked_name",
    "training_process",
]
