"""`StandIn`: a local HTTP server that stands in for a tracker's server."""

from __future__ import annotations

import email
import gzip
import json
import os
import socket
import ssl
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

_StandIn = TypeVar("_StandIn", bound="StandIn")


def unused_port() -> int:
    """Return a port on this machine that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Request(NamedTuple):
    """A request of a client.

    Attributes:
        method: The HTTP method, such as `POST`.
        path: The path with the query.
        headers: The headers.
        body: The body as sent, which may be compressed.
    """

    method: str
    path: str
    headers: Message
    body: bytes

    @property
    def content(self) -> bytes:
        """The body, decompressed if it was sent as gzip."""
        compressed = self.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(self.body) if compressed else self.body

    def json(self) -> Any:
        """Return the body, parsed as JSON; an empty mapping if it is empty."""
        return json.loads(self.content or b"{}")

    def form(self) -> dict[str, bytes]:
        """Return the parts of a form, such as files, by name."""
        kind = self.headers["Content-Type"].encode()
        parts = email.message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + self.content)
        found: dict[str, bytes] = {}
        for part in parts.walk():
            name = part.get_param("name", header="content-disposition")
            if name is not None:
                content = part.get_payload(decode=True)
                assert isinstance(content, bytes)
                found[str(name)] = content
        return found


class Answer(NamedTuple):
    """A server's response.

    Attributes:
        status: The HTTP status.
        body: The body.
        headers: The headers, without `Content-Length`.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = {"Content-Type": "application/json"}

    @classmethod
    def of(cls, content: Any, status: int = 200) -> Answer:
        """Return an answer with `content` as JSON."""
        return cls(status, json.dumps(content).encode())


class StandIn:
    """A local HTTP server that stands in for a tracker's server, so that tests run the real SDK.

    A subclass implements `answer`. The server keeps its port when it stops and starts again.

    Args:
        certificate: The files of a certificate for 127.0.0.1 and of its key. They enable HTTPS.

    Attributes:
        mode: `ok` calls `answer`. `broken` answers every request with `failure`. `silent` accepts
            requests and never answers. `gone` accepts requests and closes the connection.
        failure: The answer in the mode `broken`.
        keep_alive: Whether clients can reuse connections. A connection that an SDK leaves open
            keeps a thread of this server alive, which the contract reports as a leftover.
        requests: The requests in the mode `ok`, in order.
        url: The address, without a trailing slash.
    """

    mode: Literal["ok", "broken", "silent", "gone"]
    failure: Answer = Answer(500, b'{"message": "broken"}')
    keep_alive: bool = True

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.mode = "ok"
        self.requests: list[Request] = []
        self.port = self._reserved_port()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self.certificate = certificate
        self.lock = threading.Lock()
        self._stopping = threading.Event()
        self._http: _Server | None = None

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request. Calls never overlap."""
        raise NotImplementedError

    def _reserved_port(self) -> int:
        """Return a port that stays reserved for this server, even while it is stopped."""
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # lets the server bind it too
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        weakref.finalize(self, os.close, holder.detach())
        return port

    def start(self) -> None:
        """Start the server unless it is running."""
        if self._http is None:
            self._stopping.clear()
            self._http = _Server(("127.0.0.1", self.port), _handler_for(self))
            if self.certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*self.certificate)
                # Each connection's thread does its own handshake, so clients do not block others.
                self._http.socket = context.wrap_socket(
                    self._http.socket, server_side=True, do_handshake_on_connect=False
                )
            threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close all connections, and refuse new ones."""
        self._stopping.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http.close_connections()
            self._http = None

    def __enter__(self: _StandIn) -> _StandIn:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def handle(self, request: Request) -> Answer | None:
        """Return the answer to a request for the current `mode`; `None` closes the connection."""
        if self.mode == "silent":
            self._stopping.wait()
            return None
        if self.mode == "gone":
            return None
        if self.mode == "broken":
            return self.failure
        with self.lock:
            self.requests.append(request)
            return self.answer(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Close all connections."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors in `answer`, but not that a client closed its connection."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _handler_for(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # otherwise each answer waits 40 ms for the client's ACK

        def handle_any(self) -> None:
            body = self._body()
            answer = stand_in.handle(Request(self.command, self.path, self.headers, body))
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            if not stand_in.keep_alive:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = handle_any

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(chunks)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    return Handler
