"""Somebody else's callback is checked against the contract as the guide shows it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDER = ROOT / "docs" / "examples" / "outsider"


def test_the_guide_shows_the_module_that_runs_and_it_is_short() -> None:
    module = (OUTSIDER / "test_mine.py").read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "contract-for-yours.md").read_text(encoding="utf-8")
    assert guide.partition("```python\n")[2].partition("```")[0] == module
    assert len([line for line in module.splitlines() if line.strip()]) < 15


def test_it_passes(tmp_path: Path) -> None:
    for name in ("mine.py", "test_mine.py"):
        shutil.copy(OUTSIDER / name, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "56 passed, 5 skipped" in done.stdout
