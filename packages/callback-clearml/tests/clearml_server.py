"""A stand-in for ClearML's API and file servers. It records what the real SDK sends."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import zipfile
from typing import Any
from urllib.parse import unquote

from callback_contract.testing import Answer, Request, StandIn


class ClearMLServer(StandIn):
    """Keeps tasks, events and files in memory.

    Attributes:
        tasks: The tasks, by id.
        models: The models, by id.
        projects: The ids of the projects, by name.
        events: The reported events, in order of arrival.
        files: The uploaded files, by path.
        takes_files: Whether the server accepts uploads.
        denies: Whether the server denies access to everything but the login.
        lost: How many tasks it has lost.
        refused: The paths of the files that it refused.
    """

    keep_alive = False  # the SDK's default session would keep the connection

    def __init__(self) -> None:
        super().__init__()
        self.failure = _answer("broken", {}, 500)
        self.forget()

    def forget(self) -> None:
        """Reset to an empty server that answers."""
        self.mode = "ok"
        self.requests.clear()
        self.tasks: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.projects: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.takes_files = True
        self.denies = False
        self.lost = 0
        self.refused: list[str] = []

    @property
    def calls(self) -> list[str]:
        """The endpoints that were called, in order."""
        return [_endpoint(request) for request in self.requests]

    def environment(self) -> dict[str, str]:
        """Return the environment variables that point the SDK to this server."""
        hosts = {f"CLEARML_{kind}_HOST": self.url for kind in ("API", "WEB", "FILES")}
        return {**hosts, "CLEARML_API_ACCESS_KEY": "access", "CLEARML_API_SECRET_KEY": "secret"}

    def new_task(self, **about: Any) -> str:
        """Create a task, and return its id."""
        made = f"{self.lost + len(self.tasks):032x}"
        self.tasks[made] = {
            "id": made,
            "status": "created",
            "hyperparams": {},
            "execution": {"artifacts": []},
            "script": {},
            "user": "u",
            "company": "c",
            "output": {"destination": ""},
            "created": "2026-01-01T00:00:00+00:00",
            "configuration": {},
            "runtime": {},
            "comment": "",
            **about,
        }
        return made

    def lose_tasks(self) -> None:
        """Forget all tasks."""
        self.lost += len(self.tasks)
        self.tasks.clear()

    def task(self) -> dict[str, Any]:
        """Return the only task."""
        [task] = self.tasks.values()
        return task

    def parameters(self, task: str) -> dict[str, str]:
        """Return the parameters of a task as `Section/name`."""
        sections = self.tasks[task]["hyperparams"]
        return {
            f"{section}/{name}": entry["value"]
            for section, entries in sections.items()
            for name, entry in entries.items()
        }

    def points(self, task: str) -> dict[tuple[str, str], list[tuple[int, float]]]:
        """Return a task's iterations and values by metric and variant, in order of arrival."""
        found: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for event in self.events:
            if event["type"] == "training_stats_scalar" and event["task"] == task:
                point = (event["iter"], event["value"])
                found.setdefault((event["metric"], event["variant"]), []).append(point)
        return found

    def contents(self, model: str) -> list[str]:
        """Return the names of the files in the packages of the output models of that name."""
        packed = [data for name, data in self.files.items() if name.endswith(f"/{model}.zip")]
        return [file for data in packed for file in zipfile.ZipFile(io.BytesIO(data)).namelist()]

    def answer(self, request: Request) -> Answer:
        endpoint = _endpoint(request)
        service, _, action = endpoint.partition(".")
        known = ("auth", "projects", "tasks", "events", "models", "debug", "users")
        if self.denies and service in known and service != "auth":
            return _answer(endpoint, {}, 403)
        if service == "tasks" and request.json().get("task", None) not in (None, *self.tasks):
            return _answer(endpoint, {}, 400, 101)
        if service in known and action:
            return _answer(endpoint, self._done(endpoint, request))
        if request.method == "POST" and not self.takes_files:
            self.refused += request.form()
            return Answer(status=403)
        if request.method == "POST":
            self.files |= {unquote(name): content for name, content in request.form().items()}
        found = self.files.get(unquote(request.path))
        return Answer() if found is None else Answer(body=found)

    def _done(self, endpoint: str, request: Request) -> dict[str, Any]:
        if endpoint == "auth.login":
            return {"token": _token()}
        if endpoint == "events.add_batch":
            new = [json.loads(line) for line in request.content.splitlines() if line.strip()]
            self.events += new
            return {"added": len(new), "errors": 0}
        payload = request.json()
        if endpoint == "projects.get_all":
            name = payload.get("name", "").strip("^$").replace("\\", "")
            found = [{"id": i, "name": n} for n, i in self.projects.items() if n == name]
            return {"projects": found}
        if endpoint == "projects.create":
            made = self.projects.setdefault(payload["name"], f"p{len(self.projects)}")
            return {"id": made}
        if endpoint.startswith("models."):
            return self._with_model(endpoint, payload)
        if endpoint.startswith("tasks."):
            return self._with_task(endpoint, payload)
        return {}

    def _with_model(self, endpoint: str, payload: dict[str, Any]) -> dict[str, Any]:
        if endpoint == "models.create":
            made = f"m{len(self.models)}"
            self.models[made] = {"id": made, "uri": "", "labels": {}, "system_tags": [], **payload}
            return {"id": made, "created": True}
        if endpoint == "models.get_by_id":
            return {"model": self.models[payload["model"]]}
        if endpoint.startswith("models.get_all"):
            return {"models": list(self.models.values())}
        model = payload.get("model")
        if model in self.models:
            self.models[model].update({k: v for k, v in payload.items() if k != "model"})
        return {"updated": 1, "fields": payload, "id": model}

    def _with_task(self, endpoint: str, payload: dict[str, Any]) -> dict[str, Any]:
        if endpoint == "tasks.create":
            return {"id": self.new_task(**payload)}
        if endpoint.startswith("tasks.get_all"):
            names = payload.get("id") or list(self.tasks)
            pattern = payload.get("_all_", {}).get("pattern", "")
            found = [task for name, task in self.tasks.items() if name in names]
            return {"tasks": [task for task in found if re.search(pattern, task["comment"])]}
        task = self.tasks[payload["task"]]
        if endpoint == "tasks.get_by_id":
            return {"task": task}
        states = {"started": "in_progress", "reset": "created", "completed": "completed"}
        states |= {"failed": "failed", "stopped": "stopped"}
        action = endpoint.partition(".")[2]
        if action in states:
            task["status"] = states[action]
            task["status_reason"] = payload.get("status_reason")
        elif action == "edit_hyper_params":
            for entry in payload["hyperparams"]:
                task["hyperparams"].setdefault(entry["section"], {})[entry["name"]] = entry
        elif action in ("edit", "update"):
            task.update({k: v for k, v in payload.items() if k not in ("task", "force")})
        return {"updated": 1, "fields": {"status": task["status"]}, "started": 1}


def _endpoint(request: Request) -> str:
    return request.path.partition("?")[0].strip("/").rpartition("/")[2]


def _answer(endpoint: str, data: dict[str, Any], code: int = 200, subcode: int = 0) -> Answer:
    meta = {"id": "1", "trx": "1", "result_code": code, "result_subcode": subcode}
    meta["result_msg"] = "OK"
    version = {"name": endpoint, "requested_version": "2.23", "actual_version": "2.23"}
    return Answer.of({"meta": {**meta, "endpoint": version}, "data": data}, code)


def _token() -> str:
    def encoded(part: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()

    now = int(time.time())
    identity = {"user": "u", "company": "c", "role": "user"}
    claims = {"exp": now + 86400, "iat": now, "identity": identity, "env": "x"}
    claims |= {"server_version": "2.0.0", "api_version": "2.23", "feature_set": "basic"}
    return f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{encoded(claims)}.c2ln"
