"""Secrets: what the author declares as a secret is in no file and in no checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from callback_contract._case import Case
from callback_contract._process import captured_output, files_below, log_messages
from callback_contract._registry import rule
from callback_contract._training import OUT_OF_MEMORY
from callback_contract._violation import DoesNotApply, require
from callback_contract._watching import HandledTraining


@rule(
    "SEC-001",
    why="A token in a file beside the checkpoints is uploaded, shared and committed with them "
    "(allenai/rslearn#687).",
    fix="Keep secrets in memory and in the environment. Write where they come from instead.",
)
def writes_no_secret(case: Case) -> None:
    """No declared secret is in a file below `output_dir`, in a log message or in the output.

    This includes what a callback writes when a training fails, and when its service is unreachable.
    """
    if not case.subject.secrets:
        raise DoesNotApply("`secrets` is empty")
    with log_messages() as logged, captured_output() as (output, error):
        _train_and_fail(case, case.make)
        if case.claims("unreachable"):
            _train_and_fail(case, partial(case.subject.make_unreachable, case.output_dir))
    _require_no_secret(case, "its logs", "\n".join(logged))
    _require_no_secret(case, "its output", output.getvalue())
    _require_no_secret(case, "standard error", error.getvalue())
    for name, content in files_below(case.output_dir).items():
        _require_no_secret(case, f"the file {name}", content.decode("utf-8", "replace"))


def _train_and_fail(case: Case, make: Callable[[], Any]) -> None:
    training = case.training(make(), kind=HandledTraining)
    training.live()
    training.end()
    failing = case.begin(make(), kind=HandledTraining)
    failing.step({"loss": 0.5})
    failing.end(OUT_OF_MEMORY)


@rule(
    "SEC-002",
    why="Users share checkpoints, and with them any key inside (NVIDIA-NeMo/labs-molt#128).",
    fix="Leave secrets out of state_dict. Read them from the constructor or the environment.",
)
def keeps_no_secret_in_checkpoints(case: Case) -> None:
    """No declared secret is part of the state."""
    callback = case.make()
    case.training(callback).run(save=True)
    _require_no_secret(case, "its state", repr(case.states_of(callback)))


def _require_no_secret(case: Case, place: str, text: str) -> None:
    found = [secret for secret in case.subject.secrets if secret in text]
    require(not found, f"{place} contains {len(found)} of the declared secrets")
