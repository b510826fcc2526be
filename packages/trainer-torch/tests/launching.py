"""Runs a script in several ranks under torchrun, which forks them to save the time of imports."""

from __future__ import annotations

import atexit
import json
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

import torch.distributed.run
from forks import serve, start

PATIENCE: Final = 480  # seconds; only a launch that hangs takes this long


class Launch:
    """A case of a script that torchrun runs in several ranks.

    torchrun is forked from a process that has imported torch, and forks the ranks. After torchrun
    has set the environment of a rank, the rank itself imports the script and its helpers.

    Args:
        script: The path of the script.
        case: Its first argument.
        directory: Its second argument, where it writes.
        processes: The number of ranks.
    """

    def __init__(self, script: str, case: str, directory: Path, processes: int = 2) -> None:
        self._command = [script, case, str(directory)]
        receivers, senders = zip(*(Pipe(duplex=False) for _ in range(2)), strict=True)
        serve("launching", "trainer_torch")
        self._process = start(_torchrun, senders, processes, self._command)
        for sender in senders:
            sender.close()
        self._readers = ThreadPoolExecutor()
        self._outputs = [self._readers.submit(_read, one) for one in receivers]

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        """End what is left of it."""
        self._process.kill()
        with suppress(ProcessLookupError):  # usually, no rank is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._readers.shutdown()

    def has_ended(self) -> bool:
        """Return whether torchrun has ended."""
        return self._process.exitcode is not None

    def wait(self) -> CompletedProcess[str]:
        """Wait until torchrun ends, and return its exit status and the output of all."""
        with self:
            self._process.join(PATIENCE)
            hangs = not self.has_ended()
        stdout, stderr = (output.result() for output in self._outputs)
        if hangs:
            raise TimeoutError(f"{self._command} has hung, and was killed. It printed: {stderr}")
        return CompletedProcess(self._command, self._process.exitcode, stdout, stderr)


def launch(script: str, case: str, directory: Path, processes: int = 2) -> CompletedProcess[str]:
    """Run a case of a script in several ranks. None outlives this call. See `Launch`."""
    return Launch(script, case, directory, processes).wait()


def reports(directory: Path, processes: int = 2) -> list[Any]:
    """Return what each rank reported."""
    return [json.loads((directory / f"rank{rank}.json").read_text()) for rank in range(processes)]


def _read(receiver: Connection) -> str:
    with receiver, open(receiver.fileno(), errors="replace", closefd=False) as output:
        return output.read()


def _torchrun(outputs: Sequence[Connection], processes: int, command: Sequence[str]) -> None:
    """Become torchrun, in a session of its own."""
    os.setsid()
    for descriptor, output in enumerate(outputs, 1):
        os.dup2(output.fileno(), descriptor)
        output.close()
    options = ["--standalone", "--nproc-per-node", str(processes), "--start-method", "fork"]
    torch.distributed.run.main([*options, "--run-path", __file__, *command])


def _become_rank() -> None:
    """Run the script that the command line names, with the signals and the end of a new process."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    del sys.argv[0]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 - a forked process leaves them out


if __name__ == "__main__":
    _become_rank()
