"""`SystemMetrics`: logs the load of the machine to a run, as `mlflow.start_run` does."""

from __future__ import annotations

import logging
import time
from importlib import import_module
from threading import Event, Thread
from typing import Any, Final

logger = logging.getLogger(__name__)

_PREFIX: Final = "system/"
_END_TIMEOUT: Final = 5.0
"""Seconds that the end of a run waits for the last values."""


class SystemMetrics:
    """Samples the load of the machine in a thread of its own, and logs it through MLflow's client.

    MLflow measures, at an interval of 10 seconds or `MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`.
    Its own thread is not used, because that one cannot sign requests, and waits without a limit.

    Args:
        client: An `MlflowClient`.
        run_id: The run.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._monitor: Any = None
        self._step = 0
        self._ended = Event()
        self._thread = Thread(target=self._run, name="MLflow's system metrics", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop, and wait a limited time for the last values."""
        self._ended.set()
        self._thread.join(_END_TIMEOUT)

    def _run(self) -> None:
        has_failed = False
        try:
            module = import_module("mlflow.system_metrics.system_metrics_monitor")  # needs psutil
            uri = self._client.tracking_uri
            self._monitor = module.SystemMetricsMonitor(self._run_id, tracking_uri=uri)
            self._step = self._next_step()
            while not self._ended.is_set():
                self._sample()
                try:
                    self._log()
                except Exception as error:  # the server may be away: the next values may arrive
                    if not has_failed:
                        has_failed = True
                        logger.warning("MLflow misses system metrics: %s", error)
        except Exception as error:
            logger.warning("MLflow gets no system metrics: %s", error)

    def _sample(self) -> None:
        monitor = self._monitor
        for _ in range(monitor.samples_before_logging):
            monitor.collect_metrics()
            if self._ended.wait(monitor.sampling_interval):
                return

    def _log(self) -> None:
        Metric = import_module("mlflow.entities").Metric
        prefix = _PREFIX + (f"{self._monitor.node_id}/" if self._monitor.node_id else "")
        now = int(time.time() * 1000)
        metrics = [
            Metric(prefix + name, value, now, self._step)
            for name, value in self._monitor.aggregate_metrics().items()
        ]
        for part in self._monitor.monitors:
            part.clear_metrics()
        self._step += 1
        self._client.log_batch(self._run_id, metrics=metrics)

    def _next_step(self) -> int:
        """Return the number of the next values. A run that is continued already has some."""
        known = self._client.get_run(self._run_id).data.metrics
        names = [name for name in known if name.startswith(_PREFIX)]
        if not names:
            return 0
        history = self._client.get_metric_history(self._run_id, names[0])
        return max(point.step for point in history) + 1
