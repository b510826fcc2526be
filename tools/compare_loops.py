"""Compare what five loops send to three trackers: `compare_loops.py [--python PYTHON]`.

The same model is trained on the same batches by each loop of loops_to_compare.py, which logs to
TensorBoard, MLflow and W&B: once undisturbed, and once killed at a step and started again. The
points in the stores of all loops, as far as they are of the names below, must be equal, and each
must be there once. The script prints a table, and exits with 1 if they differ.

Without `--python`, all packages, transformers, Lightning and Accelerate are installed into a new
environment. With it, that Python runs the loops.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from environments import Environment, wheels_of
from try_resolve import CONSTRAINTS

TOOLS = Path(__file__).parent
LOOPS = ("a loop by hand", "trainer-torch", "transformers", "Lightning", "Accelerate")
KILLED_AT = 7
NAMES = ("train/loss", "eval/loss")
DIGITS = 6
PACKAGES = ("core", "mlflow", "tensorboard", "wandb", "lightning", "accelerate")
BESIDE = ("torch", "transformers[torch]", "accelerate", "lightning", "tensorboard", "wandb")

Points = dict[tuple[str, int], float]


def main() -> None:
    """Run all loops, print what is in their stores, and exit with 1 if it differs."""
    parser = argparse.ArgumentParser(description="Compare five loops with three trackers each.")
    parser.add_argument("--python", help="runs the loops; by default that of a new environment")
    chosen = parser.parse_args().python
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = chosen or new_environment(folder)
        stores = {}
        for loop in LOOPS:
            for killed_at in (None, KILLED_AT):
                title = loop if killed_at is None else f"{loop}, killed at step {killed_at}"
                where = folder / title.replace(" ", "_")
                where.mkdir()
                stores[title] = trained(python, loop, where, killed_at)
    sys.exit(not are_equal(stores))


def trained(python: str, loop: str, where: Path, killed_at: int | None) -> dict[str, Points]:
    """Train with a loop, and return the points in each store."""
    environment = {**os.environ, "WANDB_MODE": "offline", "CUDA_VISIBLE_DEVICES": ""}
    command = [python, str(TOOLS / "loops_to_compare.py"), loop]
    if killed_at is not None:
        killed = subprocess.run([*command, str(killed_at)], cwd=where, env=environment, check=False)
        if killed.returncode != -signal.SIGKILL:
            sys.exit(f"{loop} was to be killed, but ended with {killed.returncode}")
    subprocess.run(command, check=True, cwd=where, env=environment)
    read = [python, str(TOOLS / "read_stores.py")]
    done = subprocess.run(read, check=True, cwd=where, env=environment, stdout=subprocess.PIPE)
    return rounded(done.stdout.decode())


def new_environment(folder: Path) -> str:
    """Make an environment with all loops and trackers, and return its Python."""
    environment = Environment(folder / "environment")
    wheels = wheels_of(["trainer-torch", *(f"callback-{name}" for name in PACKAGES)])
    environment.install(*BESIDE, *wheels, constraints=CONSTRAINTS)
    return str(environment.python)


def rounded(lines: str) -> dict[str, Points]:
    """Return the points of each store, from lines of store, name, step and value."""
    stores: dict[str, Points] = {}
    for line in lines.splitlines():
        store, name, step, value = line.split("\t")
        points = stores.setdefault(store, {})
        if name in NAMES:
            if (name, int(step)) in points:
                sys.exit(f"{store} has {name} twice at step {step}")
            points[name, int(step)] = float(f"{float(value):.{DIGITS}g}")
    return stores


def are_equal(stores: dict[str, dict[str, Points]]) -> bool:
    """Print the points of each loop in each store, and return whether all are equal."""
    expected = stores[LOOPS[0]]["MLflow"]
    print("| loop | store | points | equal to the first row |\n|---|---|---|---|")
    all_equal = True
    for loop, found in stores.items():
        for store, points in sorted(found.items()):
            is_equal = points == expected
            all_equal &= is_equal
            print(f"| {loop} | {store} | {len(points)} | {'yes' if is_equal else 'no'} |")
            if not is_equal:
                for key in sorted({*points.items()} ^ {*expected.items()}):
                    print("   ", key)
    return all_equal


if __name__ == "__main__":
    main()
