from pathlib import Path

import pytest
from check_requirements import problems, range_problem


def found(tmp_path: Path, code: str, project: dict, test: str = "", **tool: list[str]) -> list[str]:
    source, tests = tmp_path / "some_tracker", tmp_path / "tests"
    for folder, text in ((source, code), (tests, test)):
        folder.mkdir()
        (folder / "a.py").write_text(text)
    pyproject = {
        "project": {"name": "some-tracker", **project},
        "tool": {"check_requirements": tool},
    }
    return list(problems(pyproject, source, tests, {"callback-core": "0.2.0"}))


def test_all_in_order(tmp_path):
    code = "import os, callback_core\nfrom .b import c\ndef f():\n    import sklearn.datasets\n"
    project = {
        "dependencies": ["callback-core>=0.1,<1"],
        "optional-dependencies": {"x": ["scikit_learn[y] >=1; python_version>'3'"]},
    }
    assert found(tmp_path, code, project) == []


@pytest.mark.parametrize(
    "code",
    [
        "import wandb.sdk",
        "from wandb import init",
        "def f():\n    return importlib.import_module('wandb')",
        "def f():\n    return import_sdk('wandb.sdk', install='wandb', needed_by='WandbCallback')",
        "if TYPE_CHECKING:\n    import wandb",
    ],
)
def test_an_import_that_is_not_declared(tmp_path, code):
    [problem] = found(tmp_path, code, {})
    assert "a.py" in problem and "wandb" in problem


def test_a_requirement_that_nothing_imports(tmp_path):
    project = {"dependencies": ["wandb>=0.16"]}
    [problem] = found(tmp_path, "", project)
    assert "wandb" in problem


def test_an_import_of_one_of_several_distributions_that_share_its_first_part(tmp_path):
    code = "import azureml.mlflow"
    assert found(tmp_path, code, {"dependencies": ["azureml-mlflow"]}) == []


def test_exceptions_that_the_package_names(tmp_path):
    project = {"dependencies": ["wandb>=0.16"]}
    tool = {"used_without_import": ["wandb"], "imported_if_present": ["IPython"]}
    assert found(tmp_path, "import IPython", project, **tool) == []


def test_the_extra_for_tests_declares_what_only_they_import(tmp_path):
    code = "import a, some_tracker, wandb, pytest, jwt.api_jws\n"
    project = {
        "dependencies": ["wandb"],
        "optional-dependencies": {"test": ["pytest", "pyjwt", "some-tracker[x]"], "x": []},
    }
    assert found(tmp_path, "import wandb", project, code) == []


def test_an_import_of_a_test_that_is_not_declared(tmp_path):
    [problem] = found(tmp_path, "", {}, "def test():\n    import pytest")
    assert "a.py" in problem
    assert "pytest" in problem


def test_the_package_may_not_import_what_is_declared_for_its_tests(tmp_path):
    project = {"optional-dependencies": {"test": ["pytest"]}}
    [problem] = found(tmp_path, "import pytest", project, "import pytest")
    assert "pytest" in problem


def test_a_requirement_of_tests_that_none_imports(tmp_path):
    project = {"optional-dependencies": {"test": ["pyte>=0.8", "ipykernel"]}}
    [problem] = found(tmp_path, "", project, used_without_import=["ipykernel"])
    assert "pyte" in problem


def test_a_range_on_a_package_of_ours_that_tests_import(tmp_path):
    project = {"optional-dependencies": {"test": ["callback-core>=0.3,<1"]}}
    [problem] = found(tmp_path, "", project, "import callback_core")
    assert "callback-core" in problem


@pytest.mark.parametrize(
    ("requirement", "is_right"),
    [
        ("callback-core>=0.1,<1", True),
        ("callback-core>=0.2,<0.3", True),
        ("callback-core>=0.10,<1", False),  # the version in the tree is older
        ("callback-core>=0.1,<0.2", False),  # the version in the tree is newer
        ("callback-core>=0.1", False),  # no cap
        ("callback-core", False),  # neither floor nor cap
    ],
)
def test_ranges_between_our_own_packages(requirement, is_right):
    assert (range_problem(requirement, "0.2.0") is None) == is_right
