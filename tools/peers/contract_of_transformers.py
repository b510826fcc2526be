"""Check transformers' own callbacks against the contract, for `docs/contract-of-transformers.md`.

Install each SDK into an environment of its own, because transformers' integrations import some of
the SDKs that are installed. The callbacks without an SDK share one. `run` writes the results of one
callback to a file. `page` makes the page from all files:

    python -m venv /tmp/peer
    /tmp/peer/bin/pip install torch==2.13.0 transformers==5.24.0 mlflow pytest
    export PYTHONPATH=packages/callback-core:packages/callback-contract
    /tmp/peer/bin/python tools/peers/contract_of_transformers.py run /tmp/results MLflowCallback
    /tmp/peer/bin/python tools/peers/contract_of_transformers.py page /tmp/results \
        > docs/contract-of-transformers.md

Each rule is checked in a process of its own, for at most `LIMIT` seconds. That process is forked
from one that has imported the SDK.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import traceback
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from contract_page import page
from transformers_callbacks import (
    PACKAGES,
    PEERS,
    VERSION,
    Peer,
    extend_arguments,
    watch_trainings,
)

from callback_contract import RULES, ContractViolation, Rule
from callback_contract._process import captured_output
from callback_contract._python import missing
from callback_contract._suite import check_rule, plan
from callback_contract._violation import DoesNotApply

LIMIT: Final = Peer.time_limit + 60.0
"""The seconds after which a rule is killed that its own time limit does not end."""

JOBS: Final = int(os.environ.get("JOBS", "4"))
"""The number of rules to check at once. They mostly wait."""


def run(peer: type[Peer], only: list[str], into: Path) -> None:
    """Check the rules for one callback, and write the results to a file in `into`.

    With `only`, the ids of some rules, the file keeps its results for all others.
    """
    import transformers

    if transformers.__version__ != VERSION:
        sys.exit(f"This needs transformers {VERSION}, not {transformers.__version__}.")
    extend_arguments()
    watch_trainings()
    into = into.absolute()
    into.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        os.environ["HOME"] = folder
        os.chdir(folder)
        sys.path[:] = [os.path.abspath(path) for path in sys.path]
        peer.load()
        planned = [one for one in plan(peer) if not only or one.rule.id in only]
        rules = [rule for rule, expected, _ in planned if expected == "kept"]
        outcomes = apart(peer, rules, Path(folder))
        results = []
        for rule, expected, lacks in planned:
            outcome, message = outcomes.get(rule.id, (expected, lacks))
            results.append([rule.id, outcome, plain(message, folder)])
            if outcome == "crashed":
                print(rule.id, message, file=sys.stderr)
    versions = {name: version(name) for name in ("transformers", "torch", *peer.packages)}
    file = into / f"{peer.__name__}.json"
    if only:
        before = json.loads(file.read_text())["results"]
        results = sorted([*results, *(one for one in before if one[0] not in only)])
    data = {"versions": versions, "results": results}
    file.write_text(json.dumps(data, indent=1) + "\n")


def apart(peer: type[Peer], rules: list[Rule], folder: Path) -> dict[str, tuple[str, str]]:
    """Check each rule in a process of its own, `JOBS` at once; return outcome and message by id."""
    outcomes: dict[str, tuple[str, str]] = {}
    waiting = [*rules]
    under_way: dict[int, tuple[Rule, float]] = {}
    while waiting or under_way:
        while waiting and len(under_way) < JOBS:
            rule = waiting.pop(0)
            under_way[_started(peer, rule, folder)] = (rule, time.monotonic() + LIMIT)
        for child, (rule, deadline) in [*under_way.items()]:
            late = time.monotonic() > deadline
            if late or os.waitpid(child, os.WNOHANG) != (0, 0):
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)  # and everything that it started
                if late:
                    os.waitpid(child, 0)
                del under_way[child]
                answer = folder / f"{rule.id}.json"
                if answer.exists():
                    outcome, message = json.loads(answer.read_text())
                    outcomes[rule.id] = (outcome, message)
                else:
                    why = f"takes more than {LIMIT:.0f} seconds" if late else "ends the process"
                    outcomes[rule.id] = ("broken", why)
        time.sleep(0.02)
    return outcomes


def _started(peer: type[Peer], rule: Rule, folder: Path) -> int:
    """Start a process that checks one rule, and return its id."""
    child = os.fork()
    if child == 0:
        os.setsid()  # so that everything that it starts can be killed with it
        if rule.id == "IMP-002":
            os.environ["PYTHONPATH"] = os.pathsep.join(
                sys.path
            )  # whatever the working directory is
            os.execv(
                sys.executable, [sys.executable, __file__, "without", peer.__name__, str(folder)]
            )
        try:
            _answer(peer, rule, folder)
        finally:
            os._exit(0)  # skip what the SDK does at exit
    return child


def without_its_sdk(peer: type[Peer], folder: Path) -> None:
    """Check IMP-002, about a missing SDK, in this interpreter, which never imported the SDK."""
    extend_arguments()
    with missing(str(peer.sdk)):
        _answer(peer, RULES["IMP-002"], folder, prepares=False)
    os._exit(0)


def _answer(peer: type[Peer], rule: Rule, folder: Path, *, prepares: bool = True) -> None:
    """Check one rule in this process, and write the outcome to a file, atomically."""
    answer = folder / f"{rule.id}.new"
    answer.write_text(json.dumps(_checked(peer, rule, folder, prepares)))
    answer.rename(answer.with_suffix(".json"))


def _checked(peer: type[Peer], rule: Rule, folder: Path, prepares: bool) -> tuple[str, str]:
    """Check one rule in this process, discard its output, and return outcome and message."""
    at = folder / rule.id
    (at / "output").mkdir(parents=True)
    (at / "working directory").mkdir()
    os.chdir(at / "working directory")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        subject = peer()
        if prepares:
            subject.prepare(at / "output", rule)
        with captured_output():
            check_rule(rule, subject, at)
    except ContractViolation as violation:
        return "broken", violation.seen
    except DoesNotApply as reason:
        return "does not apply", str(reason)
    except BaseException as error:
        return "crashed", "".join(traceback.format_exception(error))
    return "kept", ""


def plain(message: str, folder: str) -> str:
    """Return a message without the parts that differ between runs."""
    message = re.sub(re.escape(folder) + r"/[A-Z]{3}-\d{3}", "…", message).replace(folder, "…")
    message = re.sub(r"/tmp/\w+", "…", message.replace(str(PACKAGES), "packages"))
    message = re.sub(r"0x[0-9a-f]{6,}", "0x…", message)
    message = re.sub(r"\b[0-9a-f]{24,}\b|\b\d{8}_\d{6}-\w{8}\b", "…", message)
    message = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+", "…", message)
    before, left, names = message.partition(" are left: ")
    plain_names = {_plain_name(name) for name in names.split(", ")} - {""}
    return (before + left + ", ".join(sorted(plain_names))).removesuffix(": ")


def _plain_name(name: str) -> str:
    """Return the name of a leftover without numbers of descriptors, processes and threads."""
    name = re.sub(r"^\d+(: |$)", "", name)
    name = re.sub(r"(\w+):\[\w*\]", r"\1", name)
    name = re.sub(r"((?:Thread|Executor|Dummy)-)[\d_]+", r"\1…", name)
    name = re.sub(r"\btmp\w{8}\b", "tmp…", name)
    return re.sub(r"(-\d{4,})+", "-…", name)


if __name__ == "__main__":
    if sys.argv[1] == "page":
        print("\n".join(page(Path(sys.argv[2]), LIMIT)))
    elif sys.argv[1] == "without":
        without_its_sdk(PEERS[sys.argv[2]], Path(sys.argv[3]))
    else:
        run(PEERS[sys.argv[3]], sys.argv[4:], Path(sys.argv[2]))
