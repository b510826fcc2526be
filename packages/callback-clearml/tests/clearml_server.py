"""A stand-in for ClearML's API and file server: it remembers what the real SDK sends to it."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class ClearMLServer:
    """Keeps tasks, events and files in memory.

    Attributes:
        mode: `ok`; `broken` answers each call with an error, `silent` answers none, and `gone`
            hangs up.
        tasks: The tasks by their ids.
        models: The models by their ids.
        events: What was reported, in the order in which it came.
        files: What was uploaded, by its path.
        calls: The endpoints that were called.
    """

    def __init__(self, port: int = 0) -> None:
        self.mode = "ok"
        self.tasks: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.projects: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.calls: list[str] = []
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Give the port back."""
        self._stopped.set()
        self._http.shutdown()
        self._http.server_close()

    def environment(self) -> dict[str, str]:
        """Return the variables by which the SDK finds this server."""
        hosts = {f"CLEARML_{kind}_HOST": self.url for kind in ("API", "WEB", "FILES")}
        return {**hosts, "CLEARML_API_ACCESS_KEY": "access", "CLEARML_API_SECRET_KEY": "secret"}

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
        """Return iterations and values of a task by metric and variant, as they came."""
        found: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for event in self.events:
            if event["type"] == "training_stats_scalar" and event["task"] == task:
                point = (event["iter"], event["value"])
                found.setdefault((event["metric"], event["variant"]), []).append(point)
        return found

    def contents(self, model: str) -> list[str]:
        """Return what was packed into the file of an output model."""
        [packed] = (data for name, data in self.files.items() if name.endswith(f"/{model}.zip"))
        return zipfile.ZipFile(io.BytesIO(packed)).namelist()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer to a request."""
        endpoint = path.partition("?")[0].strip("/").rpartition("/")[2]
        with self._lock:
            self.calls.append(endpoint)
        if self.mode == "silent":
            self._stopped.wait(600)
        if self.mode == "broken":
            return 500, _envelope(endpoint, {}, 500)
        service, _, action = endpoint.partition(".")
        known = ("auth", "projects", "tasks", "events", "models", "debug", "users")
        with self._lock:
            if service not in known or not action:
                if method == "POST":
                    self.files |= _uploaded(body)
                return 200, b"{}"
            data = self._done(endpoint, body)
        return 200, _envelope(endpoint, data)

    def _done(self, endpoint: str, body: bytes) -> dict[str, Any]:
        if endpoint == "auth.login":
            return {"token": _token()}
        if endpoint == "events.add_batch":
            new = [json.loads(line) for line in body.decode().splitlines() if line.strip()]
            self.events += new
            return {"added": len(new), "errors": 0}
        asked = json.loads(body or b"{}")
        if endpoint == "projects.get_all":
            name = asked.get("name", "").strip("^$").replace("\\", "")
            found = [{"id": i, "name": n} for n, i in self.projects.items() if n == name]
            return {"projects": found}
        if endpoint == "projects.create":
            made = self.projects.setdefault(asked["name"], f"p{len(self.projects)}")
            return {"id": made}
        if endpoint.startswith("models."):
            return self._with_model(endpoint, asked)
        if endpoint.startswith("tasks."):
            return self._with_task(endpoint, asked)
        return {}

    def _with_model(self, endpoint: str, asked: dict[str, Any]) -> dict[str, Any]:
        if endpoint == "models.create":
            made = f"m{len(self.models)}"
            self.models[made] = {"id": made, "uri": "", "labels": {}, "system_tags": [], **asked}
            return {"id": made, "created": True}
        if endpoint == "models.get_by_id":
            return {"model": self.models[asked["model"]]}
        if endpoint.startswith("models.get_all"):
            return {"models": list(self.models.values())}
        model = asked.get("model")
        if model in self.models:
            self.models[model].update({k: v for k, v in asked.items() if k != "model"})
        return {"updated": 1, "fields": asked, "id": model}

    def _with_task(self, endpoint: str, asked: dict[str, Any]) -> dict[str, Any]:
        if endpoint == "tasks.create":
            made = f"{len(self.tasks):032x}"
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
                **asked,
            }
            return {"id": made}
        if endpoint.startswith("tasks.get_all"):
            names = asked.get("id") or list(self.tasks)
            pattern = asked.get("_all_", {}).get("pattern", "")
            found = [task for name, task in self.tasks.items() if name in names]
            return {"tasks": [task for task in found if re.search(pattern, task["comment"])]}
        task = self.tasks[asked["task"]]
        if endpoint == "tasks.get_by_id":
            return {"task": task}
        states = {"started": "in_progress", "reset": "created", "completed": "completed"}
        states |= {"failed": "failed", "stopped": "stopped"}
        action = endpoint.partition(".")[2]
        if action in states:
            task["status"] = states[action]
            task["status_reason"] = asked.get("status_reason")
        elif action == "edit_hyper_params":
            for entry in asked["hyperparams"]:
                task["hyperparams"].setdefault(entry["section"], {})[entry["name"]] = entry
        elif action in ("edit", "update"):
            task.update({k: v for k, v in asked.items() if k not in ("task", "force")})
        return {"updated": 1, "fields": {"status": task["status"]}, "started": 1}


def _handler(server: ClearMLServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client is gone
                self.close_connection = True

        def do(self) -> None:
            body = self._body()
            if server.mode == "gone":
                self.close_connection = True
                return
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status, answer = server.answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("Connection", "close")  # the SDK keeps one for its default session
            self.end_headers()
            self.wfile.write(answer)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_POST = do_PUT = do

    return Handler


def _envelope(endpoint: str, data: dict[str, Any], code: int = 200) -> bytes:
    meta = {"id": "1", "trx": "1", "result_code": code, "result_subcode": 0, "result_msg": "said"}
    version = {"name": endpoint, "requested_version": "2.23", "actual_version": "2.23"}
    return json.dumps({"meta": {**meta, "endpoint": version}, "data": data}).encode()


def _uploaded(body: bytes) -> dict[str, bytes]:
    """Return names and contents of the files in a form."""
    boundary = body.partition(b"\r\n")[0]
    found = {}
    for part in body.split(boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = head.decode().split('; name="')[1].partition('"')[0]
        found[unquote(name)] = content.removesuffix(b"\r\n")
    return found


def _token() -> str:
    def encoded(part: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()

    now = int(time.time())
    identity = {"user": "u", "company": "c", "role": "user"}
    claims = {"exp": now + 86400, "iat": now, "identity": identity, "env": "x"}
    claims |= {"server_version": "2.0.0", "api_version": "2.23", "feature_set": "basic"}
    return f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{encoded(claims)}.c2ln"
