"""One of several processes under torchrun fails: the others neither train on nor wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import distributed_cases
import pytest
from launching import reports

pytestmark = pytest.mark.slow


def test_an_error_in_one_process_ends_all_and_closes_its_callbacks(tmp_path: Path) -> None:
    script = distributed_cases.__file__
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([os.path.dirname(script), *sys.path])
    done = subprocess.run(  # the command itself, as users call it
        [sys.executable, *torchrun, script, "broken", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    main, other = reports(tmp_path)
    assert other == ["exception", "ValueError('broken on purpose')", "end"]
    assert "rank 0" in main[1].lower()
    assert "broken on purpose" in main[1]
    assert main[2] == "end"
