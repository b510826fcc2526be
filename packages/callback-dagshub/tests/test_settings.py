"""Finding the repository, reading settings, and refusing invalid ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from callback_contract.testing import missing, run_python
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


def test_a_name_and_each_kind_of_address_select_the_repository() -> None:
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


def test_a_name_uses_dagshubs_host_setting_and_an_address_its_own_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGSHUB_CLIENT_HOST", "https://hub.example.com:8443/dags/")
    made = DagsHubTracker(repository="o/r")
    assert made.tracking_uri == "https://hub.example.com:8443/dags/o/r.mlflow"
    assert DagsHubTracker(repository="https://other.org/o/r").repository.host == "https://other.org"
    add_remote("origin", "ssh://git@hub.example.com:22/dags/team/net.git")
    assert DagsHubTracker().repository.url == "https://hub.example.com:8443/dags/team/net"


def test_mlflows_variable_is_the_default_repository(
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
def test_a_git_remote_is_the_repository_when_no_setting_names_one(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_remote("origin", "git@github.com:some/body.git")
    subprocess.run(["git", "remote", "add", "dagshub", remote], check=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert DagsHubTracker().repository.url == "https://dagshub.com/o/r"


def test_the_error_without_a_repository_lists_the_ways_to_set_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NotConfigured, match=r"repository=.*MLFLOW_TRACKING_URI.*dagshub\.com"):
        DagsHubCallback()
    add_remote("origin", "git@notdagshub.com:o/r.git")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@db/mlflow")
    with pytest.raises(NotConfigured, match="'postgresql://") as caught:
        DagsHubCallback()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("given", ["", "r", "o/r/x", "ftp://dagshub.com/o/r", "o r/x"])
def test_an_invalid_repository_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"repository is .*owner/name"):
        DagsHubCallback(given)


def test_a_tracking_uri_is_refused() -> None:
    with pytest.raises(TypeError, match=r"repository .*tracking_uri"):
        DagsHubCallback("o/r", tracking_uri="http://localhost")


def test_credentials_of_another_mlflow_server_are_not_sent_to_dagshub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD"):
        DagsHubCallback("o/r")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://dagshub.com/o/r.mlflow")
    assert DagsHubCallback("o/r").tracker.repository.name == "r"


def test_settings_make_an_equal_tracker() -> None:
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
def test_selected_with_mlflow_it_replaces_mlflow(report_to: list[str]) -> None:
    assert get_reporting_integration_callbacks(report_to) == [DagsHubCallback]
    assert get_reporting_integration_callbacks(["mlflow"]) == [MLflowCallback]
    everything = get_reporting_integration_callbacks("all")
    assert DagsHubCallback in everything
    assert MLflowCallback not in everything


def test_without_a_repository_all_selects_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert made_for_all() == [MLflowCallback]
    assert any("DagsHubCallback" in m and "repository=" in m for m in caplog.messages)
    with pytest.raises(NotConfigured, match="repository="):
        make_reporting_integration_callbacks(["mlflow", "dagshub"])
    add_remote("origin", "https://dagshub.com/o/r.git")
    assert made_for_all() == [DagsHubCallback]


def made_for_all() -> list[type[MLflowCallback]]:
    """Return the MLflow callback classes that `report_to="all"` selects."""
    made = make_reporting_integration_callbacks("all")
    return [type(callback) for callback in made if isinstance(callback, MLflowCallback)]


def test_importing_and_constructing_the_callback_imports_no_sdk() -> None:
    code = (
        "import sys; from callback_dagshub import DagsHubCallback; DagsHubCallback('o/r');"
        "sys.exit(bool({'mlflow', 'dagshub'} & sys.modules.keys()))"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["mlflow", "dagshub"])
def test_without_its_sdk_the_callback_is_refused_when_it_is_made(module: str) -> None:
    with missing(module), pytest.raises(ModuleNotFoundError) as refused:
        DagsHubCallback("o/r")
    assert refused.value.name == module
    assert "DagsHubCallback" in str(refused.value)
    assert f"pip install {module}" in str(refused.value)
