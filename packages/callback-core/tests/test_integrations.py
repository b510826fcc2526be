"""Finding trackers through their entry points, as an installed package declares them."""

from __future__ import annotations

from pathlib import Path

import pytest

from callback_core import (
    NotConfigured,
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
    make_reporting_integration_callbacks,
)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages `callback-one` and so on, on the path as pip would put them there."""
    sources = {
        "one": "class OneCallback:\n    pass\n",
        "two": "class TwoCallback:\n    pass\n",
        "more": "import callback_two\nclass MoreCallback(callback_two.TwoCallback):\n    pass\n",
        "lost": """
import os
import callback_core.tracking, callback_one

class LostCallback(callback_one.OneCallback):
    def __init__(self):
        if "LOST_URL" not in os.environ:
            raise callback_core.NotConfigured("set LOST_URL")
        if "LOST_SDK" in os.environ:
            module = os.environ["LOST_SDK"]
            callback_core.tracking.check_sdk(module, install="lost", needed_by="LostCallback")
""",
    }
    for name, source in sources.items():
        (tmp_path / f"callback_{name}.py").write_text(source)
        metadata = tmp_path / f"callback_{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: callback-{name}\nVersion: 1.0\n"
        )
        (metadata / "entry_points.txt").write_text(
            f"[callback_core.integrations]\n{name} = callback_{name}:{name.title()}Callback\n"
        )
    monkeypatch.syspath_prepend(tmp_path)


def names(report_to: str | list[str] | None) -> list[str]:
    return [callback.__name__ for callback in get_reporting_integration_callbacks(report_to)]


def test_installed_integrations_are_found_by_their_names() -> None:
    assert {"one", "two"} <= set(get_available_reporting_integrations())


def test_one_several_and_repeated_names_give_their_callbacks_in_order() -> None:
    assert names("two") == ["TwoCallback"]
    assert names(["two", "one", "two"]) == ["TwoCallback", "OneCallback"]


def test_all_gives_every_installed_integration_but_those_that_another_extends() -> None:
    found = set(names("all"))
    assert {"LostCallback", "MoreCallback"} <= found
    assert not {"OneCallback", "TwoCallback"} & found


@pytest.mark.parametrize("report_to", [["two", "more", "one"], ["more", "two", "one"]])
def test_a_callback_that_another_selected_one_extends_is_left_out(report_to: list[str]) -> None:
    assert names(report_to) == ["MoreCallback", "OneCallback"]
    assert names(["two", "one"]) == ["TwoCallback", "OneCallback"]


@pytest.mark.parametrize("nobody", ["none", ["none"], [], None])
def test_none_gives_no_integration(nobody: str | list[str] | None) -> None:
    assert names(nobody) == []


def test_an_unknown_name_is_an_error_that_says_what_there_is_and_how_to_install_it() -> None:
    with pytest.raises(ValueError, match=r"'neptune'.*one, .*two.*pip install callback-neptune$"):
        names(["one", "neptune"])


@pytest.mark.parametrize("name", ["mlfow", "one,two", "xyzzy"])
def test_a_name_that_nobody_knows_gets_no_advice_to_install_a_package(name: str) -> None:
    with pytest.raises(ValueError, match=name) as refused:
        names(name)
    assert "pip install" not in str(refused.value)


def test_a_typo_is_told_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="'mlflow'"):
        names("mlfow")


def test_a_list_in_one_string_is_told_the_list() -> None:
    with pytest.raises(ValueError, match=r"\['one', 'two'\]"):
        names("one, two")


def test_a_name_that_differs_from_its_package_s_is_an_error_with_the_package() -> None:
    with pytest.raises(ValueError, match=r"pip install callback-comet$"):
        names("comet_ml")


def made(report_to: str | list[str]) -> set[str]:
    return {type(callback).__name__ for callback in make_reporting_integration_callbacks(report_to)}


def test_of_all_one_that_is_not_configured_is_named_and_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made("all")
    assert {"OneCallback", "MoreCallback"} <= found, "what it extends is used in its place"
    assert "LostCallback" not in found
    assert [*caplog.messages] == ["LostCallback is not used: set LOST_URL"]
    monkeypatch.setenv("LOST_URL", "there")
    found = made(["all"])
    assert "LostCallback" in found
    assert "OneCallback" not in found


def test_one_that_is_named_and_not_configured_is_an_error() -> None:
    with pytest.raises(NotConfigured, match="set LOST_URL"):
        made(["lost", "two"])


def test_of_all_one_without_its_sdk_is_named_and_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOST_URL", "there")
    monkeypatch.setenv("LOST_SDK", "lost_sdk")
    found = made("all")
    assert "LostCallback" not in found
    assert "OneCallback" in found, "what it extends is used in its place"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "pip install lost" in caplog.text


def test_one_that_is_named_and_lacks_its_sdk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOST_URL", "there")
    monkeypatch.setenv("LOST_SDK", "lost_sdk")
    with pytest.raises(ModuleNotFoundError) as raised:
        made("lost")
    assert raised.value.name == "lost_sdk"


def test_callbacks_are_made_in_the_order_of_their_names() -> None:
    callbacks = make_reporting_integration_callbacks(["two", "one"])
    assert [type(callback).__name__ for callback in callbacks] == ["TwoCallback", "OneCallback"]
    assert make_reporting_integration_callbacks("none") == []


@pytest.mark.parametrize("as_class", [True, False])
def test_what_the_user_adds_takes_the_place_of_the_one_from_all(as_class: bool) -> None:
    [two] = make_reporting_integration_callbacks("two")
    found = make_reporting_integration_callbacks("all", [type(two) if as_class else two])
    assert "TwoCallback" not in {type(callback).__name__ for callback in found}
    assert "OneCallback" in {type(callback).__name__ for callback in found}


def test_what_the_user_adds_and_names_too_is_an_error() -> None:
    [two] = make_reporting_integration_callbacks("two")
    with pytest.raises(ValueError, match="TwoCallback"):
        make_reporting_integration_callbacks(["one", "two"], [two])
