"""The contract checks an outsider's callback and tracker in the way that the guide shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
GUIDE = (ROOT / "docs" / "contract-for-yours.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "lines"), [("outsider/test_mine.py", 11), ("tracker/test_lines.py", 25)]
)
def test_the_guide_shows_the_module_that_runs_and_it_is_short(module: str, lines: int) -> None:
    code = (EXAMPLES / module).read_text(encoding="utf-8")
    assert f"```python\n{code}```" in GUIDE
    assert len([line for line in code.splitlines() if line.strip()]) <= lines


@pytest.mark.parametrize(("example", "at_least"), [("outsider", 60), ("tracker", 110)])
def test_it_passes(example: str, at_least: int, tmp_path: Path) -> None:
    for path in (EXAMPLES / example).glob("*.py"):
        shutil.copy(path, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    [passed] = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) >= at_least
