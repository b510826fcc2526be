"""Install the wheels in dist/ as users do, and train with them: `try_wheels.py [TRACKER ...]`.

Each tracker's package is installed alone into a new environment, with its pins. The script checks
that no other tracker's SDK is present, and that the digits example can log to the tracker. Then all
packages are installed into one environment with transformers and datasets, with the pins in
locks/together.txt, and one run logs to all trackers. `--only alone` or `--only together` does one.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from environments import Environment, wheels_of
from trackers import ROOT, TRACKERS, TrackerPackage, with_what_it_needs
from try_resolve import BESIDE, CONSTRAINTS

TOOLS = ROOT / "tools"
EXAMPLE = ("torch", "scikit-learn")
SERVERS = ("callback-contract",)  # the serve_*.py scripts import it


def try_alone(tracker: TrackerPackage, folder: Path) -> list[str]:
    """Install a tracker's package alone, train, and return the problems."""
    packages = ["trainer-torch", *with_what_it_needs(tracker.package)]
    environment = Environment(folder / "environment")
    environment.install_with_uv(*EXAMPLE, constraints=tracker.lock)
    environment.install_ours(packages, tracker.lock)
    own = {one.sdk[0] for one in TRACKERS.values() if one.package in packages}
    others = {one.sdk[0] for one in TRACKERS.values()} - own
    present = sorted(others & environment.distributions().keys())
    problems = [f"{name}, the SDK of another tracker, is installed" for name in present]
    if tracker.server is not None:
        environment.install_ours(SERVERS, tracker.lock)
    return problems + train(environment, [tracker], folder / "work")


def try_together(trackers: Sequence[TrackerPackage], folder: Path) -> list[str]:
    """Install all packages into one environment, train, and return the problems."""
    packages = [name for one in trackers for name in with_what_it_needs(one.package)]
    environment = Environment(folder / "environment")
    wheels = wheels_of(["trainer-torch", *packages, *SERVERS])
    example = (pin("torch"), *EXAMPLE[1:])
    environment.install_with_uv(*example, constraints=CONSTRAINTS)
    environment.install(*example, *BESIDE, *wheels, constraints=CONSTRAINTS)
    subprocess.run([environment.python, "-m", "pip", "check"], check=True)
    return train(environment, trackers, folder / "work")


def train(environment: Environment, trackers: Sequence[TrackerPackage], folder: Path) -> list[str]:
    """Train the digits example, and return the problems, such as a tracker that stored nothing."""
    folder.mkdir()
    names = [tracker.name for tracker in trackers]
    command = [str(ROOT / "docs/examples/digits.py"), "--max-steps", "20", "--report-to", *names]
    command += ["--output-dir", str(folder / "run")]
    with ExitStack() as servers:
        variables = {"HOME": str(folder)}
        for tracker in trackers:
            url = ""
            if tracker.server is not None:
                server = environment.serving(
                    str(TOOLS / tracker.server), str(folder / tracker.name)
                )
                url = servers.enter_context(server)
            if tracker.wrapper is not None:
                command = [str(TOOLS / tracker.wrapper), str(folder / tracker.name), *command]
            variables |= tracker.local(folder, url)
        done = environment.run(*command, variables=variables, cwd=folder, timeout=600)
    problems = [f"the example ended with {done.returncode}"] if done.returncode else []
    missing = [tracker.name for tracker in trackers if not tracker.is_stored(folder)]
    return problems + [f"{name} stored nothing" for name in missing]


def pin(name: str) -> str:
    """Return the pin of a package that the example needs."""
    pins = (ROOT / "locks" / "torch.txt").read_text().split()
    return next(one for one in pins if one.startswith(f"{name}=="))


def try_group(group: Sequence[TrackerPackage], together: bool) -> list[str]:
    """Try these trackers, and print and return the problems."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        problems = try_together(group, folder) if together else try_alone(group[0], folder)
    what = "together: " if together else ""
    what += " ".join(tracker.name for tracker in group)
    print(f"try_wheels: {what}: {'; '.join(problems) or 'no problems'}", flush=True)
    return problems


def main() -> None:
    """Try the trackers that the command line names. Exit with 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trackers", nargs="*", metavar="TRACKER", help=", ".join(TRACKERS))
    parser.add_argument("--only", choices=("alone", "together"), help="default: both")
    options = parser.parse_args()
    if unknown := sorted(set(options.trackers) - TRACKERS.keys()):
        parser.error(f"no tracker {', '.join(unknown)}; there are {', '.join(TRACKERS)}")
    chosen = [TRACKERS[name] for name in options.trackers or TRACKERS]
    with ThreadPoolExecutor(3) as pool:  # SDKs mostly wait
        tried = []
        if options.only != "alone":  # first, because it takes the longest
            tried.append(pool.submit(try_group, chosen, True))
        if options.only != "together":
            tried += [pool.submit(try_group, [tracker], False) for tracker in chosen]
    sys.exit(any(one.result() for one in tried))


if __name__ == "__main__":
    main()
