from importlib.metadata import distributions

import dist_info

PYPROJECT = """
[project]
name = "some-tracker"
version = "1.2.3"
dependencies = ["tqdm>=4"]
optional-dependencies = { x = ["wandb"] }
entry-points = { "some.group" = { it = "some_tracker:It" } }
"""


def test_importlib_metadata_reads_what_is_written(tmp_path):
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    dist_info.main(str(tmp_path / "pyproject.toml"))
    [written] = distributions(name="some-tracker", path=[str(tmp_path)])
    assert written.version == "1.2.3"
    assert written.requires == ["tqdm>=4", 'wandb; extra == "x"']
    [point] = written.entry_points
    assert (point.group, point.name, point.value) == ("some.group", "it", "some_tracker:It")
