"""The callback passes the contract of training callbacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import pytest
from comet_server import CometServer
from recorded import Recorded

from callback_comet import CometCallback
from callback_contract import Deviation, RecordedRun, Setting, TrackerContract

KEY = "0123456789abcdef" * 2

SETTINGS = (
    Setting(
        "mode",
        "COMET_MODE",
        None,
        examples=[("offline", "OFFLINE"), ("Online", "ONLINE"), ("CREATE", "create")],
        given=[("online", "ONLINE"), ("Create", "create")],
        wrong=["sometimes"],
        wrong_given=["sometimes", "", 7],
        choices=["ONLINE", "OFFLINE", "DISABLED", "get_or_create", "create", "get"],
    ),
    Setting(
        "project_name",
        "COMET_PROJECT_NAME",
        None,
        examples=[("of the environment", "of the environment")],
        given=[("given", "given")],
        wrong_given=["", 7],
    ),
    Setting(
        "workspace",
        "COMET_WORKSPACE",
        None,
        examples=[("team", "team")],
        given=[("given", "given")],
        wrong_given=["", 7],
    ),
    Setting(
        "experiment_key",
        "COMET_EXPERIMENT_KEY",
        None,
        examples=[(KEY, KEY), ("A" * 50, "A" * 50)],
        given=[(KEY[::-1], KEY[::-1])],
        wrong=["short", "A" * 51],
        wrong_given=["a/b", "", 7],
        choices=["32 to 50 letters and digits"],
    ),
    Setting(
        "offline_directory",
        "COMET_OFFLINE_DIRECTORY",
        None,
        examples=[("/a/b", "/a/b"), ("~/c", f"{os.path.expanduser('~')}/c")],
        given=[(Path("/a/../b"), "/b")],
        wrong_given=["", 7],
    ),
    Setting.flag("log_assets", "COMET_LOG_ASSETS", True),
)


class TestContract(TrackerContract):
    contract = (2, 0)
    capabilities = frozenset(
        {"sdk", "state", "resume", "status", "parameters", "non_finite", "text", "files"}
        | {"unreachable", "settings", "redacts", "scalars"}
    )
    deviations = {  # noqa: RUF012
        "AWY-004": Deviation("the last point is lost if the server's answer at the end is lost")
    }
    settings = SETTINGS
    module = "callback_comet"
    sdk = "comet_ml"
    flush_limit = 0.5
    server: ClassVar[CometServer]

    @pytest.fixture(autouse=True)
    def served(self, server: CometServer, monkeypatch: pytest.MonkeyPatch) -> None:
        type(self).server = server
        # Without this the SDK also writes offline files, and closing them takes most of a second.
        name = "COMET_FALLBACK_STREAMER_FALLBACK_TO_OFFLINE_MIN_BACKEND_VERSION"
        monkeypatch.setenv(name, "100.0.0")

    def make(self, output_dir: Path) -> Any:
        return CometCallback(project_name=str(output_dir))

    def make_with(self, output_dir: Path, **arguments: Any) -> Any:
        return CometCallback(**arguments)

    def make_unreachable(self, output_dir: Path) -> Any:
        self.server.stop()
        return CometCallback(project_name=str(output_dir), flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        self.server.start()
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        kept = self.server.experiments.values()
        return [recorded(one) for one in kept if one.project == str(output_dir)]


def recorded(experiment: Recorded) -> RecordedRun:
    """Return an experiment of the server in the contract's form."""
    points: dict[str, list[tuple[int, float]]] = {}
    for name, step, value in experiment.points:
        points.setdefault(name, []).append((step, value))
    text: dict[str, list[tuple[int, str]]] = {}
    for name, step, string in experiment.texts:
        text.setdefault(name, []).append((step, string))
    return RecordedRun(
        id=experiment.key,
        parameters=experiment.parameters,
        points=points,
        text=text,
        files=frozenset(experiment.files),
        status=experiment.others.get("training_status") if experiment.ended else "running",
    )
