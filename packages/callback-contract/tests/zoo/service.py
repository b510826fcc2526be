"""A service on loopback, which some specimens send to: it keeps what it gets in a file.

What is posted to `/<directory>` is added to `served.jsonl` there, so that it can be read after the
process that the service runs in was killed.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

FILE = "served.jsonl"

_running = None


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        directory = Path(unquote(self.path.removeprefix("/")))
        if not directory.is_dir():
            self.send_error(404)
            return
        with (directory / FILE).open("ab") as file:
            file.write(body + b"\n")
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


class Service:
    """The service at a port of its own, or at one that it had before."""

    def __init__(self, port=0):
        self.server = HTTPServer(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def url(directory=None):
    """Return the address of the service of this process, or of a directory there."""
    global _running
    if _running is None:
        _running = Service()
    return _running.url if directory is None else f"{_running.url}/{quote(str(directory), safe='')}"


def received(directory):
    """Return what was sent for a directory, in order."""
    path = Path(directory) / FILE
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]
