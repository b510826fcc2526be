"""Resolve all trackers' packages in dist/ beside transformers and datasets: `try_resolve.py`.

It is done by pip and by uv, with the pins of locks/together.txt and without them. It installs
nothing of what they find, prints the seconds that each takes, and fails where one finds nothing or
takes far longer than it should.
"""

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from environments import Environment, wheels_of
from trackers import ROOT, TRACKERS, with_what_it_needs

# Named in each command, since pip heeds no requirements of what is there and it is not asked for.
BESIDE = ("--requirement", str(ROOT / "3rdparty" / "python" / "together-requirements.txt"))
CONSTRAINTS = ROOT / "locks" / "together.txt"
# Seconds, some times what is needed, for a busy machine and an empty cache. A search takes longer.
LIMITS = {"pip": 300, "uv": 60}


def resolve(environment: Environment, tool: str, *options: str) -> str | None:
    """Resolve all with a tool, print how long it takes, and return what is wrong."""
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
        return f"{name} searches for longer than {limit} s"
    print(f"try_resolve: {name}: {time.monotonic() - start:.0f} s", flush=True)
    return f"{name} ended with {done.returncode}" if done.returncode else None


def main() -> None:
    """Try each, two at a time, and exit with 1 where something is wrong."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = Environment(Path(folder, "environment"))
        environment.install("uv", *BESIDE)
        pins = ("--constraint", str(CONSTRAINTS))
        ways = (("pip",), ("pip", *pins), ("uv",), ("uv", *pins))
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda way: resolve(environment, *way), ways))
    problems = [problem for problem in found if problem]
    print(f"try_resolve: {'; '.join(problems) or 'in order'}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
