"""How many mutants of callback_core the contract alone kills.

A mutant is a copy of `callback_core` with one change. It is killed where a rule fails, or where the
rules do not come to an end. Rules are checked of the reference tracker, in several configurations,
and of the four core callbacks; those that run the line that is changed.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import py_compile
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any

from changes import Mutant, mutants_of
from inside import MARK

HERE = Path(__file__).parent
ROOT = HERE.parents[1] / "packages"
CORE = ROOT / "callback-core/callback_core"
CONTRACT = ROOT / "callback-contract"
TARGET = 0.85
CONTROL_EVERY = 50
"""After so many mutants the contract is checked of a copy without a change."""

KILLED = re.compile(r"(?!SURVIVES).+? +([\w/]+\.py:\d+ .*)")
"""A line that says which mutant was killed."""

CALLBACKS = ("default_flow", "printer", "progress", "early_stopping")
OF_TRACKING = (
    "reference_tracker:Whole",
    *(f"configurations:{name}" for name in ("Inline", "Plain", "Configured", "Importing")),
)
OF_CALLBACKS = tuple(
    f"test_core_callbacks:{name}"
    for name in ("TestDefaultFlow", "TestPrinter", "TestProgress", "TestEarlyStopping")
)
SUITES = OF_TRACKING + OF_CALLBACKS
"""What is checked: a module of the contract's own tests, and a contract in it."""

Check = tuple[str, str]
"""A suite and a rule."""


class Slot:
    """A copy of what the contract needs, in which one mutant at a time is checked."""

    def __init__(self, at: Path) -> None:
        self.at, self.path = at, at / "path"
        shutil.copytree(CORE, self.path / "callback_core")
        shutil.copytree(CONTRACT / "callback_contract", self.path / "callback_contract")
        for file in (CONTRACT / "tests").glob("*.py"):
            shutil.copy(file, self.path)
        shutil.copy(HERE / "lines_that_run.py", self.path)
        starts = "from lines_that_run import trace_if_asked\n\ntrace_if_asked()\n"
        (self.path / "sitecustomize.py").write_text(starts)
        compileall.compile_dir(self.path, quiet=2)
        environment = {**os.environ, "PYTHONPATH": str(self.path), MARK: str(at)}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "inside.py"), str(at)],
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.checks: list[Check] = [(s, r) for s, r in self.ask(suites=[*SUITES])["checks"]]

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to a request."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def check(
        self, checks: list[Check], limit: float, mutant: Mutant | None = None, trace: bool = False
    ) -> dict[str, Any]:
        """Return what came of checking a mutant, or a copy without a change."""
        file = self.path / f"callback_core/{mutant.module if mutant else '__init__'}.py"
        cached = Path(cache_from_source(str(file)))
        if mutant is not None:
            cached.unlink()
            file.write_text(mutant.source, "utf-8")
        try:
            return self.ask(checks=checks, limit=limit, trace=trace)
        finally:
            self.end_what_is_left()
            shutil.rmtree(self.at / "tmp", ignore_errors=True)
            if mutant is not None:
                shutil.copy(CORE / f"{mutant.module}.py", file)
                py_compile.compile(str(file), doraise=True)

    def end_what_is_left(self) -> None:
        """End the processes that a mutant has started and that outlive it."""
        mark = f"{MARK}={self.at}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                ours = mark in (process / "environ").read_bytes().split(b"\0")
                if ours and int(process.name) != self.process.pid:
                    os.kill(int(process.name), signal.SIGKILL)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Run:
    """Checks mutants in some slots, and copies without a change between them."""

    def __init__(self, folder: Path, jobs: int) -> None:
        with ThreadPoolExecutor(jobs) as threads:
            self._all = [*threads.map(Slot, (folder / str(number) for number in range(jobs)))]
        self.slots: SimpleQueue[Slot] = SimpleQueue()
        for slot in self._all:
            self.slots.put(slot)
        self.jobs = jobs
        self.controls: list[str] = []
        self.seconds: dict[Check, float] = {}
        self.lines: dict[Check, dict[str, set[int]]] = {}
        self.at_import: dict[str, set[int]] = {}
        self._killed: Counter[Check] = Counter()
        self._tried: Counter[Check] = Counter()

    def find_out(self, suites: Iterable[str]) -> None:
        """Find out how long each rule of `suites` takes, and which lines it runs.

        Raises:
            SystemExit: A rule is broken where nothing is changed.
        """
        with ThreadPoolExecutor(self.jobs) as threads:
            list(threads.map(self._find_out, suites))

    def _find_out(self, suite: str) -> None:
        slot = self.slots.get()
        checks = [check for check in slot.checks if check[0] == suite]
        answer = slot.check(checks, 600.0)
        traced = {} if answer["failed"] else slot.check(checks, 1200.0, trace=True)
        self.slots.put(slot)
        if failed := answer["failed"] or traced["failed"]:
            said = answer.get("said") or traced.get("said", "")
            raise SystemExit(f"without a change, {failed} fails: {said}")
        imported, *lines = traced["lines"]
        for module, numbers in imported.items():
            self.at_import.setdefault(module, set()).update(numbers)
        for check, seconds, ran in zip(checks, answer["seconds"], lines, strict=True):
            self.seconds[check] = seconds
            self.lines[check] = {module: set(numbers) for module, numbers in ran.items()}

    def checks_of(self, mutant: Mutant) -> list[Check]:
        """Return the checks that run a line of `mutant`; all of them where importing does."""
        module = mutant.module
        if self.at_import.get(module, set()).isdisjoint(mutant.lines):
            found = [
                check
                for check, lines in self.lines.items()
                if not lines.get(module, set()).isdisjoint(mutant.lines)
            ]
        else:
            found = [check for check, lines in self.lines.items() if module in lines]
        return found

    def in_order(self, checks: Iterable[Check]) -> list[Check]:
        """Return `checks` with those first that kill most for the time they take."""

        def seconds_to_a_kill(check: Check) -> float:
            chance = (self._killed[check] + 0.2) / (self._tried[check] + 4)
            return (self.seconds[check] + 0.01) / chance

        return sorted(checks, key=seconds_to_a_kill)

    def kill(self, mutants: list[Mutant]) -> list[str]:
        """Return what killed each of `mutants`; nothing where it survives."""
        with ThreadPoolExecutor(self.jobs) as threads:
            return list(threads.map(self._kill, range(len(mutants)), mutants))

    def _kill(self, number: int, mutant: Mutant) -> str:
        slot = self.slots.get()
        checks = self.in_order(self.checks_of(mutant))
        limit = 10.0 + 3 * sum(self.seconds[check] for check in checks)
        if number % CONTROL_EVERY == 0:
            self.controls.append(str(slot.check(checks, limit)["failed"]))
        killed = str(slot.check(checks, limit, mutant)["failed"])
        by = next((c for c in checks if killed == f"{c[1]} {c[0]}"), None)
        if by is not None:
            # Once more, since rules have limits of time, and a machine may be busy.
            again = slot.check([by], 10.0 + 3 * self.seconds[by], mutant)["failed"]
            if not again:
                rest = checks[checks.index(by) + 1 :]
                killed = str(slot.check(rest, limit, mutant)["failed"])
                by = next((c for c in checks if killed == f"{c[1]} {c[0]}"), None)
        self._tried.update(checks if by is None else checks[: checks.index(by) + 1])
        if by is not None:
            self._killed[by] += 1
        self.slots.put(slot)
        print(f"{killed or 'SURVIVES':8} {mutant}", file=sys.stderr, flush=True)
        return killed

    def close(self) -> None:
        """End all slots."""
        for slot in self._all:
            slot.close()


def suites_for(modules: Iterable[str]) -> tuple[str, ...]:
    """Return the suites that may reach `modules`."""
    kinds = {module in CALLBACKS for module in modules}
    return OF_TRACKING * (False in kinds) + OF_CALLBACKS * (True in kinds)


def report(pairs: list[tuple[Mutant, str]], reasons: dict[str, str]) -> float:
    """Print what came of the mutants, by module and one by one, and return the share killed."""
    kinds = ("killed", "survives", "not reached", "of no consequence")
    print(f"{'module':24}{'made':>6}" + "".join(f"{kind:>19}" for kind in kinds) + "     share")
    rows: dict[str, Counter[str]] = {}
    for mutant, fate in pairs:
        rows.setdefault(mutant.module, Counter())[fate] += 1
    total = rows["all"] = Counter(fate for _, fate in pairs)
    for name, row in rows.items():
        share = row["killed"] / max(1, row.total() - row["of no consequence"])
        counts = "".join(f"{row[kind]:19}" for kind in kinds)
        print(f"{name:24}{row.total():6}{counts}{100 * share:8.0f} %")
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


def killed_in(files: Iterable[Path]) -> set[str]:
    """Return the mutants that earlier runs say on their standard error to have been killed."""
    lines = (line for file in files for line in file.read_text("utf-8").splitlines())
    return {found[1] for line in lines if (found := KILLED.match(line))}


def main() -> int:
    """Check a sample of the mutants, print what came of them, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    modules = [f"tracking/{file.stem}" for file in sorted((CORE / "tracking").glob("[!_]*.py"))]
    modules += CALLBACKS
    parser.add_argument("--sample", type=int, default=0, help="how many mutants; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", action="append", help="of these only", choices=modules)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="exit with 1 below the target")
    parser.add_argument(
        "--after", action="append", type=Path, default=[], metavar="FILE",
        help="standard error of an earlier run: what it killed is not run again",
    )  # fmt: skip
    parser.add_argument("--reasons", type=Path, default=HERE / "survivors.txt")
    options = parser.parse_args()

    chosen = options.module or modules
    everything = [mutant for module in chosen for mutant in mutants_of(CORE, module)]
    mutants = [*everything]
    random.Random(options.seed).shuffle(mutants)  # so that a larger sample has a smaller one in it
    sample = mutants[: options.sample or None]
    reasons = reasons_in(options.reasons)
    known = killed_in(options.after)
    memory, begun = Path("/dev/shm"), monotonic()
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        run = Run(Path(folder), options.jobs)
        try:
            run.find_out(suites_for(chosen))
            left = [mutant for mutant in sample if str(mutant) not in known]
            met = [mutant for mutant in left if run.checks_of(mutant)]
            survive = {str(m) for m, by in zip(met, run.kill(met), strict=True) if not by}
        finally:
            run.close()
    unreached = {str(mutant) for mutant in left} - {str(mutant) for mutant in met}

    def fate(mutant: str) -> str:
        if mutant not in survive | unreached:
            return "killed"
        if mutant in reasons:
            return "of no consequence"
        return "survives" if mutant in survive else "not reached"

    fates = [fate(str(mutant)) for mutant in sample]
    print(f"a sample of {len(sample)} of {len(mutants)} mutants, seed {options.seed}")
    print(f"{len(run.seconds)} checks of {len(SUITES)} suites, {monotonic() - begun:.0f} s")
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
