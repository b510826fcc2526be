"""A stand-in for DagsHub, with MLflow's own server behind it, and a reader of what that keeps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from email import message_from_bytes
from pathlib import Path
from typing import Any, Final

from callback_contract import RecordedRun
from callback_contract.testing import Answer, Request, StandIn, environment, unused_port, wait_until

TOKEN: Final = "d" * 40
STATUS: Final = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "interrupted",
    "RUNNING": "running",
}


class MLflowServer:
    """The application of MLflow's server with a database of its own, in one process.

    `mlflow server` starts the same with workers and jobs around it, which takes half a minute.
    """

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{unused_port()}"
        settings = {
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/server.db",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        }
        command = [sys.executable, "-m", "flask", "--app", "mlflow.server:app", "run"]
        command += ["--port", self.url.rpartition(":")[2]]
        self._log = (folder / "server.log").open("wb")
        self._process = subprocess.Popen(
            command,
            env=environment(**settings),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        wait_until(self._answers, 180)

    def _answers(self) -> bool:
        assert self._process.poll() is None, Path(self._log.name).read_text()[-3000:]
        try:
            self.ask("experiments/search", {"max_results": 1})
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def send(self, request: Request, path: str) -> Answer:
        """Pass a request on, without who it is from."""
        given = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        asked = urllib.request.Request(
            self.url + path, request.body or None, given, method=request.method
        )
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return Answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read())

    def ask(self, route: str, body: dict[str, Any] | None = None, **query: str) -> Any:
        """Return what the REST API says."""
        url = f"{self.url}/api/2.0/mlflow/{route}?{urllib.parse.urlencode(query)}"
        sent = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(url, sent, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)

    def runs(self, experiment: str) -> list[RecordedRun]:
        """Return the runs of an experiment, oldest first; none where it is not there."""
        try:
            found = self.ask("experiments/get-by-name", experiment_name=experiment)
        except urllib.error.HTTPError:
            return []
        asked = {
            "experiment_ids": [found["experiment"]["experiment_id"]],
            "order_by": ["attributes.start_time"],
        }
        return [self._recorded(run) for run in self.ask("runs/search", asked).get("runs", [])]

    def _recorded(self, run: dict[str, Any]) -> RecordedRun:
        info, data = run["info"], run["data"]
        return RecordedRun(
            info["run_id"],
            {entry["key"]: entry["value"] for entry in data.get("params", [])},
            {m["key"]: self._history(info["run_id"], m["key"]) for m in data.get("metrics", [])},
            files=frozenset(self._files(info["run_id"])),
            status=STATUS[info["status"]],
        )

    def _history(self, run: str, key: str) -> list[tuple[int, float]]:
        found = self.ask("metrics/get-history", run_id=run, metric_key=key)["metrics"]
        return [(int(m.get("step", 0)), _as_it_was(float(m["value"]))) for m in found]

    def _files(self, run: str, folder: str = "") -> list[str]:
        answer = self.ask("artifacts/list", run_id=run, path=folder)
        found = []
        for entry in answer.get("files", []):
            is_folder = entry.get("is_dir", False)
            found += self._files(run, entry["path"]) if is_folder else [entry["path"]]
        return found


class DagsHub(StandIn):
    """DagsHub, with one user `o`, whose token is `TOKEN`, and a repository `o/r`.

    Attributes:
        files: What was committed, by its path.
        commits: Of each commit, branch, directory and the fields that were sent with it.
        refusal: What each commit is answered with, if it is refused.
    """

    def __init__(self, mlflow: MLflowServer) -> None:
        super().__init__()
        self.mlflow = mlflow
        self.files: dict[str, bytes] = {}
        self.commits: list[tuple[str, str, dict[str, str]]] = []
        self.refusal: Answer | None = None

    def answer(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        signature = request.headers.get("Authorization")
        basic = f"Basic {b64encode(f'o:{TOKEN}'.encode()).decode()}"
        if signature not in (basic, f"Bearer {TOKEN}"):
            return Answer(401, b'{"message": "unauthorized"}')
        if path.startswith("/o/r.mlflow/"):
            return self.mlflow.send(request, request.path.removeprefix("/o/r.mlflow"))
        if path == "/api/v1/user":
            return Answer(body=json.dumps(USER).encode())
        if path == "/api/v1/repos/o/r":
            return Answer(body=json.dumps(REPOSITORY).encode())
        if path.startswith("/api/v1/repos/o/r/branches/"):
            return self._branch(path.rpartition("/")[2])
        if request.method == "PUT" and (
            put := re.fullmatch(r"/api/v1/repos/o/r/content/([^/]+)/([^/]+)", path)
        ):
            return self._commit(put[1], urllib.parse.unquote(put[2]), request)
        return Answer(404)

    def _branch(self, name: str) -> Answer:
        if name not in ("main", "models"):
            return Answer(404)
        commit = {"id": str(len(self.commits)), "message": "", "url": "", "timestamp": ""}
        return Answer(body=json.dumps({"name": name, "commit": commit}).encode())

    def _commit(self, branch: str, directory: str, request: Request) -> Answer:
        if self.refusal is not None:
            return self.refusal
        head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
        fields = {}
        for part in message_from_bytes(head + request.body).get_payload():
            content, file = part.get_payload(decode=True), part.get_filename()
            if file is None:
                fields[part.get_param("name", header="content-disposition")] = content.decode()
            else:
                self.files[f"{directory}/{file}"] = content
        self.commits.append((branch, directory, fields))
        return Answer(headers={"ETag": str(len(self.commits))})


def _as_it_was(value: float) -> float:
    """Return infinity for the largest number, as which MLflow's databases keep it."""
    largest = sys.float_info.max
    return value if abs(value) < largest else value * float("inf")


USER: Final = {
    "id": 1,
    "login": "o",
    "username": "o",
    "full_name": "",
    "avatar_url": "",
}
REPOSITORY: Final = {
    "id": 1,
    "owner": USER,
    "name": "r",
    "full_name": "o/r",
    "description": "",
    "private": False,
    "fork": False,
    "parent": None,
    "empty": False,
    "mirror": False,
    "size": 0,
    "html_url": "",
    "ssh_url": "",
    "clone_url": "",
    "website": "",
    "stars_count": 0,
    "forks_count": 0,
    "watchers_count": 0,
    "open_issues_count": 0,
    "default_branch": "main",
    "created_at": "",
    "updated_at": "",
    "permissions": None,
}
