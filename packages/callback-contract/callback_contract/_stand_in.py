"""`StandIn`: an HTTP server on this machine that stands in for a tracker's."""

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
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Request(NamedTuple):
    """What a client has sent.

    Attributes:
        method: Such as `POST`.
        path: The path and the query, as they were sent.
        headers: The headers.
        body: The body, as it was sent.
    """

    method: str
    path: str
    headers: Message
    body: bytes

    @property
    def content(self) -> bytes:
        """The body, unpacked where it was sent as gzip."""
        packed = self.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(self.body) if packed else self.body

    def json(self) -> Any:
        """Return what the body says as JSON; an empty mapping where it is empty."""
        return json.loads(self.content or b"{}")

    def form(self) -> dict[str, bytes]:
        """Return the parts of a form, such as files, by their names."""
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
    """What a server says to it.

    Attributes:
        status: The HTTP status.
        body: The body.
        headers: Headers beside its length.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = {"Content-Type": "application/json"}

    @classmethod
    def of(cls, content: Any, status: int = 200) -> Answer:
        """Return the answer that says `content` as JSON."""
        return cls(status, json.dumps(content).encode())


class StandIn:
    """An HTTP server on this machine that stands in for a tracker's, for the real SDK to talk to.

    A subclass says in `answer` what it does. The port is the same whenever it is started again.

    Args:
        certificate: Files of a certificate for 127.0.0.1 and of its key, to speak HTTPS with.

    Attributes:
        mode: `ok`; `broken` answers all with `failure`, `silent` takes requests and does not
            answer, `gone` takes them and hangs up.
        failure: What a broken one answers.
        keep_alive: Whether a connection is used again. Some SDKs leave theirs open, and with it a
            thread of this, which the contract would find left over in the process of the tests.
        requests: What was sent to it while it was `ok`, in order.
        url: Its address, without a slash at the end.
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
        """Return the answer to a request; called for one at a time."""
        raise NotImplementedError

    def _reserved_port(self) -> int:
        """Return a port that nobody else gets, also while this is stopped."""
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that the server gets it
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        weakref.finalize(self, os.close, one.detach())
        return port

    def start(self) -> None:
        """Begin to answer, unless it does."""
        if self._http is None:
            self._stopping.clear()
            self._http = _Server(("127.0.0.1", self.port), _handler_for(self))
            if self.certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*self.certificate)
                # The handshake is left to the thread of the connection: no client holds up another.
                self._http.socket = context.wrap_socket(
                    self._http.socket, server_side=True, do_handshake_on_connect=False
                )
            threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on, and hang up on those that there are."""
        self._stopping.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http.hang_up()
            self._http = None

    def __enter__(self: _StandIn) -> _StandIn:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def handle(self, request: Request) -> Answer | None:
        """Return the answer to a request as `mode` has it; `None` hangs up."""
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
        """Note the connection."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget it."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End all connections."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong in answering, but not that a client has hung up."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _handler_for(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits 40 ms for the client's receipt

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
            """Say nothing."""

    return Handler
