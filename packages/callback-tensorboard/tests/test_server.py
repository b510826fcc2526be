"""The answers of a running TensorBoard server to its web page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pytest
from tensorboard_for_tests import Run, Server, server

from callback_contract.testing import wait_until
from callback_tensorboard import TensorBoardCallback
from trainer_torch.testing import Trial, logged_points, small_trainer


def session_groups(board: Server) -> list[dict[str, Any]]:
    """Return the rows of the HParams tab."""
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    query = {"allowedStatuses": statuses, "startIndex": 0, "sliceSize": 10}
    groups: list[dict[str, Any]] = board.ask("plugin/hparams/session_groups", query)[
        "sessionGroups"
    ]
    return groups


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["true", "false"], ids=["data server", "Python"])
def test_a_server_shows_curves_text_and_hyperparameters_of_a_running_training(
    tmp_path: Path, reader: str
) -> None:
    for name, rate in (("first", 0.5), ("second", 0.25)):
        run = Run(TensorBoardCallback(), tmp_path / name)
        run.args.others = {"rate": rate}
        run.begin()
        for step in range(1, 4):
            run.log(step, loss=rate / step)
        run.log(3, note="**done**", train_loss=rate)
        if name == "first":
            run.end()
    with server(tmp_path, "--load_fast", reader) as board:
        ask, curve = board.ask, board.curve
        wait_until(lambda: len(ask("runs")) == 2)
        first, second = sorted(ask("runs"))
        assert first.startswith("first/runs/") and second.startswith("second/runs/")
        wait_until(lambda: len(curve(second, "train/loss")) == 3)
        run.log(4, loss=0.125)
        wait_until(lambda: len(curve(second, "train/loss")) == 4)
        run.end()
        thirds = pytest.approx(0.5 / 3)
        assert curve(first, "train/loss") == [(1, 0.5), (2, 0.25), (3, thirds)]
        assert curve(second, "train/loss")[3] == (4, 0.125)
        [note] = ask("plugin/text/text", run=first, tag="train/note/text_summary")
        assert (note["step"], note["text"]) == (3, "<p><strong>done</strong></p>")
        [args] = ask("plugin/text/text", run=first, tag="args/text_summary")
        assert args["text"].startswith("<pre><code>{\n")

        experiment = ask("plugin/hparams/experiment", {})
        differing = {info["name"] for info in experiment["hparamInfos"] if info["differs"]}
        assert differing == {"output_dir", "rate"}
        tags = {info["name"]["tag"] for info in experiment["metricInfos"]}
        assert tags == {"train/loss", "train/train_loss"}
        groups = session_groups(board)
        assert {group["name"]: group["hparams"]["rate"] for group in groups} == {
            first: 0.5,
            second: 0.25,
        }
        by_name = {group["name"]: group["sessions"][0]["status"] for group in groups}
        assert by_name[first] == "STATUS_SUCCESS"


@pytest.mark.slow
def test_a_server_shows_the_trials_of_a_search_with_their_hyperparameters(tmp_path: Path) -> None:
    rates = {"trial-7": 0.05, "trial-8": 0.01}
    trained = {}
    for trial, rate in rates.items():
        search = Trial(trial, {"learning_rate": rate, "width": rate * 100})
        trained[trial] = small_trainer(
            tmp_path / "out", search, TensorBoardCallback(), learning_rate=rate
        )
        trained[trial].train()
    with server(tmp_path / "out" / "runs", "--load_fast", "false") as board:
        wait_until(lambda: len(board.ask("runs")) == 2)
        assert {*board.ask("runs")} == {*rates}
        wait_until(lambda: all(len(board.curve(trial, "train/loss")) == 12 for trial in rates))
        for trial in rates:
            for tag in ("train/loss", "eval/loss", "train/train_loss"):
                logged = logged_points(trained[trial])
                assert board.curve(trial, tag) == [
                    (step, pytest.approx(value))
                    for (name, step), value in logged.items()
                    if name == tag
                ]
            for tag, expected in (
                ("args", '"learning_rate"'),
                ("model_config", '"hidden_size": 8'),
            ):
                [text] = board.ask("plugin/text/text", run=trial, tag=f"{tag}/text_summary")
                assert text["step"] == 0
                assert expected in html.unescape(text["text"])
        groups = session_groups(board)
        assert {group["name"]: group["hparams"]["width"] for group in groups} == {
            trial: pytest.approx(rate * 100) for trial, rate in rates.items()
        }
        assert {group["hparams"]["learning_rate"] for group in groups} == set(rates.values())
        assert {group["sessions"][0]["status"] for group in groups} == {"STATUS_SUCCESS"}
