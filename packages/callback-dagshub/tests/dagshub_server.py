"""A stand-in for DagsHub in front of MLflow's own server."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from email import message_from_bytes
from typing import Final

from callback_contract.testing import Answer, Request, StandIn

TOKEN: Final = "d" * 40


class DagsHub(StandIn):
    """DagsHub, with one user `o`, whose token is `TOKEN`, and a repository `o/r`.

    Args:
        mlflow: The address of the MLflow server.

    Attributes:
        files: The committed files, by path.
        commits: The branch, the directory and the form fields of each commit.
        refusal: The answer to each commit, if it is to be refused.
    """

    def __init__(self, mlflow: str) -> None:
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
            return self._forward_to_mlflow(request, request.path.removeprefix("/o/r.mlflow"))
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

    def _forward_to_mlflow(self, request: Request, path: str) -> Answer:
        """Forward a request to MLflow, without its credentials."""
        kind = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        forwarded = urllib.request.Request(
            self.mlflow + path, request.body or None, kind, method=request.method
        )
        try:
            with urllib.request.urlopen(forwarded, timeout=300) as answer:
                return Answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read())

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
