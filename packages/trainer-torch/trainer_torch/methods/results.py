"""`ResultMethods`: the methods of the Trainer by which scripts print and keep their results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from callback_core import json_value
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.checkpoints.uploads import submit_files
from trainer_torch.run.training_run import TrainingRun

_ALL: Final = "all"


class ResultMethods:
    """Prints metrics, and writes them and the state to `output_dir`. The names are transformers'.

    In all processes but the main one, the methods do nothing.
    """

    run: TrainingRun

    def log_metrics(self, split: str, metrics: Mapping[str, Any]) -> None:
        """Print `metrics`, one to a line. Trackers do not get them: they get what `log` receives.

        Args:
            split: What the metrics are of, such as `train`, `eval` or `test`.
            metrics: Values by name, as `train`, `evaluate` and `predict` return them.
        """
        if not self.run.world.is_main:
            return
        shown = {str(name): _shown(str(name), metrics[name]) for name in sorted(metrics)}
        width = max(map(len, shown), default=0)
        of_values = max(map(len, shown.values()), default=0)
        lines = [f"  {name:<{width}} = {value:>{of_values}}" for name, value in shown.items()]
        print("\n".join([f"***** {split} metrics *****", *lines]), flush=True)

    def save_metrics(self, split: str, metrics: Mapping[str, Any], combined: bool = True) -> None:
        """Write `metrics` to `<split>_results.json` in `output_dir`.

        Args:
            split: What the metrics are of, such as `train`, `eval` or `test`.
            metrics: Values by name.
            combined: Also add them to those in `all_results.json`.
        """
        if not self.run.world.is_main:
            return
        _write(self._result_file(split), metrics)
        if combined:
            path = self._result_file(_ALL)
            before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            _write(path, {**before, **metrics})
        submit_files(self.run)

    def save_state(self) -> None:
        """Write the state, with all logs, to `trainer_state.json` in `output_dir`."""
        if self.run.world.is_main:
            path = self._output_dir() / "trainer_state.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.run.state.save_to_json(path)
            submit_files(self.run)

    def num_examples(self, dataloader: Any) -> int:
        """Return the number of samples in the dataset of `dataloader`.

        Raises:
            TypeError: The dataset has no length.
        """
        return len(dataloader.dataset)

    def _output_dir(self) -> Path:
        args: TrainingArguments = self.run.args
        return Path(args.output_dir)

    def _result_file(self, split: str) -> Path:
        return self._output_dir() / f"{split}_results.json"


def _write(path: Path, metrics: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(json_value(metrics), indent=4, sort_keys=True)
    path.write_text(f"{text}\n", encoding="utf-8")


def _shown(name: str, value: Any) -> str:
    """Return a metric as text: a runtime with its units, memory in MiB."""
    plain = json_value(value)
    if not isinstance(plain, (int, float)) or isinstance(plain, bool):
        return str(plain)
    if name.endswith("_runtime"):
        return str(timedelta(seconds=round(plain))) if plain >= 60 else f"{plain:.4g} s"
    if "_mem_" in name:
        return f"{plain / 2**20:.0f} MiB"
    return f"{plain:,}" if isinstance(plain, int) else f"{plain:.4g}"
