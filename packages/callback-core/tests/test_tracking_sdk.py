"""Importing an SDK: if it is missing, the error names it and the install that mends it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from callback_core.tracking import import_sdk


@pytest.fixture(autouse=True)
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have an SDK installed, whose modules are gone again after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "lines_sdk"
    folder.mkdir()
    (folder / "__init__.py").write_text("answer = 42\n")
    (folder / "runs.py").write_text("answer = 43\n")
    (folder / "broken.py").write_text("import lines_dependency\n")
    (folder / "impossible.py").write_text("raise ImportError('needs another Python')\n")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def imported(module: str) -> object:
    return import_sdk(module, install="lines-sdk>=2", needed_by="LinesCallback")


def test_an_sdk_that_is_installed_is_imported() -> None:
    assert imported("lines_sdk").answer == 42
    assert imported("lines_sdk.runs").answer == 43
    assert imported("lines_sdk") is sys.modules["lines_sdk"]


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("other_sdk", "other_sdk"),
        ("other_sdk.runs", "other_sdk"),
        ("lines_sdk.newer", "lines_sdk.newer"),
    ],
)
def test_a_missing_sdk_says_who_needs_it_and_how_to_install_it(module: str, missing: str) -> None:
    with pytest.raises(ModuleNotFoundError) as raised:
        imported(module)
    assert str(raised.value) == f"LinesCallback needs {missing}: pip install lines-sdk>=2"
    assert raised.value.name == missing
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)


def test_what_an_installed_sdk_misses_is_not_mended_by_installing_it() -> None:
    with pytest.raises(ModuleNotFoundError) as raised:
        imported("lines_sdk.broken")
    assert str(raised.value) == "No module named 'lines_dependency'"


def test_any_other_error_of_an_sdk_is_its_own() -> None:
    with pytest.raises(ImportError, match="needs another Python") as raised:
        imported("lines_sdk.impossible")
    assert not isinstance(raised.value, ModuleNotFoundError)
