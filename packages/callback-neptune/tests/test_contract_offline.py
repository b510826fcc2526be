"""The callback keeps the contract of callbacks offline."""

from __future__ import annotations

import os
from pathlib import Path

from recorded import as_the_contract_has_it, offline_runs

from callback_contract import Deviation, RecordedRun, TrackerContract
from callback_neptune import NeptuneCallback


class TestOffline(TrackerContract):
    contract = (1, 1)
    # Settings and tracking are the same online, where they are checked.
    capabilities = frozenset({"sdk", "state", "status", "parameters", "text", "files"})
    deviations = {  # noqa: RUF012
        "DEL-006": Deviation("offline, Neptune cannot open a run again; what follows is another")
    }
    sdk = "neptune"
    patience = 30.0  # a deviation that is late would look as if it were mended
    expect = "114 run, 144 not claimed, 1 deviates"

    def make(self, output_dir: Path) -> NeptuneCallback:
        return NeptuneCallback(mode="offline", log_checkpoints="same", name=str(output_dir))

    def read(self, output_dir: Path) -> list[RecordedRun]:
        runs = offline_runs(Path(os.environ["NEPTUNE_DATA_DIRECTORY"]))
        names = {run.id: run.fields.get("sys/name") for run in runs}
        return [as_the_contract_has_it(r) for r in runs if names[r.id] == str(output_dir)]
