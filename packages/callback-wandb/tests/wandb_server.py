"""A local stand-in for W&B. It records what the real SDK sends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

from callback_contract.testing import Answer, Request, StandIn

ENTITY = "team"


@dataclass
class StoredRun:
    """A run on the server."""

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


class WandbServer(StandIn):
    """Stands in for W&B: GraphQL, the stream of a run's rows, and file uploads.

    Attributes:
        runs: The runs, by id.
        artifacts: The artifacts, in order of creation.
        then: The mode of the server after a run was opened; `None` keeps the mode.
        refusal: Why the server refuses each run; `None` if it takes them.
        asked: How often it was asked for a run.
    """

    then: Literal["broken", "silent"] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: list[StoredArtifact] = []
        self.refusal: str | None = None
        self.asked = 0

    def answer(self, request: Request) -> Answer:
        if b"upsertBucket" in request.content:
            self.asked += 1
            if self.refusal is not None:
                return Answer.of({"errors": [{"message": self.refusal}]}, 400)
        return Answer.of(self._answer(request))

    def _answer(self, request: Request) -> dict[str, Any]:
        path = request.path.partition("?")[0]
        if path == "/graphql":
            payload = request.json()
            operation = re.search(r"(?:query|mutation)\s+(\w+)", payload["query"])
            name = payload.get("operationName") or (operation.group(1) if operation else "")
            method: Callable[..., Any] = getattr(self, f"_{name}", lambda given: {})
            return {"data": method(payload.get("variables") or {})}
        if stream := re.fullmatch(r"/files/[^/]*/([^/]+)/([^/]+)/file_stream", path):
            return self._stream(self.runs[unquote(stream[2])], request.json())
        if put := re.fullmatch(r"/put/run/([^/]+)/(.+)", path):
            self.runs[put[1]].files[unquote(put[2])] = request.content
        elif put := re.fullmatch(r"/put/artifact/(\d+)/(.+)", path):
            self.artifacts[int(put[1])].files[unquote(put[2])] = request.content
        return {}

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
        self.mode = self.then or self.mode
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
        payload = given["input"]
        made = StoredArtifact(
            id=str(len(self.artifacts)),
            name=payload["artifactCollectionName"],
            aliases=[entry["alias"] for entry in payload.get("aliases") or []],
            metadata=json.loads(payload.get("metadata") or "{}"),
            run=payload.get("runName"),
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
        for payload in given["input"]["artifactFiles"]:
            at = f"{self.url}/put/artifact/{payload['artifactID']}/{payload['name']}"
            node = {"id": "1", "name": payload["name"], "displayName": "", "uploadUrl": at}
            node |= {"uploadHeaders": [], "storagePath": payload["name"]}
            node |= {"uploadMultipartUrls": None, "artifact": {"id": payload["artifactID"]}}
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
