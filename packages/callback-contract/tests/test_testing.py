"""What `callback_contract.testing` offers: processes, waiting, and a server to stand in."""

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
    """Says back what it was told."""

    def answer(self, request: Request) -> Answer:
        if request.path == "/missing":
            return Answer(404, b"", {})
        return Answer(201, request.body, {"Content-Type": "text/plain", "X-Path": request.path})


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as one:
        yield one


def ask(
    server: StandIn, method: str, path: str = "/", body: Any = None, *, timeout: float = 30.0
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Return the status, the body and the headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        chunked = body is not None and not isinstance(body, bytes)
        connection.request(method, path, body, encode_chunked=chunked)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


@pytest.mark.parametrize("method", ["DELETE", "GET", "PATCH", "POST", "PUT"])
def test_a_stand_in_answers_and_keeps_what_it_was_sent(server: Echo, method: str) -> None:
    status, body, headers = ask(server, method, "/runs?id=1", b"\x00\xff")
    assert (status, body) == (201, b"\x00\xff")
    assert (headers["Content-Type"], headers["X-Path"]) == ("text/plain", "/runs?id=1")
    [request] = server.requests
    assert (request.method, request.path, request.body) == (method, "/runs?id=1", b"\x00\xff")
    assert request.headers["content-length"] == "2"


def test_an_answer_is_an_empty_json_object_unless_it_says_otherwise() -> None:
    assert Answer() == (200, b"{}", {"Content-Type": "application/json"})


def test_head_gets_the_headers_alone_and_the_connection_goes_on(server: Echo) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for method, length in (("HEAD", 0), ("POST", 4)):
        connection.request(method, "/", b"body")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Length"]) == (201, "4")
        assert len(answer.read()) == length
    connection.close()
    assert [request.method for request in server.requests] == ["HEAD", "POST"]


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_connection_is_used_again_unless_that_is_not_wanted(
    server: Echo, keep_alive: bool
) -> None:
    server.keep_alive = keep_alive
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/")
    connection.getresponse().read()
    assert (connection.sock is not None) is keep_alive
    connection.close()


def test_a_body_in_chunks_is_read_as_one_and_the_connection_goes_on(server: Echo) -> None:
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


def test_an_answer_without_a_body_is_no_reason_to_wait(server: Echo) -> None:
    assert ask(server, "GET", "/missing")[:2] == (404, b"")


def test_a_broken_stand_in_answers_500_and_keeps_nothing(server: Echo) -> None:
    server.mode = "broken"
    status, body, _ = ask(server, "POST", "/", b"lost")
    assert (status, body) == (500, b'{"message": "broken"}')
    assert server.requests == []
    server.mode = "ok"
    assert ask(server, "POST", "/", b"kept")[0] == 201
    assert [request.body for request in server.requests] == [b"kept"]


def test_a_silent_stand_in_takes_a_request_and_does_not_answer(server: Echo) -> None:
    server.mode = "silent"
    with pytest.raises(TimeoutError):
        ask(server, "GET", timeout=0.5)
    assert server.requests == []


def test_a_broken_stand_in_answers_as_it_is_told_to(server: Echo) -> None:
    server.mode, server.failure = "broken", Answer.of({"code": 7}, 503)
    assert ask(server, "GET")[:2] == (503, b'{"code": 7}')


def test_a_stand_in_that_is_gone_hangs_up(server: Echo) -> None:
    server.mode = "gone"
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server, "POST", "/", b"lost")
    assert server.requests == []


def test_a_client_that_hangs_up_is_not_worth_a_word(
    server: Echo, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n1")
    assert ask(server, "GET")[0] == 201
    assert capfd.readouterr().err == ""


def test_an_error_in_answering_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    class Wrong(StandIn):
        def answer(self, request: Request) -> Answer:
            raise ZeroDivisionError("not my day")

    with Wrong() as server, pytest.raises(http.client.RemoteDisconnected):
        ask(server, "GET")
    assert "not my day" in capfd.readouterr().err


def test_a_request_reads_json_packed_or_not_and_none_at_all() -> None:
    headers = Message()
    assert Request("POST", "/", headers, b'{"a": 1}').json() == {"a": 1}
    assert Request("POST", "/", headers, b"").json() == {}
    headers["Content-Encoding"] = "gzip"
    packed = Request("POST", "/", headers, gzip.compress(b"[1, 2]"))
    assert (packed.content, packed.json()) == (b"[1, 2]", [1, 2])


def test_a_request_reads_the_parts_of_a_form() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{}\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\x00\r\n\xff\r\n--b--\r\n"
    )
    headers = Message()
    headers["Content-Type"] = 'multipart/form-data; boundary="b"'
    form = Request("POST", "/", headers, body).form()
    assert form == {"metadata": b"{}", "file": b"\x00\r\n\xff"}


def test_stopping_hangs_up_on_those_who_wait_and_refuses_the_next(server: Echo) -> None:
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


def test_stopping_ends_a_connection_that_would_be_used_again(server: Echo) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/")
    connection.getresponse().read()
    connection.auto_open = 0  # or it would open another
    server.stop()
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.request("GET", "/")
        connection.getresponse()
    connection.close()
    assert len(server.requests) == 1


def test_a_stand_in_that_is_started_again_is_at_the_same_address_and_keeps_its_memory() -> None:
    server = Echo()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "GET")
    addresses = set()
    for turn in (b"1", b"2", b"3"):
        with server:
            assert ask(server, "POST", "/", turn)[0] == 201
            addresses.add(server.url)
        with socket.socket() as other, pytest.raises(OSError):
            other.bind(("127.0.0.1", server.port))  # nobody else gets it meanwhile
    assert addresses == {f"http://127.0.0.1:{server.port}"}
    assert [request.body for request in server.requests] == [b"1", b"2", b"3"]


def test_starting_twice_is_starting_once_and_so_is_stopping() -> None:
    server = Echo()
    server.start()
    server.start()
    assert ask(server, "GET")[0] == 201
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "GET")


def test_requests_are_answered_one_at_a_time() -> None:
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


def test_a_package_is_missing_within_the_block_and_is_itself_after_it() -> None:
    import wsgiref.headers

    with missing("wsgiref"):
        for module in ("wsgiref", "wsgiref.headers", "wsgiref.util"):
            with pytest.raises(ModuleNotFoundError) as raised:
                importlib.import_module(module)
            assert raised.value.name == "wsgiref"
        importlib.import_module("email.headerregistry")
    assert importlib.import_module("wsgiref.headers") is wsgiref.headers


class NeedsKey(FileTracker):
    """Sends nothing to anywhere unless there is a key."""

    def open(self, opening: Opening) -> str:
        if "LINES_KEY" not in os.environ:
            raise NotConfigured("there is no key: set LINES_KEY")
        return super().open(opening)


def test_a_training_without_a_key_waits_for_nobody_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES_KEY", "one")
    callback = TrackerCallback(NeedsKey(str(tmp_path / "store")), flush_limit=600)
    with not_configured("there is no key: set LINES_KEY", "LINES_KEY") as said:
        assert "LINES_KEY" not in os.environ
        Training([callback], Arguments(str(tmp_path))).run()
    assert os.environ["LINES_KEY"] == "one"
    assert said[-1].startswith("Training was not affected, but reference has not got")


def test_one_that_waits_or_says_something_else_is_refused() -> None:
    with (
        pytest.raises(AssertionError, match=r"^it took \d+ seconds"),
        not_configured("there is no key", seconds=0.1) as said,
    ):
        said.append("3 points (NotConfigured: there is no key)")
        time.sleep(0.2)
    with (
        pytest.raises(AssertionError, match=r"^at its end it did not say that 'there is no key'"),
        not_configured("there is no key") as said,
    ):
        said.append("3 points (ConnectionError: there is no key)")


def test_a_variable_that_is_taken_away_is_back_after_an_error_and_has_to_be_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LINES_KEY", "one")
    with pytest.raises(ZeroDivisionError), not_configured("why", "LINES_KEY"):
        raise ZeroDivisionError
    assert os.environ["LINES_KEY"] == "one"
    with pytest.raises(KeyError, match="LINES_OTHER"), not_configured("", "LINES_OTHER"):
        pass


def test_an_unused_port_can_be_listened_at() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", unused_port()))


def test_waiting_ends_when_it_holds_and_says_when_it_never_did() -> None:
    turns = iter([False, 0, None, "yes"])
    wait_until(lambda: next(turns))
    assert list(turns) == []
    with pytest.raises(AssertionError, match=r"^it did not happen within 0\.1 seconds$"):
        wait_until(lambda: False, seconds=0.1)


def test_a_server_that_is_not_up_yet_is_waited_for() -> None:
    server = Echo()
    starting = threading.Timer(0.3, server.start)
    starting.start()
    wait_until(lambda: ask(server, "GET"))
    starting.join()
    server.stop()
    with pytest.raises(AssertionError) as raised:
        wait_until(lambda: ask(server, "GET"), seconds=0.1)
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


def test_children_are_the_processes_that_were_begun_and_have_not_ended() -> None:
    before = children()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as begun:
        assert children() - before == {begun.pid}
        begun.communicate(b"\n")
    assert begun.pid not in children()


def test_python_runs_where_and_with_what_it_is_told_to(tmp_path: Path) -> None:
    program = "import os, sys; print(os.getcwd(), os.environ['LINES'], sys.argv[1:], end='')"
    ran = run_python("-c", program, "a b", cwd=tmp_path, variables={"LINES": "two"})
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{tmp_path} two ['a b']", "")
    assert "LINES" not in os.environ


def test_python_has_the_variables_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES_HERE", "one")
    assert run_python("-c", "import os; print(os.environ['LINES_HERE'])").stdout == "one\n"


def test_python_says_how_it_ended_and_reads_nothing_from_here() -> None:
    program = "import sys; sys.stderr.write(repr(sys.stdin.read())); sys.exit(3)"
    ran = run_python("-c", program)
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "", "''")


def test_python_that_takes_too_long_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_python("-c", "import time; time.sleep(1000)", timeout=0.5)


def test_python_finds_elsewhere_what_is_found_here_by_a_relative_path(
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


def test_absolute_paths_are_those_that_were_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["sources", "/elsewhere", ""])
    found = sys.path
    use_absolute_paths()
    assert sys.path is found
    assert found == [str(tmp_path / "sources"), "/elsewhere", str(tmp_path)]


def test_replay_delivers_what_a_training_left_and_returns_what_it_said(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / DOWN).touch()
    callback = TrackerCallback(FileTracker(str(store)), flush_limit=0)
    Training([callback], Arguments(str(tmp_path))).run()
    wait_until(lambda: not any(t.name.startswith("deliver") for t in threading.enumerate()))
    (store / DOWN).unlink()
    replayed = replay(tmp_path)
    assert replayed.returncode == 0, replayed.stderr
    assert "closed as finished" in replayed.stdout
    [run] = store.iterdir()
    assert ["train/loss", 1, 1.0] in json.loads(run.read_text("utf-8"))["points"]
    again = replay(tmp_path, "--to", "reference")
    assert "has everything already" in again.stdout


def test_replay_returns_that_it_failed(tmp_path: Path) -> None:
    assert replay(tmp_path).returncode == 2
