"""What a running TensorBoard answers to its page."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard_for_tests import Run, server

from callback_contract.testing import wait_until
from callback_tensorboard import TensorBoardCallback


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["true", "false"], ids=["data server", "Python"])
def test_a_server_shows_curves_text_and_hyperparameters_while_a_run_goes_on(
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
        statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
        groups = ask(
            "plugin/hparams/session_groups",
            {"allowedStatuses": statuses, "startIndex": 0, "sliceSize": 10},
        )["sessionGroups"]
        assert {group["name"]: group["hparams"]["rate"] for group in groups} == {
            first: 0.5,
            second: 0.25,
        }
        by_name = {group["name"]: group["sessions"][0]["status"] for group in groups}
        assert by_name[first] == "STATUS_SUCCESS"
