"""Make the pictures of the README from a real run of `docs/examples/digits.py`.

`pictures/terminal.png` is the end of the run as a terminal shows it, and `pictures/curves.png` is
its TensorBoard page. It needs what the example needs, Debian's `chromium` and `fonts-dejavu`, and:

    pip install pyte tensorboard websocket-client
    python docs/pictures.py
"""

from __future__ import annotations

import base64
import fcntl
import html
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pyte
from websocket import WebSocket, create_connection

DOCS = Path(__file__).resolve().parent
COLUMNS, ROWS = 132, 22
CHROMIUM = [
    "chromium",
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #0d1117; color: #d0d7de; }}
header {{ padding: 9px 16px; background: #21262d; color: #8b949e; }}
header, pre {{ font: 13.288px/17px "DejaVu Sans Mono"; }} /* a character is 8 pixels wide */
pre {{ margin: 0; padding: 12px 16px; }}
b {{ background: currentColor; }} /* no seams in a bar */
</style><header>python docs/examples/digits.py</header><pre>{}</pre>"""
CARDS = "/(accuracy|loss|learning_rate)$"
LOADED = "document.readyState == 'complete'"
DRAWN = "document.querySelectorAll('card-view canvas').length == 4"
# TensorBoard keeps its settings in the browser.
SETTINGS = """localStorage.setItem("_tb_global_settings", JSON.stringify({
    timeSeriesSettingsPaneOpened: false, sideBarWidthInPercent: 16,
    stepSelectorEnabled: false, scalarSmoothing: 0, ignoreOutliers: false}))"""
Answer = TypeVar("Answer")


def wait_for(question: Callable[[], Answer], seconds: float = 60) -> Answer:
    """Return the first true answer; an `OSError` is not an answer yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if answer := question():
                return answer
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"no answer in {seconds} seconds")


@contextmanager
def running(*command: str, directory: Path) -> Iterator[None]:
    """Run a server in the block, and end it after."""
    with open(directory / f"{Path(command[0]).name}.log", "wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def train(directory: Path) -> list[str]:
    """Return the lines that a terminal shows at the end of a run in `directory`."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {name: os.environ[name] for name in os.environ.keys() - {"COLUMNS", "LINES"}}
    (directory / "docs").symlink_to(DOCS)  # the example names itself as it was called
    command = [sys.executable, "docs/examples/digits.py", "--report-to", "tensorboard"]
    run = subprocess.Popen(
        command, cwd=directory, env=environment, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    try:
        while shown := os.read(ours, 65536):
            stream.feed(shown)
    except OSError:  # how Linux says that nobody writes any more
        pass
    os.close(ours)
    if run.wait():
        raise RuntimeError("the example failed:\n" + "\n".join(screen.display))
    # The curves carry the name of the run's directory, in which the machine's name appears.
    [made] = (directory / "digits_output" / "runs").iterdir()
    made.rename(made.with_name("digits"))
    return "\n".join(screen.display).rstrip().split("\n")


class Page:
    """A page of a browser, through Chromium's DevTools protocol."""

    def __init__(self, port: str) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as listing:
            pages = [target for target in json.load(listing) if target["type"] == "page"]
        self._socket: WebSocket = create_connection(
            pages[0]["webSocketDebuggerUrl"], suppress_origin=True, timeout=60
        )
        self._calls = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command of the protocol."""
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv())).get("id") != self._calls:
            pass
        return answer["result"]

    def picture(self, name: str, url: str, ready: str, width: int, height: int) -> None:
        """Write a picture of the page at `url`, once `ready` is true in it and nothing moves."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=url)
        wait_for(lambda: self.call("Runtime.evaluate", expression=ready)["result"].get("value"))
        shots = [""]

        def at_rest() -> bool:
            time.sleep(1)
            shots.append(self.call("Page.captureScreenshot", format="png")["data"])
            return shots[-1] == shots[-2]

        wait_for(at_rest)
        (DOCS / "pictures" / name).write_bytes(base64.b64decode(shots[-1]))


def main() -> None:
    """Train, and write both pictures."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary)
        lines = train(directory)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        board = (sys.executable, "-m", "tensorboard.main", "--logdir", "digits_output/runs")
        profile = directory / "profile"
        with (
            running(*board, "--host", "127.0.0.1", "--port", port, directory=directory),
            running(*CHROMIUM, f"--user-data-dir={profile}", directory=directory),
        ):
            page = Page(wait_for((profile / "DevToolsActivePort").read_text).split()[0])
            screen = re.sub("(█+)", r"<b>\1</b>", html.escape("\n".join(lines)))
            url = "data:text/html," + quote(TERMINAL.format(screen))
            page.picture("terminal.png", url, LOADED, 8 * COLUMNS + 32, 17 * len(lines) + 59)

            url = f"http://127.0.0.1:{port}/"
            wait_for(lambda: b"digits" in urllib.request.urlopen(f"{url}data/runs").read())
            page.call("Page.enable")  # or else the script is not run
            page.call("Page.addScriptToEvaluateOnNewDocument", source=SETTINGS)
            url = f"{url}?tagFilter={quote(CARDS)}#timeseries"
            page.picture("curves.png", url, DRAWN, 1000, 844)


if __name__ == "__main__":
    main()
