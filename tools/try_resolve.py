"""Resolve all trackers' packages in dist/ with transformers and datasets: `try_resolve.py`.

pip and uv each resolve them twice: with and without the pins in locks/together.txt. Nothing is
installed. The script prints the seconds that each run takes. It fails if a run finds no solution or
takes far too long.
"""

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from environments import Environment, wheels_of
from trackers import ROOT, TRACKERS, with_what_it_needs

# Each command names these, because pip ignores the requirements of installed packages that the
# command does not name.
BESIDE = ("--requirement", str(ROOT / "3rdparty" / "python" / "together-requirements.txt"))
CONSTRAINTS = ROOT / "locks" / "together.txt"
# In seconds. They suffice for a busy machine and an empty cache, but not for a long search.
LIMITS = {"pip": 300, "uv": 60}


def resolve(environment: Environment, tool: str, *options: str) -> str | None:
    """Resolve all packages with a tool, print the time, and return the problem, if any."""
    packages = [name for one in TRACKERS.values() for name in with_what_it_needs(one.package)]
    what = [*options, *BESIDE, *wheels_of(packages)]
    command = [str(environment.python), "-m", tool]
    if tool == "uv":
        command += ["pip", "install", "--python", str(environment.python)]
    else:
        command += ["install", "--disable-pip-version-check"]
    name = " ".join([tool, *("with pins" for _ in options[:1])])
    start = time.monotonic()
    try:
        limit = LIMITS[tool]
        done = subprocess.run([*command, "--quiet", "--dry-run", *what], timeout=limit)
    except subprocess.TimeoutExpired:
        return f"{name} took longer than {limit} s"
    print(f"try_resolve: {name}: {time.monotonic() - start:.0f} s", flush=True)
    return f"{name} ended with {done.returncode}" if done.returncode else None


def main() -> None:
    """Try each, two at a time. Exit with 1 if there is a problem."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = Environment(Path(folder, "environment"))
        environment.install("uv", *BESIDE)
        pins = ("--constraint", str(CONSTRAINTS))
        ways = (("pip",), ("pip", *pins), ("uv",), ("uv", *pins))
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda way: resolve(environment, *way), ways))
    problems = [problem for problem in found if problem]
    print(f"try_resolve: {'; '.join(problems) or 'no problems'}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
