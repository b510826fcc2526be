"""Names and parameters of tasks, and those that were set on a task's page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clearml_server import ClearMLServer

from callback_clearml import ClearMLCallback
from callback_clearml.parameters import unused_values
from callback_contract.testing import run_python
from trainer_torch.testing import Trial, small_trainer


@pytest.mark.parametrize(
    ("run_name", "task_name", "expected"),
    [
        ("first", None, "first"),
        ("first", "of the callback", "of the callback"),
        (None, None, "Trainer"),
        ("  ", None, "Trainer"),
        ("a", None, "Trainer a"),
    ],
)
def test_a_task_has_the_name_of_the_run_unless_the_callback_has_one(
    server: ClearMLServer, tmp_path: Path, run_name: str, task_name: str, expected: str
) -> None:
    callback = ClearMLCallback(task_name=task_name)
    small_trainer(tmp_path / "out", callback, run_name=run_name).train()
    assert server.task()["name"] == expected


def test_a_trial_has_the_name_of_the_run_and_its_own(server: ClearMLServer, tmp_path: Path) -> None:
    trial = Trial("trial-7", {})
    small_trainer(tmp_path / "out", trial, ClearMLCallback(), run_name="search").train()
    assert server.task()["name"] == "search trial-7"


def on_page(**values: str) -> dict[str, Any]:
    """Return the parameters of a task as the server keeps them."""
    entries = {
        name: {"section": "Args", "name": name, "value": value} for name, value in values.items()
    }
    return {"Args": entries}


AGENT = """
import logging, sys
from pathlib import Path
from callback_clearml import ClearMLCallback
from trainer_torch.testing import small_trainer
logging.basicConfig()
small_trainer(Path(sys.argv[1]), ClearMLCallback(redact=["run_name"])).train()
"""


def test_values_of_an_agents_task_that_are_not_used_are_told_and_kept(
    server: ClearMLServer, tmp_path: Path
) -> None:
    page = on_page(
        learning_rate="0.3", num_train_epochs="3", use_cpu="true", run_name="secret", mine="1"
    )
    task = server.new_task(name="queued", type="training", hyperparams=page)
    done = run_python("-c", AGENT, str(tmp_path / "out"), variables={"CLEARML_TASK_ID": task})
    assert done.returncode == 0, done.stderr
    [warning] = [line for line in done.stderr.splitlines() if "Args/learning_rate" in line]
    assert "0.3" in warning and "0.05" in warning
    assert not any(name in warning for name in ("num_train_epochs", "use_cpu", "secret", "mine"))
    kept = server.parameters(task)
    assert kept["Args/learning_rate"] == "0.05"
    assert kept["Args/mine"] == "1"
    assert {name: kept[name] for name in kept if "not used" in name} == {
        "Args (not used)/learning_rate": "0.3"
    }


CONNECTED = """
import sys
from pathlib import Path
from clearml import Task
from callback_clearml import ClearMLCallback
from trainer_torch.testing import small_trainer
task = Task.init("mine", "outer", auto_connect_frameworks=False, auto_connect_streams=False,
                 auto_connect_arg_parser=False, auto_resource_monitoring=False)
values = task.connect({"learning_rate": 0.05}, name="Args")
made = small_trainer(Path(sys.argv[1]), ClearMLCallback, learning_rate=values["learning_rate"])
made.train()
print("trained with", made.args.learning_rate)
"""


def test_values_that_the_program_connects_are_used(server: ClearMLServer, tmp_path: Path) -> None:
    page = on_page(learning_rate="0.3")
    task = server.new_task(name="queued", type="training", hyperparams=page, project="p")
    variables = {"CLEARML_TASK_ID": task, "CLEARML_LOG_TASK_TO_BACKEND": "1"}
    done = run_python("-c", CONNECTED, str(tmp_path / "out"), variables=variables)
    assert "trained with 0.3" in done.stdout, done.stderr
    assert "not use" not in done.stderr
    assert server.parameters(task)["Args/learning_rate"] == "0.3"


OFFLINE = """
import logging, sys
from pathlib import Path
from clearml import Task
from callback_clearml import ClearMLCallback
from trainer_torch.testing import small_trainer
logging.basicConfig()
task = Task.init("mine", "outer", auto_connect_frameworks=False, auto_connect_streams=False,
                 auto_connect_arg_parser=False, auto_resource_monitoring=False)
task.set_parameter("Args/learning_rate", 0.3)
small_trainer(Path("out"), ClearMLCallback).train()
print(task.get_parameters())
task.close()
"""


def test_values_of_an_offline_task_that_are_not_used_are_told_too() -> None:
    done = run_python("-c", OFFLINE, variables={"CLEARML_OFFLINE_MODE": "1"})
    assert "'Args (not used)/learning_rate': '0.3'" in done.stdout, done.stderr
    assert "Args/learning_rate" in done.stderr


@pytest.mark.parametrize(
    ("shown", "used"),
    [
        ("0.30", 0.3),
        ("1e-3", 0.001),
        ("8", 8),
        ("8.0", 8),
        ("True", True),
        ("false", False),
        ("", None),
        ("None", None),
        ('["a", 1]', ["a", 1]),
        ('{"a": 1}', {"a": 1}),
        ("cosine", "cosine"),
        ("hf_token", "[redacted]"),
    ],
)
def test_a_value_in_another_form_is_the_same(shown: str, used: Any) -> None:
    assert unused_values({"Args/x": shown}, {"Args/x": used}) == {}


@pytest.mark.parametrize(
    ("shown", "used"),
    [("0.3", 0.05), ("", 0.0), ("1", True), ("0", None), ("[1]", [2]), ("linear", "cosine")],
)
def test_another_value_is_found(shown: str, used: Any) -> None:
    assert unused_values({"Args/x": shown}, {"Args/x": used}) == {"Args/x": shown}
