"""`CometTracker`: an experiment in Comet."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import Any, Final

from callback_comet import archive, sdk
from callback_comet.experiment import ExperimentSettings, describe, start_experiment
from callback_comet.sender import PARAMETERS, Sender, discard
from callback_core.tracking import (
    Limits,
    Opening,
    Point,
    Status,
    Tracker,
    Upload,
    config,
    flattened,
)

logger = logging.getLogger(__name__)

LIMITS: Final = Limits(batch_size=1000, parameter_length=1000, key_length=100, text=True)
"""Comet's limits. Comet would cut longer names and values itself, with a warning for each."""

MODES: Final = ("ONLINE", "OFFLINE", "DISABLED", "get_or_create", "create", "get")
"""Old versions of transformers' callback use the first three modes, new versions the others."""


class CometTracker(Tracker):
    """An experiment in Comet. `CometCallback` documents the other arguments.

    Args:
        model_graph: The model as text, for the graph definition of a new experiment.

    Raises:
        ValueError: A setting is invalid.
    """

    name = "comet_ml"
    named_by = ("experiment_key",)
    requires: Mapping[str, str] = MappingProxyType({"comet_ml": "comet_ml"})
    limits = LIMITS

    def __init__(
        self,
        *,
        mode: str | None = None,
        project_name: str | None = None,
        workspace: str | None = None,
        experiment_key: str | None = None,
        offline_directory: str | None = None,
        log_assets: bool | None = None,
        model_graph: str | None = None,
    ) -> None:
        self.mode = config.choice("mode", mode, "COMET_MODE", MODES)
        off = config.flag("disabled", None, "COMET_AUTO_LOG_DISABLE")
        self._disabled = self.mode == "DISABLED" or off is True
        self.project_name = config.text("project_name", project_name, "COMET_PROJECT_NAME")
        self.workspace = config.text("workspace", workspace, "COMET_WORKSPACE")
        self.experiment_key = config.matching(
            "experiment_key",
            experiment_key,
            "COMET_EXPERIMENT_KEY",
            "[a-zA-Z0-9]{32,50}",
            "32 to 50 letters and digits",
        )
        self.offline_directory = config.directory(
            "offline_directory", offline_directory, "COMET_OFFLINE_DIRECTORY"
        )
        log_assets = config.flag("log_assets", log_assets, "COMET_LOG_ASSETS")
        self.log_assets = log_assets is not False
        self.model_graph = model_graph
        if self.mode == "get" and self.experiment_key is None:
            raise ValueError(
                "COMET_MODE is 'get', which continues an experiment: COMET_EXPERIMENT_KEY must "
                "name it."
            )
        self._experiment: Any = None
        self._is_ours = self._is_offline = False
        self._sender: Sender
        self._output_dir = self._folder = Path()
        self._event_files: dict[Path, int] = {}

    @property
    def disabled(self) -> bool:
        """Whether the mode or Comet's own `COMET_AUTO_LOG_DISABLE` disables the callback."""
        return self._disabled

    @property
    def keeps_open(self) -> bool:
        """Whether the experiment is offline. Each opening of an offline one makes a new archive."""
        return self._is_offline

    @property
    def opens_one_run(self) -> bool:
        """Return `True`: `comet_ml.start` ends the running experiment to start another."""
        return True

    @property
    def prints_url(self) -> bool:
        """Return `True`: the SDK prints the address."""
        return True

    @property
    def takes_checkpoints(self) -> bool:
        """Whether checkpoints become assets."""
        return self.log_assets

    def settings(self) -> dict[str, Any] | None:
        """Return the arguments of an equal tracker. Comet's own settings hold the API key."""
        return {
            "mode": self.mode,
            "project_name": self.project_name,
            "workspace": self.workspace,
            "experiment_key": self.experiment_key,
            "offline_directory": self.offline_directory,
            "log_assets": self.log_assets,
            "model_graph": self.model_graph,
        }

    def adopt(self) -> str | None:
        """Return the key of the user's open experiment in this process.

        A second one is impossible: Comet ends the open experiment when a new one begins.
        """
        experiment = sdk.running_experiment()
        if experiment is None:
            return None
        key: str = experiment.get_key()
        if self.experiment_key not in (None, key):
            logger.warning(
                "Comet experiment %s is open in this process and is used instead of %s.",
                key,
                self.experiment_key,
            )
        return key

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return arguments and model configuration under the names that transformers uses."""
        groups = {"args": arguments, "config": model_config}
        return flattened({name: group for name, group in groups.items() if group}, "|")

    def open(self, opening: Opening) -> str:
        """Use the user's experiment, continue an earlier one, or begin a new one."""
        comet_ml = sdk.import_comet()
        running = sdk.running_experiment() if opening.adopted else None
        self._is_ours = running is None or running.get_key() != opening.run_id
        settings = ExperimentSettings(
            self.mode,
            self.project_name,
            self.workspace,
            self.experiment_key,
            self.offline_directory,
        )
        self._experiment = (
            start_experiment(comet_ml, settings, opening) if self._is_ours else running
        )
        self._is_offline = isinstance(self._experiment, comet_ml.OfflineExperiment)
        self._sender = Sender(self._experiment, self._is_offline)
        self._output_dir, self._folder = opening.output_dir, opening.folder
        if opening.run_id is None or not self._is_ours:
            describe(self._experiment, opening, self.model_graph)
        self.run_url = None if self._is_offline else str(self._experiment.url)
        key: str = self._experiment.get_key()
        return key

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Set parameters. Existing ones get the new value."""
        self._sender.send({PARAMETERS: lambda: self._experiment.log_parameters(dict(parameters))})

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add points."""
        self._sender.send({point: partial(self._log_metric, point) for point in points})

    def log_text(self, points: Sequence[Point]) -> None:
        """Add texts. The metadata of each holds its name."""
        self._sender.send({point: partial(self._log_text, point) for point in points})

    def log_files(self, upload: Upload) -> None:
        """Upload a checkpoint's files as assets. Assets of the same names are replaced."""
        files = {
            file: f"{upload.name}/{file.relative_to(upload.path).as_posix()}"
            for file in sorted(upload.path.rglob("*"))
            if file.is_file()
        }
        self._sender.send(
            {
                (upload.step, file): partial(self._log_asset, file, name, upload.step)
                for file, name in files.items()
            }
        )

    def close(self, status: Status | None) -> None:
        """Log how the training ended, and end the experiment. The user's stays open."""
        experiment = self._experiment
        if not experiment.ended:
            self._log_last(status)
        if self._is_ours:
            experiment.end()
            archive.forget(self._folder)
        self._experiment = None

    def _log_last(self, status: Status | None) -> None:
        if self.log_assets:
            self._log_event_files()
        if status is None:
            return
        experiment = self._experiment
        self._sender.send({status: lambda: experiment.log_other("training_status", status)})
        if status == "failed":  # as Comet does for an uncaught error
            experiment._report_experiment_error("The training failed.", has_crashed=True)  # noqa: SLF001

    def release(self) -> None:
        """Discard what the SDK has not sent. A replay delivers it from the journal."""
        experiment, self._experiment = self._experiment, None
        if experiment is not None and self._is_ours and not self._is_offline:
            Thread(
                target=discard, args=(experiment,), name="discard Comet experiment", daemon=True
            ).start()

    def _log_metric(self, point: Point) -> None:
        self._experiment.log_metric(point.name, point.value, step=point.step, epoch=point.epoch)

    def _log_text(self, point: Point) -> None:
        self._experiment.log_text(point.value, step=point.step, metadata={"name": point.name})

    def _log_asset(self, file: Path, name: str, step: int | None = None) -> None:
        self._experiment.log_asset(str(file), file_name=name, overwrite=True, step=step)

    def _log_event_files(self) -> None:
        """Upload TensorBoard's event files that are new or have grown."""
        runs = self._output_dir / "runs"
        for file in sorted(runs.rglob("*tfevents*")):
            size = file.stat().st_size
            if self._event_files.get(file) != size:
                name = file.relative_to(self._output_dir).as_posix()
                self._sender.send({(file, size): partial(self._log_asset, file, name)})
                self._event_files[file] = size
