"""A local Azure ML workspace: Azure's routes in front of MLflow's own server application.

It models the requests in the source of the plugin `azureml-mlflow`. No test shows that Azure
answers in the same way.
"""

from __future__ import annotations

import json
import os
import re
from base64 import urlsafe_b64encode
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from azure.core.credentials import AccessToken
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from callback_contract.testing import Answer, Request, StandIn
from callback_mlflow.testing import Runs

IDS: Final = {"subscription_id": "sub", "resource_group_name": "group", "workspace_name": "work"}
SCOPE: Final = (
    "/subscriptions/sub/resourceGroups/group"
    "/providers/Microsoft.MachineLearningServices/workspaces/work"
)
EXPIRES: Final = 4_000_000_000
FILES: Final = re.compile(
    rf"/history/v1\.0{SCOPE}/experiments/[^/]+/runs/(?P<run>[^/]+)/artifacts(?P<new>/batch/metadata)?"
)


def _token() -> str:
    parts = ({"alg": "none"}, {"exp": EXPIRES})
    encoded = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b"c2ln"]).decode()


TOKEN: Final = _token()
"""The token with which a job logs."""


class Credential:
    """The credential of a logged-in user."""

    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return AccessToken(TOKEN, EXPIRES)


class Workspace(StandIn):
    """Stands in for Azure.

    Attributes:
        uri: The tracking URI of a job.
        files: The uploaded files of each run, by path.
        runs: Reads MLflow's application through its REST API.
    """

    keep_alive = False

    def __init__(self, folder: Path) -> None:
        super().__init__(make_certificate(folder))
        self.uri = f"azureml://127.0.0.1:{self.port}/mlflow/v1.0{SCOPE}"
        self.files: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.runs = Runs(self.url)
        files = f"azureml://127.0.0.1:{self.port}/artifact/v2.0{SCOPE}/experiments"
        self.client = make_application(f"sqlite:///{folder}/workspace.db", files)

    def log_in(self) -> str:
        """Log in as a user outside a job, and return the tracking URI."""
        from azureml.mlflow import get_mlflow_tracking_uri_v2

        about = {**IDS, "auth": Credential(), "host_url": self.url}
        return str(
            get_mlflow_tracking_uri_v2(SimpleNamespace(ml_flow_tracking_uri=self.uri), about)
        )

    def begin_job(self, experiment: str) -> dict[str, str]:
        """Begin a job, and return its environment."""
        made = self._ask("experiments/create", {"name": experiment})
        run = self._ask("runs/create", {**made, "run_name": "the job", "start_time": 1})
        run_id = run["run"]["info"]["run_id"]
        return {
            "AZUREML_RUN_ID": run_id,
            "MLFLOW_RUN_ID": run_id,
            "MLFLOW_EXPERIMENT_ID": made["experiment_id"],
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_TOKEN": TOKEN,
        }

    def answer(self, request: Request) -> Answer:
        path, azures = urlsplit(request.path).path, f"/mlflow/v2.0{SCOPE}"
        if path.startswith("/blob/"):
            run, _, name = unquote(path.removeprefix("/blob/")).partition("/")
            self.files[run][name] = request.body
            return Answer(201, b"")
        of_files = FILES.fullmatch(path)
        if path.startswith(azures) or of_files:
            if request.headers["Authorization"] != f"Bearer {TOKEN}":
                return Answer.of({"error_code": "UNAUTHENTICATED"}, 401)
            if of_files:
                return self._answer_about_files(request, of_files["run"], bool(of_files["new"]))
        route = request.path.removeprefix(azures)
        kind = {"Content-Type": "application/json"}
        made = self.client.open(route, method=request.method, data=request.body, headers=kind)
        # The plugin expects artifact URIs of the form …/experiments/1/runs/<run>/artifacts.
        body = re.sub(rb"(/experiments/\d+)/(\w{32}/artifacts)", rb"\1/runs/\2", made.data)
        return Answer(made.status_code, body)

    def _answer_about_files(self, request: Request, run: str, new: bool) -> Answer:
        kept = self.files[run]
        if not new:
            known = [{"path": path, "origin": "ExperimentRun", "container": run} for path in kept]
            return Answer.of({"value": known})
        paths = [entry["path"] for entry in request.json()["paths"]]
        about = {path: {"contentUri": f"{self.url}/blob/{run}/{path}?sig=x"} for path in paths}
        there = {"error": {"code": "Conflict", "message": "Resource Conflict: it is there already"}}
        return Answer.of(
            {
                "artifacts": {path: {"path": path, "container": run} for path in paths},
                "artifactContentInformation": about,
                "errors": {path: there for path in paths if path in kept},
            }
        )

    def _ask(self, route: str, content: Any) -> Any:
        answer = self.client.post(f"/api/2.0/mlflow/{route}", json=content)
        assert answer.status_code == 200, answer.data
        return answer.json


def make_application(database: str, files: str) -> Any:
    """Return a client of the `mlflow server` application, in this process.

    The application reads its arguments from the environment, and makes its database the tracking
    URI of the process.
    """
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = database
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = files
    import mlflow
    from mlflow.server import app

    client = app.test_client()
    assert client.get("/api/2.0/mlflow/experiments/get?experiment_id=0").status_code == 200
    mlflow.set_tracking_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return client


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return the paths of a self-signed certificate for 127.0.0.1 and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    paths[0].write_bytes(certificate.public_bytes(pem))
    paths[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return paths
