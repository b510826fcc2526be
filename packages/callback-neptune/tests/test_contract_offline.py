"""The callback keeps the callback contract offline."""

from __future__ import annotations

import os
from pathlib import Path

from recorded import as_recorded_run, offline_runs

from callback_contract import Deviation, RecordedRun, TrackerContract
from callback_neptune import NeptuneCallback

STAYS_OPEN = "an offline run of evaluations stays open until the next training or the exit"


class TestOffline(TrackerContract):
    contract = (2, 0)
    # The online tests check settings and the status, which are the same.
    capabilities = frozenset({"sdk", "state", "parameters", "text", "files", "redacts", "scalars"})
    deviations = {  # noqa: RUF012
        "DEL-005": Deviation("Neptune cannot reopen an offline run, so a new run follows"),
        **dict.fromkeys(("LEF-001", "LEF-007"), Deviation(STAYS_OPEN)),
    }
    sdk = "neptune"
    stored_within = 30.0  # if a deviation came too late, it would look fixed

    def make(self, output_dir: Path) -> NeptuneCallback:
        return NeptuneCallback(mode="offline", log_checkpoints="same", name=str(output_dir))

    def read(self, output_dir: Path) -> list[RecordedRun]:
        runs = offline_runs(Path(os.environ["NEPTUNE_DATA_DIRECTORY"]))
        ours = [r for r in runs if str(output_dir) in map(str, r.fields.values())]
        return [as_recorded_run(run) for run in ours]
