import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from metadata import MARK, Addresses, check, links, pythons, siblings

SHARED = """
[tool.callback-packages]
home = "HOME"
files = "{home}/blob/main"
documentation = "{home}/blob/main/docs"
issues = "{home}/issues"

[tool.pytest.ini_options]
addopts = "--strict-markers"
markers = ["slow: takes \\"long\\""]
faulthandler_exit_on_timeout = true
"""
PACKAGE = """\
[build-system]
requires = ["hatchling>=1.27", "hatch-fancy-pypi-readme>=25.1"]
build-backend = "hatchling.build"

[project]
name = "some-tracker"
version = "0.1.0"
description = "A tracker"
dynamic = ["readme"]
requires-python = ">=3.11,<3.13"
license = "Apache-2.0"
license-files = ["LICENSE"]
authors = [{ name = "the callback-packages authors" }]
keywords = ["callbacks"]
classifiers = [
    "Development Status :: 3 - Alpha",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Typing :: Typed",
]
dependencies = ["some-core>=0.1,<1", "sdk>=2"]
optional-dependencies.test = ["some-tracker[x]", "some-contract>=1,<2"]
"""
ADDRESSES = {
    "home": "https://forge.test/some",
    "files": "{home}/blob/main",
    "documentation": "https://docs.test/",
    "issues": "{home}/issues",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "LICENSE").write_text("the licence")
    (tmp_path / "pyproject.toml").write_text(SHARED.replace("HOME", ""))
    for name in ("some-core", "some-tracker", "some-contract"):
        (tmp_path / "packages" / name).mkdir(parents=True)
        text = PACKAGE.replace('name = "some-tracker"', f'name = "{name}"')
        (tmp_path / "packages" / name / "pyproject.toml").write_text(text)
    return tmp_path


def written(repository: Path, package: str = "some-tracker") -> dict[str, Any]:
    text = (repository / "packages" / package / "pyproject.toml").read_text()
    return tomllib.loads(text)


def test_what_is_written_is_in_order_and_stays_as_it_is(repository):
    assert len(check(repository)) == 6  # three of pyproject.toml, three of LICENSE
    assert check(repository, write=True) == []
    first = (repository / "packages/some-tracker/pyproject.toml").read_text()
    assert check(repository) == []
    assert check(repository, write=True) == []
    assert (repository / "packages/some-tracker/pyproject.toml").read_text() == first
    assert (repository / "packages/some-core/LICENSE").read_text() == "the licence"


def test_what_is_above_the_mark_is_left_alone(repository):
    check(repository, write=True)
    text = (repository / "packages/some-tracker/pyproject.toml").read_text()
    assert text.partition(MARK)[0] == f"{PACKAGE}\n"


def test_without_a_home_no_address_is_named(repository):
    check(repository, write=True)
    assert "urls" not in written(repository)["project"]
    assert "://" not in (repository / "packages/some-tracker/pyproject.toml").read_text()


def test_a_home_is_one_edit_and_one_command(repository):
    check(repository, write=True)
    shared = SHARED.replace("HOME", "https://forge.test/some/")
    (repository / "pyproject.toml").write_text(shared)
    assert len(check(repository)) == 3
    assert check(repository, write=True) == []
    assert written(repository)["project"]["urls"] == {
        "Homepage": "https://forge.test/some",
        "Documentation": "https://forge.test/some/blob/main/docs",
        "Source": "https://forge.test/some/blob/main/packages/some-tracker",
        "Changelog": "https://forge.test/some/blob/main/packages/some-tracker/CHANGELOG.md",
        "Issues": "https://forge.test/some/issues",
    }


def test_the_options_of_pytest_and_the_packages_beside_are_taken_over(repository):
    check(repository, write=True)
    tool = written(repository)["tool"]
    assert tool["pytest"] == tomllib.loads(SHARED)["tool"]["pytest"]
    assert tool["uv"]["sources"] == {
        "some-contract": {"path": "../some-contract", "editable": True},
        "some-core": {"path": "../some-core", "editable": True},
    }


def test_a_home_that_is_no_address_is_refused():
    with pytest.raises(ValueError, match="forge"):
        Addresses.read({**ADDRESSES, "home": "forge.test/some"})


def test_an_address_may_be_elsewhere_than_the_home():
    assert Addresses.read(ADDRESSES).documentation == "https://docs.test"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"hatchling>=1.27"', '"hatchling"'),
        ("Apache-2.0", "MIT"),
        ('["LICENSE"]', "[]"),
        ("the callback-packages authors", "somebody"),
        ('dynamic = ["readme"]', 'readme = "README.md"'),
        (">=3.11,<3.13", ">=3.10,<3.13"),
        (">=3.11,<3.13", ">=3.11"),
        (">=3.11,<3.13", "~=3.11"),
        ('    "Programming Language :: Python :: 3.12",\n', ""),
        ("POSIX :: Linux", "OS Independent"),
        ('    "Typing :: Typed",\n', ""),
        ('    "Development Status :: 3 - Alpha",\n', ""),
        ('description = "A tracker"\n', ""),
        ('keywords = ["callbacks"]', "keywords = []"),
    ],
)
def test_a_field_that_is_not_what_all_packages_have_is_found(repository, old, new):
    path = repository / "packages/some-tracker/pyproject.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    [problem] = check(repository, write=True)
    assert "some-tracker" in problem


def test_classifiers_that_are_not_sorted_are_found(repository):
    path = repository / "packages/some-tracker/pyproject.toml"
    status = '    "Development Status :: 3 - Alpha",\n'
    path.write_text(path.read_text().replace(status, "").replace("]\ndep", f"{status}]\ndep"))
    [problem] = check(repository, write=True)
    assert "some-tracker" in problem


def test_pythons_begin_with_the_floor_and_end_before_the_cap():
    assert pythons(">=3.11")[0] == "3.11"
    assert pythons(">=3.11,<3.13") == ["3.11", "3.12"]


def test_siblings_are_those_of_the_requirements_and_of_the_extras():
    project = tomllib.loads(PACKAGE)["project"]
    ours = ["some-core", "some-contract", "some-tracker", "some-other"]
    assert siblings(project, ours) == ["some-contract", "some-core"]


README = """\
[whole](https://a.test/b) ![picture](../../docs/a.png) [`code` of
two lines](../other/README.md#part), [mine](./CHANGELOG.md) [here](#part) `names[0](x)`
"""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            "",
            "[whole](https://a.test/b) picture `code` of\n"
            "two lines, mine [here](#part) `names[0](x)`\n",
        ),
        (
            "https://f.test",
            "[whole](https://a.test/b) ![picture](https://f.test/docs/a.png) [`code` of\n"
            "two lines](https://f.test/packages/other/README.md#part), "
            "[mine](https://f.test/packages/some-tracker/CHANGELOG.md) [here](#part) "
            "`names[0](x)`\n",
        ),
    ],
)
def test_relative_links_become_text_or_whole_addresses(files, expected):
    text = README
    for pattern, replacement in links("some-tracker", files):
        text = re.sub(pattern, replacement, text)
    assert text == expected
