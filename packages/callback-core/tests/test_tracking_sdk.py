"""A tracker's SDK: if it is missing, the error names it and the install that mends it."""

from __future__ import annotations

import builtins
import random
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import BuiltinImporter, ModuleSpec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from tracking_for_tests import FileTracker

from callback_core.tracking import TrackerCallback, check_sdk, import_sdk


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


def test_what_an_installed_sdk_misses_is_not_mended_by_installing_it() -> None:
    with pytest.raises(ModuleNotFoundError) as raised:
        imported("lines_sdk.broken")
    assert str(raised.value) == "No module named 'lines_dependency'"


def test_any_other_error_of_an_sdk_is_its_own() -> None:
    with pytest.raises(ImportError, match="needs another Python") as raised:
        imported("lines_sdk.impossible")
    assert not isinstance(raised.value, ModuleNotFoundError)


def found(module: str) -> bool:
    try:
        check_sdk(module, install="lines-sdk>=2", needed_by="LinesCallback")
    except ModuleNotFoundError:
        return False
    return True


def test_a_module_of_a_package_that_added_places_when_it_was_imported_is_found(
    tmp_path: Path,
) -> None:
    (tmp_path / "added" / "lines_plugin").mkdir(parents=True)
    (tmp_path / "added" / "lines_plugin" / "__init__.py").touch()
    lines_sdk: Any = imported("lines_sdk")
    lines_sdk.__path__.append(str(tmp_path / "added"))
    assert found("lines_sdk.lines_plugin")


def test_a_module_that_comes_from_no_file_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            return ModuleSpec(name, BuiltinImporter) if name == "frozen_sdk" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert found("frozen_sdk")


def test_looking_for_an_sdk_imports_nothing_of_it() -> None:
    assert found("lines_sdk")
    assert found("lines_sdk.impossible")
    assert not found("lines_sdk.newer")
    assert "lines_sdk" not in sys.modules


def test_a_module_in_a_folder_that_several_packages_share_is_found(tmp_path: Path) -> None:
    for part in ("one", "two"):
        (tmp_path / "shared_sdk" / part).mkdir(parents=True)
        (tmp_path / "shared_sdk" / part / "__init__.py").touch()
    assert found("shared_sdk.two")
    assert not found("shared_sdk.three")
    assert "shared_sdk" not in sys.modules


def test_a_folder_to_which_an_sdk_writes_is_not_the_sdk(tmp_path: Path) -> None:
    (tmp_path / "written_sdk" / "run-1").mkdir(parents=True)
    assert not found("written_sdk")
    with pytest.raises(ModuleNotFoundError):
        imported("written_sdk")


def test_a_module_of_the_path_is_not_a_part_of_another(tmp_path: Path) -> None:
    (tmp_path / "newer.py").touch()
    assert not found("lines_sdk.runs.newer")


def test_a_module_whose_import_is_blocked_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lines_sdk", None)
    assert not found("lines_sdk")
    assert not found("lines_sdk.runs")


class NeedyTracker(FileTracker):
    requires = MappingProxyType({"lines_sdk": "lines-sdk", "other_sdk.runs": "other-sdk"})


def test_a_callback_without_its_sdk_is_refused_when_it_is_made(tmp_path: Path) -> None:
    tracker = NeedyTracker(str(tmp_path / "out"))
    with pytest.raises(ModuleNotFoundError, match="pip install other-sdk"):
        TrackerCallback(tracker)
    (tmp_path / "other_sdk").mkdir()
    (tmp_path / "other_sdk" / "runs.py").touch()
    TrackerCallback(tracker)


def test_a_callback_that_is_switched_off_needs_no_sdk(tmp_path: Path) -> None:
    (tmp_path / "off").touch()
    TrackerCallback(NeedyTracker(str(tmp_path / "out"), off=str(tmp_path / "off")))


DRAWING = """
import random
from random import choice, seed
ids = random.random(), choice("ab")
def draw():
    return random.random(), choice("ab")
def seed_all():
    random.seed(3), seed(3)
"""


def test_an_sdk_draws_nothing_from_the_programs_generator(tmp_path: Path) -> None:
    (tmp_path / "lines_sdk" / "runs.py").write_text(DRAWING)
    before = random.getstate()
    module: Any = imported("lines_sdk.runs")
    assert module.draw() != module.draw()
    assert random.getstate() == before


def test_an_sdk_that_the_program_imported_draws_from_a_generator_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "lines_sdk" / "runs.py").write_text(DRAWING)
    module: Any = import_module("lines_sdk.runs")
    imported("lines_sdk")
    before = random.getstate()
    assert module.draw() != module.draw()
    assert random.getstate() == before


def test_what_else_is_imported_meanwhile_has_the_programs_generator(tmp_path: Path) -> None:
    (tmp_path / "users_augmentation.py").write_text("import random\nfrom random import choice")
    (tmp_path / "lines_sdk" / "runs.py").write_text("import users_augmentation")
    imported("lines_sdk.runs")
    users = sys.modules["users_augmentation"]
    assert (vars(users)["random"], vars(users)["choice"]) == (random, random.choice)


def test_an_sdk_that_seeds_does_so_for_the_program(tmp_path: Path) -> None:
    (tmp_path / "lines_sdk" / "runs.py").write_text(DRAWING)
    module: Any = imported("lines_sdk.runs")
    module.seed_all()
    assert random.random() == random.Random(3).random()


def test_importing_an_sdk_leaves_the_import_statement_as_it_was() -> None:
    before = builtins.__import__
    imported("lines_sdk.runs")
    with pytest.raises(ImportError):
        imported("lines_sdk.impossible")
    assert builtins.__import__ is before


HOOKING = """
import builtins
before = builtins.__import__
def hook(*arguments, **options):
    return before(*arguments, **options)
builtins.__import__ = hook
"""


def test_an_sdk_that_hooks_the_import_statement_keeps_its_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ClearML does so. Its hook calls what it found when it was imported, for good."""
    monkeypatch.setattr(builtins, "__import__", builtins.__import__)
    (tmp_path / "lines_sdk" / "runs.py").write_text(HOOKING)
    (tmp_path / "users_augmentation.py").write_text("import random")
    first = imported("lines_sdk.runs")
    (tmp_path / "lines_sdk" / "others.py").write_text(DRAWING + "import users_augmentation")
    before = random.getstate()
    second: Any = imported("lines_sdk.others")
    assert (builtins.__import__, random.getstate()) == (vars(first)["hook"], before)
    assert vars(second.users_augmentation)["random"] is random
    exec("import random as found", names := {"__name__": "lines_sdk.later"})
    assert names["found"] is random


LAZY = """
class Absent:
    def __getattribute__(self, name):
        raise ImportError("pandas is not installed")
pandas = Absent()
"""


def test_a_module_that_an_sdk_would_load_later_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lines_sdk" / "runs.py").write_text(LAZY)
    assert "pandas" in vars(imported("lines_sdk.runs"))
