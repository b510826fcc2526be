"""`tools/pants` on machines that lack what it needs. `.ci/run` runs these tests.

They need Linux, a package index, and CPython 3.9, 3.11, and 3.12 or 3.13 on the host. On the bare
machines, uv downloads copies of the host's 3.9 and 3.11, so that the tests need no other server.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from machine import ROOT, Machine, find_python, pack_pythons, serve_index

A_TEST = "packages/callback-core/tests/test_control.py"
OTHER = ("3.13", "3.12")
"""The versions of current systems. Pants does not run on them, and the code only on request."""

STAND_IN = """\
#!/usr/bin/env bash
printf '%s\\n' "$@" >"$HOME/arguments"
env >"$HOME/variables"
"""
"""A stand-in for the official launcher, which would download Pants. It records its calls."""


@pytest.fixture(scope="session")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return pack_pythons(("3.9", "3.11"), tmp_path_factory.mktemp("pythons"))


@pytest.fixture(scope="session")
def pip_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("pip-cache"))


def bare_machine(folder: Path, pythons: dict[str, str], pip_cache: str) -> Machine:
    """Return a machine with only a Python 3 that neither Pants nor the code runs on."""
    machine = Machine(folder)
    machine.give("python3", find_python(*OTHER))
    machine.variables |= {**pythons, "PIP_CACHE_DIR": pip_cache}
    return machine


@pytest.fixture
def machine(tmp_path: Path, pythons: dict[str, str], pip_cache: str) -> Machine:
    return bare_machine(tmp_path, pythons, pip_cache)


@pytest.fixture(scope="session")
def set_up_machine(
    tmp_path_factory: pytest.TempPathFactory, pythons: dict[str, str], pip_cache: str
) -> Machine:
    """A bare machine on which tools/pants was called once. Tests must leave it complete."""
    machine = bare_machine(tmp_path_factory.mktemp("machine"), pythons, pip_cache)
    status, printed = machine.pants("--no-pantsd", "--version")
    assert status == 0, printed
    return machine


def give_stand_in(machine: Machine) -> None:
    launcher = machine.bin / "pants"
    launcher.write_text(STAND_IN)
    launcher.chmod(0o755)


def recorded(machine: Machine) -> tuple[list[str], dict[str, str]]:
    """Return the arguments and the environment variables of the stand-in's last call."""
    arguments = (machine.home / "arguments").read_text().splitlines()
    lines = (machine.home / "variables").read_text().splitlines()
    return arguments, dict(line.partition("=")[::2] for line in lines)


def set_up(machine: Machine) -> set[str]:
    """Return the names of everything that the launcher set up in the cache."""
    return {path.name for path in machine.cache.iterdir()}


def test_a_bare_machine_runs_a_test_and_then_needs_no_network(set_up_machine: Machine) -> None:
    machine = set_up_machine
    status, printed = machine.pants("--no-pantsd", "test", A_TEST)
    assert status == 0, printed
    assert re.search(r"\d+ passed", printed)
    venv = machine.home / "venv"
    python = machine.cache / "python3.11" / "bin" / "python3.11"
    subprocess.run([python, "-m", "venv", "--without-pip", venv], check=True)
    code = "import os, sys; print(os.path.realpath(sys.base_prefix))"
    base = subprocess.check_output([venv / "bin" / "python", "-c", code], text=True).strip()
    assert Path(base).is_relative_to(machine.cache / "pythons")

    status, printed = machine.pants(
        "--no-pantsd", "test", "--force", A_TEST, before=("unshare", "--map-root-user", "--net")
    )
    assert status == 0, printed
    assert re.search(r"\d+ passed", printed)


def test_uv_is_enough_without_a_python(machine: Machine) -> None:
    uv = machine.home / "uv"
    pip = [find_python(*OTHER), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--target", str(uv), "uv"], check=True)
    (machine.bin / "python3").unlink()
    machine.give("uv", uv / "bin" / "uv")
    give_stand_in(machine)
    status, printed = machine.pants("test", "::")
    assert status == 0, printed
    assert recorded(machine)[0] == ["test", "::"]


def test_without_python_and_uv_it_says_what_to_install(machine: Machine) -> None:
    (machine.bin / "python3").unlink()
    status, printed = machine.pants("--version")
    assert status != 0
    assert "python3-pip" in printed and "uv" in printed


def test_without_pip_it_says_what_to_install(machine: Machine) -> None:
    python = machine.bin / "python3"
    target = python.resolve()
    python.unlink()
    blocker = machine.home / "blocked"
    blocker.mkdir()
    for name in ("pip", "ensurepip"):
        (blocker / f"{name}.py").write_text("raise ModuleNotFoundError(__name__)")
    python.write_text(f'#!/bin/sh\nPYTHONPATH={blocker} exec {target} "$@"\n')
    python.chmod(0o755)
    status, printed = machine.pants("--version")
    assert status != 0
    assert "python3-pip" in printed and "Traceback" not in printed


def test_the_official_launcher_is_called_with_pex_and_pythons(machine: Machine) -> None:
    give_stand_in(machine)
    status, printed = machine.pants("test", "packages/callback-core::", "--", "-k", "a b")
    assert status == 0, printed
    arguments, variables = recorded(machine)
    assert arguments == ["test", "packages/callback-core::", "--", "-k", "a b"]
    assert set_up(machine) == {"lock", "pex", "python3.11", "pythons", "uv"}
    pex = Path(variables["PANTS_PEX_CLI_URL_TEMPLATE"].removeprefix("file://")).read_bytes()
    version = variables["PANTS_PEX_CLI_VERSION"]
    known = json.loads(variables["PANTS_PEX_CLI_KNOWN_VERSIONS"])
    assert f"{version}|linux_x86_64|{hashlib.sha256(pex).hexdigest()}|{len(pex)}" in known
    searched = json.loads(variables["PANTS_PYTHON_BOOTSTRAP_SEARCH_PATH"])
    assert os.access(Path(searched[0], "python3.11"), os.X_OK)
    assert "<PATH>" in searched
    assert "PANTS_PYTHON_INTERPRETER_CONSTRAINTS" not in variables


def test_another_python_is_asked_for_with_a_plus(machine: Machine) -> None:
    give_stand_in(machine)
    version = re.search(r"3\.\d+", Path(find_python(*OTHER)).resolve().name)[0]  # type: ignore[index]
    machine.give(f"python{version}", find_python(*OTHER))
    status, printed = machine.pants(f"+{version}", "test", "::")
    assert status == 0, printed
    arguments, variables = recorded(machine)
    assert arguments == ["test", "::"]
    constraints = json.loads(variables["PANTS_PYTHON_INTERPRETER_CONSTRAINTS"])
    assert constraints == [f"CPython=={version}.*"]
    assert {f"python{version}", "python3.11"} <= set_up(machine)


def test_the_error_for_a_python_that_does_not_exist_names_it(machine: Machine) -> None:
    give_stand_in(machine)
    status, printed = machine.pants("+3.99", "test", "::")
    assert status != 0
    assert "3.99" in printed and "Traceback" not in printed
    assert not (machine.home / "arguments").exists()


def test_two_simultaneous_calls_make_one_environment_from_a_proxy(
    machine: Machine, tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    setup, config = (ROOT / "tools/pants").read_text(), (ROOT / "pants.toml").read_text()
    pex = re.search(r"^pex_version=(\S+)", setup, re.MULTILINE)[1]  # type: ignore[index]
    pants = re.search(r'^pants_version = "(.*)"', config, re.MULTILINE)[1]  # type: ignore[index]
    for version, requirements in (
        ("3.9", [f"pantsbuild.pants=={pants}"]),
        ("3.11", [f"pex=={pex}", "uv"]),
    ):
        command = [find_python(version), "-m", "pip", "download", "--quiet", "--dest", str(wheels)]
        subprocess.run([*command, *requirements], check=True)
    with serve_index(wheels) as (address, asked):
        for name in [name for name in machine.variables if name.startswith("PIP_")]:
            del machine.variables[name]
        machine.variables |= {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": address,
            "PIP_NO_CACHE_DIR": "1",
        }
        calls = [machine.start("--no-pantsd", "--version") for _ in range(2)]
        for call in calls:
            printed, _ = call.communicate()
            assert call.returncode == 0, printed
            assert printed.splitlines()[-1] == pants
    files = [Path(path).name for path in asked if path.startswith("/files/")]
    for name in (f"pantsbuild.pants-{pants}", f"pex-{pex}", "uv-"):
        assert len([file for file in files if file.startswith(name)]) == 1, (name, files)


def test_incomplete_parts_are_set_up_again(set_up_machine: Machine) -> None:
    machine = set_up_machine
    [version] = (path.name for path in (machine.cache / "pants").iterdir())
    pants = machine.cache / "pants" / version
    [pex] = (path for path in (machine.cache / "pex").iterdir() if path.suffix != ".ready")
    whole = pex.read_bytes()
    # After a crash during the setup, the files that mark it as complete are missing.
    (pants / "ready").unlink()
    (pants / "bin" / "pants").unlink()
    pex.with_name(pex.name + ".ready").unlink()
    pex.write_bytes(whole[:1000])
    # The Python may also have been removed.
    link = machine.cache / "python3.11"
    link.unlink()
    link.symlink_to(machine.home / "gone")
    status, printed = machine.pants("--no-pantsd", "--version")
    assert status == 0, printed
    assert printed.splitlines()[-1] == version
    assert len(pex.read_bytes()) > 1000
    assert link.exists()


def test_a_read_only_checkout_is_left_alone(set_up_machine: Machine) -> None:
    machine = set_up_machine
    before = sorted(machine.checkout.rglob("*"))
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd "$0" && exec "$@"'
    read_only = ("unshare", "--map-root-user", "--mount", "sh", "-c", script)
    status, printed = machine.pants(
        "--no-pantsd", "list", "tools:tools", before=(*read_only, str(machine.checkout))
    )
    assert status == 0, printed
    assert printed.splitlines()[-1] == "tools:tools"
    assert sorted(machine.checkout.rglob("*")) == before


def test_the_error_for_a_cache_that_is_not_writable_names_it(machine: Machine) -> None:
    file = machine.home / "file"
    file.touch()
    machine.variables["XDG_CACHE_HOME"] = str(file)
    status, printed = machine.pants("--version")
    assert status != 0
    assert str(file) in printed and "XDG_CACHE_HOME" in printed and "Traceback" not in printed
