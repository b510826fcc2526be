"""A server on this machine that answers the SDK as W&B does, and keeps what it gets."""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

ENTITY = "team"


@dataclass
class StoredRun:
    """A run as the server has it."""

    id: str
    project: str
    fields: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    exit_code: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get("wandb-history.jsonl", [])]

    def summary(self) -> dict[str, Any]:
        lines = self.lines.get("wandb-summary.json", ["{}"])
        return dict(json.loads(lines[-1]))

    def config(self) -> dict[str, Any]:
        found = json.loads(self.fields.get("config") or "{}")
        return {name: entry["value"] for name, entry in found.items() if name != "_wandb"}

    def points(self, name: str) -> list[tuple[int, Any]]:
        return [(row["train/global_step"], row[name]) for row in self.rows() if name in row]


@dataclass
class StoredArtifact:
    """A version of an artifact."""

    id: str
    name: str
    aliases: list[str]
    metadata: dict[str, Any]
    run: str | None
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


class StandIn:
    """The server. It can go away and come back, on the same port.

    Attributes:
        runs: What it has, by their ids.
        artifacts: Those that were added, in their order.
        refuses: Whether it answers everything with an error.
    """

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: list[StoredArtifact] = []
        self.refuses = False
        self.delay = 0.0
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        if self.delay:
            time.sleep(self.delay)
        if self.refuses:
            return 500, {"error": "out of order"}
        if path == "/graphql":
            request = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            name = request.get("operationName") or (operation.group(1) if operation else "")
            method: Callable[..., Any] = getattr(self, f"_{name}", lambda given: {})
            return 200, {"data": method(request.get("variables") or {})}
        if stream := re.fullmatch(r"/files/[^/]*/([^/]+)/([^/]+)/file_stream", path):
            return 200, self._stream(self.runs[unquote(stream[2])], json.loads(body))
        if put := re.fullmatch(r"/put/run/([^/]+)/(.+)", path):
            self.runs[put[1]].files[unquote(put[2])] = body
        elif put := re.fullmatch(r"/put/artifact/(\d+)/(.+)", path):
            self.artifacts[int(put[1])].files[unquote(put[2])] = body
        return 200, {}

    def _stream(self, run: StoredRun, given: dict[str, Any]) -> dict[str, Any]:
        for name, chunk in (given.get("files") or {}).items():
            lines = run.lines.setdefault(name, [])
            lines[chunk["offset"] :] = chunk["content"]
        if given.get("complete") is not None:
            run.exit_code = given.get("exitcode")
        return {"limits": {}}

    def _Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        team = {"node": {"id": "1", "name": ENTITY}}
        viewer = {"id": "1", "entity": ENTITY, "username": "me", "email": "", "admin": False}
        viewer |= {"flags": "{}", "teams": {"edges": [team]}}
        return {"viewer": viewer, "serverInfo": {"cliVersionInfo": {"max_cli_version": "99.0"}}}

    def _ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        bucket = None
        if run is not None:
            history = run.lines.get("wandb-history.jsonl", [])
            events = run.lines.get("wandb-events.jsonl", [])
            bucket = {"id": "1", "name": run.id, "displayName": run.fields.get("displayName")}
            bucket |= {"historyLineCount": len(history), "historyTail": json.dumps(history[-1:])}
            bucket |= {"eventsLineCount": len(events), "eventsTail": json.dumps(events[-1:])}
            bucket |= {"logLineCount": 0, "summaryMetrics": json.dumps(run.summary())}
            bucket |= {"config": run.fields.get("config") or "{}", "tags": []}
            bucket |= {"wandbConfig": '{"t": {"value": 1}}'}
        owner = {"id": "1", "name": ENTITY}
        return {"model": {"id": "1", "name": given["project"], "entity": owner, "bucket": bucket}}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        inserted = given["name"] not in self.runs
        project = given.get("project") or "uncategorized"
        run = self.runs.setdefault(given["name"], StoredRun(given["name"], project))
        run.fields |= {name: value for name, value in given.items() if value is not None}
        owner = {"id": "1", "name": run.project, "entity": {"id": "1", "name": ENTITY}}
        bucket: dict[str, Any] = {
            "id": "1",
            "name": run.id,
            "description": "",
            "config": None,
            "sweepName": None,
        }
        bucket |= {"displayName": run.fields.get("displayName") or "calm-river-1"}
        bucket |= {"project": owner, "historyLineCount": len(run.rows())}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        run = given["run"]
        files = [{"name": f, "uploadUrl": f"{self.url}/put/run/{run}/{f}"} for f in given["files"]]
        return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        asked = given["input"]
        made = StoredArtifact(
            id=str(len(self.artifacts)),
            name=asked["artifactCollectionName"],
            aliases=[entry["alias"] for entry in asked.get("aliases") or []],
            metadata=json.loads(asked.get("metadata") or "{}"),
            run=asked.get("runName"),
        )
        self.artifacts.append(made)
        sequence = {"id": "1", "latestArtifact": None}
        answer = {"id": made.id, "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": answer}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        at = f"{self.url}/put/artifact/{given['artifactID']}/manifest.json"
        file = {"id": "1", "name": "wandb_manifest.json", "displayName": "", "uploadUrl": at}
        manifest = {"id": "1", "file": {**file, "uploadHeaders": []}}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = []
        for asked in given["input"]["artifactFiles"]:
            at = f"{self.url}/put/artifact/{asked['artifactID']}/{asked['name']}"
            node = {"id": "1", "name": asked["name"], "displayName": "", "uploadUrl": at}
            node |= {"uploadHeaders": [], "storagePath": asked["name"]}
            node |= {"uploadMultipartUrls": None, "artifact": {"id": asked["artifactID"]}}
            nodes.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def _CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        artifact = self.artifacts[int(given["artifactID"])]
        artifact.committed = True
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": "d"}}}

    def _ArtifactByID(self, given: dict[str, Any]) -> dict[str, Any]:
        kept = self.artifacts[int(given["id"])]
        owner: dict[str, Any] = {"id": "1", "name": "p", "entity": {"id": "1", "name": ENTITY}}
        owner["internalId"] = "1"
        sequence = {"__typename": "ArtifactSequence", "id": "1", "name": kept.name}
        found: dict[str, Any] = {"id": kept.id, "artifactSequence": {**sequence, "project": owner}}
        found |= {"versionIndex": 0, "artifactType": {"name": "model"}, "description": None}
        found |= {"metadata": "{}", "ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": []}
        found |= {"historyStep": None, "state": "COMMITTED", "size": 1, "digest": "d"}
        found |= {"commitHash": None, "fileCount": len(kept.files), "updatedAt": None}
        return {"artifact": {**found, "createdAt": "2026-01-01T00:00:00Z", "aliases": []}}

    def _ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that the SDK drops."""


def _handler(standin: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def do_POST(self) -> None:
            body = self._body()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status, answer = standin.answer(self.path.partition("?")[0], self.headers, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST

    return Handler
