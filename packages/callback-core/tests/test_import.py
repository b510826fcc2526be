"""What importing the core brings with it."""

from __future__ import annotations

import os
import subprocess
import sys


def test_importing_the_core_imports_neither_torch_nor_numpy_nor_tqdm() -> None:
    code = "import sys, callback_core; print({'torch', 'numpy', 'tqdm'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"
