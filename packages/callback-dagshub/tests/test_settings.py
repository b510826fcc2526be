"""Which repository, which settings, and what is refused when the callback is made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from callback_contract.testing import run_python
from callback_core import (
    NotConfigured,
    get_reporting_integration_callbacks,
    make_reporting_integration_callbacks,
)
from callback_dagshub import DagsHubCallback, DagsHubTracker
from callback_mlflow import MLflowCallback


def add_remote(name: str, address: str) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "remote", "add", name, address], check=True)


def test_a_repository_is_given_by_its_name_or_by_any_of_its_addresses() -> None:
    for given in (
        "o/r",
        "https://dagshub.com/o/r",
        "https://dagshub.com/o/r.git",
        "https://me:secret@dagshub.com/o/r.mlflow",
    ):
        tracker = DagsHubCallback(given).tracker
        assert tracker.repository.url == "https://dagshub.com/o/r"
        assert tracker.tracking_uri == "https://dagshub.com/o/r.mlflow"
        assert "secret" not in str(tracker.settings())


def test_a_name_is_at_the_host_of_dagshubs_setting_and_an_address_at_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGSHUB_CLIENT_HOST", "https://hub.example.com:8443/dags/")
    made = DagsHubTracker(repository="o/r")
    assert made.tracking_uri == "https://hub.example.com:8443/dags/o/r.mlflow"
    assert DagsHubTracker(repository="https://other.org/o/r").repository.host == "https://other.org"
    add_remote("origin", "ssh://git@hub.example.com:22/dags/team/net.git")
    assert DagsHubTracker().repository.url == "https://hub.example.com:8443/dags/team/net"


def test_the_repository_is_that_of_mlflows_variable_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://dagshub.com/team/my.net.mlflow")
    add_remote("origin", "https://dagshub.com/o/r.git")
    assert DagsHubTracker().repository.url == "https://dagshub.com/team/my.net"
    assert DagsHubTracker(repository="o/given").repository.name == "given"


@pytest.mark.parametrize(
    "remote",
    ["https://dagshub.com/o/r.git", "https://o:token@dagshub.com/o/r", "git@dagshub.com:o/r.git"],
)
def test_the_repository_is_that_of_a_git_remote_where_no_other_is_named(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_remote("origin", "git@github.com:some/body.git")
    subprocess.run(["git", "remote", "add", "dagshub", remote], check=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert DagsHubTracker().repository.url == "https://dagshub.com/o/r"


def test_where_there_is_no_repository_the_error_says_the_ways_to_name_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways = r"repository='owner/name'.*which is not set.*git remote"
    with pytest.raises(NotConfigured, match=ways):
        DagsHubCallback()
    add_remote("origin", "git@notdagshub.com:o/r.git")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@db/mlflow")
    with pytest.raises(NotConfigured, match="which is 'postgresql://") as caught:
        DagsHubCallback()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("given", ["", "r", "o/r/x", "ftp://dagshub.com/o/r", "o r/x"])
def test_what_is_no_repository_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"repository is .*owner/name"):
        DagsHubCallback(given)


def test_a_server_of_mlflow_in_place_of_a_repository_is_refused() -> None:
    with pytest.raises(TypeError, match="repository in place of tracking_uri"):
        DagsHubCallback("o/r", tracking_uri="http://localhost")


def test_credentials_of_another_mlflow_server_are_not_sent_to_dagshub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    with pytest.raises(ValueError, match="MLflow sends MLFLOW_TRACKING_PASSWORD to every server"):
        DagsHubCallback("o/r")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://dagshub.com/o/r.mlflow")
    assert DagsHubCallback("o/r").tracker.repository.name == "r"


def test_an_equal_tracker_is_made_of_the_settings() -> None:
    tracker = DagsHubTracker(
        repository="https://hub.org/o/r",
        branch="b",
        model_name="m",
        upload_model=True,
        experiment_name="e",
        log_artifacts=True,
    )
    assert DagsHubTracker(**tracker.settings()).settings() == tracker.settings()


@pytest.mark.parametrize("report_to", [["mlflow", "dagshub"], ["dagshub", "mlflow"]])
def test_selected_together_with_mlflow_it_stands_alone(report_to: list[str]) -> None:
    assert get_reporting_integration_callbacks(report_to) == [DagsHubCallback]
    assert get_reporting_integration_callbacks(["mlflow"]) == [MLflowCallback]
    everything = get_reporting_integration_callbacks("all")
    assert DagsHubCallback in everything
    assert MLflowCallback not in everything


def test_report_to_all_sends_to_mlflow_alone_where_there_is_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert made_for_all() == [MLflowCallback]
    assert "DagsHubCallback is not used: DagsHubCallback does not know its repo" in caplog.text
    with pytest.raises(NotConfigured, match="does not know its repository"):
        make_reporting_integration_callbacks(["mlflow", "dagshub"])
    add_remote("origin", "https://dagshub.com/o/r.git")
    assert made_for_all() == [DagsHubCallback]


def made_for_all() -> list[type[MLflowCallback]]:
    """Return the classes of MLflow's callbacks that `report_to="all"` makes."""
    made = make_reporting_integration_callbacks("all")
    return [type(callback) for callback in made if isinstance(callback, MLflowCallback)]


def test_importing_and_making_it_imports_no_sdk() -> None:
    code = (
        "import sys; from callback_dagshub import DagsHubCallback; DagsHubCallback('o/r');"
        "sys.exit(bool({'mlflow', 'dagshub'} & sys.modules.keys()))"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
