"""Set up what tools/pants needs in one folder: Pythons, Pex, and Pants itself.

    python3 tools/pants_setup.py --cache FOLDER --pex VERSION --pants VERSION [--no-pants] 3.11 ...

tools/pants calls this script with any Python that it finds, so the script must run on Python 3.7
and newer, without packages. It keeps complete parts and makes incomplete ones again. If two calls
run at once, the second waits for the first.
"""

import argparse
import fcntl
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List, NoReturn, Optional

PANTS_RUNS_ON = ("3.9", "3.8", "3.7")
"""The Pythons for which Pants has wheels. The first one is installed if none is found."""

PROBE = """
import bz2, ctypes, ensurepip, lzma, sqlite3, ssl, venv, zlib
import platform, sys
if platform.python_implementation() != "CPython" or "%d.%d" % sys.version_info[:2] != sys.argv[1]:
    sys.exit(1)
print(getattr(sys, "_base_executable", None) or sys.executable)
"""
"""Prints the path of a Python; in a virtual environment, the path of its base.

It fails for a pyenv shim that does not run, for another version, and if a standard module is
missing. Debian has some of them in packages of their own, and a build without headers omits some.
"""

NO_TORCH_INDEX = (
    "PIP_INDEX_URL is set, so PyTorch's own index is not used. torch for the CPU must come from "
    "PIP_INDEX_URL, PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS"
)

FIRST_CALLS = (
    "The first call of each goal also installs what the goal needs. That takes about a minute, and "
    "longer for torch and the trackers. The first `test ::` takes about half an hour on two cores. "
    "Later ones run only what has changed"
)


def main() -> None:
    """Set up what the command line names and the folder lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--pex", required=True)
    parser.add_argument("--pants", required=True)
    parser.add_argument("--no-pants", action="store_true", help="do not set up Pants itself")
    parser.add_argument("pythons", nargs="+", help="versions to run the code on")
    options = parser.parse_args()
    setup = Setup(options.cache, options.pants, options.pex)
    try:
        setup.cache.mkdir(parents=True, exist_ok=True)
        lock = (setup.cache / "lock").open("w")
    except OSError as error:
        stop(f"{error}. Set XDG_CACHE_HOME to a writable folder")
    with lock:  # the system releases it when the process dies
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another call that sets up {setup.cache}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        setup.make(options.pythons, with_pants=not options.no_pants)


class Setup:
    """What tools/pants needs, in the folder `cache`.

    Attributes:
        managed: The folder where uv installs Pythons.
        pants: The virtual environment of Pants.
        pants_ready: A file in that environment, written last.
        pex: The Pex executable.
        pex_ready: A file with the hash and size of `pex`, written last.
    """

    def __init__(self, cache: Path, pants_version: str, pex_version: str) -> None:
        self.cache = cache
        self.managed = cache / "pythons"
        self.pants_version, self.pex_version = pants_version, pex_version
        self.pants = cache / "pants" / pants_version
        self.pants_ready = self.pants / "ready"
        self.pex = cache / "pex" / pex_version
        self.pex_ready = Path(str(self.pex) + ".ready")

    def make(self, pythons: List[str], with_pants: bool) -> None:
        """Print what is missing and how long it takes, and set it up."""
        unlinked = [one for one in pythons if not output(str(self.python(one)), "--version")]
        make_pants = with_pants and not (
            self.pants_ready.exists() and output(str(self.pants / "bin" / "python"), "--version")
        )
        make_pex = not self.pex_ready.exists()

        needed = list(dict.fromkeys(unlinked))
        if make_pants:
            needed.append(next(filter(self.find_python, PANTS_RUNS_ON), PANTS_RUNS_ON[0]))
        absent = [one for one in needed if not self.find_python(one)]
        plan = [f"Python {one} with uv (half a minute)" for one in absent]
        plan += [f"Pants {self.pants_version} (a minute)"] * make_pants
        plan += [f"Pex {self.pex_version} (half a minute)"] * make_pex
        if plan:
            say(f"one-time setup in {self.cache}: {', '.join(plan)}")
            if os.environ.get("PIP_INDEX_URL") and sys.platform == "linux":
                say(NO_TORCH_INDEX)

        if absent:
            self.install_pythons(absent)
        for one in unlinked:
            self.link(one)
        if make_pants:
            self.make_pants(needed[-1])
        if make_pex:
            self.make_pex(str(self.python(pythons[0])))
        if plan:
            say(f"done. {FIRST_CALLS}")

    def python(self, version: str) -> Path:
        """Return the path of a Python that runs the code, through the link in `cache`."""
        return self.cache / f"python{version}" / "bin" / f"python{version}"

    def find_python(self, version: str) -> Optional[str]:
        """Return the path of an installed Python, or `None`."""
        return find_python(version, self.managed)

    def install_pythons(self, versions: List[str]) -> None:
        """Install Pythons with uv, from PATH or from the package index."""
        uv = "uv" if output("uv", "--version") else self.install_uv()
        settings = {"UV_PYTHON_INSTALL_BIN": "0", "UV_PYTHON_DOWNLOADS": "automatic"}
        try:
            run(uv, "python", "install", "--install-dir", str(self.managed), *versions, **settings)
        except SystemExit as error:
            stop(
                f"{error}\nuv could not install Python {' and '.join(versions)}. Install it "
                "otherwise (apt-get, pyenv), or set UV_PYTHON_INSTALL_MIRROR to a mirror of uv's "
                "downloads that this machine can reach. Then try again"
            )

    def install_uv(self) -> str:
        """Install uv from the package index, and return its path."""
        folder = self.cache / "uv"
        shutil.rmtree(str(folder), ignore_errors=True)
        if output(sys.executable, "-m", "pip", "--version"):
            # Installing into a separate folder is safe, whatever PEP 668 or pip's settings forbid.
            settings = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
            pip = (sys.executable, "-m", "pip", "install", "--quiet")
            run(*pip, "--target", str(folder), "uv", **settings)
        elif output(sys.executable, "-c", "import ensurepip, venv; print(1)"):
            run(sys.executable, "-m", "venv", str(folder))
            run(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv")
        else:
            stop(
                f"installing other Pythons needs uv, or pip or venv for {sys.executable}. Install "
                "one of them and try again. On Debian and Ubuntu: apt-get install python3-pip"
            )
        return str(folder / "bin" / "uv")

    def require_python(self, version: str) -> str:
        """Return the path of a Python that must be installed by now."""
        found = self.find_python(version)
        if found is None:
            installed = self.managed / f"cpython-{version}.*" / "bin" / f"python{version}"
            for path in glob.glob(str(installed)):
                run(path, "-c", PROBE, version)  # fails, and prints what is wrong
            stop(f"uv did not install Python {version} in {self.managed}")
        return found

    def link(self, version: str) -> None:
        """Link to a Python where tools/pants finds it.

        The link points to the whole installation. With a link to the executable alone, Python would
        look for its library next to the link in every virtual environment made from it.
        """
        new = self.cache / "new-link"
        if new.is_symlink():
            new.unlink()
        new.symlink_to(Path(self.require_python(version)).parent.parent)
        os.replace(str(new), str(self.python(version).parent.parent))

    def make_pants(self, python_version: str) -> None:
        """Make the virtual environment of Pants."""
        shutil.rmtree(str(self.pants), ignore_errors=True)
        run(self.require_python(python_version), "-m", "venv", str(self.pants))
        pip = (str(self.pants / "bin" / "python"), "-m", "pip")
        run(*pip, "install", "--quiet", "pantsbuild.pants==" + self.pants_version)
        write(self.pants_ready, "")

    def make_pex(self, python: str) -> None:
        """Build the Pex executable.

        Pants would download it from Pex's release page. Building it from the package index gives
        the same program, and respects pip's settings for indexes and proxies.
        """
        requirement = "pex==" + self.pex_version
        self.pex.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            venv, wheels = Path(name, "venv"), Path(name, "wheels")
            run(python, "-m", "venv", str(venv))
            pip = (str(venv / "bin" / "python"), "-m", "pip")
            run(*pip, "download", "--quiet", "--no-deps", "--dest", str(wheels), requirement)
            index = ("--no-index", "--find-links", str(wheels))
            run(*pip, "install", "--quiet", *index, requirement)
            build = (
                str(venv / "bin" / "pex"),
                "--no-pypi",
                *index[1:],
                "--pip-version",
                "vendored",
            )
            run(*build, requirement, "-c", "pex", "--venv", "-o", str(self.pex), PEX_ROOT=name)
        content = self.pex.read_bytes()
        write(self.pex_ready, f"{hashlib.sha256(content).hexdigest()} {len(content)}\n")


def find_python(version: str, managed: Path = Path()) -> Optional[str]:
    """Return the path of a Python from PATH, pyenv, the folder `managed`, or uv; or `None`."""
    name = "python" + version
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    patterns = (
        f"{pyenv}/versions/{version}.*/bin/{name}",
        f"{managed}/cpython-{version}.*/bin/{name}",
    )
    candidates = [shutil.which(name) or ""]
    candidates += [path for pattern in patterns for path in sorted(glob.glob(pattern))]
    candidates.append(output("uv", "python", "find", "--no-python-downloads", version) or "")
    for candidate in filter(None, candidates):
        path = output(candidate, "-c", PROBE, version)
        if path:
            return path
    return None


def output(*command: str) -> Optional[str]:
    """Return what a command prints, or `None` if it does not exist or fails."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None
    return None if done.returncode else done.stdout.decode(errors="replace").strip()


def run(*command: str, **variables: str) -> None:
    """Run a command. If it fails, print its output and end this program."""
    done = subprocess.run(
        command,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        printed = done.stdout.decode(errors="replace").strip()
        stop("{}\nfailed: {}".format(printed, " ".join(command)))


def write(path: Path, text: str) -> None:
    """Write a file atomically."""
    new = Path(str(path) + ".new")
    new.write_text(text)
    os.replace(str(new), str(path))


def say(what: str) -> None:
    """Print to standard error, because standard output is for Pants."""
    print("tools/pants: " + what, file=sys.stderr, flush=True)


def stop(why: str) -> NoReturn:
    """End the program with an error message."""
    sys.exit("tools/pants: " + why)


if __name__ == "__main__":
    main()
