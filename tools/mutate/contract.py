"""How many mutants of callback_core the contract alone kills.

A mutant is a copy of `callback_core` with one change. It is killed where a rule fails, or where the
rules do not come to an end: by the reference tracker's contract if the change is in
`callback_core.tracking`, by that of the callback itself if it is in one of the four core callbacks.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import py_compile
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

from changes import Mutant, mutants_of

ROOT = Path(__file__).parents[2] / "packages"
CORE = ROOT / "callback-core/callback_core"
CONTRACT = ROOT / "callback-contract"
INSIDE = Path(__file__).parent / "inside.py"
TARGET = 0.85
CONTROL_EVERY = 25
"""After so many mutants the contract is run on a copy without a change."""

SUITES = {
    "default_flow": ("test_core_callbacks", "TestDefaultFlow"),
    "printer": ("test_core_callbacks", "TestPrinter"),
    "progress": ("test_core_callbacks", "TestProgress"),
    "early_stopping": ("test_core_callbacks", "TestEarlyStopping"),
}
"""The contract of a module; those of `tracking` have the reference tracker's."""


class Slot:
    """A copy of what the contract needs, in which one mutant at a time is run."""

    def __init__(self, at: Path) -> None:
        self.at, self.path, self.result = at, at / "path", at / "result.json"
        shutil.copytree(CORE, self.path / "callback_core")
        shutil.copytree(CONTRACT / "callback_contract", self.path / "callback_contract")
        for name in ("reference_tracker", "test_core_callbacks"):
            shutil.copy(CONTRACT / f"tests/{name}.py", self.path)
        compileall.compile_dir(self.path, quiet=2)

    def run(self, module: str, limit: float, *flags: str, source: str | None = None) -> str:
        """Return which rule a copy fails, `hangs` or `dies`; nothing where it keeps all."""
        file = self.path / f"callback_core/{module}.py"
        cached = Path(cache_from_source(str(file)))
        self.result.unlink(missing_ok=True)
        (self.at / "tmp").mkdir()
        suite = SUITES.get(module, ("reference_tracker", "Reference"))
        if source is not None:
            cached.unlink()
            file.write_text(source, "utf-8")
        environment = {**os.environ, "PYTHONPATH": str(self.path), "TMPDIR": str(self.at / "tmp")}
        process = subprocess.Popen(
            [sys.executable, str(INSIDE), str(self.result), *suite, *flags],
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=self.at / "tmp",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(limit)
            failed = (
                json.loads(self.result.read_text())["failed"] if self.result.exists() else "dies"
            )
        except subprocess.TimeoutExpired:
            failed = "hangs"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(self.at / "tmp", ignore_errors=True)
            if source is not None:
                shutil.copy(CORE / f"{module}.py", file)
                py_compile.compile(str(file), doraise=True)
        return str(failed)


class Run:
    """Runs mutants in some slots, and controls between them."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.slots: SimpleQueue[Slot] = SimpleQueue()
        for number in range(jobs):
            self.slots.put(Slot(folder / str(number)))
        self.jobs, self.took = jobs, [5.0]
        self.controls: list[str] = []

    @property
    def limit(self) -> float:
        """Seconds after which a mutant hangs: three times as long as it took without a change."""
        return 3 * max(self.took)

    def reached(self, module: str) -> dict[str, list[int]]:
        """Return which lines the contract of `module` reaches, by module, if it keeps all rules."""
        slot, begun = self.slots.get(), monotonic()
        if failed := slot.run(module, 120.0):
            raise SystemExit(f"{module} without a change fails: {failed}")
        self.took.append(monotonic() - begun)
        slot.run(module, 300.0, "trace")
        lines: dict[str, list[int]] = json.loads(slot.result.read_text())["lines"]
        self.slots.put(slot)
        return lines

    def kill(self, mutants: list[Mutant]) -> list[str]:
        """Return what killed each of `mutants`; nothing where it survives."""
        with ThreadPoolExecutor(self.jobs) as threads:
            return list(threads.map(self._kill, range(len(mutants)), mutants))

    def _kill(self, number: int, mutant: Mutant) -> str:
        slot = self.slots.get()
        if number % CONTROL_EVERY == 0:
            self.controls.append(slot.run(mutant.module, self.limit))
        killed = slot.run(mutant.module, self.limit, source=mutant.source)
        self.slots.put(slot)
        print(f"{killed or 'SURVIVES':8} {mutant}", file=sys.stderr, flush=True)
        return killed


def report(pairs: list[tuple[Mutant, str]], reasons: dict[str, str]) -> float:
    """Print what came of the mutants, by module and one by one, and return the share killed."""
    kinds = ("killed", "survives", "not reached", "of no consequence")
    print(f"{'module':24}{'made':>6}" + "".join(f"{kind:>19}" for kind in kinds))
    rows: dict[str, Counter[str]] = {}
    for mutant, fate in pairs:
        rows.setdefault(mutant.module, Counter())[fate] += 1
    total = rows["all"] = Counter(fate for _, fate in pairs)
    for name, row in rows.items():
        print(f"{name:24}{row.total():6}" + "".join(f"{row[kind]:19}" for kind in kinds))
    for kind in kinds[1:]:
        print(f"\n{kind}:")
        for mutant in (mutant for mutant, fate in pairs if fate == kind):
            why = f" | {reasons[str(mutant)]}" if kind == kinds[-1] else ""
            print(f"{mutant}{why}")
    killed, made = total["killed"], total.total()
    mattering = made - total["of no consequence"]
    print(f"\nkilled: {killed} of {made}, {100 * killed / made:.1f} %;")
    print(f"without those of no consequence: of {mattering}, {100 * killed / mattering:.1f} %")
    return killed / mattering


def reasons_in(file: Path) -> dict[str, str]:
    """Return why survivors are of no consequence, by how they are printed."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    said = (line.rpartition(" | ") for line in lines if line and not line.startswith("#"))
    return {text.strip(): reason for text, _, reason in said}


def main() -> int:
    """Run a sample of the mutants, print what came of them, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    modules = [f"tracking/{file.stem}" for file in sorted((CORE / "tracking").glob("[!_]*.py"))]
    modules += SUITES
    parser.add_argument("--sample", type=int, default=200, help="how many mutants; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", action="append", help="of these only", choices=modules)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="exit with 1 below the target")
    parser.add_argument("--reasons", type=Path, default=Path(__file__).parent / "survivors.txt")
    options = parser.parse_args()

    chosen = options.module or modules
    everything = [mutant for module in chosen for mutant in mutants_of(CORE, module)]
    mutants = [*everything]
    random.Random(options.seed).shuffle(mutants)  # so that a larger sample has a smaller one in it
    sample = mutants[: options.sample or None]
    reasons = reasons_in(options.reasons)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        run = Run(Path(folder), options.jobs)
        lines: dict[str, dict[str, list[int]]] = {}
        for module in chosen:
            suite = module if module in SUITES else "tracking"
            if suite not in lines:
                lines[suite] = run.reached(module)
            lines[module] = lines[suite]
        met = [not set(lines[m.module].get(m.module, ())).isdisjoint(m.lines) for m in sample]
        killed = iter(run.kill([mutant for mutant, ran in zip(sample, met, strict=True) if ran]))
    fates = [("killed" if next(killed) else "survives") if ran else "not reached" for ran in met]
    fates = [
        "of no consequence" if fate != "killed" and str(mutant) in reasons else fate
        for mutant, fate in zip(sample, fates, strict=True)
    ]
    print(f"a sample of {len(sample)} of {len(mutants)} mutants, seed {options.seed}")
    place = {str(mutant): number for number, mutant in enumerate(everything)}
    pairs = sorted(zip(sample, fates, strict=True), key=lambda pair: place[str(pair[0])])
    result = report(pairs, reasons)
    wrong = [failed for failed in run.controls if failed]
    print(f"controls without a change: {len(run.controls)}, of which fail: {wrong or 'none'}")
    for mutant, fate in pairs:
        if fate == "killed" and str(mutant) in reasons:
            print(f"has a reason to survive and is killed: {mutant}")
    stale = reasons.keys() - {str(mutant) for mutant in mutants} if not options.module else ()
    print("".join(f"no such mutant any more: {text}\n" for text in sorted(stale)), end="")
    return int(options.check and result < TARGET)


if __name__ == "__main__":
    sys.exit(main())
