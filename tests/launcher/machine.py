"""Simulated machines for the launcher's tests: each has its own PATH, home and package index."""

from __future__ import annotations

import functools
import http.server
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import pants_setup  # noqa: E402

HIDDEN = ("python", "pip", "pypy", "uv", "pants", "idle", "pydoc", "2to3")
"""Prefixes of the commands that a bare machine lacks."""


class Machine:
    """A machine with an empty home, and a PATH with the host's commands except Pythons and Pants.

    Attributes:
        bin: The first folder of its PATH.
        checkout: A copy of this repository.
        cache: The folder that the launcher sets up.
        variables: Its environment variables.
    """

    def __init__(self, folder: Path) -> None:
        self.bin, self.home, self.checkout = folder / "bin", folder / "home", folder / "checkout"
        self.cache = self.home / ".cache" / "callback-packages"
        self.bin.mkdir(parents=True)
        self.home.mkdir()
        for source in ("/usr/bin", "/bin"):
            for command in Path(source).iterdir():
                link = self.bin / command.name
                if not command.name.startswith(HIDDEN) and not link.exists():
                    link.symlink_to(command)
        copy_tracked_files(self.checkout)
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self.variables = {**pip, "PATH": str(self.bin), "HOME": str(self.home), "LANG": "C.UTF-8"}

    def give(self, name: str, command: Path | str) -> None:
        """Add a command to its PATH."""
        (self.bin / name).symlink_to(command)

    def start(self, *arguments: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start tools/pants on this machine."""
        return subprocess.Popen(
            [*before, str(self.checkout / "tools" / "pants"), *arguments],
            cwd=self.checkout,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def pants(self, *arguments: str, before: Sequence[str] = ()) -> tuple[int, str]:
        """Run tools/pants on this machine, and return its exit status and its output."""
        process = self.start(*arguments, before=before)
        printed, _ = process.communicate()
        return process.returncode, printed


def copy_tracked_files(to: Path) -> None:
    """Copy the files of this checkout, except ignored ones, into an empty repository."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    subprocess.run(["git", "init", "--quiet", str(to)], check=True)


def find_python(*versions: str) -> str:
    """Return the path of a Python of the host, of the first version that it has."""
    found = next(filter(None, map(pants_setup.find_python, versions)), None)
    assert found is not None, f"these tests need a Python {' or '.join(versions)}"
    return found


def pack_pythons(versions: Sequence[str], folder: Path) -> dict[str, str]:
    """Pack Pythons of the host for uv, and return the variables that make uv download them."""
    downloads = {}
    for version in versions:
        python = find_python(version)
        code = "import platform, sys; print(sys.base_prefix); print(platform.python_version())"
        prefix, full = subprocess.check_output([python, "-c", code], text=True).splitlines()
        archive = folder / f"cpython-{full}.tar.gz"
        with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
            packed.add(prefix, "python", filter=without_tests)
        major, minor, patch = map(int, full.split("."))
        downloads[f"cpython-{full}"] = {
            "name": "cpython",
            "arch": {"family": platform.machine(), "variant": None},
            "os": "linux",
            "libc": "gnu",
            "major": major,
            "minor": minor,
            "patch": patch,
            "prerelease": "",
            "url": archive.as_uri(),
            "sha256": None,
            "variant": None,
        }
    listing = folder / "downloads.json"
    listing.write_text(json.dumps(downloads))
    return {"UV_PYTHON_DOWNLOADS_JSON_URL": str(listing)}


def without_tests(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Omit the standard library's tests and installed packages from the archive."""
    left_out = {"test", "__pycache__", "site-packages"} & set(Path(member.name).parts)
    return None if left_out or member.name.endswith(".a") else member


@contextmanager
def serve_index(wheels: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder of wheels as a package index; yield its address and the requested paths."""
    asked: list[str] = []
    handler = functools.partial(IndexHandler, wheels, asked.append)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class IndexHandler(http.server.BaseHTTPRequestHandler):
    """Serves a simple index: a page of links for each project, and the files."""

    def __init__(self, wheels: Path, note: Callable[[str], None], *arguments: object) -> None:
        self.wheels, self.note = wheels, note
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.note(self.path)
        name = unquote(self.path.rstrip("/").rpartition("/")[2])
        if self.path.startswith("/files/"):
            body = (self.wheels / name).read_bytes()
        else:
            own = [
                wheel.name
                for wheel in self.wheels.iterdir()
                if re.sub(r"[-_.]+", "-", wheel.name.partition("-")[0]).lower() == name
            ]
            if not own:
                self.send_error(404)
                return
            body = "".join(f'<a href="/files/{one}">{one}</a>' for one in own).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Do not print requests. The list has them."""
