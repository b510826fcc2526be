"""Processes beside that of the tests: Python, the replay, and an MLflow server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which Python finds what it finds here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}


def python(*arguments: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def replay(output_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command that delivers what is left."""
    return python("-m", "callback_core.tracking.replay", str(output_dir), *arguments)


class ServerProcess:
    """An MLflow server on a port of this machine, which is the same whenever it is started again.

    Args:
        folder: Where its database and artifacts are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        """Begin to start it; `wait` waits until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # it has processes of its own
            )

    def wait(self, seconds: float = 180.0) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError((self.folder / "server.log").read_text()[-2000:])

    def stop(self) -> None:
        """Kill it, if it runs, and all that it has started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
