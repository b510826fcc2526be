"""A local stand-in for Comet. It records what the real SDK sends."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from recorded import Recorded

from callback_contract.testing import Answer, Request, StandIn

ALREADY_EXISTS = 90999
"""The error code for an experiment key that exists."""


class CometServer(StandIn):
    """Stands in for Comet.

    Attributes:
        experiments: The recorded experiments, by key.
        refuses: Whether the server answers all points with status 500.
    """

    keep_alive = False  # the SDK leaves its connections to the garbage collector

    def __init__(self) -> None:
        super().__init__()
        self.experiments: dict[str, Recorded] = {}
        self.refuses = False

    def only(self) -> Recorded:
        """Return the only experiment."""
        (experiment,) = self.experiments.values()
        return experiment

    def answer(self, request: Request) -> Answer:
        url = urlsplit(request.path)
        if url.path.endswith("/asset/upload"):
            return self._take_file(dict(parse_qsl(url.query)), request.form())
        content = request.json() if request.content[:1] == b"{" else {}
        if url.path.endswith("/logger/add/run"):
            return self._open(content)
        if url.path.endswith("/logger/get/run"):
            return self._run_of(content["previousExperiment"])
        if url.path.endswith("/isAlive/ver"):
            return Answer.of({"version": "99.0.0"})
        if url.path.endswith("/experiment/metadata"):
            wanted = dict(parse_qsl(url.query))["experimentKey"]
            if wanted not in self.experiments:
                return Answer.of({}, 404)
            return Answer.of(
                {"experimentKey": wanted, "workspaceName": "mine", "projectName": "digits"}
            )
        key = content.get("experimentKey") or content.get("experiment_key")
        if key in self.experiments:
            return self._take(url.path, content, self.experiments[key])
        return Answer()

    def _open(self, content: dict[str, Any]) -> Answer:
        key = content["experimentKey"]
        if key in self.experiments and not content["getOrCreateEnabled"]:
            return Answer.of({"sdk_error_code": ALREADY_EXISTS, "msg": "it exists"}, 400)
        self.experiments.setdefault(key, Recorded(key, content["projectName"]))
        return self._run_of(key)

    def _run_of(self, key: str) -> Answer:
        self.experiments[key].ended = False
        run = {"runId": f"run-{key}", "project_id": "p", "lastOffset": 0}
        return Answer.of({**run, "focusUrl": f"{self.url}/"})

    def _take(self, path: str, content: dict[str, Any], into: Recorded) -> Answer:
        if self.refuses and "/batch/" in path:
            return self.failure
        into.kinds.add(path.rpartition("/")[2])
        if path.endswith("/experiment/metric"):
            for metric in content["values"]:
                into.add_point(metric)
        elif path.endswith("/experiment/parameter"):
            for parameter in content["values"]:
                into.add_parameter(parameter["parameterName"], parameter["parameterValue"])
        elif path.endswith("/log-other"):
            into.others[content["key"]] = content["value"]
        elif path.endswith("/graph"):
            into.graph = content["graph"]
        elif path.endswith("/status-report/update"):
            into.ended = content["is_alive"] is False
            pause = {"is_alive_beat_duration_millis": 5000, "pending_rpcs": False}
            names = ("gpu_monitor", "cpu_monitor", "parameter_update")
            return Answer.of(pause | {f"{name}_interval_millis": 1000 for name in names})
        elif content.get("hasCrashed") or content.get("has_crashed"):
            into.crashed = True
        return Answer()

    def _take_file(self, query: dict[str, str], form: dict[str, bytes]) -> Answer:
        metadata = json.loads(form.get("metadata") or query.get("metadata") or "{}")
        self.experiments[query["experimentId"]].add_file(query, metadata, form["file"])
        return Answer.of({"assetId": query["assetId"]})
