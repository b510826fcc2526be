"""Runs Python programs in forks of one process, which has imported their slow modules before."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType, ModuleType
from typing import IO, Any, cast


class PreparedPython:
    """Runs programs like `run_python`, each in a new process in which modules are imported already.

    A program gets its own arguments, environment, directory and output, and the process ends like
    that of a script. Only what the modules did when they were imported is shared. So the modules
    must start no threads, and read no variables that differ between programs.

    Args:
        modules: The modules to import, which Python must find on `sys.path`.
        environment: All environment variables of the process that imports them. It needs a
            `PYTHONPATH` of absolute paths.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._output = TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)
        self._is_running = False

    def run(
        self,
        script: str | Path,
        *arguments: str,
        timeout: float = 540.0,
        cwd: Path | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.CompletedProcess[str]:
        """Run a script, and return its exit code and its output. For the arguments, see `start`.

        Raises:
            RuntimeError: The process that imports the modules has ended.
            subprocess.TimeoutExpired: The script took longer than `timeout` seconds. It is killed,
                and this object is closed.
        """
        self.start(script, *arguments, cwd=cwd, variables=variables)
        return self.wait(timeout)

    def start(
        self,
        script: str | Path,
        *arguments: str,
        cwd: Path | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> int:
        """Start a script, and return the id of its process. Only one can run at a time.

        Args:
            script: The path of the script.
            arguments: Its arguments.
            cwd: Its working directory.
            variables: Environment variables besides those that the modules were imported with.
        """
        self._command = [os.path.abspath(script), *arguments]
        request = {
            "arguments": self._command,
            "environment": {**self._environment, **variables},
            "directory": os.path.abspath(cwd or os.curdir),
            "output": self._output.name,
        }
        self._requests.write(json.dumps(request).encode() + b"\n")
        self._is_running = True
        return self._answer()

    def has_ended(self) -> bool:
        """Return whether the started script has ended."""
        return bool(select.select([self._answers], [], [], 0)[0])

    def wait(self, timeout: float = 540.0) -> subprocess.CompletedProcess[str]:
        """Wait for the started script, and return its exit code and its output.

        Raises:
            RuntimeError: The process that imports the modules has ended.
            subprocess.TimeoutExpired: It took longer than `timeout` seconds. It is killed, and this
                object is closed.
        """
        if not select.select([self._answers], [], [], timeout)[0]:
            self.close()
            raise subprocess.TimeoutExpired(self._command, timeout)
        code = self._answer()
        self._is_running = False
        output, error = (
            Path(self._output.name, name).read_text("utf-8", "replace") for name in _OUTPUTS
        )
        return subprocess.CompletedProcess(self._command, code, output, error)

    def close(self) -> None:
        """End the process that has the modules, and kill a script that still runs."""
        if self._is_running:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._requests.close()
        self._process.wait()
        self._answers.close()
        self._output.cleanup()

    def __enter__(self) -> PreparedPython:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> int:
        line = self._answers.readline()
        if not line:
            raise RuntimeError("the process that imports the modules ended; its errors are above")
        return int(line)


_OUTPUTS = ("stdout", "stderr")


def _serve(modules: Sequence[str]) -> dict[str, Any] | None:
    """Fork for each request. Return the request in the new process, and `None` at the end."""
    answers = os.dup(1)
    os.dup2(2, 1)
    for module in modules:
        import_module(module)
    gc.freeze()  # a collection in a new process would copy all of this memory
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            os.close(answers)
            return cast("dict[str, Any]", json.loads(line))
        os.write(answers, f"{process}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.write(answers, f"{code}\n".encode())
    return None


def _become(request: dict[str, Any]) -> None:
    """Run the script of a request as Python would."""
    for descriptor, name in enumerate(_OUTPUTS, 1):
        file = os.open(Path(request["output"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    script = request["arguments"][0]
    sys.argv[:] = request["arguments"]
    sys.path.insert(0, os.path.dirname(script))
    program = ModuleType("__main__")
    program.__file__ = script
    sys.modules["__main__"] = program
    exec(compile(Path(script).read_bytes(), script, "exec"), vars(program))


if __name__ == "__main__":
    del sys.path[0]  # the folder of this module
    found = _serve(sys.argv[1:])
    if found is not None:
        _become(found)
