"""Processes beside that of the tests: Python, and the replay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BY_HAND = str(Path(__file__).parent / "by_hand.py")
"""A program: by_hand.py OUTPUT_DIR STEPS [kill | missing | fails | hangs]."""


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which Python finds what it finds here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}


def python(
    *arguments: str, timeout: float = 100, **kwargs: Any
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        **kwargs,
    )


def replay(output_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command that delivers what is left."""
    return python("-m", "callback_core.tracking.replay", str(output_dir), *arguments)
