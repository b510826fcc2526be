"""A server on this machine that takes what Comet's SDK sends, and keeps it."""

from __future__ import annotations

import email
import gzip
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from recorded import Recorded

ALREADY_EXISTS = 90999
"""The code by which the SDK is told that there is an experiment of that key."""


class CometServer:
    """Stands in for Comet. It can be away, and it can refuse what it is sent.

    Attributes:
        experiments: What it has got, by their keys.
        refuses: Whether it answers 500 to all points.
        url: Its address, for `COMET_URL_OVERRIDE`; the same whenever it is started again.
    """

    def __init__(self) -> None:
        self.experiments: dict[str, Recorded] = {}
        self.refuses = False
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self._port = one.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/clientlib/"
        self._lock = threading.Lock()
        self._http: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Begin to answer."""
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                status, content = answer(self.path, self.headers["Content-Type"], body)
                sent = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._http = Server(("127.0.0.1", self._port), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def only(self) -> Recorded:
        """Return the only experiment."""
        (experiment,) = self.experiments.values()
        return experiment

    def _answer(self, url: str, kind: str | None, body: bytes) -> tuple[int, Any]:
        path, query = urlsplit(url).path, dict(parse_qsl(urlsplit(url).query))
        with self._lock:
            if path.endswith("/asset/upload"):
                assert kind is not None
                return self._take_file(query, kind, body)
            content = json.loads(body) if body[:1] == b"{" else {}
            if path.endswith("/logger/add/run"):
                return self._open(content)
            if path.endswith("/logger/get/run"):
                return 200, self._run_of(content["previousExperiment"])
            if path.endswith("/isAlive/ver"):
                return 200, {"version": "99.0.0"}
            key = content.get("experimentKey") or content.get("experiment_key")
            if key in self.experiments:
                return self._take(path, content, self.experiments[key])
            return 200, {}

    def _open(self, content: dict[str, Any]) -> tuple[int, Any]:
        key = content["experimentKey"]
        if key in self.experiments and not content["getOrCreateEnabled"]:
            return 400, {"sdk_error_code": ALREADY_EXISTS, "msg": "it is there already"}
        self.experiments.setdefault(key, Recorded(key, content["projectName"]))
        return 200, self._run_of(key)

    def _run_of(self, key: str) -> dict[str, Any]:
        self.experiments[key].ended = False
        link = f"http://127.0.0.1:{self._port}/"
        return {"runId": f"run-{key}", "project_id": "p", "focusUrl": link, "lastOffset": 0}

    def _take(self, path: str, content: dict[str, Any], into: Recorded) -> tuple[int, Any]:
        if self.refuses and "/batch/" in path:
            return 500, {"msg": "refused"}
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
            return 200, pause | {f"{name}_interval_millis": 1000 for name in names}
        elif content.get("hasCrashed") or content.get("has_crashed"):
            into.crashed = True
        return 200, {}

    def _take_file(self, query: dict[str, str], kind: str, body: bytes) -> tuple[int, Any]:
        parsed = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        parts: dict[str, bytes] = {}
        for part in parsed.walk():
            name = part.get_param("name", header="content-disposition")
            if name is not None:
                parts[str(name)] = part.get_payload(decode=True)  # type: ignore[assignment]
        metadata = json.loads(parts.get("metadata") or query.get("metadata") or "{}")
        self.experiments[query["experimentId"]].add_file(query, metadata, parts["file"])
        return 200, {"assetId": query["assetId"]}
