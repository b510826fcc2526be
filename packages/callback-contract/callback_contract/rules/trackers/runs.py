"""Runs: which run a training is stored in, whose it is, and how its tracker is made elsewhere."""

from __future__ import annotations

import json
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._faulty_tracker import EACH, make_faulty
from callback_contract._python import run_python
from callback_contract._stored import (
    LOSSES,
    Stored,
    log_steps,
    losses,
    parameter_of,
    require_in_time,
    require_runs,
    same,
    tracker_rule,
    trained,
    warned,
)
from callback_contract._violation import ContractViolation, DoesNotApply, require
from callback_contract._watching import another_rank
from callback_core.tracking import Tracker


@tracker_rule(
    "RUN-001",
    why="What was logged without a connection is delivered by another process, which has nothing "
    "but the settings in a file (comet-ml/issue-tracking#463); a file must not hold keys.",
    mend="Return from settings() the arguments of the constructor as they are in force, as JSON "
    "knows them, and without secrets.",
)
def settings_make_an_equal_tracker(case: Case) -> None:
    """`Tracker.settings()` are the arguments of an equal tracker, through JSON, without secrets."""
    tracker = case.make_tracker().tracker
    settings = _settings_of(tracker)
    try:
        text = json.dumps(settings)
        again = type(tracker)(**json.loads(text)).settings()
    except Exception as error:
        told = f"settings() = {settings!r} makes no tracker: {error!r}"
        raise ContractViolation(told) from error
    require(again == settings, f"a tracker made from settings() = {settings!r} has {again!r}")
    for secret in case.subject.secrets:
        require(secret not in text, f"settings() holds the secret {secret!r}")


@tracker_rule(
    "RUN-002",
    why="What was logged without a connection is lost completely where nothing delivers it: "
    "comet-ml/issue-tracking#463.",
    mend="Put the tracker's class at the top of a module that has no side effects, and all that it "
    "needs to find its store into settings().",
)
def another_process_delivers_to_the_same_store(case: Case) -> None:
    """A tracker made from `settings()` in another process delivers to the same store."""
    callback = case.make_tracker()
    tracker = callback.tracker
    _settings_of(tracker)
    module, name = type(tracker).__module__, type(tracker).__qualname__
    if module == "__main__" or "<" in name:
        raise DoesNotApply(f"{name} of {module} cannot be imported by another process")
    make_faulty(callback, {"open": EACH})
    callback.options.flush_limit = 0.05
    with warned():
        trained(case, *losses(*LOSSES[:3]), callback=callback)
    patience = str(case.subject.stored_within)
    done = run_python("-c", _REPLAY, module, name, str(case.output_dir), patience, timeout=100.0)
    if done.returncode == _NOT_IMPORTED:
        raise DoesNotApply(f"another process does not find {module}.{name}")
    require(
        done.returncode == 0,
        f"another process, which made {name} from its settings, returned {done.returncode}: "
        f"{(done.stdout + done.stderr)[-600:]}",
    )
    require_runs(case, 1, "a training that another process has delivered")
    Stored(case).require_losses(*LOSSES[:3])


_NOT_IMPORTED: Final = 77

_REPLAY: Final = f"""
import sys
from importlib import import_module

module, name, output_dir, patience = sys.argv[1:]
try:
    found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
except (ImportError, AttributeError):
    sys.exit({_NOT_IMPORTED})
from callback_core.tracking import replay

sys.exit(replay.main([output_dir, "--patience", patience]))
"""


@tracker_rule(
    "RUN-003",
    needs=["adopts"],
    why="Users open a run themselves to have more in it than a callback sends, and found it closed "
    "(wandb/wandb#6779), or two runs.",
    mend="In on_train_begin, take the run that is open; do not close what is the user's.",
)
def a_run_of_the_users_is_used_and_stays_open(case: Case) -> None:
    """A run that the user has opened gets all points, and is open when the training has ended."""
    with case.subject.users_run(case.output_dir) as run_id:
        training = trained(case, *losses(*LOSSES[:3]))
        training.evaluate({"eval_late": LOSSES[3]})
        require_in_time(case, "eval_late", 3, LOSSES[3])
        runs = {run.id: run for run in case.runs()}
    require(set(runs) == {run_id}, f"the user opened the run {run_id!r}; there are {[*runs]}")
    Stored(case).require_losses(*LOSSES[:3])
    status = runs[run_id].status
    require(status in (None, "running"), f"it was closed as {status!r}, and is the user's")


@tracker_rule(
    "RUN-004",
    why="Runs were named by the second that they began in, and those of one second became one: "
    "VMarsocci/pangaea-bench#104, wandb/wandb#5860.",
    mend="Let the store give the id, or make it of random letters.",
)
def runs_of_one_second_have_ids_of_their_own(case: Case) -> None:
    """Trainings with one `run_name`, begun in one second by several callbacks, are several runs."""
    for loss in LOSSES[:3]:
        trained(case, {"loss": loss})
    require_runs(case, 3, "three trainings with one run_name")
    _require_one_loss_each(case, 3)
    ids = [run.id for run in case.runs()]
    require(len(set(ids)) == 3, f"the ids of three runs are {ids}")


@tracker_rule(
    "RUN-005",
    why="transformers' newer versions leave run_name None; a callback that joins it to a path, or "
    "takes its length, raises.",
    mend="Where args.run_name is None, choose a name.",
)
def a_run_need_not_have_a_name(case: Case) -> None:
    """A training is stored whose `run_name` is `None`, empty or full of odd characters."""
    names = (None, "", 'größe "2" & #1')
    for name, loss in zip(names, LOSSES, strict=False):
        trained(case, {"loss": loss}, args=case.arguments(run_name=name))
    for loss in LOSSES[: len(names)]:
        Stored(case).require("loss", 1, loss)


@tracker_rule(
    "RUN-006",
    why="A search's trials all had one name, and were drawn as one run: "
    "huggingface/transformers#30563.",
    mend="Open a run in each on_train_begin that resumes nothing, with the trial's arguments.",
)
def trials_of_a_search_are_runs_of_their_own(case: Case) -> None:
    """Each trial of a hyperparameter search is a run with its own points and arguments."""
    callback, rates = case.make(), (0.3, 2e-5)
    for number, rate in enumerate(rates):
        args = case.arguments(learning_rate=rate)
        training = case.training(callback, args=args)
        state = training.state
        state.is_hyper_param_search, state.trial_name = True, f"trial-{number}"
        state.trial_params = {"learning_rate": rate}
        training.begin()
        log_steps(training, {"loss": LOSSES[number]})
        training.end(None)
    require_runs(case, 2, "two trials of a search")
    _require_one_loss_each(case, 2)
    if not case.claims("parameters"):
        return
    for run, rate in zip(case.runs(), rates, strict=True):
        found = parameter_of(run.parameters, "learning_rate")
        require(
            same(rate, found), f"the learning rate of trial {run.id!r} is {found!r}, not {rate}"
        )


@tracker_rule(
    "RUN-007",
    why="Each of eight processes opened a run, or wrote into the one that there was "
    "(huggingface/transformers#28009).",
    mend="Do nothing where state.is_world_process_zero is False.",
)
def another_process_of_the_training_stores_nothing(case: Case) -> None:
    """A process that is not the main one of its training opens no run."""
    for main_of_its_node in (False, True):
        state = another_rank(main_of_its_node=main_of_its_node)
        training = case.training(state=state)
        training.live()
        training.evaluate()
    runs = [run.id for run in case.runs()]
    require(not runs, f"in processes that are not the main one, it opened the runs {runs}")


def _settings_of(tracker: Tracker) -> dict[str, Any]:
    settings = tracker.settings()
    if settings is None:
        raise DoesNotApply("settings() is None: the tracker is bound to its process")
    return settings


def _require_one_loss_each(case: Case, count: int) -> None:
    """Require that each of the first losses is in a run that has no other."""
    stored = Stored(case)
    for loss in LOSSES[:count]:
        alone = [
            run.id
            for run in stored.runs
            if (points := stored.of(run, "loss")) and all(same(loss, value) for _, value in points)
        ]
        require(
            len(alone) == 1,
            f"{loss!r} is the only loss of one training; it is the only one of the runs {alone}",
        )
