"""The callback keeps the contract of callbacks offline."""

from __future__ import annotations

import os
from pathlib import Path

from recorded import as_the_contract_has_it, offline_runs

from callback_contract import Deviation, RecordedRun, TrackerContract
from callback_neptune import NeptuneCallback


class TestOffline(TrackerContract):
    contract = (2, 0)
    # Settings and the status are the same online, where they are checked.
    capabilities = frozenset({"sdk", "state", "parameters", "text", "files", "redacts", "scalars"})
    deviations = {  # noqa: RUF012
        "DEL-005": Deviation("offline, Neptune cannot open a run again; what follows is another"),
    }
    sdk = "neptune"
    stored_within = 30.0  # a deviation that is late would look as if it were mended

    def make(self, output_dir: Path) -> NeptuneCallback:
        return NeptuneCallback(mode="offline", log_checkpoints="same", name=str(output_dir))

    def read(self, output_dir: Path) -> list[RecordedRun]:
        runs = offline_runs(Path(os.environ["NEPTUNE_DATA_DIRECTORY"]))
        ours = [r for r in runs if str(output_dir) in map(str, r.fields.values())]
        return [as_the_contract_has_it(run) for run in ours]
