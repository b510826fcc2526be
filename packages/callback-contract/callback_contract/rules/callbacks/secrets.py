"""Secrets: what the author declares as one stands in no file and in no checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from callback_contract._case import Case
from callback_contract._process import files_below, log_messages, silence
from callback_contract._registry import rule
from callback_contract._training import DIED
from callback_contract._violation import DoesNotApply, require


@rule(
    "SEC-001",
    why="A token in a file beside the checkpoints is uploaded, shared and committed with them "
    "(allenai/rslearn#687).",
    mend="Keep secrets in memory and in the environment; write where they come from, not them.",
)
def writes_no_secret(case: Case) -> None:
    """No declared secret stands in a file below `output_dir`, in a log, or in what is printed."""
    with log_messages() as logged, silence() as (output, error):
        for training in _trainings(case):
            training.end()
    _require_none(case, {"its logs": "\n".join(logged), "its output": output.getvalue()})
    _require_none(case, {"standard error": error.getvalue()})
    for name, content in files_below(case.output_dir).items():
        _require_none(case, {f"the file {name}": content.decode("utf-8", "replace")})


@rule(
    "SEC-002",
    why="A checkpoint is shared; a key in it is shared too (NVIDIA-NeMo/labs-molt#128).",
    mend="Leave the secret out of state_dict, and take it from the constructor or the environment.",
)
def keeps_no_secret_in_checkpoints(case: Case) -> None:
    """No declared secret is part of the state."""
    callback = case.make()
    case.training(callback).run(save=True)
    _require_none(case, {"its state": repr(case.states_of(callback))})


def _trainings(case: Case) -> Iterator[Any]:
    if not case.subject.secrets:
        raise DoesNotApply("`secrets` names none")
    training = case.training()
    training.live()
    yield training
    dies = case.training()
    dies.begin()
    dies.step({"loss": 0.5})
    dies.fire("on_exception", exception=DIED)
    yield dies


def _require_none(case: Case, texts: dict[str, str]) -> None:
    for where, text in texts.items():
        found = [secret for secret in case.subject.secrets if secret in text]
        require(not found, f"{len(found)} of the declared secrets stand in {where}")
