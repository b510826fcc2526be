"""A tracker to copy: it keeps each run as lines of JSON in one file."""

import json
import os
import uuid
from pathlib import Path

from callback_core.tracking import Limits, Tracker, TrackerCallback


class LinesTracker(Tracker):
    """Appends lines to a file. Each line names its run."""

    name = "lines"
    limits = Limits(non_finite=False)

    def __init__(self, path):
        self.path = Path(path)

    def settings(self):
        """Return what makes an equal tracker in another process."""
        return {"path": str(self.path)}

    def open(self, opening):
        """Open a new run, or the one of `opening.run_id` again."""
        self.run = opening.run_id or f"{opening.name or 'run'}-{uuid.uuid4().hex[:8]}"
        self.write(status="running")
        return self.run

    def log_parameters(self, parameters):
        """Keep the arguments of the training."""
        self.write(parameters=dict(parameters))

    def log_metrics(self, points):
        """Keep points, in one line: all of them or none."""
        self.write(points=[[point.name, point.step, point.value] for point in points])

    def close(self, status):
        """Keep how the training ended; `None` is for a run that its user has opened."""
        if status is not None:
            self.write(status=status)

    def write(self, **what):
        """Append a line, and let the disk have it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": self.run, **what}, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())


class LinesCallback(TrackerCallback):
    """Sends a training to a `LinesTracker`."""

    def __init__(self, path, **options):
        super().__init__(LinesTracker(path), **options)
