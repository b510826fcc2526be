"""Where pip finds torch without CUDA."""

import os
import sys


def torch_index() -> list[str]:
    """Return the options by which pip does so: as in tools/pants, which says why."""
    named = os.environ.get("PIP_FIND_LINKS") or os.environ.get("PIP_INDEX_URL")
    if sys.platform == "linux" and not named:
        return ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    return []
