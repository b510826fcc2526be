"""A tracker that writes its calls to a file, and a training in transformers' trainer that uses it.

    python line_tracker.py OUTPUT_DIR HOW

HOW is `finish`, `raise`, `interrupt` or `resume`. The training raises or is interrupted at the
second step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from callback_core.tracking import Opening, Point, Status, Tracker, TrackerCallback


class LineTracker(Tracker):
    """Writes a line of JSON for each call."""

    name = "lines"

    def __init__(self, path: str) -> None:
        self.path = path

    def settings(self) -> dict[str, Any]:
        return {"path": self.path}

    def open(self, opening: Opening) -> str:
        self._write(called="open", run_id=opening.run_id, step=opening.step)
        return opening.run_id or "a-new-run"

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        self._write(called="log_parameters", learning_rate=parameters["learning_rate"])

    def log_metrics(self, points: Sequence[Point]) -> None:
        for point in points:
            self._write(called="point", name=point.name, step=point.step, value=point.value)

    def close(self, status: Status | None) -> None:
        self._write(called="close", status=status)

    def _write(self, **line: Any) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def main(output_dir: str, how: str) -> None:
    """Train."""
    import transformers
    from small_training import build

    class Ends(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2 and how != "finish":
                raise ValueError("broken") if how == "raise" else KeyboardInterrupt

    tracker = TrackerCallback(LineTracker(f"{output_dir}/lines.jsonl"), flush_limit=300)
    resumed = how == "resume"
    trainer = build(
        "transformers",
        Path(output_dir),
        tracker,
        *([] if resumed else [Ends]),
        logging_steps=1,
        save_strategy="steps",
        save_steps=1,
    )
    trainer.train(resume_from_checkpoint=resumed or None)


if __name__ == "__main__":
    main(*sys.argv[1:])
