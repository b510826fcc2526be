"""TensorBoard's real web page in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tensorboard_for_tests import server

from callback_contract.testing import wait_until
from callback_tensorboard import TensorBoardCallback
from trainer_torch.testing import logged_points, small_trainer

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser() -> str:
    """Return Chromium's path."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail(
            f"This test opens a page in Chromium, and there is none of {', '.join(BROWSERS)} on "
            "PATH. On Debian and Ubuntu: apt-get install chromium"
        )
    return found


def page(url: str, profile: Path) -> str:
    """Return the page after its scripts have run."""
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", f"--user-data-dir={profile}", "--window-size=1200,900"]
    command += ["--disable-3d-apis"]  # draws curves in SVG instead of WebGL
    command += ["--virtual-time-budget=20000", "--dump-dom", url]
    opened = subprocess.run(
        command,
        env={**os.environ, "HOME": str(profile)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert opened.returncode == 0, opened.stderr
    return opened.stdout


def curves(page: str) -> list[np.ndarray]:
    """Return the points of the drawn curves, in pixels from the upper left."""
    drawn = re.findall(r'<path d="M([-\d.,L]+)"[^>]*stroke', page)
    return [np.array([point.split(",") for point in path.split("L")], float) for path in drawn]


@pytest.mark.slow
def test_the_page_draws_the_curve_of_a_training_through_all_its_points(tmp_path: Path) -> None:
    trained = small_trainer(tmp_path / "out", TensorBoardCallback())
    trained.train()
    losses = [(s, v) for (name, s), v in logged_points(trained).items() if name == "train/loss"]
    steps, values = np.array(losses).T
    with server(tmp_path / "out" / "runs") as board:
        wait_until(lambda: len(board.curve(board.ask("runs")[0], "train/loss")) == len(losses))
        # Only this curve, without smoothing, which would draw a second one.
        url = f"{board.url}/?tagFilter=train%2Floss&smoothing=0&darkMode=false#timeseries"
        drawn: list[np.ndarray] = []

        def is_drawn() -> bool:
            drawn[:] = curves(page(url, tmp_path / "profile"))
            return bool(drawn)

        wait_until(is_drawn, 240)
    [pixels] = drawn
    assert len(pixels) == len(losses)
    # x grows with the steps; y falls as the values grow.
    for shown, meant in ((pixels[:, 0], steps), (pixels[:, 1], -values)):
        factor, offset = np.polyfit(meant, shown, 1)
        assert factor > 0
        assert np.abs(factor * meant + offset - shown).max() < 0.5
