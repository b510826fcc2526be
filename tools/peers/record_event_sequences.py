"""Record the events that transformers fires, for trainer-torch's `test_event_sequences.py`.

This replaces the files in `packages/trainer-torch/tests/event_sequences`. It needs an environment
of its own, because no package here depends on transformers:

    python -m venv /tmp/peer
    /tmp/peer/bin/pip install torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
    /tmp/peer/bin/python tools/peers/record_event_sequences.py
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import transformers

TESTS = Path(__file__).parents[2] / "packages" / "trainer-torch" / "tests"
VERSION = "5.23.0"

sys.path.insert(0, str(TESTS))

from event_cases import CASES, Case, run, write_sequences  # noqa: E402  (needs the path above)


def main() -> None:
    """Run every case, and write its events to the files."""
    if transformers.__version__ != VERSION:
        sys.exit(f"This needs transformers {VERSION}, but {transformers.__version__} is installed.")
    write_sequences({(case.group, case.name): record(case) for case in CASES})


def record(case: Case) -> list[str]:
    """Return the events that transformers fires in `case`."""
    with TemporaryDirectory() as directory, redirect_stdout(StringIO()):
        return run(
            case,
            transformers.Trainer,
            transformers.TrainingArguments,
            transformers.TrainerCallback,
            Path(directory),
            remove_unused_columns=False,
        )


if __name__ == "__main__":
    main()
