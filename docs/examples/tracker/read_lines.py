"""Reads what `lines.py` wrote, as somebody else would."""

import json

from callback_contract import RecordedRun


def read_lines(path):
    """Return the runs in a file, oldest first."""
    runs = {}
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        run = runs.setdefault(line["run"], RecordedRun(line["run"], parameters={}, points={}))
        run.parameters.update(line.get("parameters", {}))
        run.status = line.get("status", run.status)
        for name, step, value in line.get("points", ()):
            run.points.setdefault(name, []).append((step, value))
    return list(runs.values())
