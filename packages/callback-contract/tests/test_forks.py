"""`PreparedPython`: a fork runs a script as Python runs it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from callback_contract.testing import PreparedPython, environment, run_python, wait_until

TELLS = """
import json, os, sys, __main__
print(json.dumps({
    "arguments": sys.argv[1:],
    "variable": os.environ.get("TOLD"),
    "directory": os.getcwd(),
    "folder": sys.path[0],
    "name": __name__,
    "is main": __main__.__file__ == __file__ == sys.argv[0],
    "input": sys.stdin.read(),
    "is there": "decimal" in sys.modules,
}))
"""


@pytest.fixture(scope="module")
def python() -> Iterator[PreparedPython]:
    with PreparedPython(["decimal"], environment()) as prepared:
        yield prepared


def script(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text, "utf-8")
    return path


def test_a_script_gets_its_arguments_variables_and_directory(
    python: PreparedPython, tmp_path: Path
) -> None:
    path = script(tmp_path, TELLS)
    told = {"TOLD": "ä b"}
    forked = json.loads(python.run(path, "--x", "ü", cwd=tmp_path, variables=told).stdout)
    started = json.loads(run_python(str(path), "--x", "ü", cwd=tmp_path, variables=told).stdout)
    assert (forked.pop("is there"), started.pop("is there")) == (True, False)
    assert forked == started


def test_nothing_of_a_script_reaches_the_next(python: PreparedPython, tmp_path: Path) -> None:
    python.run(script(tmp_path, "import os, fractions; os.environ['LEFT'] = 'x'; print('left')"))
    code = "import os, sys; print('LEFT' in os.environ, 'fractions' in sys.modules)"
    assert python.run(script(tmp_path, code)).stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("pass", 0),
        ("import sys; sys.exit(3)", 3),
        ("raise ValueError('broken')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_a_script_ends_with_its_own_status(
    python: PreparedPython, tmp_path: Path, code: str, status: int
) -> None:
    done = python.run(script(tmp_path, code))
    assert done.returncode == status
    assert ("ValueError: broken" in done.stderr) == (status == 1)


def test_a_script_runs_its_functions_at_exit_and_flushes(
    python: PreparedPython, tmp_path: Path
) -> None:
    code = "import atexit; atexit.register(print, 'at exit'); print('before', end=' ')"
    assert python.run(script(tmp_path, code)).stdout == "before at exit\n"


def test_a_started_script_can_be_killed(python: PreparedPython, tmp_path: Path) -> None:
    process = python.start(script(tmp_path, "import time; time.sleep(1000)"))
    assert not python.has_ended()
    os.kill(process, signal.SIGKILL)
    wait_until(python.has_ended)
    assert python.wait().returncode == -signal.SIGKILL


def test_a_script_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    prepared = PreparedPython([], environment())
    code = (
        "import fcntl, pathlib, time\n"
        "with open('lock', 'w') as lock:\n"
        "    fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "    pathlib.Path('locked').touch()\n"
        "    time.sleep(1000)\n"
    )
    prepared.start(script(tmp_path, code), cwd=tmp_path)
    wait_until((tmp_path / "locked").exists)
    with pytest.raises(subprocess.TimeoutExpired):
        prepared.wait(timeout=0.01)
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # returns once the script is dead
