"""The content of a run, read by TensorBoard's own reader."""

from __future__ import annotations

import math
import pickle
import time
from pathlib import Path
from socket import gethostname
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorboardX
import torch
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard_for_tests import (
    Run,
    hparams,
    in_a_process,
    points,
    read,
    runs,
    texts,
    the_run,
)
from torch.utils.tensorboard import SummaryWriter

from callback_contract.testing import run_python, wait_until
from callback_tensorboard import TensorBoardCallback

WRITERS = pytest.mark.parametrize(
    "make_writer", [SummaryWriter, tensorboardX.SummaryWriter], ids=["torch", "tensorboardX"]
)


@pytest.mark.parametrize("delivery", ["thread", "inline", "process"])
def test_logs_become_curves_grouped_by_split(tmp_path: Path, delivery: Any) -> None:
    run = Run(TensorBoardCallback(delivery=delivery), tmp_path)
    run.begin()
    run.log(1, loss=0.5, eval_loss=0.25, test_accuracy=1)
    run.log(2, loss=0.125)
    run.end()
    directory = the_run(tmp_path)
    assert points(directory, "train/loss") == [(1, 0.5), (2, 0.125)]
    assert points(directory, "eval/loss") == [(1, 0.25)]
    assert points(directory, "test/accuracy") == [(1, 1.0)]


def test_a_point_has_the_time_of_its_log(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    logged = [time.time()]
    for step in (1, 2):
        run.log(step, loss=0.5)
        logged.append(time.time())
    run.end()
    first, second = (event.wall_time for event in read(the_run(tmp_path)).Scalars("train/loss"))
    assert logged[0] <= first <= logged[1] <= second <= logged[2]


def test_numpy_and_torch_scalars_nan_and_infinities_become_points(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    run.log(1, a=np.float32(0.5), b=torch.tensor(0.25), c=math.nan, d=-math.inf, e=10**300)
    run.end()
    directory = the_run(tmp_path)
    assert points(directory, "train/a") == [(1, 0.5)]
    assert points(directory, "train/b") == [(1, 0.25)]
    assert math.isnan(points(directory, "train/c")[0][1])
    assert points(directory, "train/d") == [(1, -math.inf)]
    assert points(directory, "train/e") == [(1, math.inf)]  # points are 32 bits wide


def test_a_string_becomes_text(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    run.log(1, note="größer")
    run.end()
    assert texts(the_run(tmp_path), "train/note") == ["größer"]


def test_unsupported_values_are_left_out_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    run.log(1, histogram=[1, 2], note="half a \ud800", huge=10**400, loss=0.5)
    run.log(2, histogram=[1, 2], loss=0.5)
    run.end()
    assert points(the_run(tmp_path), "train/loss") == [(1, 0.5), (2, 0.5)]
    [message] = [message for message in caplog.messages if "histogram: " in message]
    assert all(name in message for name in ("train/note: ", "huge: "))


def test_arguments_and_model_configuration_are_written_as_text_without_secrets(
    tmp_path: Path,
) -> None:
    run = Run(TensorBoardCallback(redact=["where"]), tmp_path)
    run.args.others = {"hub_token": "abc", "where": "nowhere"}
    run.handler.model = SimpleNamespace(config=SimpleNamespace(to_dict=lambda: {"layers": 2}))
    run.begin()
    run.end()
    directory = the_run(tmp_path)
    [written] = texts(directory, "args")
    assert '    "learning_rate": 0.1' in written
    assert "abc" not in written and "nowhere" not in written
    assert texts(directory, "model_config") == ['    {\n      "layers": 2\n    }\n']


def test_the_hparams_tab_has_plain_parameters_and_the_status(tmp_path: Path) -> None:
    for exception, status in ((None, STATUS_SUCCESS), (OSError(), STATUS_FAILURE)):
        output_dir = tmp_path / str(status)
        run = Run(TensorBoardCallback(), output_dir)
        run.args.others = {"fp16": False, "optim": {"name": "adam", "betas": [0.9, 0.99]}}
        run.handler.model = SimpleNamespace(config=SimpleNamespace(to_dict=lambda: {"layers": 2}))
        run.begin()
        run.log(1, loss=0.5)
        run.end(exception)
        directory = the_run(output_dir)
        found = dict(hparams(directory, "session_start_info").session_start_info.hparams)
        assert found.pop("output_dir").string_value == str(output_dir)
        assert found["fp16"].WhichOneof("kind") == "bool_value"
        assert found["optim.name"].string_value == "adam"
        assert found["layers"].number_value == 2
        assert sorted(found) == ["fp16", "layers", "learning_rate", "optim.name"]
        assert hparams(directory, "session_end_info").session_end_info.status == status
        assert [path for path in directory.rglob("*") if path.is_dir()] == []  # no nested run


@WRITERS
def test_a_given_writer_is_used_and_stays_open(tmp_path: Path, make_writer: Any) -> None:
    writer = make_writer(str(tmp_path / "mine"))
    callback = TensorBoardCallback(writer)
    assert callback.tb_writer is writer
    run = Run(callback, tmp_path)
    run.begin()
    run.log(1, loss=0.5, note="hello")
    run.end()
    run.log(1, eval_loss=0.25)
    callback.session.close("finished")
    writer.add_scalar("mine", 1.0, 2)
    writer.close()
    assert points(tmp_path / "mine", "train/loss") == [(1, 0.5)]
    assert points(tmp_path / "mine", "eval/loss") == [(1, 0.25)]
    assert points(tmp_path / "mine", "mine") == [(2, 1.0)]
    assert texts(tmp_path / "mine", "train/note")[0] == "hello"
    assert '"learning_rate": 0.1' in texts(tmp_path / "mine", "args")[0]
    assert not (tmp_path / "runs").exists()


@WRITERS
def test_a_delivery_process_cannot_use_a_given_writer(tmp_path: Path, make_writer: Any) -> None:
    writer = make_writer(str(tmp_path))
    with pytest.raises(ValueError, match="'process'"):
        TensorBoardCallback(writer, delivery="process")
    writer.close()


@pytest.mark.parametrize("wrong", ["runs", SummaryWriter, 3])
def test_an_object_that_is_not_a_writer_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"tb_writer .*SummaryWriter"):
        TensorBoardCallback(wrong)


@pytest.mark.parametrize("wrong", ["a_file", "a_file/below"])
def test_an_invalid_directory_is_refused_by_the_constructor(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", wrong)
    with pytest.raises(ValueError, match=f"TENSORBOARD_LOGGING_DIR .*'{wrong}'"):
        TensorBoardCallback()


def test_the_environment_names_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "curves"))
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    run.log(1, loss=0.5)
    run.end()
    [directory] = (tmp_path / "curves").iterdir()
    assert points(directory, "train/loss") == [(1, 0.5)]
    assert gethostname() in directory.name


def test_a_second_training_gets_its_own_directory(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    for value in (0.5, 0.25):
        run.begin()
        run.log(1, loss=value)
        run.end()
    assert sorted(points(directory, "train/loss")[0][1] for directory in runs(tmp_path)) == [
        0.25,
        0.5,
    ]


def test_an_evaluation_after_training_uses_the_same_directory(tmp_path: Path) -> None:
    callback = TensorBoardCallback()
    run = Run(callback, tmp_path)
    run.begin()
    run.log(3, loss=0.5)
    run.end()
    run.log(3, eval_loss=0.25)
    run.log(3, test_loss=0.125)
    callback.session.close("finished")
    directory = the_run(tmp_path)
    assert points(directory, "train/loss") == [(3, 0.5)]
    assert points(directory, "eval/loss") == [(3, 0.25)]
    assert points(directory, "test/loss") == [(3, 0.125)]
    ended = hparams(directory, "session_end_info").session_end_info
    assert ended.status == STATUS_SUCCESS


def test_an_evaluation_before_training_is_in_the_trainings_directory(tmp_path: Path) -> None:
    callback = TensorBoardCallback(delivery="inline")
    run = Run(callback, tmp_path)
    run.state.max_steps = 0
    run.log(0, eval_loss=0.25)
    run.begin()
    run.log(1, loss=0.5)
    run.end()
    directory = the_run(tmp_path)
    assert points(directory, "eval/loss") == [(0, 0.25)]
    assert points(directory, "train/loss") == [(1, 0.5)]


def test_a_trial_of_a_search_gets_a_directory_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "search"))
    run = Run(TensorBoardCallback(), tmp_path, is_hyper_param_search=True)
    for trial, value in (("trial-7", 0.5), ("trial-8", 0.25)):
        run.state.trial_name, run.state.trial_params = trial, {"width": value}
        run.begin()
        run.log(1, loss=value)
        run.end()
        directory = tmp_path / "search" / trial
        assert points(directory, "train/loss") == [(1, value)]
        found = hparams(directory, "session_start_info").session_start_info.hparams
        assert found["width"].number_value == value


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    ranks = [Run(TensorBoardCallback(), tmp_path, is_world_process_zero=main) for main in (1, 0)]
    for run in ranks:
        run.begin()
    for run in ranks:
        run.log(1, loss=0.5)
    for run in ranks:
        run.end()
    assert points(the_run(tmp_path), "train/loss") == [(1, 0.5)]
    assert len(list((tmp_path / "tracking").iterdir())) == 1


def test_the_package_is_imported_without_torch_and_tensorboard() -> None:
    writers = {"torch", "tensorboard", "tensorboardX", "numpy"}
    code = "import callback_tensorboard; callback_tensorboard.TensorBoardCallback(); import sys"
    assert in_a_process(f"{code}; print({writers} & set(sys.modules))").strip() == "set()"


def test_writing_does_not_need_torch(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from callback_tensorboard import TensorBoardCallback
from tensorboard_for_tests import Run
run = Run(TensorBoardCallback(), Path(sys.argv[1]))
run.begin()
run.log(1, loss=0.5)
run.end()
"""
    in_a_process(code, tmp_path)
    assert points(the_run(tmp_path), "train/loss") == [(1, 0.5)]


def test_the_constructor_names_a_missing_tensorboard() -> None:
    code = """
import importlib.util, sys
sys.path_hooks[:] = []  # makes all modules that are not imported yet unfindable
sys.path_importer_cache.clear()
from callback_tensorboard import TensorBoardCallback
"""
    code = "import callback_tensorboard" + code + "TensorBoardCallback()"
    answer = run_python("-c", code).stderr
    assert "ModuleNotFoundError: TensorBoardCallback" in answer
    assert "pip install tensorboard" in answer


def test_an_unusable_directory_does_not_affect_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "taken"))
    run = Run(TensorBoardCallback(flush_limit=0.2), tmp_path)
    (tmp_path / "taken").write_text("")
    run.begin()
    run.log(1, loss=0.5)
    wait_until(lambda: any("tensorboard" in message for message in caplog.messages))
    run.end()
    [message] = [m for m in caplog.messages if "callback_core.tracking.replay" in m]
    assert " 1 " in message and str(tmp_path / "taken") in message


@WRITERS
def test_names_that_a_writer_changes_stay_apart(tmp_path: Path, make_writer: Any) -> None:
    writer = make_writer(str(tmp_path / "mine"))
    run = Run(TensorBoardCallback(writer), tmp_path)
    run.begin()
    run.log(1, **{"a b": 1.0, "a_b": 2.0, "a(b": 3.0})
    run.log(2, **{"a(b": 3.0, "a_b": 2.0, "a b": 1.0})
    run.end()
    writer.close()
    found = [points(tmp_path / "mine", tag) for tag in read(tmp_path / "mine").Tags()["scalars"]]
    assert sorted(found) == [[(1, value), (2, value)] for value in (1.0, 2.0, 3.0)]


def test_the_callback_can_be_pickled_before_during_and_after_a_training(tmp_path: Path) -> None:
    callback = TensorBoardCallback()
    before = pickle.loads(pickle.dumps(callback))
    run = Run(callback, tmp_path / "run")
    run.begin()
    run.log(1, loss=0.5)
    during = pickle.loads(pickle.dumps(callback))
    run.log(2, loss=0.25)
    run.end()
    after = pickle.loads(pickle.dumps(callback))
    assert [copy.session for copy in (before, during, after)] == [None] * 3
    assert points(the_run(tmp_path / "run"), "train/loss") == [(1, 0.5), (2, 0.25)]


@WRITERS
def test_a_copy_does_not_write_to_the_given_writer(
    tmp_path: Path, make_writer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    callback = TensorBoardCallback(make_writer(str(tmp_path / "theirs")))
    copied = pickle.loads(pickle.dumps(callback))
    run = Run(copied, tmp_path / "run")
    run.begin()
    run.log(1, loss=0.5)
    run.end()
    assert copied.tb_writer is None
    assert not (tmp_path / "run" / "tracking").exists()
    assert any("TensorBoardCallback" in record.getMessage() for record in caplog.records)
