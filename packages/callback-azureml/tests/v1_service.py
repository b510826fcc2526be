"""A local stand-in for Azure's SDK v1 service, as far as a submitted run uses it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from workspace import SCOPE, TOKEN, make_certificate

from callback_contract.testing import Answer, Request, StandIn

SERVICES = ("api", "experimentation", "history", "hyperdrive", "modelmanagement", "studio")


class V1Service(StandIn):
    """Stands in for Azure.

    Attributes:
        points: The steps and values of each metric, in order of arrival, by run and metric name.
        changes: All other requests that change a run, such as its status.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(make_certificate(folder))
        self.points: dict[tuple[str, str], list[tuple[int | None, float]]] = {}
        self.changes: list[str] = []

    def begin_job(self, run: str) -> dict[str, str]:
        """Return the environment of a run's job, without MLflow's variables."""
        return {
            "AZUREML_ARM_SUBSCRIPTION": "sub",
            "AZUREML_ARM_RESOURCEGROUP": "group",
            "AZUREML_ARM_WORKSPACE_NAME": "work",
            "AZUREML_ARM_PROJECT_NAME": "experiment",
            "AZUREML_EXPERIMENT_ID": "e1",
            "AZUREML_WORKSPACE_ID": "w1",
            "AZUREML_RUN_ID": run,
            "AZUREML_RUN_TOKEN": TOKEN,
            "AZUREML_SERVICE_ENDPOINT": self.url,
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{self.url}/discovery",
            "REQUESTS_CA_BUNDLE": str(self.certificate[0]),
        }

    def values(self, run: str) -> dict[tuple[str, int | None], float]:
        """Return a run's values by name and step, and check that there are no duplicates."""
        found: dict[tuple[str, int | None], float] = {}
        for (owner, name), points in self.points.items():
            for step, value in points if owner == run else ():
                assert (name, step) not in found, f"{name} has two values at step {step}"
                found[name, step] = value
        return found

    def answer(self, request: Request) -> Answer:
        path = urlsplit(request.path).path
        if path == "/discovery":
            return Answer.of(dict.fromkeys(SERVICES, self.url))
        run = path.partition("/runs/")[2].partition("/")[0]
        if path == f"/metric/v2.0{SCOPE}/runs/{run}/batch":
            for metric in request.json()["values"]:
                points = self.points.setdefault((run, metric["name"]), [])
                points += [
                    (one.get("step"), one["data"][metric["name"]]) for one in metric["value"]
                ]
        elif request.method == "GET" and path.endswith(f"/runs/{run}"):
            about = {"runId": run, "rootRunId": run, "runNumber": 1, "status": "Running"}
            return Answer.of({**about, "dataContainerId": f"dcid.{run}", "experimentId": "e1"})
        elif request.method != "GET":
            self.changes.append(f"{request.method} {path}")
        return Answer()
