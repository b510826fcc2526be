"""A plugin of pytest that runs only the first test of each file, for tools/try_editable.py."""

import pytest


@pytest.hookimpl(trylast=True)  # after `-m` and `-k`
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect all tests but the first of each file."""
    first = list({item.path: item for item in reversed(items)}.values())[::-1]
    config.hook.pytest_deselected(items=[item for item in items if item not in first])
    items[:] = first
