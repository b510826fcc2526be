"""Helpers for tests with a real MLflow server: `MLflowServer` runs it, `Runs` reads it.

`SETTINGS` and `FLAGS` describe the callback's settings for the rules of callback-contract.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

SETTINGS: Final[tuple[dict[str, Any], ...]] = (
    {
        "argument": "experiment_name",
        "variable": "MLFLOW_EXPERIMENT_NAME",
        "default": None,
        "examples": [("a b", "a b")],
        "given": [("c", "c")],
        "wrong_given": ("", 7),
    },
    {
        "argument": "run_id",
        "variable": "MLFLOW_RUN_ID",
        "default": None,
        "examples": [("r-1", "r-1")],
        "given": [("r_2", "r_2")],
        "wrong": ("runs:/abc", "-"),
        "wrong_given": ("a/b", "", 7),
        "choices": ("the id of a run",),
    },
    {
        "argument": "tags",
        "variable": "MLFLOW_TAGS",
        "default": {},
        "examples": [('{"a": "b", "c": 1}', {"a": "b", "c": "1"}), ("{}", {})],
        "given": [({"d": 1}, {"d": "1"})],
        "wrong": ("a=b", '["a"]'),
        "wrong_given": (["a"], "a"),
        "choices": ("a JSON object",),
    },
    {
        "argument": "max_log_params",
        "variable": "MLFLOW_MAX_LOG_PARAMS",
        "default": None,
        "examples": [("7", 7), ("0", 0)],
        "given": [(0, 0), (3, 3)],
        "wrong": ("-1", "many"),
        "wrong_given": (-1, 1.5, True),
        "choices": ("a whole number",),
    },
)
"""The settings of `MLflowCallback`, each as the arguments of `callback_contract.Setting`.

Packages that extend the callback have the same settings, with documented exceptions. The tracking
URI is not included, because MLflow reads `MLFLOW_TRACKING_URI` when a run opens. `FLAGS` has the
settings that are on or off.
"""

FLAGS: Final[tuple[dict[str, Any], ...]] = (
    {"argument": "nested", "variable": "MLFLOW_NESTED_RUN"},
    {"argument": "log_artifacts", "variable": "HF_MLFLOW_LOG_ARTIFACTS"},
    {"argument": "flatten_params", "variable": "MLFLOW_FLATTEN_PARAMS"},
    {
        "argument": "log_system_metrics",
        "variable": "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",
    },
    {"argument": "disabled", "variable": "DISABLE_MLFLOW_INTEGRATION", "only_variable": True},
)
"""The settings that are on or off, each as the arguments of `callback_contract.Setting.flag`."""


STATUS: Final = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "interrupted",
    "RUNNING": "running",
}
"""The values of `RecordedRun.status` in callback-contract, by MLflow's status."""


class MLflowServer:
    """A local MLflow server. It keeps its port when it is restarted.

    Args:
        folder: The directory of its database and artifacts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        """Start the server without waiting; `wait` waits until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # seconds faster
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # it starts child processes
            )

    def wait(self, seconds: float = 180.0) -> None:
        """Wait until the server answers.

        Raises:
            TimeoutError: It did not answer in time. The message is the end of its log.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError((self.folder / "server.log").read_text()[-2000:])

    def stop(self) -> None:
        """Kill the server and its child processes, if it runs."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Read(NamedTuple):
    """The content of a run. Each point is a key, a step, a value and a time in milliseconds."""

    id: str
    name: str
    status: str
    parameters: dict[str, str]
    tags: dict[str, str]
    points: list[tuple[str, int, float, int]]

    def of(self, key: str) -> list[tuple[int, float]]:
        """Return steps and values of a metric, sorted by step."""
        return sorted((step, value) for name, step, value, _ in self.points if name == key)

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Return the steps and values of each metric, in logged order.

        MLflow's databases store infinities as the largest float; this restores them.
        """
        found: dict[str, list[tuple[int, float]]] = {}
        for name, step, value, _ in self.points:
            infinite = abs(value) == sys.float_info.max
            kept = math.copysign(math.inf, value) if infinite else value
            found.setdefault(name, []).append((step, kept))
        return found

    def values(self) -> dict[tuple[str, int], float]:
        """Return the values by metric and step, and check that there are no duplicates."""
        counts = Counter((key, step) for key, step, _, _ in self.points)
        duplicates = [one for one, number in counts.items() if number > 1]
        assert duplicates == []
        return {(key, step): value for key, step, value, _ in self.points}


class Runs:
    """Reads the runs of an MLflow server through its REST API.

    Args:
        uri: The address of the server.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def runs(self, experiment: str) -> list[Read]:
        """Return the runs of an experiment, oldest first."""
        found = self._get("experiments/get-by-name", experiment_name=experiment)
        parameters = {
            "experiment_ids": [found["experiment"]["experiment_id"]],
            "order_by": ["attributes.start_time"],
        }
        answer = self._ask("runs/search", json.dumps(parameters).encode())
        return [self._run(run) for run in answer.get("runs", [])]

    def artifacts(self, run: str, path: str) -> dict[str, int]:
        """Return the sizes of the entries of a run's artifact folder, by path; folders have 0."""
        found = self._get("artifacts/list", run_id=run, path=path).get("files", [])
        return {entry["path"]: int(entry.get("file_size", 0)) for entry in found}

    def artifact(self, run: str, path: str) -> bytes:
        """Return the content of an artifact file of a run."""
        query = urllib.parse.urlencode({"run_id": run, "path": path})
        with urllib.request.urlopen(f"{self.uri}/get-artifact?{query}", timeout=30) as answer:
            return bytes(answer.read())

    def _run(self, run: dict[str, Any]) -> Read:
        info, data = run["info"], run["data"]
        keys = [metric["key"] for metric in data.get("metrics", [])]
        return Read(
            info["run_id"],
            info["run_name"],
            info["status"],
            {entry["key"]: entry["value"] for entry in data.get("params", [])},
            {entry["key"]: entry["value"] for entry in data.get("tags", [])},
            [point for key in keys for point in self._history(info["run_id"], key)],
        )

    def _history(self, run: str, key: str) -> list[tuple[str, int, float, int]]:
        parameters = {
            "run_id": run,
            "metric_key": key,
            "max_results": "25000",
        }  # the default returns none
        answer = self._get("metrics/get-history", **parameters)
        return [
            (key, int(m.get("step", 0)), float(m["value"]), int(m["timestamp"]))
            for m in answer["metrics"]
        ]

    def _get(self, route: str, **parameters: str) -> Any:
        return self._ask(f"{route}?{urllib.parse.urlencode(parameters)}")

    def _ask(self, route: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/{route}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
