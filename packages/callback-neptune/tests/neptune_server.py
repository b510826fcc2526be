"""A local stand-in for Neptune. It records what the real SDK sends."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from posixpath import normpath
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from recorded import Recorded

from callback_contract.testing import Answer, Request, StandIn

HEADER, QUERY, BODY = "header", "query", "body"


def _operation(path: str, answer: str, method: str = "get", **parameters: str) -> Any:
    return path, answer, method, parameters


BACKEND = {
    "getClientConfig": _operation("/config", "Config", X_Neptune_Api_Token=HEADER, alpha=QUERY),
    "exchangeApiToken": _operation("/token", "Token", X_Neptune_Api_Token=HEADER),
    "getProject": _operation("/project", "Project", projectIdentifier=QUERY),
}
LEADERBOARD = {
    "createExperiment": _operation(
        "/create", "Run", "post", experimentCreationParams=BODY, X_Neptune_CliVersion=HEADER
    ),
    "getExperiment": _operation("/run", "Run", experimentId=QUERY),
    "executeOperations": _operation(
        "/operations", "Errors", "post", experimentId=QUERY, operations=BODY
    ),
    "getExperimentAttributes": _operation("/attributes", "Attributes", experimentId=QUERY),
    "getStringAttribute": _operation("/string", "String", experimentId=QUERY, attribute=QUERY),
    "getFloatSeriesAttribute": _operation("/series", "Last", experimentId=QUERY, attribute=QUERY),
    "ping": _operation("/ping", "Nothing", "post", experimentId=QUERY),
    "uploadFileSetAttributeTar": _operation("/files", "Nothing", "post"),
    "fileSetFileUpload": _operation("/file", "Nothing", "post"),
    "fileSetFileMultipartUploadStart": _operation("/start", "Nothing", "post"),
    "fileSetFileMultipartUploadFinish": _operation("/finish", "Nothing", "post"),
    "fileSetFileMultipartUploadPart": _operation("/part", "Nothing", "post"),
}
PROPERTIES = {
    "Config": ["apiUrl", "applicationUrl", "pyLibVersions", "sysNameSetByBackend"],
    "Token": ["accessToken", "refreshToken"],
    "Project": ["id", "name", "organizationName", "projectKey", "version"],
    "Run": ["id", "type", "shortId", "organizationName", "projectName", "trashed"],
    "Attributes": ["attributes"],
    "Attribute": ["name", "type"],
    "String": ["value"],
    "Last": ["last"],
    "Error": ["errorDescription"],
    "Nothing": [],
}
ONE_OF_MANY = {"attributes": "Attribute"}


def swagger(operations: dict[str, Any]) -> dict[str, Any]:
    """Return a Swagger description, from which the SDK generates its client."""
    paths: dict[str, Any] = {}
    for name, (path, answer, method, parameters) in operations.items():
        schema: Any = {"$ref": f"#/definitions/{answer}"}
        if answer == "Errors":
            schema = {"type": "array", "items": {"$ref": "#/definitions/Error"}}
        described = {
            "operationId": name,
            "tags": ["api"],
            "parameters": [
                {"name": parameter.replace("_", "-"), "in": place}
                | ({"schema": {}} if place == BODY else {"type": "string"})
                for parameter, place in parameters.items()
            ],
            "responses": {"200": {"description": "", "schema": schema}},
        }
        paths[path] = {method: described}
    definitions = {
        name: {
            "type": "object",
            "properties": {
                name: {"type": "array", "items": {"$ref": f"#/definitions/{ONE_OF_MANY[name]}"}}
                if name in ONE_OF_MANY
                else {}
                for name in properties
            },
        }
        for name, properties in PROPERTIES.items()
    }
    return {
        "swagger": "2.0",
        "info": {"title": "Neptune", "version": "1"},
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "paths": paths,
        "definitions": definitions,
    }


class NeptuneServer(StandIn):
    """Stands in for a self-hosted Neptune. The steps of a series must increase.

    Attributes:
        runs: The recorded runs, in order.
        token: The API token of the server.
        failing_uploads: The number of next uploads that fail.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Recorded] = []
        self.token = token_for(self.url)
        self.failing_uploads = 0

    def only(self) -> Recorded:
        """Return the only run."""
        (run,) = self.runs
        return run

    def answer(self, request: Request) -> Answer:
        url = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        path = url.path
        if path.endswith("/swagger.json"):
            operations = BACKEND if path.startswith("/api/backend") else LEADERBOARD
            return Answer.of(swagger(operations))
        if path == "/protocol/openid-connect/token":
            token = _token(self.url)
            return Answer.of({"access_token": token, "refresh_token": token, "expires_in": 10**6})
        if path == "/token" and request.headers["X-Neptune-Api-Token"] != self.token:
            return Answer(401)
        answer = getattr(self, f"answer_{path.strip('/')}", None)
        return Answer(404) if answer is None else answer(query, request.body)

    def answer_config(self, query: dict[str, str], body: bytes) -> Answer:
        return Answer.of({"apiUrl": self.url, "applicationUrl": self.url, "pyLibVersions": {}})

    def answer_token(self, query: dict[str, str], body: bytes) -> Answer:
        token = _token(self.url)
        return Answer.of({"accessToken": token, "refreshToken": token})

    def answer_project(self, query: dict[str, str], body: bytes) -> Answer:
        workspace, _, name = query["projectIdentifier"].partition("/")
        return Answer.of(
            {"id": query["projectIdentifier"], "name": name, "organizationName": workspace}
            | {"projectKey": "RUN", "version": 2}
        )

    def answer_create(self, query: dict[str, str], body: bytes) -> Answer:
        payload = json.loads(body)
        run = next((r for r in self.runs if r.custom_id == payload["customId"] is not None), None)
        if run is None:
            number = len(self.runs) + 1
            run = Recorded(f"RUN-{number}", payload["projectIdentifier"], payload["customId"])
            run.git = payload["gitInfo"]
            self.runs.append(run)
        return self._run(run)

    def answer_run(self, query: dict[str, str], body: bytes) -> Answer:
        run = self._of(query["experimentId"].rpartition("/")[2])
        return Answer(404) if run is None else self._run(run)

    def answer_operations(self, query: dict[str, str], body: bytes) -> Answer:
        run = self._of(query["experimentId"])
        if run is None:
            return Answer(404)
        errors = [run.take(operation) for operation in json.loads(body)]
        return Answer.of([{"errorDescription": error} for error in errors if error])

    def answer_attributes(self, query: dict[str, str], body: bytes) -> Answer:
        run = self._of(query["experimentId"])
        assert run is not None
        types = run.types()
        return Answer.of({"attributes": [{"name": n, "type": t} for n, t in types.items()]})

    def answer_string(self, query: dict[str, str], body: bytes) -> Answer:
        run = self._of(query["experimentId"])
        assert run is not None
        fields = {"sys/id": run.id, **run.fields}
        return Answer.of({"value": fields[query["attribute"]]})

    def answer_ping(self, query: dict[str, str], body: bytes) -> Answer:
        return Answer.of({})

    def answer_files(self, query: dict[str, str], body: bytes) -> Answer:
        if self.failing_uploads:
            self.failing_uploads -= 1
            return Answer(500)
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    self._keep(query["experimentId"], query, member.name, content.read())
        return Answer.of(None)

    def answer_file(self, query: dict[str, str], body: bytes) -> Answer:
        self._keep(query["experimentIdentifier"], query, query["subPath"], body)
        return Answer.of(None)

    def _keep(self, run_id: str, query: dict[str, str], name: str, content: bytes) -> None:
        run = self._of(run_id)
        assert run is not None
        run.file_sets.setdefault(query["attribute"], {})[normpath(name)] = content

    def _of(self, run_id: str) -> Recorded | None:
        return next((run for run in self.runs if run.id == run_id), None)

    def _run(self, run: Recorded) -> Answer:
        workspace, _, project = run.project.partition("/")
        return Answer.of(
            {"id": run.id, "shortId": run.id, "type": "run", "trashed": False}
            | {"organizationName": workspace, "projectName": project}
        )


def token_for(url: str) -> str:
    """Return an API token for the server at `url`."""
    content = {"api_address": url, "api_url": url, "api_key": "the-key"}
    return base64.b64encode(json.dumps(content).encode()).decode()


def _token(url: str) -> str:
    """Return the access token that the SDK sends with each request."""
    claims = {"exp": int(time.time()) + 10**6, "azp": "neptune", "iss": url}
    return jwt.encode(claims, "k" * 40, algorithm="HS256")
