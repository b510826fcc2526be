"""What all experiment trackers share: `TrackerCallback`, and `Tracker`, which a package writes."""

from callback_core.tracking import settings
from callback_core.tracking.callback import TrackerCallback
from callback_core.tracking.delivery import DeliveryKind
from callback_core.tracking.links import linked_copy
from callback_core.tracking.naming import tracked_name
from callback_core.tracking.recording import Recording
from callback_core.tracking.redaction import Redaction
from callback_core.tracking.sdk import import_sdk
from callback_core.tracking.tracker import (
    Limits,
    Opening,
    Point,
    Rejected,
    Status,
    Tracker,
    Upload,
)
from callback_core.tracking.values import flattened

__all__ = [
    "DeliveryKind",
    "Limits",
    "Opening",
    "Point",
    "Recording",
    "Redaction",
    "Rejected",
    "Status",
    "Tracker",
    "TrackerCallback",
    "Upload",
    "flattened",
    "import_sdk",
    "linked_copy",
    "settings",
    "tracked_name",
]
