import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from check_dists import (
    apart_from_the_builder,
    dead_links,
    differences,
    files_of,
    problems_of_sdist,
    problems_of_wheel,
)

INFO = "some_tracker-0.1.0.dist-info"
WHEEL = {
    "some_tracker/__init__.py": b"",
    "some_tracker/py.typed": b"",
    f"{INFO}/METADATA": b"Name: some-tracker",
    f"{INFO}/WHEEL": b"Generator: one",
    f"{INFO}/RECORD": b"one",
    f"{INFO}/licenses/LICENSE": b"the licence",
}
TESTS = {"tests/a.py"}
SDIST = dict.fromkeys(
    ("CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", *TESTS), b""
)


def test_the_files_of_a_wheel_and_of_an_sdist_are_read(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for name, content in WHEEL.items():
            wheel.writestr(name, content)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as sdist:
        for name, content in SDIST.items():
            member = tarfile.TarInfo(f"some_tracker-0.1.0/{name}")
            member.size = len(content)
            sdist.addfile(member, io.BytesIO(content))
    assert files_of(tmp_path / "a.whl") == WHEEL
    assert files_of(tmp_path / "a.tar.gz") == SDIST


def test_all_in_order():
    assert list(problems_of_wheel(WHEEL, "some_tracker")) == []
    assert list(problems_of_sdist(SDIST, TESTS)) == []


@pytest.mark.parametrize(
    "missing",
    [f"{INFO}/licenses/LICENSE", "some_tracker/py.typed", "some_tracker/__init__.py"],
)
def test_a_wheel_that_lacks_a_file(missing):
    files = {name: content for name, content in WHEEL.items() if name != missing}
    [problem] = problems_of_wheel(files, "some_tracker")
    assert missing in problem


@pytest.mark.parametrize("more", ["tests/test_a.py", "README.md"])
def test_a_wheel_that_holds_more_than_its_package(more):
    [problem] = problems_of_wheel({**WHEEL, more: b""}, "some_tracker")
    assert more.partition("/")[0] in problem


@pytest.mark.parametrize("missing", sorted(SDIST))
def test_an_sdist_that_lacks_a_file(missing):
    files = {name: content for name, content in SDIST.items() if name != missing}
    [problem] = problems_of_sdist(files, TESTS)
    assert missing in problem


def test_an_sdist_of_a_package_without_tests():
    assert len(list(problems_of_sdist(SDIST, set()))) == 1


def test_only_the_version_of_the_builder_may_differ():
    other = {**WHEEL, f"{INFO}/WHEEL": b"Generator: two", f"{INFO}/RECORD": b"two"}
    assert differences(apart_from_the_builder(WHEEL), apart_from_the_builder(other)) == []
    other["some_tracker/__init__.py"] = b"x"
    other["some_tracker/more.py"] = b""
    assert differences(apart_from_the_builder(WHEEL), apart_from_the_builder(other)) == [
        "some_tracker/__init__.py",
        "some_tracker/more.py",
    ]


def test_links_that_are_dead_on_another_site():
    page = (
        '<a href="https://a.test/b">a</a> <a href="#part">b</a> <a href="../../docs/a.md">c</a>'
        '<img src="/pictures/d.png"/> <a href="mailto:a@b.test">e</a> <code>href="x"</code>'
    )
    assert dead_links(page) == ["../../docs/a.md", "/pictures/d.png"]
