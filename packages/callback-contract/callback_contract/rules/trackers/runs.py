"""Runs: each training is stored in its own run, which another process can continue."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._faulty_tracker import EVERY_CALL, make_faulty
from callback_contract._isolation import collected_warnings
from callback_contract._python import run_python
from callback_contract._stored import (
    LOSSES,
    Stored,
    log_steps,
    losses,
    matches,
    parameter_of,
    require_curves,
    require_eventually,
    require_runs,
    tracker_rule,
    train,
)
from callback_contract._violation import ContractViolation, DoesNotApply, require
from callback_contract._watching import another_rank
from callback_core.tracking import Tracker


@tracker_rule(
    "RUN-001",
    why="Another process delivers what was logged without a connection, and has only the settings "
    "in a file (comet-ml/issue-tracking#463). A file must not contain keys.",
    fix="Return the current arguments of the constructor from settings(), as JSON values and "
    "without secrets.",
)
def settings_make_an_equal_tracker(case: Case) -> None:
    """`Tracker.settings()` returns JSON that makes an equal tracker, without secrets."""
    tracker = case.make_tracker().tracker
    settings = _settings_of(tracker)
    try:
        text = json.dumps(settings)
        again = type(tracker)(**json.loads(text)).settings()
    except Exception as error:
        message = f"settings() = {settings!r} makes no tracker: {error!r}"
        raise ContractViolation(message) from error
    require(again == settings, f"a tracker made from settings() = {settings!r} has {again!r}")
    for secret in case.subject.secrets:
        require(secret not in text, f"settings() contains the secret {secret!r}")


@tracker_rule(
    "RUN-002",
    why="Logs without a connection are lost if no other process delivers them: "
    "comet-ml/issue-tracking#463.",
    fix="Define the tracker's class at the top level of a module without side effects. Return "
    "everything that locates its store from settings().",
)
def another_process_delivers_to_the_same_store(case: Case) -> None:
    """A tracker that another process makes from `settings()` delivers to the same store."""
    callback = case.make_tracker()
    tracker = callback.tracker
    _settings_of(tracker)
    module, name = type(tracker).__module__, type(tracker).__qualname__
    if module == "__main__" or "<" in name:
        raise DoesNotApply(f"another process cannot import {name} from {module}")
    make_faulty(callback, {"open": EVERY_CALL})
    callback.options.flush_limit = 0.05
    with collected_warnings():
        train(case, *losses(*LOSSES[:3]), callback=callback)
    subject = case.subject
    arguments = (module, name, subject.sdk or "", str(case.output_dir), str(subject.stored_within))
    done = run_python("-c", _REPLAY, *arguments, timeout=100.0)
    if done.returncode == _NOT_IMPORTED:
        raise DoesNotApply(f"another process cannot find {module}.{name}")
    require(
        done.returncode == 0,
        f"another process, which made {name} from its settings, returned {done.returncode}: "
        f"{(done.stdout + done.stderr)[-600:]}",
    )
    require_runs(case, 1, "a training that another process delivered")
    Stored(case).require_losses(*LOSSES[:3])


_NOT_IMPORTED: Final = 77

_REPLAY: Final = f"""
import sys
from contextlib import suppress
from importlib import import_module

module, name, sdk, output_dir, patience = sys.argv[1:]
try:
    found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
except (ImportError, AttributeError):
    sys.exit({_NOT_IMPORTED})
with suppress(ImportError, ValueError):  # keeps the time of the import out of the replay's patience
    import_module(sdk)
from callback_core.tracking import replay

sys.exit(replay.main([output_dir, "--patience", patience]))
"""


@tracker_rule(
    "RUN-003",
    needs=["adopts"],
    why="Users open a run themselves to log more than a callback does. They found it closed "
    "(wandb/wandb#6779), or found a second run.",
    fix="In on_train_begin, use the open run. Do not close a run that the user opened.",
)
def the_users_run_is_used_and_stays_open(case: Case) -> None:
    """A run that the user opened gets all points, and stays open after the training."""
    with case.subject.users_run(case.output_dir) as run_id:
        training = train(case, *losses(*LOSSES[:3]))
        statuses = [run.status for run in case.runs()]
        training.evaluate({"eval_late": LOSSES[3]})
        require_eventually(case, "eval_late", 3, LOSSES[3])
        runs = {run.id: run for run in case.runs()}
    require(set(runs) == {run_id}, f"the user opened the run {run_id!r}; the store has {[*runs]}")
    Stored(case).require_losses(*LOSSES[:3])
    for status in (*statuses, runs[run_id].status):  # a late log may have opened it again
        require(status in (None, "running"), f"the user's run was closed as {status!r}")


@tracker_rule(
    "RUN-004",
    why="Runs were named by the second in which they began, so runs of the same second were "
    "merged: VMarsocci/pangaea-bench#104, wandb/wandb#5860.",
    fix="Let the store generate the id, or generate a random one.",
)
def runs_of_the_same_second_are_distinct(case: Case) -> None:
    """Trainings of several callbacks with one `run_name`, in one second, are distinct runs."""
    time.sleep(-time.time() % 1)  # to the next full second, so that the trainings share one
    for loss in LOSSES[:3]:
        train(case, {"loss": loss})
    require_runs(case, 3, "three trainings with one run_name")
    require_curves(case, [[loss] for loss in LOSSES[:3]])
    ids = [run.id for run in case.runs()]
    require(len(set(ids)) == 3, f"the ids of three runs are {ids}")


@tracker_rule(
    "RUN-005",
    why="Newer versions of transformers leave run_name as None. A callback that joins it to a "
    "path, or computes its length, raises an error.",
    fix="If args.run_name is None, choose a name.",
)
def a_run_needs_no_name(case: Case) -> None:
    """A training is stored if its `run_name` is `None`, empty or full of unusual characters."""
    names = (None, "", 'größe "2" & #1')
    for name, loss in zip(names, LOSSES, strict=False):
        train(case, {"loss": loss}, args=case.arguments(run_name=name))
    for loss in LOSSES[: len(names)]:
        Stored(case).require("loss", 1, loss)


@tracker_rule(
    "RUN-006",
    why="All trials of a search had the same name and were drawn as one run: "
    "huggingface/transformers#30563.",
    fix="In each on_train_begin that resumes nothing, open a run with the arguments of the trial.",
)
def trials_of_a_search_are_distinct_runs(case: Case) -> None:
    """Each trial of a hyperparameter search is a run with its own points and arguments."""
    callback, rates = case.make(), (0.3, 2e-5)
    for number, rate in enumerate(rates):
        training = case.training(callback, args=case.arguments(learning_rate=rate))
        state = training.state
        state.is_hyper_param_search, state.trial_name = True, f"trial-{number}"
        state.trial_params = {"learning_rate": rate}
        training.begin()
        log_steps(training, {"loss": LOSSES[number]})
        training.end()
    require_runs(case, 2, "two trials of a search")
    require_curves(case, [[loss] for loss in LOSSES[:2]])
    if not case.claims("parameters"):
        return
    for run, rate in zip(case.runs(), rates, strict=True):
        found = parameter_of(run.parameters, "learning_rate")
        require(matches(rate, found), f"learning_rate={rate} is stored as {found!r} in {run.id!r}")


@tracker_rule(
    "RUN-007",
    why="Each of eight processes opened a run, or wrote into the existing one "
    "(huggingface/transformers#28009).",
    fix="Do nothing if state.is_world_process_zero is False.",
)
def other_ranks_store_nothing(case: Case) -> None:
    """A process that is not the main process of the training opens no run."""
    for main_of_its_node in (False, True):
        training = case.training(state=another_rank(main_of_its_node=main_of_its_node))
        training.live()
        training.evaluate()
    runs = [run.id for run in case.runs()]
    require(not runs, f"in processes that are not the main process, it opened the runs {runs}")


def _settings_of(tracker: Tracker) -> dict[str, Any]:
    settings = tracker.settings()
    if settings is None:
        raise DoesNotApply("settings() is None, so the tracker is bound to its process")
    return settings
