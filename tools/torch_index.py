"""The package index with torch for the CPU."""

import os
import sys


def torch_index() -> list[str]:
    """Return the options with which pip finds torch for the CPU. tools/pants explains why."""
    named = os.environ.get("PIP_FIND_LINKS") or os.environ.get("PIP_INDEX_URL")
    if sys.platform == "linux" and not named:
        return ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    return []


def torch_index_of_uv() -> list[str]:
    """Return the options with which uv finds torch for the CPU. uv does not read pip's settings."""
    if links := os.environ.get("PIP_FIND_LINKS"):
        return ["--find-links", links]
    return ["--torch-backend", "cpu"]
