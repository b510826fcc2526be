"""`callback_contract.testing`: processes, waiting, and the stand-in server."""

from __future__ import annotations

import gzip
import http.client
import importlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from reference_tracker import DOWN, FileTracker

from callback_contract._case import Arguments, Training
from callback_contract.testing import (
    Answer,
    Request,
    StandIn,
    children,
    environment,
    missing,
    not_configured,
    replay,
    run_python,
    unused_port,
    use_absolute_paths,
    wait_until,
)
from callback_core import NotConfigured
from callback_core.tracking import Opening, TrackerCallback


class Echo(StandIn):
    """Answers with the body of the request."""

    def answer(self, request: Request) -> Answer:
        if request.path == "/missing":
            return Answer(404, b"", {})
        return Answer(201, request.body, {"Content-Type": "text/plain", "X-Path": request.path})


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as echo:
        yield echo


def ask(
    server: StandIn, method: str, path: str = "/", body: Any = None, *, timeout: float = 30.0
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Send a request, and return the status, the body and the headers of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        chunked = body is not None and not isinstance(body, bytes)
        connection.request(method, path, body, encode_chunked=chunked)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


@pytest.mark.parametrize("method", ["DELETE", "GET", "PATCH", "POST", "PUT"])
def test_a_stand_in_answers_and_records_requests(server: Echo, method: str) -> None:
    status, body, headers = ask(server, method, "/runs?id=1", b"\x00\xff")
    assert (status, body) == (201, b"\x00\xff")
    assert (headers["Content-Type"], headers["X-Path"]) == ("text/plain", "/runs?id=1")
    [request] = server.requests
    assert (request.method, request.path, request.body) == (method, "/runs?id=1", b"\x00\xff")
    assert request.headers["content-length"] == "2"


def test_an_answer_is_an_empty_json_object_by_default() -> None:
    assert Answer() == (200, b"{}", {"Content-Type": "application/json"})


def test_head_gets_only_the_headers_and_keeps_the_connection(server: Echo) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for method, length in (("HEAD", 0), ("POST", 4)):
        connection.request(method, "/", b"body")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Length"]) == (201, "4")
        assert len(answer.read()) == length
    connection.close()
    assert [request.method for request in server.requests] == ["HEAD", "POST"]


@pytest.mark.parametrize("keep_alive", [True, False])
def test_keep_alive_decides_whether_a_connection_is_reused(server: Echo, keep_alive: bool) -> None:
    server.keep_alive = keep_alive
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/")
    connection.getresponse().read()
    assert (connection.sock is not None) is keep_alive
    connection.close()


def test_a_chunked_body_is_joined_and_keeps_the_connection(server: Echo) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for _ in range(2):
        connection.request("POST", "/", iter([b"one, ", b"two"]), encode_chunked=True)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (201, b"one, two")
    connection.close()
    assert [request.body for request in server.requests] == [b"one, two"] * 2


def test_chunks_may_have_extensions_and_trailers(server: Echo) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n"
            b"a;name=value\r\n0123456789\r\n0\r\nX-Checksum: 1\r\n\r\n"
        )
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.endswith(b"\r\n\r\n0123456789")


def test_an_answer_without_a_body_ends_at_once(server: Echo) -> None:
    assert ask(server, "GET", "/missing")[:2] == (404, b"")


def test_a_broken_stand_in_answers_500_and_records_nothing(server: Echo) -> None:
    server.mode = "broken"
    status, body, _ = ask(server, "POST", "/", b"lost")
    assert (status, body) == (500, b'{"message": "broken"}')
    assert server.requests == []
    server.mode = "ok"
    assert ask(server, "POST", "/", b"kept")[0] == 201
    assert [request.body for request in server.requests] == [b"kept"]


def test_a_silent_stand_in_accepts_a_request_and_does_not_answer(server: Echo) -> None:
    server.mode = "silent"
    with pytest.raises(TimeoutError):
        ask(server, "GET", timeout=0.5)
    assert server.requests == []


def test_a_broken_stand_in_answers_with_failure(server: Echo) -> None:
    server.mode, server.failure = "broken", Answer.of({"code": 7}, 503)
    assert ask(server, "GET")[:2] == (503, b'{"code": 7}')


def test_a_stand_in_that_is_gone_closes_the_connection(server: Echo) -> None:
    server.mode = "gone"
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server, "POST", "/", b"lost")
    assert server.requests == []


def test_a_client_that_closes_its_connection_prints_nothing(
    server: Echo, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n1")
    assert ask(server, "GET")[0] == 201
    assert capfd.readouterr().err == ""


def test_an_error_in_answer_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    class Wrong(StandIn):
        def answer(self, request: Request) -> Answer:
            raise ZeroDivisionError("not my day")

    with Wrong() as server, pytest.raises(http.client.RemoteDisconnected):
        ask(server, "GET")
    assert "not my day" in capfd.readouterr().err


def test_a_request_parses_json_compressed_or_not_or_empty() -> None:
    headers = Message()
    assert Request("POST", "/", headers, b'{"a": 1}').json() == {"a": 1}
    assert Request("POST", "/", headers, b"").json() == {}
    headers["Content-Encoding"] = "gzip"
    packed = Request("POST", "/", headers, gzip.compress(b"[1, 2]"))
    assert (packed.content, packed.json()) == (b"[1, 2]", [1, 2])


def test_a_request_parses_the_parts_of_a_form() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{}\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\x00\r\n\xff\r\n--b--\r\n"
    )
    headers = Message()
    headers["Content-Type"] = 'multipart/form-data; boundary="b"'
    form = Request("POST", "/", headers, body).form()
    assert form == {"metadata": b"{}", "file": b"\x00\r\n\xff"}


def test_stopping_closes_waiting_connections_and_refuses_new_ones(server: Echo) -> None:
    server.mode = "silent"
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            ask(server, "GET", timeout=300)
        except (OSError, http.client.HTTPException) as error:
            ended.append(error)

    came, handle = threading.Event(), server.handle
    server.handle = lambda request: (came.set(), handle(request))[1]  # type: ignore[func-returns-value, method-assign]
    waiting = threading.Thread(target=wait)
    waiting.start()
    assert came.wait(300)
    waiting.join(0.1)
    assert not ended
    server.stop()
    waiting.join(300)
    assert [type(error) for error in ended] == [http.client.RemoteDisconnected]
    with pytest.raises(ConnectionRefusedError):
        ask(server, "GET")


def test_stopping_closes_idle_connections(server: Echo) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/")
    connection.getresponse().read()
    connection.auto_open = 0  # otherwise it would reconnect
    server.stop()
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.request("GET", "/")
        connection.getresponse()
    connection.close()
    assert len(server.requests) == 1


def test_a_restarted_stand_in_keeps_its_address_and_its_requests() -> None:
    server = Echo()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "GET")
    addresses = set()
    for turn in (b"1", b"2", b"3"):
        with server:
            assert ask(server, "POST", "/", turn)[0] == 201
            addresses.add(server.url)
        with socket.socket() as other, pytest.raises(OSError):
            other.bind(("127.0.0.1", server.port))  # the port stays reserved
    assert addresses == {f"http://127.0.0.1:{server.port}"}
    assert [request.body for request in server.requests] == [b"1", b"2", b"3"]


def test_starting_and_stopping_twice_is_harmless() -> None:
    server = Echo()
    server.start()
    server.start()
    assert ask(server, "GET")[0] == 201
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "GET")


def test_calls_of_answer_do_not_overlap() -> None:
    class Counting(Echo):
        inside = most = 0

        def answer(self, request: Request) -> Answer:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.02)
            self.inside -= 1
            return Answer()

    with Counting() as server:
        clients = [threading.Thread(target=ask, args=(server, "GET")) for _ in range(8)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(30)
    assert (len(server.requests), server.most) == (8, 1)


def test_a_package_is_missing_only_in_the_block() -> None:
    import wsgiref.headers

    with missing("wsgiref"):
        for module in ("wsgiref", "wsgiref.headers", "wsgiref.util"):
            with pytest.raises(ModuleNotFoundError) as raised:
                importlib.import_module(module)
            assert raised.value.name == "wsgiref"
        importlib.import_module("email.headerregistry")
    assert importlib.import_module("wsgiref.headers") is wsgiref.headers


class NeedsKey(FileTracker):
    """Needs a key to open a run."""

    def open(self, opening: Opening) -> str:
        if "LINES_KEY" not in os.environ:
            raise NotConfigured("there is no key: set LINES_KEY")
        return super().open(opening)


def test_a_training_without_a_key_does_not_wait_and_logs_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES_KEY", "one")
    callback = TrackerCallback(NeedsKey(str(tmp_path / "store")), flush_limit=600)
    with not_configured("there is no key: set LINES_KEY", "LINES_KEY") as messages:
        assert "LINES_KEY" not in os.environ
        Training([callback], Arguments(str(tmp_path))).run()
    assert os.environ["LINES_KEY"] == "one"
    assert "reference" in messages[-1] and "set LINES_KEY" in messages[-1]


@pytest.mark.parametrize(("error", "pause"), [("NotConfigured", 0.2), ("ConnectionError", 0.0)])
def test_a_training_that_waits_or_logs_another_error_fails(error: str, pause: float) -> None:
    with (
        pytest.raises(AssertionError),
        not_configured("there is no key", seconds=0.1) as messages,
    ):
        messages.append(f"3 points ({error}: there is no key)")
        time.sleep(pause)


def test_a_variable_is_restored_after_an_error_and_must_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LINES_KEY", "one")
    with pytest.raises(ZeroDivisionError), not_configured("why", "LINES_KEY"):
        raise ZeroDivisionError
    assert os.environ["LINES_KEY"] == "one"
    with pytest.raises(KeyError, match="LINES_OTHER"), not_configured("", "LINES_OTHER"):
        pass


def test_an_unused_port_can_be_bound() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", unused_port()))


def test_waiting_ends_when_the_condition_holds_or_fails() -> None:
    turns = iter([False, 0, None, "yes"])
    wait_until(lambda: next(turns))
    assert list(turns) == []
    with pytest.raises(AssertionError, match=r"0\.1"):
        wait_until(lambda: False, seconds=0.1)


def test_waiting_tolerates_a_server_that_is_starting() -> None:
    server = Echo()
    starting = threading.Timer(0.3, server.start)
    starting.start()
    wait_until(lambda: ask(server, "GET"))
    starting.join()
    server.stop()
    with pytest.raises(AssertionError) as raised:
        wait_until(lambda: ask(server, "GET"), seconds=0.1)
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


def test_children_are_the_running_child_processes() -> None:
    before = children()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as begun:
        assert children() - before == {begun.pid}
        begun.communicate(b"\n")
    assert begun.pid not in children()


def test_python_gets_its_arguments_variables_and_directory(tmp_path: Path) -> None:
    program = "import os, sys; print(os.getcwd(), os.environ['LINES'], sys.argv[1:], end='')"
    ran = run_python("-c", program, "a b", cwd=tmp_path, variables={"LINES": "two"})
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{tmp_path} two ['a b']", "")
    assert "LINES" not in os.environ


def test_python_inherits_the_variables_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES_HERE", "one")
    assert run_python("-c", "import os; print(os.environ['LINES_HERE'])").stdout == "one\n"


def test_python_returns_its_exit_code_and_gets_no_input() -> None:
    program = "import sys; sys.stderr.write(repr(sys.stdin.read())); sys.exit(3)"
    ran = run_python("-c", program)
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "", "''")


def test_python_is_killed_after_its_timeout() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_python("-c", "import time; time.sleep(1000)", timeout=0.5)


def test_python_resolves_relative_paths_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sources" / "lines_module.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("sources")
    program = "import lines_module; print(lines_module.answer)"
    assert run_python("-c", program, cwd=tmp_path / "elsewhere").stdout == "42\n"
    assert str(tmp_path / "sources") in environment()["PYTHONPATH"].split(os.pathsep)
    assert environment(PYTHONPATH="other")["PYTHONPATH"] == "other"


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["sources", "/elsewhere", ""])
    found = sys.path
    use_absolute_paths()
    assert sys.path is found
    assert found == [str(tmp_path / "sources"), "/elsewhere", str(tmp_path)]


def test_replay_delivers_what_is_pending_and_repeats_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / DOWN).touch()
    callback = TrackerCallback(FileTracker(str(store)), flush_limit=0)
    Training([callback], Arguments(str(tmp_path))).run()
    wait_until(lambda: not any(t.name.startswith("deliver") for t in threading.enumerate()))
    (store / DOWN).unlink()
    replayed = replay(tmp_path)
    assert replayed.returncode == 0, replayed.stderr
    [file] = store.iterdir()
    run = json.loads(file.read_text("utf-8"))
    assert run["status"] == "finished"
    assert ["train/loss", 1, 1.0] in run["points"]
    assert replay(tmp_path, "--to", "reference").returncode == 0
    assert json.loads(file.read_text("utf-8")) == run


def test_replay_returns_an_error_without_a_run(tmp_path: Path) -> None:
    assert replay(tmp_path).returncode == 2
